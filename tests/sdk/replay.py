"""A provider that gives recorded answers byte by byte as they came, framed and cut as the client asks.

    with ReplayProvider().running() as provider:
        headers = {HEADER: "openai/12/cut-chunked/mine"}  # the thirteenth recording of openai
        ...                                               # a request to provider.url with these headers
        provider.seen["openai/12/cut-chunked/mine"]       # what the provider was asked

It runs in a thread of its own and keeps connections alive. Between two writes it waits until the other side has *read*
the first (the kernel tells), so that a cut is a cut: without that, TCP would join most of the pieces again.

Where usage is asked for and the recording has none, because its client did not ask, the stream gets the extra chunk
with which OpenAI answers `stream_options.include_usage`: `usage_added` says what stands in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import orjson

from tests import recordings
from tests.provider import PATIENCE
from tests.recordings import Recording

HEADER = "x-replay"
OPERATIONS = ("chat/completions", "completions", "embeddings", "responses")
MAX_CUTS = 8
_DONE = b"data: [DONE]\n\n"


class Manner(enum.StrEnum):
    """How an answer is framed and written."""

    WHOLE = "whole"
    """One write; JSON sized, a stream as one chunk."""
    EVENTS = "events"
    """A stream with a chunk and a write for each event."""
    CUT_CHUNKED = "cut-chunked"
    """Chunks of odd sizes, written in pieces cut at awkward places."""
    CUT_SIZED = "cut-sized"
    """With a Content-Length, written in pieces cut at awkward places."""


@dataclass(frozen=True)
class Case:
    """One recording that an SDK can ask for."""

    recording: Recording
    index: int
    operation: str

    def __str__(self) -> str:
        return str(self.recording)

    def header(self, manner: Manner, caller: str) -> str:
        """The value of `HEADER` that asks for this answer; `caller` tells several requests for it apart."""
        return f"{self.recording.provider}/{self.index}/{manner}/{caller}"

    @property
    def request(self) -> dict[str, Any]:
        """The request's body as it was recorded."""
        body = self.recording.request_body
        assert isinstance(body, dict), self
        return body

    @property
    def manners(self) -> list[Manner]:
        """Whole, for each event, and cut. Streams are chunked, one in four also sized; the others half and half."""
        if self.recording.streams:
            return [Manner.WHOLE, Manner.EVENTS, Manner.CUT_CHUNKED, *([] if self.index % 4 else [Manner.CUT_SIZED])]
        return [Manner.WHOLE, Manner.CUT_CHUNKED if self.index % 2 else Manner.CUT_SIZED]


def operation_of(recording: Recording) -> str | None:
    """The operation of an OpenAI-compatible exchange; None for any other exchange."""
    if recording.method != "POST" or (recording.provider == "ollama" and recording.path.startswith("/api/")):
        return None
    path = re.sub(r".*?/deployments/[^/]+/|.*?/v1/|^/(?:beta/)?", "", recording.path, count=1)
    return path if path in OPERATIONS else None


def cases(provider: str, operation: str) -> list[Case]:
    """The recordings of one operation of one provider."""
    return [
        Case(recording, index, operation)
        for index, recording in enumerate(recordings.load(provider))
        if operation_of(recording) == operation
    ]


@dataclass(frozen=True)
class Seen:
    """A request as it reached the provider."""

    target: str
    headers: dict[str, str]
    body: bytes


def usage_added(index: int) -> tuple[int, int]:
    """Prompt and completion tokens in the chunk that the provider adds to a stream."""
    return 1000 + index, 77


def is_counted(recording: Recording) -> bool:
    """Whether the recorded stream has usage."""
    return re.search(rb'"usage":\s*\{', recording.response) is not None


def with_usage(recording: Recording, index: int, body: bytes) -> bytes:
    """The stream with OpenAI's extra chunk, if the request asks for it and the recording has no usage."""
    stream = recording.response
    if b'"include_usage":true' not in body.replace(b" ", b"") or is_counted(recording):
        return stream
    first = orjson.loads(stream.partition(b"data: ")[2].partition(b"\n")[0])
    kept = {key: first[key] for key in ("id", "object", "created", "model") if key in first}
    prompt, completion = usage_added(index)
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    frame = b"data: %b\n\n" % orjson.dumps({**kept, "choices": [], "usage": usage})
    return stream.replace(_DONE, frame + _DONE) if _DONE in stream else stream + frame


# --- bytes on the wire -----------------------------------------------------------------------------------------------

_EVENT = re.compile(rb".*?(?:\r?\n\r?\n)|.+\Z", re.DOTALL)
_AWKWARD = re.compile(
    rb"(?<=[\xc2-\xf4])[\x80-\xbf]"  # inside a character
    rb"|(?<=\n)\n"  # inside the end of an event
    rb"|(?<=da)ta: "
    rb"|(?<=\[DO)NE\]"
    rb'|(?<="usa)ge"'
    rb'|(?<=\\)[n"\\u]'  # inside an escape
)
_CHUNK_SIZES = (1, 40, 7, 300, 3, 1024, 16, 5000)


def pieces(recording: Recording, payload: bytes, manner: Manner) -> list[bytes]:
    """The answer as the writes that it goes out in."""
    if manner is Manner.EVENTS:
        return [_head(recording, None), *map(_chunk, _EVENT.findall(payload)), b"0\r\n\r\n"]
    if manner is Manner.WHOLE and not recording.streams:
        return [_head(recording, len(payload)) + payload]
    if manner is Manner.WHOLE:
        return [_head(recording, None) + _chunk(payload) + b"0\r\n\r\n"]
    if manner is Manner.CUT_SIZED:
        head = _head(recording, len(payload))
        return _cut(head + payload, [5, len(head) - 3, len(head) - 1, *_places(payload, len(head))])
    return _cut_chunked(_head(recording, None), payload)


def _head(recording: Recording, length: int | None) -> bytes:
    fields = [f"{name}: {value}" for name, value in recording.response_headers.items()]
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return "\r\n".join([f"HTTP/1.1 {recording.status} Recorded", *fields, framing, "", ""]).encode("latin-1")


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def _cut_chunked(head: bytes, payload: bytes) -> list[bytes]:
    """Chunks of odd sizes; of some, each place is cut where a reader could stumble."""
    wire = bytearray(head)
    cuts = [5, len(head) - 3, len(head) - 1]
    at = 0
    for number in range(len(payload)):
        size = min(_CHUNK_SIZES[number % len(_CHUNK_SIZES)], len(payload) - at)
        if size <= 0:
            break
        begin, digits = len(wire), len(b"%x" % size)
        wire += _chunk(payload[at : at + size])
        at += size
        if number < 4 or at == len(payload):
            # Inside the size, between its CR and LF, inside the data, between the CR and LF after them, at the end.
            cuts += [begin + 1, begin + digits + 1, begin + digits + 2 + size // 2, len(wire) - 1, len(wire)]
    last = len(wire)
    wire += b"0\r\n\r\n"
    cuts += [last + 1, last + 2, last + 3, last + 4, *_places(bytes(wire[len(head) : last]), len(head))]
    return _cut(bytes(wire), cuts)


def _places(data: bytes, offset: int) -> list[int]:
    """Awkward places in the data, evenly chosen among all, the last ones included."""
    found = [match.start() + offset for match in _AWKWARD.finditer(data)]
    step = max(1, len(found) // MAX_CUTS)
    return [*found[::step], *found[-4:]]


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place for place in places if 0 < place < len(data)} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# --- the server ------------------------------------------------------------------------------------------------------


class ReplayProvider:
    """The server; see the top of this file."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[ReplayProvider]:
        """Serve in a thread until the block ends."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="replay-provider", daemon=True)
        thread.start()
        kernel = Kernel()
        serving = loop.create_server(lambda: _Connection(self, kernel), "127.0.0.1", 0, backlog=64)
        server = asyncio.run_coroutine_threadsafe(serving, loop).result()
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            kernel.close()
            loop.close()


class _Connection(asyncio.Protocol):
    def __init__(self, provider: ReplayProvider, kernel: Kernel) -> None:
        self._provider = provider
        self._kernel = kernel
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._provider.connections += 1
        self._transport = cast(asyncio.Transport, transport)
        self._ends = transport.get_extra_info("peername"), transport.get_extra_info("sockname")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        if len(rest) < int(headers["content-length"]):
            return
        self._buffer = b""
        self._answer(Seen(line.split(" ")[1], headers, rest))

    def _answer(self, request: Seen) -> None:
        wanted = request.headers[HEADER]
        self._provider.seen[wanted] = request
        provider, index, manner = wanted.split("/")[:3]
        recording = recordings.load(provider)[int(index)]
        payload = with_usage(recording, int(index), request.body) if recording.streams else recording.response
        for number, piece in enumerate(pieces(recording, payload, Manner(manner))):
            if number:
                self._kernel.wait_until_read(*self._ends)
            self._transport.write(piece)


class Kernel:
    """Asks Linux how much the other end of a connection on this machine has not read yet (sock_diag(7)).

    Where the kernel does not tell, `unread` is 0: pieces may then be joined on their way, and fewer cuts are tested.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)  # NETLINK_SOCK_DIAG

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def wait_until_read(self, source: tuple[str, int], destination: tuple[str, int]) -> None:
        """Block until nothing is unread. An event loop would wait a millisecond for each of 20,000 pieces."""
        deadline = time.monotonic() + PATIENCE
        while self.unread(source, destination) and time.monotonic() < deadline:
            time.sleep(0.00002)  # leaves the processor to the reader

    def unread(self, source: tuple[str, int], destination: tuple[str, int]) -> int:
        """Bytes in the receive queue of the socket whose own address is `source`. 10 to 30 µs."""
        # struct nlmsghdr, then struct inet_diag_req_v2 with struct inet_diag_sockid (linux/inet_diag.h).
        identity = struct.pack("!HH", source[1], destination[1])
        identity += b"".join(socket.inet_aton(host).ljust(16, b"\0") for host, _ in (source, destination))
        body = (
            struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + identity + bytes(4) + b"\xff" * 8
        )
        self._socket.send(struct.pack("=IHHII", 16 + len(body), 20, 1, 1, 0) + body)
        answer = self._socket.recv(4096)
        if struct.unpack_from("=H", answer, 4)[0] != 20:
            return 0
        unread: int = struct.unpack_from("=I", answer, 16 + 4 + 48 + 4)[0]
        return unread
