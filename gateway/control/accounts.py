"""Keeps limits and money for one gateway: sums to the store, caps from Redis, by the configuration in force."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.allowances import Allowances, WhenAway
from gateway.config import schema
from gateway.config.problems import ConfigurationInvalid
from gateway.control.ledger import Ledger
from gateway.control.roster import Roster, read_in_force
from gateway.control.sharing import Place, Sharing
from gateway.run_file import NAME
from gateway.secrets import read_secret

if TYPE_CHECKING:
    from gateway.control.store.store import Store

LOOK_SECONDS: Final = 0.5
"""How often the run folder is looked at for another configuration."""

log = logging.getLogger(__name__)

_AWAY: Final = {
    schema.WhenAway.LOCAL: WhenAway.LOCAL,
    schema.WhenAway.ALLOW: WhenAway.ALLOW,
    schema.WhenAway.REFUSE: WhenAway.REFUSE,
}


async def keep(run_folder: Path, workers: int, store: Callable[[], Store | None], roster: Roster) -> None:
    """Until cancelled; then once more what was spent. Raises OSError when there can be no shared file."""
    allowances = Allowances(run_folder)
    ledger = Ledger(run_folder, workers, store, roster, allowances)
    sharing = Sharing(run_folder, workers, roster, allowances)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ledger.run())
            tasks.create_task(_watch(run_folder, roster, sharing))
            tasks.create_task(sharing.run())
    finally:
        await ledger.step()
        ledger.close()
        await sharing.close()
        allowances.close()


async def _watch(run_folder: Path, roster: Roster, sharing: Sharing) -> None:
    """Follow the configuration in force."""
    seen = -1
    while True:
        try:
            changed = os.stat(run_folder / NAME).st_mtime_ns
            if changed != seen:
                found = await asyncio.to_thread(read_in_force, run_folder)
                # Where a worker has not compiled it yet, a configuration may lack its place.
                seen = changed if all(scope.place >= 0 for scope in found.scopes) else -1
                roster.note_configurations(scope for scope in found.scopes if scope.place >= 0)
                await sharing.configure(_place(found.settings.redis))
        except (OSError, msgspec.DecodeError, ConfigurationInvalid):
            pass  # the supervisor is about to write it
        await asyncio.sleep(LOOK_SECONDS)


def _place(settings: schema.Redis | None) -> Place | None:
    if settings is None:
        return None
    url, fault = read_secret(settings.url_ref, os.environ)
    if fault:
        log.error("limits cannot be shared with other machines", extra={"reason": fault})
        return None
    return Place(url.reveal(), settings.key_prefix, _AWAY[settings.when_away])
