"""A key that is revoked ends every conversation that it has opened, at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.acceptance.websocket.stand import Stand, standing

SOCKETS = 50
SECONDS = 1.0


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("gateway")) as one:
        yield one


def test_fifty_sockets_close_within_a_second(stand: Stand) -> None:
    key = stand.gateway.create_key("doomed")
    url = stand.gateway.api.replace("http", "ws")
    paths = ("/realtime?model=spoken", "/responses", "/chat/completions")
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(
                connect(f"{url}{paths[number % 3]}", additional_headers={"authorization": f"Bearer {key}"})
            )
            for number in range(SOCKETS)
        ]
        told: list[tuple[int | None, float]] = []
        waiting = [threading.Thread(target=_wait_for_the_end, args=(socket, told)) for socket in sockets]
        for one in waiting:
            one.start()
        stand.gateway.kt("gateway-key", "revoke", "doomed")
        # The command has returned once the key is revoked in the store: from then on it counts.
        revoked = time.monotonic()
        for one in waiting:
            one.join(30.0)
    assert [code for code, _ in told] == [1008] * SOCKETS
    assert max(at for _, at in told) - revoked < SECONDS


def _wait_for_the_end(socket: ClientConnection, told: list[tuple[int | None, float]]) -> None:
    try:
        while True:
            socket.recv()
    except ConnectionClosed as closed:
        told.append((closed.rcvd.code if closed.rcvd else None, time.monotonic()))
