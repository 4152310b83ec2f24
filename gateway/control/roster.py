"""Which scopes there are: what the control process must know of keys, teams and configurations to keep their sums.

Keys and teams come with the feed, configurations from the run folder. A scope is found by its place in the tables that
workers share. It is kept while it is limited, and until another has its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.limits import configuration_scope, scopes_of
from gateway.places import read_places
from gateway.run_file import read_run_file
from gateway.types import GatewayKey, Scope

if TYPE_CHECKING:
    from gateway.config.schema import Gateway


class Roster:
    """The limited scopes of one gateway. `version` grows with every change."""

    def __init__(self) -> None:
        self._keys: dict[int, Scope] = {}
        self._teams: dict[int, Scope] = {}
        self._configurations: dict[int, Scope] = {}
        self.version = 0

    def __iter__(self) -> Iterator[Scope]:
        yield from self._keys.values()
        yield from self._teams.values()
        yield from self._configurations.values()

    def note_keys(self, keys: Iterable[GatewayKey]) -> None:
        """What the feed has told."""
        for key in keys:
            self._keys.pop(key.slot, None)
            for scope in scopes_of(key, None):
                if scope.kind == "team":
                    self._teams[scope.place] = scope
                elif scope.place >= 0:
                    self._keys[scope.place] = scope
        self.version += 1

    def note_configurations(self, scopes: Iterable[Scope]) -> None:
        """What is in force."""
        self._configurations = {scope.place: scope for scope in scopes}
        self.version += 1


class InForce(msgspec.Struct, frozen=True):
    """What the control process must know of the configuration in force."""

    version: tuple[str, int]
    settings: Gateway
    scopes: list[Scope]


def read_in_force(run_folder: Path) -> InForce:
    """The configuration as the supervisor has put it in force. 50 ms. Raises OSError, DecodeError or
    ConfigurationInvalid."""
    from gateway.config.load import load_text

    run_file = read_run_file(run_folder)
    loaded = [load_text(one.text, one.file) for one in run_file.configurations]
    places = {id: place for place, id in read_places(run_folder).items()}
    scopes = [
        scope
        for one in loaded
        if one.configuration.pack.enabled
        and (scope := configuration_scope(one.id, one.configuration.limits, lambda id: places.get(id, -1))) is not None
    ]
    return InForce((run_file.version, run_file.generation), loaded[0].configuration.gateway, scopes)
