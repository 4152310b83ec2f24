"""A log that somebody wrote anew, all hashes included, does not contain what was signed; and `verify` says so."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.chain import GENESIS, Chain, parse
from gateway.audit.checkpoint import (
    CHECKPOINTS,
    DOMAIN,
    Notary,
    Position,
    begin_secret,
    private_key,
    public_path,
    read_public_key,
)
from gateway.audit.layout import MANIFEST
from gateway.audit.ratchet import Ratchet, read_ratchet, secret_path
from gateway.audit.recovery import recover
from gateway.audit.retention import retire
from gateway.audit.segments import SegmentedChain
from gateway.audit.verify import Fault, Problem, Report, verify
from gateway.audit.writer import AuditLog, Checkpoints
from tests.gateway.audit.support import (
    DAY,
    JOURNAL,
    NOON,
    WRITER,
    eventually,
    exchanges,
    finish,
    sealed_log,
    segments,
    start,
)

OLD = "00000000000000aa"
OTHER = "fedcba9876543210"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state") / "audit-key.pem"


@pytest.fixture(scope="module")
def public(key: Path) -> Ed25519PublicKey:
    return private_key(key).public_key()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Path:
    """Three writers: one retired, one sealed in three segments, one whose segment is open; all signed to the end."""
    folder = tmp_path_factory.mktemp("log") / "audit"
    notary = Notary(folder, key)
    sealed_log(folder, OLD, 2, now=NOON - 9 * DAY, notary=notary)
    sealed_log(folder, WRITER, 20, notary=notary)
    assert retire(folder, 5, NOON, notary)
    series = SegmentedChain(folder, OTHER, journal=JOURNAL, notary=notary)
    for number in range(3):
        series.write(exchanges([number]), NOON)
        series.sync()
        assert series.checkpoint(NOON)
    series.close()
    return folder


@contextmanager
def copy_of(original: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "audit"
        shutil.copytree(original, folder)
        for path in folder.iterdir():
            path.chmod(0o640)
        yield folder


def problems(folder: Path, public: Ed25519PublicKey, checkpoints: Path | None = None) -> list[tuple[str, Fault]]:
    found = verify(folder, public_key=public, checkpoints=checkpoints).problems
    return [(problem.file, problem.fault) for problem in found]


def test_an_untouched_log_contains_every_checkpoint(original: Path, public: Ed25519PublicKey) -> None:
    report = verify(original, public_key=public)
    assert report.problems == []
    assert report.checkpoints == len((original / CHECKPOINTS).read_bytes().splitlines()) == 2 * (1 + 3) + 1 + 3
    assert report.unsigned_records == 0


def test_without_a_key_nothing_changes(original: Path) -> None:
    report = verify(original)
    assert (report.ok, report.checkpoints, report.unsigned_records) == (True, 0, None)


def rebuild(folder: Path, change: Callable[[bytes], bytes]) -> None:
    """All segments and the manifest, changed and hashed anew: what a person with write access can do."""
    roots: dict[bytes, bytes] = {}
    chains: dict[str, Chain] = {}
    for path in segments(folder):
        writer = path.name[11:27]
        chain = chains.get(writer, Chain())
        lines: list[bytes] = []
        for line in path.read_bytes().splitlines():
            link = parse(line)
            record = link.record.replace(*_previous(link.record, chain)) if not lines else link.record
            chain, line = chain.extend([change(record)])
            roots[link.hash.hex().encode()] = chain.hash.hex().encode()
            lines.append(line)
        chains[writer] = chain
        path.write_bytes(b"".join(lines))
    manifest = (folder / MANIFEST).read_bytes()
    records = [parse(line).record for line in manifest.splitlines()]
    for old, new in roots.items():
        records = [record.replace(old, new) for record in records]
    (folder / MANIFEST).write_bytes(Chain().extend(records)[1])


def _previous(header: bytes, chain: Chain) -> tuple[bytes, bytes]:
    return json.loads(header)["previous"].encode(), chain.hash.hex().encode()


def test_a_log_that_was_written_anew_is_found_out(original: Path, public: Ed25519PublicKey) -> None:
    with copy_of(original) as folder:
        rebuild(folder, lambda record: record.replace(b'"client":"203.0.113.7"', b'"client":"203.0.113.8"'))
        assert verify(folder).ok
        found = verify(folder, public_key=public).problems
        first = next(problem for problem in found if problem.file == segments(folder)[0].name)
        assert first.fault is Fault.REWRITTEN
        assert first.line == len(segments(folder)[0].read_bytes().splitlines())
        assert (MANIFEST, Fault.REWRITTEN) in problems(folder, public)


def test_a_log_that_was_begun_anew_is_found_out(original: Path, public: Ed25519PublicKey, tmp_path: Path) -> None:
    """Other writers, and the old checkpoints come from elsewhere."""
    forged = tmp_path / "audit"
    sealed_log(forged, "00000000000000cc", 3, notary=Notary(forged, tmp_path / "other.pem"))
    assert verify(forged).ok
    assert (segments(original)[0].name, Fault.REMOVED) in problems(forged, public, original / CHECKPOINTS)
    # Its own checkpoints are by another key.
    report = verify(forged, public_key=public)
    assert report.problems == [Problem(CHECKPOINTS, 1, Fault.ALTERED, "signed with another key")]
    assert report.unsigned_records == 6


def test_newest_lines_cut_off_an_open_segment_are_missed(original: Path, public: Ed25519PublicKey) -> None:
    with copy_of(original) as folder:
        path = next(path for path in segments(folder) if OTHER in path.name)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]))
        assert verify(folder).ok
        assert problems(folder, public) == [(path.name, Fault.REMOVED)]


def test_a_manifest_cut_at_its_end_is_missed(original: Path, public: Ed25519PublicKey) -> None:
    """Without the retirement, which nothing but the manifest tells of."""
    with copy_of(original) as folder:
        lines = (folder / MANIFEST).read_bytes().splitlines(keepends=True)
        assert b'"opened"' in lines.pop()
        assert b'"retired"' in lines.pop()
        (folder / MANIFEST).write_bytes(b"".join(lines))
        assert (MANIFEST, Fault.REMOVED) in problems(folder, public)


@pytest.mark.parametrize("forged", [False, True])
def test_a_retired_segment_must_have_had_the_root_that_was_signed(
    tmp_path: Path, key: Path, public: Ed25519PublicKey, forged: bool
) -> None:
    folder = tmp_path / "audit"
    sealed_log(folder, OLD, 2, now=NOON - 9 * DAY)
    (path,) = segments(folder)
    link = parse(path.read_bytes().splitlines()[-1])
    end = Chain(link.sequence + 1, GENESIS if forged else link.hash)
    assert Notary(folder, key).sign([Position(OLD, path.name, Chain(2)), Position(OLD, path.name, end)], NOON)
    assert retire(folder, 5, NOON)
    assert problems(folder, public) == ([(path.name, Fault.REWRITTEN)] if forged else [])


def test_records_after_the_last_checkpoint_are_counted(
    original: Path, public: Ed25519PublicKey, tmp_path: Path, key: Path
) -> None:
    series = SegmentedChain(tmp_path / "audit", WRITER, journal=JOURNAL, notary=Notary(tmp_path / "audit", key))
    series.write(exchanges([1, 2]), NOON)
    series.sync()
    series.checkpoint(NOON)
    series.write(exchanges([3]), NOON)
    report = verify(tmp_path / "audit", public_key=public)
    series.close()
    assert (report.problems, report.checkpoints, report.unsigned_records) == ([], 1, 2)


def test_a_log_from_before_there_were_checkpoints(public: Ed25519PublicKey, tmp_path: Path, key: Path) -> None:
    folder = tmp_path / "audit"
    sealed_log(folder, OLD, 2)
    assert verify(folder).ok
    assert problems(folder, public) == [(CHECKPOINTS, Fault.MISSING)]
    sealed_log(folder, WRITER, 2, notary=Notary(folder, key))
    report = verify(folder, public_key=public)
    assert (report.problems, report.unsigned_records) == ([], 4)


# What can be done to the checkpoint file.


def tampered(original: Path, public: Ed25519PublicKey, content: bytes) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shipped.jsonl"
        path.write_bytes(content)
        return verify(original, public_key=public, checkpoints=path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0), st.integers(1, 255))
def test_a_changed_byte_of_a_checkpoint_is_found_in_its_line(
    original: Path, public: Ed25519PublicKey, at: int, change: int
) -> None:
    content = bytearray((original / CHECKPOINTS).read_bytes())
    at %= len(content)
    line = content[:at].count(b"\n") + 1
    content[at] ^= change
    (problem,) = tampered(original, public, bytes(content)).problems
    assert (problem.file, problem.line) == ("shipped.jsonl", line)


@pytest.mark.parametrize(
    ("change", "line", "fault"),
    [
        (lambda lines: lines.pop(3), 4, Fault.REMOVED),
        (lambda lines: lines.insert(5, lines[3]), 6, Fault.DUPLICATED),
        (lambda lines: lines.insert(3, lines.pop(5)), 4, Fault.REMOVED),
        (lambda lines: lines.__setitem__(3, lines[3].replace(b'"number":4', b'"number":5')), 4, Fault.ALTERED),
        (lambda lines: lines.__setitem__(3, lines[3].replace(b'"sequence":', b'"sequence":1')), 4, Fault.ALTERED),
        (lambda lines: lines.__setitem__(-1, lines[-1][:-9]), 12, Fault.ALTERED),
        (lambda lines: lines.clear(), None, Fault.TRUNCATED),
    ],
)
def test_what_was_done_to_the_checkpoints_is_named(
    original: Path, public: Ed25519PublicKey, change: Callable[[list[bytes]], object], line: int | None, fault: Fault
) -> None:
    lines = (original / CHECKPOINTS).read_bytes().splitlines(keepends=True)
    change(lines)
    (problem,) = tampered(original, public, b"".join(lines)).problems
    assert (problem.line, problem.fault) == (line, fault)


# The secret that moves forward.


@pytest.fixture
def authenticated(tmp_path: Path) -> tuple[Path, Path, Ratchet]:
    """A log, two checkpoints of which were made before the secret was begun; its key; and the first secret."""
    folder, key = tmp_path / "audit", tmp_path / "audit-key.pem"
    sealed_log(folder, OLD, 2, notary=Notary(folder, key))
    first = begin_secret(folder, key)
    sealed_log(folder, WRITER, 20, notary=Notary(folder, key))
    return folder, key, first


def test_every_checkpoint_from_the_first_secret_on_has_a_mac(authenticated: tuple[Path, Path, Ratchet]) -> None:
    folder, key, first = authenticated
    report = verify(folder, secret=first)
    assert (report.problems, report.checkpoints) == ([], 6)
    assert verify(folder, secret=first, public_key=private_key(key).public_key()).checkpoints == 8
    assert first.number == 3


def test_the_secret_that_is_there_is_not_one_that_was_used(authenticated: tuple[Path, Path, Ratchet]) -> None:
    _, key, first = authenticated
    path = secret_path(key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_ratchet(path) == first.at(9)
    with pytest.raises(ValueError, match="cannot be moved"):
        first.at(9).at(8)


def test_who_takes_the_gateway_over_cannot_sign_the_past_anew(authenticated: tuple[Path, Path, Ratchet]) -> None:
    """With the private key, and with the secret as it stands now, in the place of the first."""
    folder, key, first = authenticated
    forged = folder.with_name("forged")
    now = read_ratchet(secret_path(key))
    assert now is not None
    shutil.copytree(folder, forged)
    for path in forged.iterdir():
        path.chmod(0o640)
    (forged / CHECKPOINTS).unlink()
    rebuild(forged, lambda record: record.replace(b"203.0.113.7", b"203.0.113.8"))
    secret_path(key).write_text(str(Ratchet(1, now.key)))
    notary = Notary(forged, key)
    for path in segments(forged):
        link = parse(path.read_bytes().splitlines()[-1])
        end = Chain(link.sequence + 1, link.hash)
        manifest = Position.of_manifest(Chain(1, _first(forged)))
        assert notary.sign([Position(path.name[11:27], path.name, end), manifest], NOON)
    assert verify(forged, public_key=private_key(key).public_key()).ok
    assert verify(forged, secret=first).problems[-1] == Problem(CHECKPOINTS, 3, Fault.ALTERED, "the mac does not match")


def _first(folder: Path) -> bytes:
    return parse((folder / MANIFEST).read_bytes().splitlines()[0]).hash


def test_a_mac_that_was_left_out_is_missed(authenticated: tuple[Path, Path, Ratchet]) -> None:
    folder, key, first = authenticated
    secret_path(key).unlink()
    sealed_log(folder, OTHER, 2, notary=Notary(folder, key))
    assert verify(folder, secret=first).problems == [Problem(CHECKPOINTS, 9, Fault.ALTERED, "no mac")]


def test_a_secret_that_a_crash_left_behind_catches_up(authenticated: tuple[Path, Path, Ratchet]) -> None:
    """The line was on the disk, the next key was not."""
    folder, key, first = authenticated
    secret_path(key).write_text(str(first.at(7)))
    sealed_log(folder, OTHER, 2, notary=Notary(folder, key))
    assert verify(folder, secret=first).problems == []


def test_a_checkpoint_file_that_is_gone_does_not_begin_anew(authenticated: tuple[Path, Path, Ratchet]) -> None:
    folder, key, first = authenticated
    (folder / CHECKPOINTS).unlink()
    sealed_log(folder, OTHER, 2, notary=Notary(folder, key))
    assert [(one.line, one.fault) for one in verify(folder, secret=first).problems] == [(1, Fault.REMOVED)]


# The key.


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit-key.pem"
    made: list[Ed25519PrivateKey] = []
    threads = [threading.Thread(target=lambda: made.append(private_key(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.private_bytes_raw() for key in made}) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_public_key(public_path(path)) == made[0].public_key()
    assert sorted(one.name for one in path.parent.iterdir()) == ["audit-key.pem", "audit-key.pub"]


def test_a_signature_can_be_checked_without_this_program(original: Path, key: Path) -> None:
    public = load_pem_public_key(public_path(key).read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    for line in (original / CHECKPOINTS).read_bytes().splitlines():
        signed = line[line.index(b":") + 1 : line.index(b',"signature"')]
        public.verify(bytes.fromhex(json.loads(line)["signature"]), DOMAIN + signed)


def locked_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )


def pem_of_another_kind() -> bytes:
    return X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("content", [lambda: b"not a key", locked_pem, pem_of_another_kind])
def test_a_key_that_cannot_be_used_does_not_stop_the_log(tmp_path: Path, content: Callable[[], bytes]) -> None:
    key = tmp_path / "audit-key.pem"
    key.write_bytes(content())
    folder = tmp_path / "audit"
    notary = Notary(folder, key)
    sealed_log(folder, WRITER, 2, notary=notary)
    assert notary.failing
    assert verify(folder).ok
    assert not (folder / CHECKPOINTS).exists()


def test_an_unfinished_checkpoint_is_cut_off_by_the_next(tmp_path: Path, key: Path, public: Ed25519PublicKey) -> None:
    folder = tmp_path / "audit"
    sealed_log(folder, OLD, 2, notary=Notary(folder, key))
    with (folder / CHECKPOINTS).open("ab") as file:
        file.write(b'{"checkpoint":{"ver')
    assert problems(folder, public) == [(CHECKPOINTS, Fault.ALTERED)]
    sealed_log(folder, WRITER, 2, notary=Notary(folder, key))
    assert problems(folder, public) == []


# The writer.


def test_a_writer_signs_as_it_goes(tmp_path: Path, key: Path, public: Ed25519PublicKey) -> None:
    folder = tmp_path / "audit"
    log = AuditLog(folder, tmp_path / "run", 0, key=key, checkpoints=Checkpoints(3600, 2))
    log.start()
    log.append(start("1"))
    log.conclude(finish("1"))
    eventually((folder / CHECKPOINTS).exists)
    report = verify(folder, public_key=public)
    assert (report.problems, report.checkpoints, report.unsigned_records) == ([], 1, 0)
    log.append(start("2"))
    assert log.close()
    report = verify(folder, public_key=public)
    assert (report.problems, report.checkpoints, report.unsigned_records) == ([], 3, 0)


def test_time_alone_makes_a_checkpoint_too(tmp_path: Path, key: Path) -> None:
    log = AuditLog(tmp_path / "audit", tmp_path / "run", 0, key=key, checkpoints=Checkpoints(0, 1 << 40))
    log.start()
    log.append(start("1"))
    eventually((tmp_path / "audit" / CHECKPOINTS).exists)
    assert log.close()


def test_what_recovery_seals_is_signed(tmp_path: Path, key: Path, public: Ed25519PublicKey) -> None:
    folder = tmp_path / "audit"
    series = SegmentedChain(folder, WRITER, journal=str(tmp_path / "lost.journal"))
    series.write(exchanges([1]), NOON)
    series.close()
    assert recover(tmp_path / "run", folder, clock=lambda: NOON, notary=Notary(folder, key)).writers == 1
    report = verify(folder, public_key=public)
    assert (report.problems, report.checkpoints, report.unsigned_records) == ([], 2, 0)
