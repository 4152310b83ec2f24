"""What must be true of every case, whatever was sent.

The oracle's word is needed twice: what the provider is asked h11 must have read in the client's bytes, and what the
gateway refuses though h11 takes it must have a reason in `differences`. Everything else is seen without it, on the
bytes that the provider was given and on those that the client was answered.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, NamedTuple

import orjson

from gateway.types import KEY_PREFIX
from tests.playbook import KEY
from tests.wire.framing import differences
from tests.wire.framing.oracle import Request, Seen, requests_by_h11
from tests.wire.framing.stand import SECRET, Heard

_NEVER_FORWARDED: Final = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"cookie", b"expect", b"content-encoding", b"x-forwarded-for",
        b"forwarded", b"origin", b"referer", b"api-key", b"x-api-key",
    )
)  # fmt: skip
_OWN: Final = frozenset(
    (b"host", b"authorization", b"accept-encoding", b"content-length", b"content-type", b"x-request-id")
)
"""What the gateway says to the provider itself."""
_FRAMING_REFUSALS: Final = frozenset(
    ("malformed_http", "request_too_large", "request_head_too_large", "request_target_too_long", "expectation_failed")
)
_ANSWER: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [\x20-\x7e]*\r\n((?:[a-z0-9-]+: [^\r\n\x00]*\r\n)*)\r\n")
_IDS: Final = re.compile(rb"req_[0-9a-f]{24}")
_INTERIM: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer(NamedTuple):
    """One answer to the client. `code` is that of an error of the gateway, or empty."""

    status: int
    code: str

    @property
    def refuses(self) -> bool:
        """The gateway could or would not read the request."""
        return self.code in _FRAMING_REFUSALS


def check(data: bytes, heard: Heard, tally: Counter[str] | None = None, *, reasons: bool = True) -> None:
    """Everything, if wanted also that each refusal has a reason. `tally` counts what became of the requests, so that a
    run can show that it has met all of it."""
    asked = [_sound(write) for write in heard.asked]
    answers = _answers(heard.answers)
    assert not any(answer.status == 500 for answer in answers), "a fault of the gateway"
    assert not any(answer.refuses for answer in answers[:-1]), "a request was served behind one that could not be read"
    if answers and answers[-1].refuses:
        assert heard.closed, "the connection goes on behind a request that could not be read"
    assert sum(answer.status == 200 for answer in answers) >= len(asked)
    seen = requests_by_h11(data, differences.as_h11_reads_it)
    if not heard.closed:
        assert len(answers) >= len(seen.requests), "a request was not answered"
    _are_what_h11_reads(asked, seen.requests)
    found = _reasons(answers, seen) if reasons else []
    if tally is not None:
        tally["requests"] += max(len(answers), 1)
        tally["forwarded"] += len(asked)
        tally.update(f"answered {answer.status}" for answer in answers)
        tally.update(f"refused though h11 takes it: {reason}" for reason in found)


def check_uncut(heard: Heard, uncut: Heard) -> None:
    """The same bytes mean the same, however the network cuts them. Only the end may differ: a request that is refused
    by its head alone ends the connection where its body has not come yet."""
    cut, whole = _meaning(heard), _meaning(uncut)
    for one, other in zip(cut, whole, strict=True):
        shared = min(len(one), len(other)) if heard.closed or uncut.closed else max(len(one), len(other))
        assert one[:shared] == other[:shared]


def _meaning(heard: Heard) -> tuple[list[bytes], list[int]]:
    return [_IDS.sub(b"", write) for write in heard.asked], [answer.status for answer in _answers(heard.answers)]


def _sound(write: bytes) -> Request:
    """What the provider is given is one request that h11 reads, framed in one way, and of this hop only."""
    seen = requests_by_h11(write)
    assert not seen.refused
    assert (len(seen.requests), seen.rest) == (1, b""), "not one whole request"
    (request,) = seen.requests
    names = [name for name, _ in request.fields]
    fields = dict(request.fields)
    assert request.method == b"POST"
    assert write.partition(b"\r\n\r\n")[0].lower().count(b"\ncontent-length:") == 1  # h11 makes one of equal ones
    assert fields[b"content-length"] == b"%d" % len(request.body)
    assert not _NEVER_FORWARDED & set(names)
    assert names.count(b"host") == 1
    assert fields[b"host"] == b"one.test", "a request chose the host"
    assert request.target.startswith(b"/v1/")
    assert names.count(b"authorization") == 1
    assert fields[b"authorization"] == b"Bearer " + SECRET
    assert KEY not in write.partition(b"\r\n\r\n")[0]
    return request


def _answers(written: bytes) -> list[Answer]:
    """The client's answers, which must be whole and leave nothing over."""
    found = []
    while written:
        if written.startswith(_INTERIM):
            written = written[len(_INTERIM) :]
            continue
        match = _ANSWER.match(written)
        assert match is not None, written[:200]
        lengths = re.findall(rb"content-length: ([0-9]+)\r\n", match[2])
        assert len(lengths) == 1
        assert b"transfer-encoding" not in match[2]
        written = written[match.end() :]
        # An answer to HEAD has none of the bytes that it tells of.
        size = int(lengths[0]) if written.startswith(b"{") else 0
        body, written = written[:size], written[size:]
        assert len(body) == size
        error = orjson.loads(body).get("error", {}) if body else {}
        found.append(Answer(int(match[1]), error.get("code", "")))
    return found


def _are_what_h11_reads(asked: list[Request], read: list[Request]) -> None:
    """Each request that went out is one that came in, whole, as h11 reads it; none went out twice."""
    left = iter(read)
    for request in asked:
        came = next((one for one in left if one.body == request.body and _marks(one) == _marks(request)), None)
        assert came is not None, f"h11 has not read this request, or not in this place: {request}"
        assert came.method == b"POST"
        named = {
            option.strip(b" \t").lower()
            for name, value in came.fields
            if name == b"connection"
            for option in value.split(b",")
        }
        for field in request.fields:
            assert field[0] in _OWN or field in came.fields, f"{field} was made up"
            assert field[0] in _OWN or field[0] not in named, f"{field} was meant for one hop"


def _marks(request: Request) -> list[bytes]:
    return [value for name, value in request.fields if name == b"x-mark" and KEY_PREFIX not in value]


def _reasons(answers: list[Answer], seen: Seen) -> list[str]:
    """Why the gateway refused what h11 takes."""
    served = sum(not answer.refuses for answer in answers)
    if served == len(answers) or served >= len(seen.requests):
        return []
    reasons = differences.why_refused(seen.requests[served], seen.raw[served])
    assert reasons, f"{answers[-1]} for no reason: {seen.raw[served]!r}"
    return reasons
