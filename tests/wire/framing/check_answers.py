"""What must be true of every answer of a provider, whatever it says.

A client is given one well-formed answer, or one of which it can see that it is not whole. It is given as a good one
only what h11 has read so too. A connection serves again only where h11 would let it, and what concerns one hop, or is
the gateway's to say, stays behind.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import h11
import orjson

from tests.wire.framing import differences
from tests.wire.framing.answers import AnswerCase
from tests.wire.framing.oracle import Response, response_by_h11
from tests.wire.framing.stand import Relayed

_STAYS_BEHIND: Final = frozenset(
    (
        b"keep-alive", b"proxy-authenticate", b"te", b"trailer", b"upgrade", b"set-cookie", b"alt-svc",
        b"strict-transport-security", b"access-control-allow-origin",
    )
)  # fmt: skip
_DONE: Final = re.compile(rb"data: ?\[DONE\]")


def check_answer(case: AnswerCase, relayed: Relayed, tally: Counter[str], *, reasons: bool = True) -> None:
    """Everything; if wanted also that each refusal has a reason."""
    told = _told(relayed)
    theirs = response_by_h11(relayed.taken, closed=case.end == "closed")
    code = _code(told)
    tally["answers"] += 1
    tally[f"told {told.status}{' whole' if told.whole else ''}"] += 1
    assert code != "internal_error"
    if told.whole and 200 <= told.status < 300:
        _is_what_h11_reads(case, told, theirs)
    if reasons and code == "upstream_invalid" and theirs is not None and theirs.whole:
        found = differences.why_answer_refused(theirs, relayed.taken)
        assert found, "an answer was refused for no reason"
        tally.update(f"refused though h11 takes it: {reason}" for reason in found)
    if relayed.reusable:
        assert theirs is not None
        assert theirs.whole
        # h11 keeps no connection of HTTP/1.0.
        assert theirs.kept or re.search(rb"(?:^|\n)HTTP/1\.0 ", relayed.taken)


def _told(relayed: Relayed) -> Response:
    """What the client makes of it: HTTP, with nothing behind it; what is not whole must be seen not to be."""
    told = response_by_h11(relayed.written, closed=relayed.broken)
    assert told is not None, relayed.written[:300]
    assert told.whole or relayed.broken, "the client would wait for ever"
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(relayed.written)
    while not isinstance(event := client.next_event(), h11.EndOfMessage) and event is not h11.NEED_DATA:
        pass
    assert event is h11.NEED_DATA or not client.trailing_data[0], "there is something behind the answer"
    names = [name for name, _ in told.fields]
    assert not _STAYS_BEHIND & set(names)
    assert names.count(b"x-request-id") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    return told


def _code(told: Response) -> str:
    try:
        tree = orjson.loads(told.body.rpartition(b"data: ")[2] if b"data: " in told.body else told.body)
    except orjson.JSONDecodeError:
        return ""
    error = tree.get("error") if isinstance(tree, dict) else None
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def _is_what_h11_reads(case: AnswerCase, told: Response, theirs: Response | None) -> None:
    assert theirs is not None, "h11 does not read this as an answer"
    assert told.status == theirs.status
    if case.streams and (mark := _DONE.search(told.body)):
        # A stream is over with its end mark: what its provider's framing says after that is its own affair.
        assert theirs.body.startswith(told.body[: mark.start()])
        return
    assert theirs.whole, "h11 does not see the end of this answer"
    assert told.body == theirs.body
