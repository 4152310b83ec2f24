"""Generated requests against the gateway, with h11 as the second opinion: a small share of the acceptance run's."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.playbook import KEY
from tests.wire.framing.check import check
from tests.wire.framing.differences import ANSWERS_REFUSED, REFUSED, TAKEN
from tests.wire.framing.grammar import Case
from tests.wire.framing.run import play_answers, play_requests
from tests.wire.framing.stand import Heard, Stand
from tests.wire.requests import MALFORMED

DOCS = Path(__file__).parents[2] / "docs" / "http-framing.md"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    stand = Stand(tmp_path_factory.mktemp("run"))
    yield stand
    stand.close()


def test_a_case_is_made_again_from_its_number() -> None:
    for number in range(50):
        one, other = Case(random.Random(number)), Case(random.Random(number))
        assert one.reads == other.reads
        assert b"".join(one.reads) == one.data


def test_two_thousand_requests(stand: Stand) -> None:
    tally: Counter[str] = Counter()
    play_requests(stand, range(1_650), tally)
    assert tally["requests"] >= 2_000
    assert tally["forwarded"] > 500
    assert tally["answered 400"] > 500


def test_seven_hundred_answers(stand: Stand) -> None:
    tally: Counter[str] = Counter()
    play_answers(stand, range(700), tally)
    assert tally["told 200 whole"] > 100
    assert tally["told 502 whole"] > 100
    assert tally["told 200"] > 10


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_known_to_be_malformed(name: str, stand: Stand) -> None:
    """The gateway as a whole refuses what its parser is known to refuse, and the check agrees with that."""
    data = MALFORMED[name][0].replace(b"/echo", b"/v1/chat/completions")
    heard = stand.hears([data])
    check(data, heard)
    assert heard.asked == []
    assert heard.closed


# The check itself: what it must not let pass


def wrote(*asked: bytes, answers: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") -> Heard:
    return Heard(answers * max(len(asked), 1), list(asked), False)


SENT = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nX-Mark: m1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: one.test\r\nauthorization: Bearer sk-provider\r\nx-mark: m1\r\n"
GOOD = HEAD + b"content-length: 2\r\n\r\n{}"


def test_a_good_one_passes() -> None:
    check(SENT, wrote(GOOD))


@pytest.mark.parametrize(
    "asked",
    [
        GOOD + GOOD,
        GOOD[:-1],
        GOOD + b"x",
        HEAD + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + b"x-key: kt_gk_00000000000000000000000000000000000000\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + b"x-hop: 1\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + b"x-other: 1\r\ncontent-length: 2\r\n\r\n{}",
        HEAD + b"te: trailers\r\ncontent-length: 2\r\n\r\n{}",
        GOOD.replace(b"m1", b"m2"),
        GOOD.replace(b"{}", b"[]"),
        GOOD.replace(b"one.test", b"gateway"),
        GOOD.replace(b"sk-provider", b"sk-other"),
    ],
)
def test_what_a_provider_must_never_be_given(asked: bytes) -> None:
    with pytest.raises(AssertionError):
        check(SENT, wrote(asked))


def test_one_request_that_goes_out_twice() -> None:
    with pytest.raises(AssertionError):
        check(SENT, wrote(GOOD, GOOD))


def test_an_answer_that_is_missing_or_faulty() -> None:
    with pytest.raises(AssertionError):
        check(SENT, Heard(b"", [], False))
    for status in (b"500 Oops", b"200 OK\nx: y"):
        with pytest.raises(AssertionError):
            check(SENT, wrote(GOOD, answers=b"HTTP/1.1 %b\r\ncontent-length: 2\r\n\r\n{}" % status))


def test_a_refusal_without_a_reason() -> None:
    refusal = b'{"error":{"code":"malformed_http"}}'
    answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%b" % (len(refusal), refusal)
    with pytest.raises(AssertionError, match="for no reason"):
        check(SENT, Heard(answer, [], True))


# The differences


def test_every_difference_is_told_to_operators() -> None:
    text = DOCS.read_text()
    for table in (TAKEN, REFUSED, ANSWERS_REFUSED):
        for name, difference in table.items():
            assert f"| {name} | {difference.reason} |" in text


LINES = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %b\r\n" % KEY
BODY = b'{"model":"gpt-test","messages":[]}'
SIZED = LINES + b"Content-Length: 34\r\n\r\n" + BODY
OLD = SIZED.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n")


@pytest.mark.parametrize(
    "data",
    [
        OLD * 2,
        b"\r\n" + SIZED + b"\r\n" + SIZED,
        (LINES + b"Transfer-Encoding: chunked\r\n\r\n22 ;a=b\r\n" + BODY + b"\r\n0\r\n\r\n") * 2,
    ],
    ids=list(TAKEN),
)
def test_what_the_gateway_takes_and_h11_does_not(data: bytes, stand: Stand) -> None:
    heard = stand.hears([data])
    check(data, heard)
    assert len(heard.asked) == 2
