"""Requests that a client, an attacker or a broken proxy may send: made from a grammar, then damaged.

    case = Case(random.Random(7))
    case.data    all bytes of one connection: one to three requests, one behind the other
    case.reads   the same, cut where the network might cut it

Everything comes from the generator that is given, so a case is made again from its number alone. The parts are those
that HTTP's attacks are made of (RFC 9112, section 11): two lengths, codings that one side knows and the other does not,
lines that end otherwise, white space where it does not belong, a request within a body. Each request carries a mark of
its own, in a field and in its body, so that what reaches the provider tells where it came from.
"""

from __future__ import annotations

import random
from typing import Final

from tests.playbook import KEY

Chance = random.Random

_TARGETS: Final = (
    *(b"/v1/chat/completions",) * 12,
    b"/v1/chat/completions?a=b",
    b"http://gateway/v1/chat/completions",
    b"HTTP://other.example:8080/v1/chat/completions",
    b"http://user@other.example/v1/chat/completions",
    b"//other.example/v1/chat/completions",
    b"/v1/chat/completions#x",
    b"/v1/../v1/chat/completions",
    b"/v1/chat/completions HTTP/1.1\r\nX-Split: 1",
    b"other.example:443",
    b"/v1/embeddings",
    b"/healthz",
    b"/nowhere",
    b"*",
    b"",
)
_METHODS: Final = (*(b"POST",) * 16, b"GET", b"HEAD", b"OPTIONS", b"PUT", b"CONNECT", b"post", b"P\xd6ST", b"")
_VERSIONS: Final = (
    *(b"HTTP/1.1",) * 24, b"HTTP/1.0", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/01.1",
    b"HTTP/1.1 ", b""
)  # fmt: skip
_ENDS: Final = (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n ", b"\r\n\t", b" \r\n", b"\x00\r\n", b"")
_FIELDS: Final = (
    # What is sound, or the gateway's own to deal with: SOUND_FIELDS of them
    b"Accept: application/json",
    b"Content-Type: application/json",
    b"User-Agent: OpenAI/Python 1.60",
    b"X-Stainless-Lang: python",
    b"X-Name:value",
    b"X-Name: \t value \t",
    b"X-Name:",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: keep-alive, X-Secret",
    b"Connection: X-Secret",
    b"X-Secret: of-this-hop",
    b"Keep-Alive: timeout=5",
    b"TE: trailers",
    b"Trailer: X-Trailer",
    b"Upgrade: h2c",
    b"Upgrade: websocket",
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    b"Content-Encoding: identity",
    b"X-Request-Id: mine",
    b"X-Name: \xe4",
    b"Content_Length: 0",
    b"Transfer_Encoding: chunked",
    b"Proxy-Authorization: Basic eDp5",
    b"Proxy-Connection: keep-alive",
    b"Cookie: session=1",
    b"X-Forwarded-For: 192.0.2.1",
    b"Forwarded: for=192.0.2.1",
    b"Expect: 100-continue",
    # What is not
    b"Expect: 100-Continue, 200-ok",
    b"Content-Encoding: gzip",
    b"Host: other.example",
    b"X-Name: a\r\n b",
    b" X-Name: a",
    b"X-Name : a",
    b"X-N\xe4me: a",
    b"X-Name: a\x00b",
    b"X-Name: a\x0bb",
    b"X-Name: a\rb",
    b"X-Name: a\nb",
    b"X-Name",
    b": a",
)
_SOUND_FIELDS: Final = 29
_LENGTHS: Final = (
    b"Content-Length: %d", b"content-length:%d", b"CONTENT-LENGTH:\t%d ", b"Content-Length: 0%d",
    b"Content-Length: +%d",
    b"Content-Length: %d, %d", b"Content-Length: %d,", b"Content-Length: -%d", b"Content-Length: 0x%x",
    b"Content-Length: %d_0", b"Content-Length: %d.0", b"Content-Length: %d\x0b", b"Content-Length: \xef\xbc\x91%d",
    b"Content-Length : %d", b"Content-Length:\r\n %d", b"Content-Length: %d\r", b"Content-Length: %d;",
    b"Content-Length: '%d'",
)  # fmt: skip
_CODINGS: Final = (
    b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding:\tchunked ", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\x0b", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,", b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: chunked\r", b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked", b"Transfer-Encoding\x00: chunked", b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: cow", b"Transfer-Encoding:",
)  # fmt: skip
_SIZES: Final = (
    b"%x", b"%x", b"%x", b"0%x", b"%X", b"%x;a=b", b'%x;a="b;c"', b"%x ;a", b"%x;", b"%x ", b" %x", b"0x%x", b"+%x",
    b"-%x",
    b"%x_", b"%x,", b"%x;a\x00", b"%x;\n", b"%x\r", b"1%x", b"%x.", b"0000000000000000%x", b"f%015x", b"%x;a=\"\r\n\"",
)  # fmt: skip
_TRAILERS: Final = (
    b"", b"", b"", b"X-Trailer: 1\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Authorization: Bearer x\r\n", b"X-Trailer : 1\r\n", b"X-Trailer\r\n", b" folded\r\n", b"X: \x00\r\n", b"X: y\n",
)  # fmt: skip
_INTERESTING: Final = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"0", b"\x0b", b"\x7f", b"\xff", b"\r\n\r\n", b",", b";",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
)  # fmt: skip


class Case:
    """One connection's bytes. `marks` are those of the requests that were meant, in order."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self.marks: list[bytes] = []
        # Most of the faults are found with one; two show what the first one opens.
        self._faults = chance.choices((0, 1, 2, 3), (4, 8, 3, 1))[0]
        requests = [self._request() for _ in range(chance.choices((1, 2, 3), (6, 3, 1))[0])]
        if chance.random() < 0.2:
            # A client that keeps its connection repeats its head: such a one is recognised by its bytes.
            requests = [*requests[:1] * chance.randrange(2, 5), *requests[1:]]
        self.data = b"".join(requests)
        for _ in range(chance.choices((0, 1, 2), (10, 4, 1))[0]):
            self.data = self._mutate(self.data)
        if b"".join(requests) == self.data and chance.random() < 0.5:
            self.reads = requests
        else:
            self.reads = self._cut(self.data)

    def _request(self) -> bytes:
        chance = self._chance
        mark = b"m%08x" % chance.getrandbits(32)
        self.marks.append(mark)
        payload = self._payload(mark)
        framing, body = self._framing(payload)
        line = b"%b %b %b" % (self._pick(_METHODS), self._pick(_TARGETS), self._pick(_VERSIONS))
        lines = [line, b"Host: gateway", b"Authorization: Bearer " + KEY, b"X-Mark: " + mark, *framing]
        lines += [self._pick(_FIELDS, _SOUND_FIELDS) for _ in range(chance.choices((0, 1, 2, 5), (6, 3, 2, 1))[0])]
        tail = lines[1:]
        if chance.random() < 0.3:
            chance.shuffle(tail)
        ends = [b"\r\n"] * len(lines)
        if self._is_faulty(0.15):
            ends[chance.randrange(len(ends))] = chance.choice(_ENDS)
        if self._is_faulty(0.1):
            tail[chance.randrange(len(tail))] = chance.choice((*_FIELDS, b"Api-Key: " + KEY, b"Authorization: Basic x"))
        head = b"".join([part for pair in zip([lines[0], *tail], ends, strict=True) for part in pair])
        before = chance.choice((b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ")) if self._is_faulty(0.05) else b""
        return before + head + (chance.choice((b"\n", b"\r", b"")) if self._is_faulty(0.05) else b"\r\n") + body

    def _payload(self, mark: bytes) -> bytes:
        """A body; now and then one that a server which counts wrongly takes for another request."""
        chance = self._chance
        user = mark.decode()
        if chance.random() < 0.2:
            smuggled = f"POST /v1/chat/completions HTTP/1.1\\r\\nX-Mark: smuggled-{user}"
            return b'{"model":"gpt-test","messages":[],"user":"%b","x":"%b"}' % (mark, smuggled.encode())
        if chance.random() < 0.2:
            inner = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nX-Mark: smuggled-%b\r\n" % mark
            inner += b"Authorization: Bearer %b\r\nContent-Length: 36\r\n\r\n" % KEY
            return inner + b'{"model":"gpt-test","messages":[]}  '
        padding = b"x" * chance.choice((0, 0, 0, 1, 200, 5000))
        return b'{"model":"gpt-test","messages":[],"user":"%b","x":"%b"}' % (mark, padding)

    def _framing(self, payload: bytes) -> tuple[list[bytes], bytes]:
        """Lines that say where the body ends, and the body."""
        chance = self._chance
        way = chance.choices(("length", "chunked", "both", "none"), (10, 8, 2, 1))[0]
        if way == "length":
            size = len(payload) + (chance.choice((-3, -1, 1, 7)) if self._is_faulty(0.1) else 0)
            lines = [self._length(size)]
            if self._is_faulty(0.1):
                lines.append(self._length(chance.choice((size, 0, 5, size + 1))))
            return lines, payload
        if way == "chunked":
            coding = chance.choice(_CODINGS) if self._is_faulty(0.4) else _CODINGS[chance.randrange(4)]
            return [coding], self._chunks(payload)
        if way == "both":
            lines = [self._length(chance.choice((len(payload), 0, 4))), chance.choice(_CODINGS)]
            chance.shuffle(lines)
            return lines, self._chunks(payload) if chance.random() < 0.5 else payload
        return [], payload if self._is_faulty(0.5) else b""

    def _length(self, size: int) -> bytes:
        text = self._pick(_LENGTHS, 3)
        return text % ((size,) * text.count(b"%"))

    def _chunks(self, payload: bytes) -> bytes:
        chance = self._chance
        pieces = []
        at = 0
        while at < len(payload):
            size = chance.choice((1, 5, 30, 300, len(payload)))
            piece = payload[at : at + size]
            at += size
            line = chance.choice(_SIZES) if self._is_faulty(0.08) else b"%x"
            end = chance.choice((b"\n", b"\r", b"", b"x\r\n")) if self._is_faulty(0.02) else b"\r\n"
            pieces.append(line % len(piece) + b"\r\n" + piece + end)
        last = chance.choice((b"0", b"00", b"0;a=b", b"0 ", b"-0", b"0x0", b"")) if self._is_faulty(0.1) else b"0"
        trailers = self._pick(_TRAILERS, 3)
        return b"".join(pieces) + last + b"\r\n" + trailers + b"\r\n"

    def _is_faulty(self, share: float) -> bool:
        """Whether the part that is being made is damaged: seldom, and only so often in one connection."""
        if self._faults and self._chance.random() < share:
            self._faults -= 1
            return True
        return False

    def _pick(self, choices: tuple[bytes, ...], sound: int = 12) -> bytes:
        """Any of the choices; one of the first where there is to be no fault."""
        if self._is_faulty(0.15):
            return self._chance.choice(choices)
        return self._chance.choice(choices[:sound])

    def _mutate(self, data: bytes) -> bytes:
        """Damage what is sound, anywhere, without knowing what it is."""
        chance = self._chance
        at, other = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
        kind = chance.randrange(7)
        if kind == 0:
            return data[:at] + chance.choice(_INTERESTING) + data[at:]
        if kind == 1:
            return data[:at] + data[at + 1 :]
        if kind == 2:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        if kind == 3:
            return data[:at] + data[other:]
        if kind == 4:
            return data[:other] + data[at:]
        if kind == 5:
            return data[:at]
        lines = data.split(b"\r\n")
        index, copy = chance.randrange(len(lines)), chance.randrange(len(lines))
        return b"\r\n".join([*lines[:index], lines[copy], *lines[index:]])

    def _cut(self, data: bytes) -> list[bytes]:
        """Reads, none empty."""
        chance = self._chance
        if chance.random() < 0.5 or len(data) < 2:
            return [data] if data else []
        cuts = sorted({chance.randrange(1, len(data)) for _ in range(chance.choice((1, 1, 2, 5, 40)))})
        return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
