"""Answers that a provider, an attacker in its place or a broken proxy before it may give: from a grammar, then damaged.

As in `grammar`, everything comes from the generator that is given. `reads` are the bytes as they arrive; then the
connection stays open, ends in an orderly way, or is reset (`end`). `streams`: whether the client asked for a stream.
"""

from __future__ import annotations

import random
from typing import Final

_STATUS: Final = (
    *(b"HTTP/1.1 200 OK",) * 14, b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/1.1 201 Created",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 401 Unauthorized", b"HTTP/1.1 429 Too Many Requests",
    b"HTTP/1.1 500 Internal Server Error", b"HTTP/1.1 302 Found", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 999 Odd",
    b"HTTP/1.1 205 Reset Content", b"HTTP/1.1 206 Partial Content",
    # Faulty from here
    b"HTTP/1.1 200", b"HTTP/1.1  200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 2x0 OK",
    b"HTTP/1.2 200 OK",
    b"HTTP/2 200", b"http/1.1 200 OK", b"ICY 200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\x00K",
    b"\r\nHTTP/1.1 200 OK", b" HTTP/1.1 200 OK", b"", b"<html>", b"HTTP/1.1 099 No",
    b"HTTP/1.1 101 Switching Protocols",
)  # fmt: skip
_SOUND_STATUS: Final = 26
_INTERIM: Final = (
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
)  # fmt: skip
_FIELDS: Final = (
    b"content-type: application/json", b"Content-Type: text/event-stream", b"content-type: text/plain",
    b"x-request-id: theirs", b"openai-processing-ms: 12", b"X-Name:  \tvalue\t ", b"x-name:", b"set-cookie: a=b",
    b"connection: keep-alive", b"connection: close", b"connection: x-hop, keep-alive", b"x-hop: 1",
    b"keep-alive: timeout=5",
    b"trailer: x-t", b"upgrade: h2c", b"proxy-authenticate: Basic", b"location: http://other.example/", b"date: now",
    b"access-control-allow-origin: *", b"strict-transport-security: max-age=1", b"alt-svc: h3=\":443\"",
    b"x-name: \xe4",
    b"retry-after: 1", b"x-ratelimit-remaining-tokens: 5", b"content-encoding: identity",
    # Faulty from here
    b"x-name: a\r\n b", b" x-name: a", b"x-name : a", b"x-n\xe4me: a", b"x-name: a\x00b", b"x-name: a\x0bb",
    b"x-name: a\rb",
    b"x-name: a\nb", b"x-name", b": a", b"content-encoding: gzip", b"content-encoding: nobody-knows", b"x-name: a\x7f",
    b"x-name: a\r\nset-cookie: injected", b"x-name: a\r\n\r\nHTTP/1.1 200 OK",
)  # fmt: skip
_SOUND_FIELDS: Final = 25
_LENGTHS: Final = (
    b"content-length: %d", b"Content-Length:%d", b"content-length:\t%d ", b"content-length: 0%d",
    b"content-length: +%d",
    b"content-length: %d, %d", b"content-length: -%d", b"content-length: 0x%x", b"content-length: %d.0",
    b"content-length : %d", b"content-length:\r\n %d", b"content-length: %d\x0b", b"content-length:",
    b"content-length: 9%d",
    b"content-length: 99999999999999999999%d",
)  # fmt: skip
_CODINGS: Final = (
    b"transfer-encoding: chunked", b"Transfer-Encoding:chunked", b"transfer-encoding: Chunked\t",
    b"transfer-encoding: xchunked", b"transfer-encoding: gzip, chunked", b"transfer-encoding: chunked, chunked",
    b"transfer-encoding: identity", b"transfer-encoding: \x0bchunked", b"transfer-encoding : chunked",
    b"transfer-encoding: chunked;q=1", b"transfer-encoding:", b"transfer-encoding: chunked\r",
    b"transfer-encoding: gzip",
)  # fmt: skip
_SIZES: Final = (
    b"%x", b"%x", b"0%x", b"%X", b"%x;a=b", b"%x ;a", b"%x ", b" %x", b"0x%x", b"+%x", b"-%x", b"%x;a\x00", b"%x\r",
    b"1%x",
    b"%x;\n", b"0000000000000000%x", b"ffffffffffffffff%x", b"",
)  # fmt: skip
_SOUND_SIZES: Final = 5
_TRAILERS: Final = (
    b"", b"", b"x-t: 1\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"x-t : 1\r\n",
    b"x-t\r\n", b"x: y\n",
)  # fmt: skip
_EVENTS: Final = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n', b": ping\n\n", b"\n\n", b"data: \xff\n\n",
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\r\n\r\n', b"data: {\n\n",
    b'event: error\ndata: {"error":{"message":"x"}}\n\n', b"data: [DONE]\n\n", b"id: 7\ndata: a\ndata: b\n\n",
)  # fmt: skip
_INTERESTING: Final = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b":", b"0\r\n\r\n", b"\x0b", b"\xff", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
    b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n",
)  # fmt: skip


class AnswerCase:
    """What the provider says to one request, and how its connection ends."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._faults = chance.choices((0, 1, 2), (5, 8, 2))[0]
        self.streams = chance.random() < 0.5
        self.data = self._answer()
        for _ in range(chance.choices((0, 1, 2), (12, 4, 1))[0]):
            self.data = self._mutate(self.data)
        self.reads = self._cut(self.data)
        self.end = chance.choice(("open", "closed", "closed", "reset"))

    def _answer(self) -> bytes:
        chance = self._chance
        body = self._body()
        framing, framed = self._framing(body)
        kind = [_FIELDS[1] if self.streams else _FIELDS[0]] if chance.random() < 0.8 else []
        fields = [*kind, *framing]
        fields += [self._pick(_FIELDS, _SOUND_FIELDS) for _ in range(chance.choice((0, 1, 2, 4)))]
        if chance.random() < 0.3:
            chance.shuffle(fields)
        ends = [b"\r\n"] * (len(fields) + 1)
        if self._is_faulty(0.15):
            ends[chance.randrange(len(ends))] = chance.choice((b"\n", b"\r", b"\r\r\n", b"\r\n\r\n", b""))
        lines = [self._pick(_STATUS, _SOUND_STATUS), *fields]
        head = b"".join([part for pair in zip(lines, ends, strict=True) for part in pair])
        before = b"".join([chance.choice(_INTERIM) for _ in range(chance.choices((0, 1, 3, 10), (12, 2, 1, 1))[0])])
        after = chance.choice((b"x", b"\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"))
        return before + head + b"\r\n" + framed + (after if self._is_faulty(0.1) else b"")

    def _body(self) -> bytes:
        chance = self._chance
        if self.streams and chance.random() < 0.9:
            return b"".join([chance.choice(_EVENTS) for _ in range(chance.randrange(4))]) + b"data: [DONE]\n\n"
        return chance.choice(
            (
                b'{"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}',
                b"{}",
                b"",
                b'{"error":{"message":"no","code":"x"}}',
                b"<html>Bad gateway</html>",
                b'{"x":"' + b"y" * chance.choice((10, 3000, 70_000)) + b'"}',
                b"\x1f\x8b\x08\x00garbage",
            )
        )

    def _framing(self, body: bytes) -> tuple[list[bytes], bytes]:
        chance = self._chance
        way = chance.choices(("length", "chunked", "both", "close"), (8, 8, 1, 2))[0]
        if way == "length":
            size = len(body) + (chance.choice((-2, -1, 1, 9)) if self._is_faulty(0.1) else 0)
            lines = [self._length(size)]
            return lines + ([self._length(size)] if self._is_faulty(0.05) else []), body
        if way == "chunked":
            coding = self._pick(_CODINGS, 3)
            return [coding], self._chunks(body)
        if way == "both":
            return [self._length(len(body)), chance.choice(_CODINGS)], self._chunks(body)
        return [], body

    def _length(self, size: int) -> bytes:
        text = self._pick(_LENGTHS, 3)
        return text % ((size,) * text.count(b"%"))

    def _chunks(self, body: bytes) -> bytes:
        chance = self._chance
        pieces = []
        at = 0
        while at < len(body):
            piece = body[at : at + chance.choice((1, 7, 60, 5000, len(body)))]
            at += len(piece)
            line = self._pick(_SIZES, _SOUND_SIZES)
            end = chance.choice((b"\n", b"\r", b"", b"x\r\n")) if self._is_faulty(0.05) else b"\r\n"
            pieces.append((line % len(piece) if b"%" in line else line) + b"\r\n" + piece + end)
        last = chance.choice((b"0;a=b", b"00", b"0 ", b"-0", b"", b"1")) if self._is_faulty(0.1) else b"0"
        return b"".join(pieces) + last + b"\r\n" + self._pick(_TRAILERS, 3) + b"\r\n"

    def _is_faulty(self, share: float) -> bool:
        if self._faults and self._chance.random() < share:
            self._faults -= 1
            return True
        return False

    def _pick(self, choices: tuple[bytes, ...], sound: int) -> bytes:
        return self._chance.choice(choices[sound:] if self._is_faulty(0.15) else choices[:sound])

    def _mutate(self, data: bytes) -> bytes:
        chance = self._chance
        at, other = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
        kind = chance.randrange(5)
        if kind == 0:
            return data[:at] + chance.choice(_INTERESTING) + data[at:]
        if kind == 1:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        if kind == 2:
            return data[:at] + data[other:]
        if kind == 3:
            return data[:other] + data[at:]
        return data[:at]

    def _cut(self, data: bytes) -> list[bytes]:
        chance = self._chance
        if chance.random() < 0.4 or len(data) < 2:
            return [data] if data else []
        cuts = sorted({chance.randrange(1, len(data)) for _ in range(chance.choice((1, 1, 2, 5, 40)))})
        return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
