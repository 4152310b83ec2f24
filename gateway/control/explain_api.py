"""`POST /api/v1/explain`: what would become of a request under the configurations in force. Nothing is sent.

    {"request": {…}, "path": "/v1/chat/completions", "headers": {}, "configuration": "name"}

Only `request` is required. It wants the API token, since the answer shows how the gateway is configured. Compiling a
configuration and judging a text take longer than keys may wait, so both happen in a thread; what was compiled is kept
until another configuration is in force.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from aiohttp import web

from gateway.config.load import load_text
from gateway.control.escalation_api import admit
from gateway.errors import GatewayError, InvalidRequest, Overloaded, RequestTooLarge, envelope
from gateway.run_file import RunFile, read_run_file

if TYPE_CHECKING:
    from gateway.snapshot import Snapshot


class Explain:
    """Answers questions."""

    def __init__(self, run_folder: Path, token: str) -> None:
        self._run_folder = run_folder
        self._token = token.encode()
        self._compiling = threading.Lock()
        self._compiled: tuple[int, Snapshot] | None = None

    async def answer(self, request: web.Request) -> web.Response:
        """One question."""
        try:
            admit(request, self._token)
            told = await asyncio.to_thread(self._answer, await _body(request))
        except GatewayError as error:
            body = envelope(error, request.headers.get("x-request-id", ""))
            return web.Response(status=error.status, body=body, content_type="application/json")
        return web.Response(body=orjson.dumps(told), content_type="application/json")

    def _answer(self, body: bytes) -> dict[str, Any]:
        # Imported at the first question: policies and translations, which nobody else in this process needs.
        from gateway.explain import Question, explain

        try:
            question = msgspec.json.decode(body, type=Question)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"The body is not a question: {error}") from None
        return explain(self._snapshot(), question)

    def _snapshot(self) -> Snapshot:
        try:
            run_file = read_run_file(self._run_folder)
        except (OSError, msgspec.DecodeError):
            raise Overloaded("No configuration is in force yet; try again in a moment.") from None
        with self._compiling:
            if self._compiled is None or self._compiled[0] != run_file.generation:
                self._compiled = run_file.generation, _compile(run_file)
            return self._compiled[1]


def _compile(run_file: RunFile) -> Snapshot:
    from gateway.explain import compile_apart

    return compile_apart([load_text(one.text, one.file) for one in run_file.configurations], os.environ)


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise RequestTooLarge("A request that is to be explained has at most 1 MB.") from None
