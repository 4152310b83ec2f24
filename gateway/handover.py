"""A restart without a gap: the listening sockets of one gateway are handed to the next, which runs beside it.

The supervisor makes the sockets and its workers listen on them, so a new gateway can be given the very same ones. What
the kernel has queued on a socket is then accepted by whoever holds it, and no connection is lost between the two. The
new gateway has a run folder of its own; the one before leaves when the new one has said that it is ready.

Told through one environment variable, `KT_HANDOVER=<ready>:<socket>,<socket>`, all numbers of descriptors. This module
knows sockets, descriptors and folders, and no configuration.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Final

import msgspec

VARIABLE: Final = "KT_HANDOVER"
_READY: Final = b"ready\n"


class Listeners:
    """The sockets of one gateway, for each of its workers at least one. They listen once a worker does."""

    def __init__(self, host: str, port: int, workers: int, inherited: tuple[socket.socket, ...] = ()) -> None:
        """Those that are inherited go round; a worker that is left without gets a new one. Raises OSError."""
        self._host, self._port = host, port
        self._sockets: dict[int, list[socket.socket]] = {
            worker: list(inherited[worker::workers]) or [self._bind()] for worker in range(workers)
        }

    def of(self, worker: int) -> tuple[int, ...]:
        """The descriptors that a worker listens on."""
        return tuple(sock.fileno() for sock in self._sockets[worker])

    def all(self) -> tuple[int, ...]:
        """The descriptors of all workers."""
        return tuple(sock.fileno() for sockets in self._sockets.values() for sock in sockets)

    def renew(self, worker: int) -> None:
        """A worker has died: close its sockets, so that the kernel gives new connections to the others meanwhile.

        Raises OSError where there can be no new one; then the old ones stay.
        """
        fresh = self._bind()
        for sock in self._sockets[worker]:
            sock.close()
        self._sockets[worker] = [fresh]

    def close(self) -> None:
        """Let go of all; what a worker or a successor holds goes on."""
        for sockets in self._sockets.values():
            for sock in sockets:
                sock.close()

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((self._host, self._port))
        return sock


class Inheritance(msgspec.Struct, frozen=True):
    """What a gateway was handed by the one before: its sockets, and where to say that it is ready."""

    ready: int
    sockets: tuple[socket.socket, ...]

    def tell_ready(self) -> None:
        """Now the one before may leave. It may have gone already."""
        with contextlib.suppress(OSError):
            os.write(self.ready, _READY)
        os.close(self.ready)


def inherit(environ: MutableMapping[str, str]) -> Inheritance | None:
    """What this process was handed, if anything. The variable is taken away: it is for nobody else."""
    told = environ.pop(VARIABLE, "")
    if not told:
        return None
    ready, _, numbers = told.partition(":")
    sockets = tuple(socket.socket(fileno=int(number)) for number in numbers.split(","))
    for sock in sockets:
        os.set_inheritable(sock.fileno(), False)
    os.set_inheritable(int(ready), False)
    return Inheritance(int(ready), sockets)


def bequest(ready: int, sockets: tuple[int, ...]) -> dict[str, str]:
    """What a successor finds in its environment."""
    return {VARIABLE: f"{ready}:{','.join(map(str, sockets))}"}


def said_ready(descriptor: int) -> bool:
    """Read what a successor has to say; False when it has ended. Blocks."""
    return os.read(descriptor, len(_READY)) == _READY


def copy_windows(source: Path, target: Path) -> None:
    """Give a new run folder the limits' windows of the one before, so that no key begins its minute anew; and what they
    are told apart by, so that other machines take both gateways for one.

    The files are sparse; only what they hold is read. What the gateway before charges later is not seen by the new one.
    Money is not copied: each folder's sums are its own, and are added up in the store.
    """
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("node", "configuration-places.json"):
        if (source / name).exists():
            (target / name).write_bytes((source / name).read_bytes())
    for stale in target.glob("limits-*.slots"):
        stale.unlink()
    for path in source.glob("limits-*.slots"):
        with path.open("rb") as from_, (target / path.name).open("wb") as to:
            to.truncate(path.stat().st_size)
            for first, length in _extents(from_.fileno()):
                os.lseek(to.fileno(), first, os.SEEK_SET)
                while length > 0:
                    sent = os.sendfile(to.fileno(), from_.fileno(), first, length)
                    if not sent:
                        break
                    first, length = first + sent, length - sent


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file holds something: offset and length (lseek(2), SEEK_DATA)."""
    end = 0
    while True:
        try:
            first = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        end = os.lseek(descriptor, first, os.SEEK_HOLE)
        yield first, end - first


def notify_manager(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3)): `READY=1`, `MAINPID=…`, `STOPPING=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.sendall(state.encode())
