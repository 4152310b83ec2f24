"""The index of a gateway, and the names that its configurations in force give: which target is which provider's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.control.events.ingest import Catalogue
from gateway.control.events.service import Events
from gateway.control.settings import InForce
from gateway.folders import audit_folder

INDEX_FILE: Final = "events.db"
"""In the state folder, beside the audit log: one index for all gateways that write into the log."""


def events_of(run_folder: Path) -> Events:
    """The events of the gateway with this run folder."""
    state = run_folder.parent
    return Events(audit_folder(state), state / INDEX_FILE, Names(InForce(run_folder)))


class Names:
    """The catalogue of what is in force, made anew when that has changed. For one thread."""

    def __init__(self, in_force: InForce) -> None:
        self._in_force = in_force
        self._generation: int | None = None
        self._catalogue = Catalogue()

    def __call__(self) -> Catalogue:
        run_file = self._in_force.run_file
        if run_file is not None and run_file.generation != self._generation:
            self._generation = run_file.generation
            self._catalogue = self._made()
        return self._catalogue

    def _made(self) -> Catalogue:
        """What was known before stays known: the log tells of targets that are gone."""
        providers = dict(self._catalogue.providers)
        models = set(self._catalogue.models)
        for loaded in self._in_force.configurations:
            for target in loaded.configuration.providers.targets:
                providers[loaded.id, target.id] = str(target.provider)
                models.add(target.model)
        return Catalogue(providers, frozenset(models))
