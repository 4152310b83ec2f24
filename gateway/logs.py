"""Structured logs: one JSON object a line on stderr, through the standard library's `logging`.

A line is an event and fields: `log.info("worker started", extra={"worker": 3})`. Events are constant texts; whatever
varies is a field. No secret and no prompt belongs in either. That is the caller's duty; this module is the last line of
defence: a `Secret` shows its mask, sensitive header fields lose their value, whatever looks like a key is masked
wherever it stands, and every text is cut at `MAX_TEXT`.

Nobody who logs waits for the log's reader: lines go through a bounded queue to one writing thread, and are dropped and
counted when the queue is full. A line costs its caller 13 µs, most of it in `logging` itself.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import io
import logging
import logging.handlers
import os
import queue
import re
import select
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

import orjson

from gateway.secrets import MASK, Secret

Format = Literal["json", "text"]
_Lines = queue.Queue["logging.LogRecord | None"]

MAX_TEXT = 4096
"""Characters of one text."""

MAX_TRACEBACK = 16_384
"""Characters of an exception with its traceback."""

MAX_QUEUE = 10_000
"""Lines on their way to the writer: a few megabytes."""

_MAX_DEPTH = 6
_CLOSE_SECONDS = 2.0

SENSITIVE = frozenset(
    ("authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie", "set-cookie")
)
"""Header fields, and names of fields, whose values are never logged. Underscores count as hyphens."""

# Gateway keys and the best-known providers' own keys. Sixteen characters, so that the short prefix by which people
# recognise a key in lists and logs stays legible.
_KEYS = re.compile(r"(?<![A-Za-z0-9])(kt_gk_|sk-|gsk_|xai-|hf_|pplx-|AIza|AKIA|ASIA|ya29\.)[A-Za-z0-9_\-]{16,}")
_CREDENTIALS = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=\-]{8,}", re.IGNORECASE)
_USERINFO = re.compile(r"://[^/\s@]+@")
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:x-)?(?:goog-)?api[-_]key|(?:set-)?cookie)"
    r"(['\"]?\s*[:=]\s*(?:b?['\"])?|['\"],\s*b?['\"])[^'\"\r\n]+",
    re.IGNORECASE,
)

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def mask(text: str) -> str:
    """The text without whatever in it looks like a key, a credential or a sensitive header's value."""
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    text = _CREDENTIALS.sub(rf"\1 {MASK}", text)
    text = _USERINFO.sub(f"://{MASK}@", text)
    return _KEYS.sub(rf"\1{MASK}", text)


def clean(value: object, depth: int = 0) -> object:
    """A value as it may be logged: JSON types only, masked and cut."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else str(value)  # beyond, JSON's readers lose digits
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes | bytearray):
        return _text(value.decode("latin-1"))
    if depth == _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {_text(_name(name)): _field(name, item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_item(item, depth + 1) for item in value]
    try:
        return _text(repr(value))
    except Exception:
        return f"<{type(value).__name__} that cannot be printed>"


def _name(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _field(name: object, value: object, depth: int = 0) -> object:
    return MASK if _name(name).lower().replace("_", "-") in SENSITIVE else clean(value, depth)


def _item(item: object, depth: int) -> object:
    """An element of a list; a pair whose first half names a header is a header."""
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str | bytes):
        return [clean(item[0], depth), _field(item[0], item[1], depth)]
    return clean(item, depth)


def _text(text: str, limit: int = MAX_TEXT) -> str:
    # Masked before it is cut: half a key is not recognised as one. But not much more than what will be shown, for a
    # text of megabytes would keep the writer busy.
    shown = mask(text[: 2 * limit])
    if len(shown) > limit or len(text) > 2 * limit:
        shown = f"{shown[:limit]}… ({len(text)} characters)"
    return shown.encode("utf-8", "backslashreplace").decode()  # lone surrogates are no UTF-8


class JSONFormatter(logging.Formatter):
    """`ts` (RFC 3339, UTC, milliseconds), `level`, `logger`, `event`, then the fields; `exception` last."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": clean(record.getMessage()),
        }
        for name, value in _fields(record).items():
            line.setdefault(name, value)
        if record.exc_text:
            line["exception"] = _text(record.exc_text, MAX_TRACEBACK)
        return orjson.dumps(line).decode()


class TextFormatter(logging.Formatter):
    """For a terminal: time of day, level, logger, event, `name=value`. One line an event, save for tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        event = _one_line(str(clean(record.getMessage())))
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        line = f"{_timestamp(record)[11:23]} {record.levelname:<8} {record.name}: {event}{fields}"
        return f"{line}\n{_text(record.exc_text, MAX_TRACEBACK)}" if record.exc_text else line


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: _field(name, value) for name, value in vars(record).items() if name not in _STANDARD}


def _shown(value: object) -> str:
    """A value beside its name: quoted where it could be taken for something else."""
    if isinstance(value, str) and re.fullmatch(r"[^\s\"'=\x00-\x1f\x7f-\x9f]+", value):
        return value
    return _one_line(orjson.dumps(value).decode())


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: repr(match[0])[1:-1], text)


class _Enqueue(logging.handlers.QueueHandler):
    """Hands lines to the writing thread; never waits."""

    def __init__(self, lines: _Lines, on_drop: Callable[[], object]) -> None:
        super().__init__(lines)
        self.dropped = 0
        self._on_drop = on_drop

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Fix what may change or must not be kept alive by the queue: the arguments, and an exception's frames."""
        record = copy.copy(record)
        try:
            record.msg = record.getMessage()
        except Exception:
            record.msg = f"{record.msg} (with arguments that do not fit)"
        record.args = None
        if record.exc_info:
            record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        for name, value in vars(record).items():
            if name not in _STANDARD and not isinstance(value, str | bytes | int | float | None):
                setattr(record, name, _field(name, value))
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Drop the line when there is no room."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            self._on_drop()


class Logs:
    """The logging of this process while it is configured."""

    def __init__(self, enqueue: _Enqueue, lines: _Lines, formatter: logging.Formatter, stream: TextIO) -> None:
        self._enqueue = enqueue
        self._lines = lines
        self._formatter = formatter
        self._stream = stream
        self._told = 0
        self._writer = threading.Thread(target=self._run, name="logs", daemon=True)
        self._writer.start()

    @property
    def dropped(self) -> int:
        """Lines thrown away so far because the queue was full."""
        return self._enqueue.dropped

    def close(self) -> None:
        """Write what is queued, for at most two seconds, and stop. Idempotent; called when the interpreter ends."""
        atexit.unregister(self.close)
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(self._enqueue)
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_CLOSE_SECONDS / 2)
            self._writer.join(_CLOSE_SECONDS / 2)

    def _run(self) -> None:
        while (record := self._lines.get()) is not None:
            missing = self._enqueue.dropped - self._told
            if missing:
                self._told += missing
                self._write(_dropped(missing))
            self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        # A stream that is gone is no reason to stop serving, and nobody is left to be told.
        with contextlib.suppress(OSError, ValueError):
            _put(self._stream, self._formatter.format(record) + "\n")


def _dropped(lines: int) -> logging.LogRecord:
    record = logging.LogRecord(__name__, logging.WARNING, "", 0, "log lines dropped", None, None)
    record.lines = lines
    return record


def _put(stream: TextIO, text: str) -> None:
    """Write to the file beneath the stream: whoever is stuck in the stream's own buffer keeps its lock, and with it
    the interpreter from ending."""
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        stream.write(text)
        return
    data = memoryview(text.encode())
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program has made the shared terminal or pipe non-blocking
            select.select((), (descriptor,), ())


_current: Logs | None = None


def configure(
    level: str = "info",
    format: Format = "json",
    stream: TextIO | None = None,
    *,
    on_drop: Callable[[], object] = lambda: None,
    max_queue: int = MAX_QUEUE,
) -> Logs:
    """Send all logging of this process to `stream` (default stderr). A second call replaces the first.

    `on_drop` is called for every dropped line, in the thread that logged. Call it in the process that logs: the writing
    thread does not survive a fork.
    """
    global _current
    if _current is not None:
        _current.close()
    lines: _Lines = queue.Queue(max_queue)
    enqueue = _Enqueue(lines, on_drop)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(enqueue)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    formatter = JSONFormatter() if format == "json" else TextFormatter()
    _current = Logs(enqueue, lines, formatter, stream or sys.stderr)
    atexit.register(_current.close)
    return _current
