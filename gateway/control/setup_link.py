"""The set-up link: how the first user, an owner, comes to be.

While there is no user, each start of a control process prints a link to standard output, where whoever started the
gateway sees it. It works once, for a day. `kt user create --role owner` does without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.control.store.errors import StoreError

if TYPE_CHECKING:
    from gateway.control.store.store import Store

VALID_SECONDS: Final = 86_400.0
LOOK_SECONDS: Final = 0.5
SETUP: Final = "setup"


async def new_link(store: Store, base_url: str) -> str | None:
    """A new link, or None where there are users already. Raises StoreError."""
    if await store.users.count():
        return None
    secret = await store.access.issue(SETUP, None, VALID_SECONDS)
    return f"{base_url}/console/setup?token={secret.reveal()}"


async def announce(store: Callable[[], Store | None], base_url: Callable[[], str]) -> None:
    """Print a link if one is needed, once the store can be asked."""
    while True:
        opened = store()
        if opened is not None:
            try:
                link = await new_link(opened, base_url())
            except StoreError:
                pass  # the feed says what is wrong
            else:
                if link is not None:
                    print(f"Nobody can sign in yet. Set up the console (once, within a day):\n  {link}\n", flush=True)
                return
        await asyncio.sleep(LOOK_SECONDS)
