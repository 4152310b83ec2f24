"""Logs: one valid JSON object a line, nothing secret in it, and nobody who logs ever waits."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import logs
from gateway.secrets import Secret

ROOT = Path(logs.__file__).parents[1]
GATEWAY_KEY = "kt_gk_4fJq81LmZt0sVwXy7Bn2Kd9R"
PROVIDER_KEY = "sk-proj-Ab12Cd34Ef56Gh78Ij90"

log = logging.getLogger("gateway.test")


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """`configure` takes the process' root logger over; give it back to pytest."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    if logs._current is not None:
        logs._current.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def logged(message: str, *args: object, **extra: object) -> dict[str, object]:
    """One line as it comes out."""
    stream = io.StringIO()
    configured = logs.configure("debug", "json", stream)
    log.info(message, *args, extra=extra)
    configured.close()
    (line,) = lines(stream)
    return line


def test_a_line_has_time_level_logger_event_and_fields() -> None:
    line = logged("worker started", worker=3, address="127.0.0.1:41002", ratio=0.5, none=None, yes=True)
    assert list(line) == ["ts", "level", "logger", "event", "worker", "address", "ratio", "none", "yes"]
    ts = line.pop("ts")
    assert isinstance(ts, str)
    assert ts.endswith("Z")
    assert len(ts) == len("2025-01-31T12:00:00.123Z")
    assert line == {
        "level": "info",
        "logger": "gateway.test",
        "event": "worker started",
        "worker": 3,
        "address": "127.0.0.1:41002",
        "ratio": 0.5,
        "none": None,
        "yes": True,
    }


def test_positional_arguments_are_part_of_the_event() -> None:
    assert (
        logged("the audit log of writer %s: %d records", "w-1", 5)["event"] == "the audit log of writer w-1: 5 records"
    )


def test_a_field_cannot_take_the_place_of_a_standard_one() -> None:
    assert logged("true", event="false", level="false") | {"ts": ""} == {
        "ts": "",
        "level": "info",
        "logger": "gateway.test",
        "event": "true",
    }


def test_text_for_a_terminal_is_one_line_an_event() -> None:
    stream = io.StringIO()
    configured = logs.configure("info", "text", stream)
    log.warning("cannot read\nthe file \x1b[31m", extra={"path": "/etc/a b", "line": 3, "name_": "x", "odd": 'a"=\n'})
    log.debug("not at this level")
    configured.close()
    (line,) = stream.getvalue().splitlines()
    assert line[12:] == (
        r" WARNING  gateway.test: cannot read\nthe file \x1b[31m"
        r' path="/etc/a b" line=3 name_=x odd="a\"=\n"'
    )


@pytest.mark.parametrize("format", ["json", "text"])
def test_an_exception_is_logged_with_its_traceback(format: logs.Format) -> None:
    stream = io.StringIO()
    configured = logs.configure("info", format, stream)
    try:
        raise ValueError(f"bad key {GATEWAY_KEY}")
    except ValueError:
        log.exception("fault")
    configured.close()
    text = stream.getvalue()
    assert "Traceback (most recent call last)" in text
    assert "ValueError: bad key kt_gk_[secret]" in text


def test_a_second_configure_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "json", first)
    log.info("one")
    logs.configure("error", "json", second)
    log.info("two")
    log.error("three")
    assert logs._current is not None
    logs._current.close()
    logs._current.close()
    assert [line["event"] for line in lines(first)] == ["one"]
    assert [line["event"] for line in lines(second)] == ["three"]


def test_warnings_are_lines_too() -> None:
    stream = io.StringIO()
    configured = logs.configure("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    configured.close()
    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"
    assert "old ways" in str(line["event"])


# Secrets


def test_secrets_show_their_mask_wherever_they_stand() -> None:
    secret = Secret("hunter2-hunter2")
    line = logged("target %s", secret, secret=secret, deep={"list": [secret, (secret,)]}, text=f"{secret}")
    assert "hunter2" not in str(line)
    assert line["deep"] == {"list": ["[secret]", ["[secret]"]]}


@pytest.mark.parametrize("name", ["authorization", "Api-Key", "X-API-Key", "cookie", "Set-Cookie", "x_api_key"])
def test_values_of_sensitive_headers_are_masked(name: str) -> None:
    raw = name.encode()
    line = logged(
        "request",
        headers={name: "opaque-value", "host": "a"},
        pairs=[(raw, b"opaque-value"), (b"host", b"a")],
        nested={"head": {raw: b"opaque-value"}},
    )
    assert "opaque-value" not in str(line)
    assert line["headers"] == {name: "[secret]", "host": "a"}
    assert line["pairs"] == [[name, "[secret]"], ["host", "a"]]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"key {GATEWAY_KEY} refused", "key kt_gk_[secret] refused"),
        (f"x_{GATEWAY_KEY}", "x_kt_gk_[secret]"),
        ("key kt_gk_4fJq81 refused", "key kt_gk_4fJq81 refused"),
        (f"got '{PROVIDER_KEY}'", "got 'sk-[secret]'"),
        ("task-force-of-a-long-name", "task-force-of-a-long-name"),
        ("Authorization: Bearer abc", "Authorization: [secret]"),
        ("sent Bearer abcdefgh12 to it", "sent Bearer [secret] to it"),
        ("{'api-key': 'abc', 'host': 'x'}", "{'api-key': '[secret]', 'host': 'x'}"),
        ("[(b'cookie', b'abc'), (b'host', b'x')]", "[(b'cookie', b'[secret]'), (b'host', b'x')]"),
        ("missing api_key, using none", "missing api_key, using none"),
        ("https://user:pass@proxy:3128/", "https://[secret]@proxy:3128/"),
        ("mail to a@b.example", "mail to a@b.example"),
        ("AIzaSyA-1234567890abcdefghijklmnopqrstu", "AIza[secret]"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIA[secret]"),
    ],
)
def test_what_looks_like_a_key_is_masked(text: str, masked: str) -> None:
    line = logged("%s", text, field=text, deep=[{"a": text}], raw=text.encode(), **{"names": {text: 1}})
    assert line["event"] == masked
    assert line["field"] == masked
    assert line["deep"] == [{"a": masked}]
    assert line["raw"] == masked
    assert line["names"] == {masked: 1}


def test_a_key_across_the_cut_is_masked_too() -> None:
    text = "x" * (logs.MAX_TEXT - 20) + " " + GATEWAY_KEY
    assert GATEWAY_KEY[:18] not in str(logged("long", text=text)["text"])


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_surroundings_hide_a_key(before: str, after: str) -> None:
    masked = logs.mask(f"{before} {GATEWAY_KEY} {after}")
    assert GATEWAY_KEY not in masked


# Whatever is logged


class Unprintable:
    """An object that cannot even say what it is."""

    def __repr__(self) -> str:
        raise RuntimeError


def test_odd_values_are_logged_somehow() -> None:
    line = logged(
        "odd",
        big=1 << 80,
        nan=float("nan"),
        surrogate="\ud800",
        thing=Path("/x"),
        broken=Unprintable(),
        set={1},
        key={1: 2, b"b": 3},
        long="y" * 100_000,
    )
    assert line["big"] == str(1 << 80)
    assert line["nan"] is None
    assert line["surrogate"] == "\\ud800"
    assert line["thing"] == "PosixPath('/x')"
    assert line["broken"] == "<Unprintable that cannot be printed>"
    assert line["set"] == [1]
    assert line["key"] == {"1": 2, "b": 3}
    assert line["long"] == "y" * logs.MAX_TEXT + "… (100000 characters)"
    assert logged("%d of them", "many")["event"] == "%d of them (with arguments that do not fit)"
    deep: list[object] = []
    deep.append(deep)
    assert "…" in str(logged("deep", deep=deep))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.binary(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), json_values)
def test_every_line_is_valid_json(event: str, value: object) -> None:
    record = logging.LogRecord("gateway", logging.INFO, "", 0, "%s", (event,), None)
    record.value = value
    text = logs.JSONFormatter().format(record)
    assert "\n" not in text
    assert set(orjson.loads(text)) == {"ts", "level", "logger", "event", "value"}


@given(st.text(), json_values)
def test_every_text_line_is_one_line(event: str, value: object) -> None:
    record = logging.LogRecord("gateway", logging.INFO, "", 0, "%s", (event,), None)
    record.value = value
    assert len(logs.TextFormatter().format(record).splitlines()) == 1


def test_fields_are_told_as_they_were_when_logged() -> None:
    stream = io.StringIO()
    configured = logs.configure("info", "json", stream)
    state = {"phase": "relaying"}
    log.info("stuck", extra={"state": state})
    state["phase"] = "ended"
    configured.close()
    assert lines(stream)[0]["state"] == {"phase": "relaying"}


# A log that nobody reads


def test_a_full_pipe_drops_lines_and_says_so_later() -> None:
    read, write = os.pipe()
    drops: list[None] = []
    with os.fdopen(write, "w") as stream, os.fdopen(read) as reader:
        configured = logs.configure("info", "json", stream, on_drop=lambda: drops.append(None), max_queue=100)
        for number in range(2000):
            log.info("line", extra={"number": number, "filler": "x" * 100})
        assert configured.dropped == len(drops) > 500
        found: list[dict[str, object]] = []

        def drain() -> None:
            found.extend(orjson.loads(line) for line in reader)

        thread = threading.Thread(target=drain)
        thread.start()
        configured.close()
        stream.close()
        thread.join()
    told = [line for line in found if line["event"] == "log lines dropped"]
    assert sum(int(str(line["lines"])) for line in told) == configured.dropped
    assert len(found) - len(told) + configured.dropped == 2000


def test_a_stream_that_is_gone_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", buffering=1)
    configured = logs.configure("info", "json", stream)
    log.info("into the void")
    configured.close()
    stream.close()
    assert capfd.readouterr().err == ""


SCRIPT = """
import logging, sys
from gateway import logs
logs.configure("info", "json")
log = logging.getLogger("gateway.worker")
for number in range(200):
    log.info("line", extra={"number": number})
sys.exit(3)
"""


def test_what_was_logged_last_is_written_before_the_process_ends() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert [orjson.loads(line)["number"] for line in done.stderr.splitlines()] == list(range(200))


def test_a_process_whose_log_nobody_reads_ends_all_the_same() -> None:
    script = SCRIPT.replace("range(200)", "range(20_000)")
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE)
    assert process.wait(timeout=30) == 3
    assert process.stderr is not None
    process.stderr.close()
