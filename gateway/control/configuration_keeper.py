"""Configurations of the store on their way into force: files in the state folder, which the supervisor reads.

A configuration that the store keeps takes the place of the operator's file with the same id, or joins the others. The
supervisor reads it as it reads any file: all workers compile it first, and if one cannot, nothing changes. Each node's
control process looks at the store by itself, so that a change made on one node comes into force on all.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.config.load import kept_folder
from gateway.control.settings import InForce
from gateway.control.store.errors import StoreError

if TYPE_CHECKING:
    from gateway.control.store.store import Store

POLL_SECONDS: Final = 0.5
"""Half of the second in which a change shall reach all nodes."""

LOOK_SECONDS: Final = 0.02
WAIT_SECONDS: Final = 10.0
"""How long the workers may take to compile a configuration until we answer that it is not in force yet."""

log = logging.getLogger(__name__)


class ConfigurationKeeper:
    """Keeps the kept configurations as the store has them."""

    def __init__(
        self, run_folder: Path, store: Callable[[], Store | None], in_force: InForce, reload: Callable[[], None]
    ) -> None:
        """`reload` asks the supervisor to read the files now."""
        self._folder = kept_folder(run_folder)
        self._store = store
        self._in_force = in_force
        self._reload = reload
        self._known: Mapping[str, int] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            try:
                await self.step()
            except (StoreError, OSError) as error:
                log.warning("configurations cannot be taken from the store", extra={"reason": str(error)})
            await asyncio.sleep(POLL_SECONDS)

    async def step(self) -> None:
        """Look once; where something is new, write it and have it read. Raises StoreError or OSError."""
        store = self._store()
        if store is None:
            return
        async with self._one_at_a_time:
            numbers = await store.configurations.numbers()
            if numbers == self._known:
                return
            texts = {f"{one.configuration_id}.yaml": one.text for one in await store.configurations.in_force()}
            if await asyncio.to_thread(_bring_up_to_date, self._folder, texts):
                self._reload()
            self._known = numbers

    async def settle(self, id: str, text: str | None) -> str | None:
        """Bring a change into force and wait for it: `text` is what the configuration shall be, None: its file's.

        Returns why it is not in force, or None when it is.
        """
        before = self._in_force.run_file
        await self.step()
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while True:
            run_file = self._in_force.run_file
            if run_file is not None:
                if run_file.error is None and self._is_in_force(id, text):
                    return None
                if run_file.error is not None and (before is None or run_file.error != before.error):
                    return run_file.error
            if asyncio.get_running_loop().time() > deadline:
                return "the workers have not taken it in time"
            await asyncio.sleep(LOOK_SECONDS)

    def _is_in_force(self, id: str, text: str | None) -> bool:
        own = [one for one in self._in_force.configurations if one.id == id]
        if text is None:
            return all(Path(one.file).parent != self._folder for one in own)
        return any(one.text == text for one in own)


def _bring_up_to_date(folder: Path, texts: Mapping[str, str]) -> bool:
    """Make the folder's files say exactly this; whether anything had to be changed."""
    folder.mkdir(mode=0o700, exist_ok=True)
    changed = False
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            _replace(path, text)
            changed = True
    for path in folder.glob("*.yaml"):
        if path.name not in texts:
            path.unlink()
            changed = True
    return changed


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
