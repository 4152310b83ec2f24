"""Where the gateway and h11 do not agree, each with its reason; docs/http-framing.md tells the same to operators.

`TAKEN`: what the gateway takes and h11 refuses, with how the request reads to h11. `REFUSED`: what the gateway refuses
and h11 takes, with how such a request is known. Every other difference that a test meets is a fault of the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from tests.wire.framing.oracle import Request, Response

# What the gateway takes


class Taken(NamedTuple):
    """`rewrite` makes the bytes of one request, and whatever follows it, into what h11 reads the same in."""

    reason: str
    rewrite: Callable[[bytes], bytes]


_SPACE_BEFORE_EXTENSION: Final = re.compile(rb"(\r\n[0-9a-fA-F]+)[ \t]+;")

TAKEN: Final = {
    "another request on a connection of HTTP/1.0 that is to be kept alive": Taken(
        "RFC 9112, section 9.3: a server may honour `Connection: keep-alive`. h11 never does.",
        bytes,  # the oracle goes on
    ),
    "an empty line before a request": Taken(
        "RFC 9112, section 2.2: a server should ignore one. h11 refuses it.",
        lambda data: data.removeprefix(b"\r\n"),
    ),
    "white space before a chunk extension": Taken(
        'RFC 9112, section 7.1.1: `chunk-ext = *( BWS ";" …` must be taken. h11 refuses it.',
        lambda data: _SPACE_BEFORE_EXTENSION.sub(rb"\1;", data),
    ),
}


def as_h11_reads_it(data: bytes) -> bytes:
    """The same bytes without what the gateway takes and h11 does not."""
    for taken in TAKEN.values():
        data = taken.rewrite(data)
    return data


# What the gateway refuses


class Refused(NamedTuple):
    """`holds`: whether a request that h11 has read is one of these; it is given the request and its bytes."""

    reason: str
    holds: Callable[[Request, bytes], bool]


def _head(raw: bytes) -> bytes:
    """Request line and fields, as far as h11 reads them: it takes LF for a line's end, too."""
    end = re.search(rb"\r?\n\r?\n", raw)
    return raw[: end.end()] if end else raw


def _names(request: Request) -> list[bytes]:
    return [name for name, _ in request.fields]


def _values(request: Request, name: bytes) -> list[bytes]:
    return [value for one, value in request.fields if one == name]


_METHODS: Final = frozenset(
    (
        b"DELETE", b"GET", b"HEAD", b"POST", b"PUT", b"CONNECT", b"OPTIONS", b"TRACE", b"COPY", b"LOCK", b"MKCOL",
        b"MOVE",
        b"PROPFIND", b"PROPPATCH", b"SEARCH", b"UNLOCK", b"BIND", b"REBIND", b"UNBIND", b"ACL", b"REPORT",
        b"MKACTIVITY",
        b"CHECKOUT", b"MERGE", b"M-SEARCH", b"NOTIFY", b"SUBSCRIBE", b"UNSUBSCRIBE", b"PATCH", b"PURGE",
        b"MKCALENDAR",
        b"LINK", b"UNLINK", b"SOURCE",
    )
)  # fmt: skip
_TARGET: Final = re.compile(rb"/[^#\x7f-\xff]*|\*|https?://[^/?#@]+(?:[/?][^#\x7f-\xff]*)?", re.IGNORECASE)
_ONCE: Final = (b"authorization", b"api-key", b"x-api-key", b"content-encoding", b"expect", b"origin", b"host")
_FORBIDDEN_TRAILERS: Final = frozenset(
    (
        b"content-length", b"transfer-encoding", b"host", b"authorization", b"content-encoding", b"content-type",
        b"api-key",
        b"x-api-key", b"cookie", b"set-cookie", b"connection", b"keep-alive", b"proxy-authenticate",
        b"proxy-connection",
        b"proxy-authorization", b"te", b"trailer", b"upgrade",
    )
)  # fmt: skip
REFUSED: Final = {
    "a line of the head that ends in LF alone": Refused(
        "RFC 9112, section 2.2, lets a recipient take it; who does not sees fields elsewhere.",
        lambda request, raw: _head(raw).count(b"\n") != _head(raw).count(b"\r\n"),
    ),
    "a folded field": Refused(
        "RFC 9112, section 5.2: refused or unfolded; who does neither sees two fields.",
        lambda request, raw: re.search(rb"\n[ \t]", _head(raw)) is not None,
    ),
    "an HTTP version other than 1.1 and 1.0": Refused(
        "RFC 9112, section 2.3: of 1.x nothing but 1.1 and 1.0 exists.",
        lambda request, raw: request.version not in (b"1.1", b"1.0"),
    ),
    "a method that nobody has registered": Refused(
        "RFC 9110, section 16.1.1; httptools knows the registered ones. `post` is no POST.",
        lambda request, raw: request.method not in _METHODS,
    ),
    "a target that is neither a path nor a URL of http": Refused(
        "RFC 9112, section 3.2. A user before the host, a fragment, and bytes beyond ASCII have no place in one.",
        lambda request, raw: request.method != b"CONNECT" and _TARGET.fullmatch(request.target) is None,
    ),
    "a field that may stand once": Refused(
        "Two credentials, two expectations, two codings: which one counts is anybody's guess. Equal ones too.",
        lambda request, raw: any(_names(request).count(name) > 1 for name in _ONCE),
    ),
    "two equal lengths": Refused(
        "RFC 9110, section 8.6, lets a recipient take them for one or refuse; h11 joins `5, 5` and repeated fields.",
        lambda request, raw: (
            len(re.findall(rb"\ncontent-length:[^\n]*", _head(raw).lower())) > 1
            or re.search(rb"\ncontent-length:[^\n]*,", _head(raw).lower()) is not None
        ),
    ),
    "length and coding together": Refused(
        "RFC 9112, section 6.1: an attempt at smuggling. h11 lets the coding win.",
        lambda request, raw: b"content-length:" in _head(raw).lower() and b"transfer-encoding" in _names(request),
    ),
    "a coding in HTTP/1.0": Refused(
        "RFC 9112, section 6.1: such a message must be taken for one with faulty framing.",
        lambda request, raw: request.version == b"1.0" and b"transfer-encoding" in _names(request),
    ),
    "another expectation": Refused(
        "RFC 9110, section 10.1.1: 417.",
        lambda request, raw: any(value.lower() != b"100-continue" for value in _values(request, b"expect")),
    ),
    "control bytes in a field": Refused(
        "RFC 9110, section 5.5: no field may hold them; h11 takes all but NUL, CR and LF.",
        lambda request, raw: any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) for _, value in request.fields),
    ),
    "a chunk size of more than 15 digits": Refused(
        "RFC 9112, section 7.1: overflow must be anticipated. h11 takes 20 digits.",
        lambda request, raw: re.search(rb"(?:^|\n)[0-9a-fA-F]{16,}[;\r]", raw) is not None,
    ),
    "a chunk that is framed by LF alone, or with more than its extension allows": Refused(
        "RFC 9112, section 7.1: lines of a chunked body end in CR LF, and an extension holds no control bytes.",
        lambda request, raw: (
            re.search(
                rb"(?:^|[^\r])\n|(?:^|\n)[0-9a-fA-F]+[^\r\n]*(?:[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n))",
                raw[len(_head(raw)) :],
            )
            is not None
        ),
    ),
    "white space at the end of a chunk size": Refused(
        "RFC 9112, section 7.1: it may stand only before an extension's semicolon.",
        lambda request, raw: re.search(rb"(?:^|\n)[0-9a-fA-F]+[ \t]+\r\n", raw[len(_head(raw)) :]) is not None,
    ),
    "a trailer that frames, routes or authorizes": Refused(
        "RFC 9110, section 6.5.1: it could undo what has been decided by the head.",
        lambda request, raw: any(name in _FORBIDDEN_TRAILERS for name, _ in request.trailers),
    ),
    "more than its limits": Refused(
        "`gateway.limits` and `gateway.max_body_bytes`: 32 KB of head, 100 fields, a target of 8 KB, a body.",
        lambda request, raw: (
            len(_head(raw)) > 32 * 1024
            or len(request.fields) > 100
            or len(request.target) > 8 * 1024
            or len(request.body) > 100_000
        ),
    ),
    "tabs behind a coding": Refused(
        "RFC 9112, section 5, would have them taken off; llhttp takes only spaces there, and no client sends any.",
        lambda request, raw: (
            re.search(rb"\ntransfer-encoding:[^\n]*chunked[ \t]*\t[ \t]*\r\n", _head(raw).lower()) is not None
        ),
    ),
    "white space around the request line's parts": Refused(
        "RFC 9112, section 3: one space between two parts; lenient readings of others differ.",
        lambda request, raw: re.match(rb"[!-~]+ [^ \t]+ HTTP/1\.[01]\r?\n", raw) is None,
    ),
}


def why_refused(request: Request, raw: bytes) -> list[str]:
    """The names of all that holds; empty: the gateway had no reason."""
    return [name for name, refused in REFUSED.items() if refused.holds(request, raw)]


# What the gateway refuses of a provider's answers


class AnswerRefused(NamedTuple):
    """`holds`: whether an answer that h11 has read is one of these; it is given the answer and its bytes."""

    reason: str
    holds: Callable[[Response, bytes], bool]


def _answer_head(raw: bytes) -> bytes:
    """The head of the final answer, interim ones before it, as far as h11 reads them."""
    end = 0
    while match := re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})[^\n]*\n(?:[^\n]+\n)*?\r?\n").match(raw, end):
        end = match.end()
        if not match[1].startswith(b"1"):
            break
    return raw[:end]


ANSWERS_REFUSED: Final = {
    "control bytes in a status line": AnswerRefused(
        "RFC 9112, section 4: a reason has none; h11 takes all but NUL, CR and LF.",
        lambda answer, raw: re.search(rb"(?:^|\n)HTTP/1\.[^\n]*[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]", raw) is not None,
    ),
    "an answer with a line that ends in LF alone": AnswerRefused(
        "RFC 9112, section 2.2: as of requests.",
        lambda answer, raw: re.search(rb"(?:^|[^\r])\n", _answer_head(raw)) is not None,
    ),
    "an answer with a folded field": AnswerRefused(
        "RFC 9112, section 5.2: as of requests.",
        lambda answer, raw: re.search(rb"\n[ \t]", _answer_head(raw)) is not None,
    ),
    "an answer of another HTTP version": AnswerRefused(
        "RFC 9112, section 2.3: as of requests.",
        lambda answer, raw: re.search(rb"(?:^|\n)HTTP/1\.[2-9] ", _answer_head(raw)) is not None,
    ),
    "more than eight interim answers": AnswerRefused(
        "They are read for nobody, and somebody must stop.",
        lambda answer, raw: len(re.findall(rb"(?:^|\n)HTTP/1\.1 1[0-9][0-9]", _answer_head(raw))) > 8,
    ),
    "an answer with two lengths, or with length and coding": AnswerRefused(
        "RFC 9112, section 6.3: as of requests.",
        lambda answer, raw: (
            len(re.findall(rb"\n(?:content-length|transfer-encoding):", _answer_head(raw).lower())) > 1
            or re.search(rb"\ncontent-length:[^\n]*,", _answer_head(raw).lower()) is not None
        ),
    ),
    "a coding in an answer of HTTP/1.0": AnswerRefused(
        "RFC 9112, section 6.1: as of requests.",
        lambda answer, raw: (
            re.search(rb"(?:^|\n)HTTP/1\.0 ", _answer_head(raw)) is not None
            and b"transfer-encoding" in _answer_head(raw).lower()
        ),
    ),
    "control bytes in a field of an answer": AnswerRefused(
        "RFC 9110, section 5.5: as of requests.",
        lambda answer, raw: any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) for _, value in answer.fields),
    ),
    "a coding that nobody asked for": AnswerRefused(
        "Providers are asked for `identity`; what is coded otherwise is decoded or refused (docs/translation.md).",
        lambda answer, raw: any(name == b"content-encoding" and value != b"identity" for name, value in answer.fields),
    ),
    "chunks that only h11 reads": AnswerRefused(
        "White space in a size, more than 15 digits, LF alone, control bytes in an extension (RFC 9112, section 7.1).",
        lambda answer, raw: (
            re.search(
                rb"(?:^|\n)(?:[0-9a-fA-F]+[ \t]|[0-9a-fA-F]{16}|"
                rb"[0-9a-fA-F]+[^\r\n]*(?:[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)))"
                rb"|(?:^|[^\r])\n",
                raw[len(_answer_head(raw)) :],
            )
            is not None
        ),
    ),
    "a trailer that frames, or belongs to a head": AnswerRefused(
        "RFC 9110, section 6.5.1: as of requests.",
        lambda answer, raw: any(name in _FORBIDDEN_TRAILERS for name, _ in answer.trailers),
    ),
}


def why_answer_refused(response: Response, raw: bytes) -> list[str]:
    """The names of all that holds; empty: the gateway had no reason."""
    return [name for name, refused in ANSWERS_REFUSED.items() if refused.holds(response, raw)]
