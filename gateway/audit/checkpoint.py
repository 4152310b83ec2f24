"""Checkpoints: signed statements of where a chain stood, to be kept where the log's own keeper cannot reach.

A line is `{"checkpoint":{...},"signature":"<hex>"}`; the signature is Ed25519 (RFC 8032) over `DOMAIN` and the bytes of
the checkpoint as they stand in the line. Where a secret was begun, `"mac"` follows, made over the same bytes with a key
that is gone afterwards (`ratchet`). Only what is on the disk already is signed, so that no crash makes a statement
false. This module signs and checks statements; whether a log agrees with them is the business of `verify`. Everything
here blocks: it belongs in the writer thread, never on an event loop.
"""

from __future__ import annotations

import errno
import fcntl
import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import msgspec

from gateway.audit.chain import Chain, Malformed
from gateway.audit.layout import FORMAT_VERSION, MANIFEST, Digest, decode, encode, microseconds
from gateway.audit.ratchet import Ratchet, advance_ratchet, begin_ratchet, read_ratchet, secret_path

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

logger = logging.getLogger("gateway.audit")

CHECKPOINTS = "checkpoints.jsonl"
"""The file in the audit folder, shared by all writers."""

DOMAIN = b"keeptrusts audit checkpoint 1\n"
"""Stands before what is signed, so that the key's signature on anything else is none on a checkpoint."""

_LINE = re.compile(rb'\{"checkpoint":(\{.*\}),"signature":"([0-9a-f]{128})"(?:,"mac":"([0-9a-f]{64})")?\}')


class Checkpoint(msgspec.Struct, frozen=True):
    """Where a chain stood: line `sequence` of `writer` has this hash. `number` is the line in the checkpoint file,
    counted from one; `file` the segment, or the manifest, whose `writer` is empty; `key` names the key."""

    version: int
    number: int
    writer: str
    file: str
    sequence: int
    hash: Digest
    at: int
    key: str


_decoder = msgspec.json.Decoder(Checkpoint)


class Position(NamedTuple):
    """The end of a chain and the file it lies in, to be signed. The manifest is the chain without a writer."""

    writer: str
    file: str
    chain: Chain

    @classmethod
    def of_manifest(cls, chain: Chain) -> Position:
        return cls("", MANIFEST, chain)


def private_key(path: Path) -> Ed25519PrivateKey:
    """The signing key, made on first use with mode 0600, its public half beside it (`.pub`, PEM).

    Several processes may ask at once; they get the same. Raises OSError, and ValueError where the file holds no such
    key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _place(path, pem, 0o600)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no private key that can be used without a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is not an Ed25519 key")
    public = public_path(path)
    if not public.exists():
        _place(public, public_pem(key.public_key()), 0o644)
    return key


def public_path(path: Path) -> Path:
    """Where the public half of a signing key lies."""
    return path.with_suffix(".pub")


def _place(path: Path, content: bytes, mode: int) -> None:
    """Write a new file whole; one that has come meanwhile stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def public_pem(key: Ed25519PublicKey) -> bytes:
    """A public key as `--public-key` takes it."""
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A public key from its PEM file. Raises OSError, ValueError where the file holds something else."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} is not an Ed25519 key")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """A short name of a key: 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


@final
class Notary:
    """Signs positions into the checkpoint file. It never raises: a log goes on without checkpoints, and says so.

    What could not be signed is signed by the next checkpoint of the same chain, which covers all lines before it.
    """

    __slots__ = ("_id", "_key", "_key_path", "_path", "failing")

    def __init__(self, folder: Path, key_path: Path) -> None:
        """`folder` is the audit folder, `key_path` the private key's place."""
        self.failing = False
        self._path = folder / CHECKPOINTS
        self._key_path = key_path
        self._key: Ed25519PrivateKey | None = None
        self._id = ""

    def prepare(self) -> None:
        """Fetch the key, or make it, ahead of the first checkpoint."""
        self.sign((), 0.0)

    def sign(self, positions: Iterable[Position], now: float) -> bool:
        """Sign positions of lines that are on the disk. `now` is in Unix seconds. False where it could not be done."""
        try:
            self._sign(list(positions), now)
        except Exception as error:
            # The segment is sealed or written by now: whatever is wrong here must not make the writer do that again.
            if not self.failing:
                logger.error("no checkpoint of the audit log can be made: %s", error)
            self.failing = True
            return False
        self.failing = False
        return True

    def _sign(self, positions: list[Position], now: float) -> None:
        key = self._key
        if key is None:
            key = private_key(self._key_path)
            self._id, self._key = key_id(key.public_key()), key
        if not positions:
            return
        with _held(self._path) as file:
            ratchet = read_ratchet(secret_path(self._key_path))
            # A checkpoint file that is gone does not begin anew: the secret cannot go back.
            first = max(file.last + 1, ratchet.number if ratchet else 1)
            lines: list[bytes] = []
            for number, position in enumerate(positions, first):
                ratchet = ratchet.at(number) if ratchet else None
                lines.append(self._line(key, position, number, microseconds(now), ratchet))
            file.append(b"".join(lines))
            if ratchet:
                advance_ratchet(secret_path(self._key_path), ratchet.at(ratchet.number + 1))

    def _line(self, key: Ed25519PrivateKey, position: Position, number: int, at: int, ratchet: Ratchet | None) -> bytes:
        writer, file, chain = position
        statement = encode(
            Checkpoint(FORMAT_VERSION, number, writer, file, chain.sequence - 1, chain.hash.hex(), at, self._id)
        )
        signed = DOMAIN + statement
        mac = b',"mac":"%b"' % ratchet.authenticate(signed).hex().encode() if ratchet else b""
        return b'{"checkpoint":%b,"signature":"%b"%b}\n' % (statement, key.sign(signed).hex().encode(), mac)


def begin_secret(folder: Path, key_path: Path) -> Ratchet:
    """Begin to authenticate checkpoints, from the next one on; the first key, to be kept elsewhere.

    Raises FileExistsError where that was begun already, OSError.
    """
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    with _held(folder / CHECKPOINTS) as file:
        ratchet = Ratchet.fresh(file.last + 1)
        begin_ratchet(secret_path(key_path), ratchet)
        return ratchet


_TAIL_BYTES = 4096
"""More than one line."""


class _CheckpointFile:
    """The open and locked checkpoint file, without a line that a crash left unfinished. `last` is the last number."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        size = os.fstat(fd).st_size
        start = max(0, size - _TAIL_BYTES)
        tail = os.pread(fd, size - start, start)
        whole = tail.rfind(b"\n") + 1
        if whole != len(tail):
            size = start + whole
            os.ftruncate(fd, size)
        self.last = _number_of(tail[:whole])
        self._size = size

    def append(self, lines: bytes) -> None:
        """Write lines through to the disk. Raises OSError: the file is as it was."""
        try:
            if os.write(self._fd, lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), CHECKPOINTS)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise


@contextmanager
def _held(path: Path) -> Iterator[_CheckpointFile]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield _CheckpointFile(fd)
    finally:
        os.close(fd)


def _number_of(tail: bytes) -> int:
    """The number of the last line. Where somebody was at it, zero: `verify` names the place, whatever follows."""
    if not tail:
        return 0
    try:
        return parse_checkpoint(tail[:-1].rpartition(b"\n")[2]).checkpoint.number
    except Malformed:
        return 0


class SignedLine(NamedTuple):
    """A line of the checkpoint file, taken apart. `signed` are the bytes that signature and mac are over."""

    checkpoint: Checkpoint
    signed: bytes
    signature: bytes
    mac: bytes | None


def parse_checkpoint(line: bytes) -> SignedLine:
    """Take one line, without its line feed, apart. Raises Malformed."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise Malformed("not a checkpoint")
    mac = bytes.fromhex(match[3].decode("ascii")) if match[3] else None
    signature = bytes.fromhex(match[2].decode("ascii"))
    return SignedLine(decode(_decoder, match[1]), DOMAIN + match[1], signature, mac)


def read_checkpoints(path: Path) -> bytes:
    """The checkpoint file as it stands between two writes. Raises OSError."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        except OSError as error:
            # A copy on a file system without locks has no writer either.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        return file.read()


class BadCheckpoint(NamedTuple):
    """A line of the checkpoint file that proves nothing. `expected` is the number that it should have."""

    reason: str
    expected: int
    found: int | None = None


def check_signatures(
    data: bytes, key: Ed25519PublicKey | None, secret: Ratchet | None
) -> Iterator[Checkpoint | BadCheckpoint]:
    """Every line of a checkpoint file, judged by itself and by its number; an unfinished last line is a bad one.

    `secret` is a first key. Lines before it prove something only with a public key, and are left out without one.
    """
    *lines, rest = data.split(b"\n")
    for expected, text in enumerate(lines, 1):
        try:
            line = parse_checkpoint(text)
        except Malformed as error:
            yield BadCheckpoint(str(error), expected)
            continue
        number = line.checkpoint.number
        reason = _signature_fault(line, key)
        if secret is not None and expected >= secret.number and reason is None:
            secret = secret.at(expected)
            if line.mac is None or not hmac.compare_digest(line.mac, secret.authenticate(line.signed)):
                reason = "no mac" if line.mac is None else "the mac does not match"
        if number != expected and reason in (None, "the mac does not match"):
            yield BadCheckpoint(f"checkpoint {number}", expected, number)
        elif reason is not None:
            yield BadCheckpoint(reason, expected)
        elif key is not None or (secret is not None and expected >= secret.number):
            yield line.checkpoint
    if rest:
        yield BadCheckpoint("the file ends inside a line", len(lines) + 1)


def _signature_fault(line: SignedLine, key: Ed25519PublicKey | None) -> str | None:
    from cryptography.exceptions import InvalidSignature

    if key is None:
        return None
    try:
        key.verify(line.signature, line.signed)
    except InvalidSignature:
        return "signed with another key" if line.checkpoint.key != key_id(key) else "the signature does not match"
    return None
