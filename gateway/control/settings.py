"""What the control process needs of the configuration in force, read from the run folder when it has changed."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from gateway.config.load import LoadedConfiguration, load_text
from gateway.config.problems import ConfigurationInvalid
from gateway.config.schema import TLS, Gateway, Identity
from gateway.folders import port_of
from gateway.run_file import NAME, RunFile, read_run_file


class Settings(msgspec.Struct, frozen=True):
    """The settings of `gateway` that concern the control plane, and where it can be reached."""

    identity: Identity
    secure: bool
    """Clients connect by TLS, or use a public URL that begins with https."""
    behind_proxy: bool
    """There are proxies whose word counts."""
    base_url: str
    """Without a slash at its end."""
    admin_listen: str | None = None
    tls: TLS | None = None

    @property
    def public_host(self) -> str:
        """The authority of the public URL, or an empty text."""
        return urlsplit(self.identity.public_url).netloc.lower() if self.identity.public_url else ""


def settings_of(gateway: Gateway, port: int) -> Settings:
    """The settings that a configuration means, on this port."""
    public = gateway.identity.public_url
    secure = gateway.tls is not None or (public or "").startswith("https://")
    scheme = "https" if gateway.tls is not None else "http"
    admin = gateway.admin_listen
    local = f"{scheme}://localhost:{port}" if admin is None else f"{scheme}://{admin}"
    return Settings(
        gateway.identity,
        secure,
        bool(gateway.trusted_proxies),
        (public or local).rstrip("/"),
        gateway.admin_listen,
        gateway.tls,
    )


class InForce:
    """What is in force by the run folder. Reading costs a `stat` while nothing has changed."""

    def __init__(self, run_folder: Path) -> None:
        self._path = run_folder / NAME
        self._run_folder = run_folder
        self.port = port_of(run_folder) or 0
        self._stamp: tuple[int, int] | None = None
        self._run_file: RunFile | None = None
        self._loaded: tuple[LoadedConfiguration, ...] = ()
        self._settings = settings_of(Gateway(), self.port)

    @property
    def run_file(self) -> RunFile | None:
        """What the supervisor has put in force; None before it has."""
        self._look()
        return self._run_file

    @property
    def configurations(self) -> tuple[LoadedConfiguration, ...]:
        """The configurations in force, the default one first."""
        self._look()
        return self._loaded

    @property
    def settings(self) -> Settings:
        """The settings in force; defaults before there are any."""
        self._look()
        return self._settings

    def _look(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_ino, status.st_mtime_ns)
            if stamp == self._stamp:
                return
            run_file = read_run_file(self._run_folder)
            loaded = tuple(load_text(one.text, one.file) for one in run_file.configurations)
        except (OSError, msgspec.DecodeError, ConfigurationInvalid):
            return  # there is none yet, or it is being replaced: what was known holds
        self._stamp, self._run_file, self._loaded = stamp, run_file, loaded
        if loaded:
            self._settings = settings_of(loaded[0].configuration.gateway, self.port)
