"""How conversations end in a gateway as a user runs it: silence, shutting down, a client or a provider that is gone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.gateway_process import HOST, GatewayProcess, configuration, free_port, running_gateway
from tests.websockets import Closed, Echo, Peer, Provider, Refused

REALTIME = "/v1/realtime?model=echo"
PROVIDER_PORT = free_port()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The last test stops it."""
    target = {
        "id": "echo",
        "provider": "openai-compatible",
        "model": "echo",
        "base_url": f"http://{HOST}:{PROVIDER_PORT}",
    }
    settings = {"websocket": {"idle_timeout_seconds": 1}, "drain_seconds": 1}
    with running_gateway(tmp_path_factory.mktemp("ends"), configuration(target, gateway=settings)) as process:
        yield process


@pytest.fixture
def provider() -> Provider:
    return Echo(port=PROVIDER_PORT)


async def test_nobody_says_anything(gateway: GatewayProcess, provider: Provider) -> None:
    async with provider:
        client = await Peer.connect(gateway.port, REALTIME)
        await client.send("hello")
        assert await client.receive() == "hello"
        assert await client.closed() == Closed(1001, "silent for 1 s")
        assert (await provider.peers[0].ended()).code == 1001


async def test_a_page_of_another_site(gateway: GatewayProcess) -> None:
    with pytest.raises(Refused) as caught:
        await Peer.connect(gateway.port, REALTIME, headers=[("origin", "https://evil.example")])
    assert caught.value.status == 403


async def test_no_provider(gateway: GatewayProcess) -> None:
    with pytest.raises(Refused) as caught:
        await Peer.connect(gateway.port, REALTIME)
    assert caught.value.status == 502


async def test_the_gateway_shuts_down(gateway: GatewayProcess, provider: Provider) -> None:
    """Not at once: what is under way has its grace period, and new conversations are refused."""
    async with provider:
        client = await Peer.connect(gateway.port, REALTIME)
        gateway.process.send_signal(signal.SIGTERM)

        async def talk() -> None:
            while True:  # as long as it lasts: silence would end it too
                await client.send("hello")
                assert await client.receive() == "hello"
                await asyncio.sleep(0.05)

        with pytest.raises(Closed) as caught:
            await talk()
        assert caught.value.code == 1001
        assert "shutting down" in caught.value.reason
        assert (await provider.peers[0].ended()).code == 1001
    assert await asyncio.to_thread(gateway.stop) == 0
