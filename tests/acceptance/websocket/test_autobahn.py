"""Every case of Autobahn|Testsuite, permessage-deflate included, against an echoing provider behind the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.schema import AuthMode
from tests.acceptance.websocket.autobahn import faults, fuzz
from tests.gateway_process import HOST, configuration, running_gateway
from tests.relaying import gateway_before
from tests.websockets import Echo

LARGEST = 64 * 1024 * 1024
"""Bytes of a message: group 9 sends 16 MiB."""


pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
async def test_the_protocol(tmp_path: Path) -> None:
    """Framing, pings, reserved bits, fragments, UTF-8, closing, limits: through a gateway as a user runs it."""
    async with Echo() as provider:
        target = {
            "id": "echo",
            "provider": "openai-compatible",
            "model": "echo",
            "base_url": f"http://{HOST}:{provider.port}",
        }
        settings = {"websocket": {"max_message_size_bytes": LARGEST}}
        with running_gateway(tmp_path, configuration(target, chain=(), gateway=settings)) as gateway:
            url = f"ws://{HOST}:{gateway.port}/v1/realtime?model=echo"
            results = await fuzz(tmp_path, url, [f"{group}.*" for group in range(1, 11)])
    assert faults(results) == {}
    assert len(results) == 301


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("group", "throughout"), [("12", True), ("13", False)])
async def test_compression(tmp_path: Path, group: str, throughout: bool) -> None:
    """permessage-deflate, with a plain conversation: these cases send prose, which a Realtime conversation that finds
    the name of a model in it takes for a broken event. `throughout`: the provider compresses, too, and what is
    compressed goes on as it is; else it is the gateway that inflates and deflates."""
    provider = Echo(compress=throughout)
    async with gateway_before(tmp_path, provider, mode=AuthMode.AUTO, message_bytes=LARGEST) as gateway:
        gateway.compresses = True
        results = await fuzz(tmp_path, f"ws://localhost:{gateway.port}/v1/realtime?model=echo", [f"{group}.*"])
        assert all(peer.compressed is throughout for peer in provider.peers)
    assert faults(results) == {}
    assert len(results) == {"12": 90, "13": 126}[group]
