"""The data plane of one worker on dummy transports: every line of Python that a request runs, and no system call.

What it measures is the gateway's own cost, free of kernel and scheduler, so that CI can guard it. Requests are fed to a
real `DownstreamConnection`, go through a real exchange (key, limits, policies, routing, metrics, audit journal) and are
answered by feeding a real `UpstreamConnection`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

from gateway import metrics
from gateway.application import GatewayApplication
from gateway.audit.writer import AuditLog
from gateway.config.load import load_text
from gateway.config.schema import AuthMode
from gateway.downstream.http import DownstreamConnection, DownstreamLimits, Server
from gateway.limits import Limits
from gateway.services import Services
from gateway.snapshot import Compiler
from gateway.types import Destination, GatewayKey, Origin
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.pool import Pools

KEY = b"kt_gk_00000000000000000000000000000000000000"


class DummyTransport(asyncio.Transport):
    """Takes what is written and forgets all but the last write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000)})
        self.last = b""
        self.writes = 0

    def write(self, data: Any) -> None:
        self.last = data
        self.writes += 1

    def writelines(self, pieces: Any) -> None:
        self.last = pieces[-1]
        self.writes += 1

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Driver:
    """One client connection, one provider connection, and all that lies between."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path, configuration: str, *, limited: bool) -> None:
        """`configuration` is the text of a policy-config.yaml with one target. `folder` is scratch."""
        counters = metrics.Metrics(folder, 0)
        key = GatewayKey(
            "key_1",
            hashlib.sha256(KEY).digest(),
            "kt_gk_000000",
            "micro",
            1,
            requests_per_minute=10**9 if limited else None,
            tokens_per_minute=10**12 if limited else None,
        )
        compiler = Compiler(
            counters, fail_mode=None, clock=time.perf_counter_ns, on_policy_error=lambda kind, error: None
        )
        snapshot = compiler.compile([load_text(configuration, "micro.yaml")], {key.hash: key}.get)
        self._audit = AuditLog(folder / "audit", folder, 0)
        self._audit.start()
        self._pools = Pools(loop, clock=loop.time)
        services = Services(
            loop,
            pool=self._pools,
            limits=Limits(folder, 0, 1),
            counters=counters,
            snapshot=snapshot,
            audit=self._audit.append,
            conclude=self._audit.conclude,
            clock=loop.time,
        )
        control = Destination("control", Origin("control", 0, tls=False))
        application = GatewayApplication(
            services, counters, mode=AuthMode.REQUIRED, control=control, status=lambda: {"ready": True}
        )
        self.services = services
        self.client_transport = DummyTransport()
        self.client = DownstreamConnection(Server(application, DownstreamLimits(), loop.time, time.time))
        self.client.connection_made(self.client_transport)
        destination = snapshot.targets[0].destination
        self._pools.keep([destination])
        pool = self._pools._pools[destination]
        self.provider_transport = DummyTransport()
        self.provider = UpstreamConnection(pool, destination.origin)
        self.provider.connection_made(self.provider_transport)
        pool._connections.add(self.provider)
        pool.on_connection_idle(self.provider)

    def exchange(self, request: bytes, *responses: bytes) -> None:
        """One request in, its answer out. `responses` are the provider's reads."""
        self.client.data_received(request)
        for response in responses:
            self.provider.data_received(response)

    def close(self) -> None:
        """End the audit writer."""
        self._audit.close()
        self.services.close()


def request(body: bytes) -> bytes:
    """A chat request as an SDK sends it, with the fields that matter."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:41002\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nUser-Agent: micro/1\r\nAccept: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (KEY, len(body), body)
    )
