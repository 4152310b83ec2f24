"""Certificates from files: which are taken, and that a wrong renewal changes nothing."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from gateway.config.schema import TLS, TLSVersion
from gateway.downstream.certificate import Certificate, CertificateInvalid, check


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def settings(tmp_path: Path, authority: trustme.CA) -> TLS:
    return issue(tmp_path, authority, "gateway.test")


def issue(folder: Path, authority: trustme.CA, *names: str, key: bool = True) -> TLS:
    """A certificate in the two files of a folder; without `key` the old key stays."""
    leaf = authority.issue_cert(*names)
    (folder / "cert.pem").write_bytes(b"".join(one.bytes() for one in leaf.cert_chain_pems))
    if key:
        (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    return TLS(cert_file=str(folder / "cert.pem"), key_file=str(folder / "key.pem"))


def served_by(certificate: Certificate, authority: trustme.CA, name: str, **options: ssl.TLSVersion) -> str:
    """The name of the certificate that a client is shown, and that it trusts. No socket: two ends and four pipes."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    for option, version in options.items():
        setattr(trusting, option, version)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    server = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.selected_alpn_protocol() == "http/1.1"
    shown = client.getpeercert()
    assert shown is not None
    return str(shown["subjectAltName"][0][1])


def test_a_certificate(settings: TLS, authority: trustme.CA) -> None:
    assert served_by(Certificate(settings), authority, "gateway.test") == "gateway.test"


def test_no_older_version_than_allowed(settings: TLS, authority: trustme.CA) -> None:
    old, new = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    assert Certificate(settings).context.minimum_version is old
    served_by(Certificate(settings), authority, "gateway.test", maximum_version=old)
    strict = Certificate(TLS(settings.cert_file, settings.key_file, TLSVersion.V1_3))
    served_by(strict, authority, "gateway.test", minimum_version=new)
    with pytest.raises(ssl.SSLError):
        served_by(strict, authority, "gateway.test", maximum_version=old)


def test_renegotiation_and_compression_are_off(settings: TLS) -> None:
    options = Certificate(settings).context.options
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_NO_COMPRESSION


def test_a_renewal(settings: TLS, authority: trustme.CA, tmp_path: Path) -> None:
    certificate = Certificate(settings)
    context = certificate.context
    assert not certificate.renewed()
    issue(tmp_path, authority, "renewed.test")
    assert certificate.renewed()
    assert served_by(certificate, authority, "gateway.test") == "gateway.test"  # not before it is adopted
    certificate.adopt()
    assert certificate.context is context
    assert served_by(certificate, authority, "renewed.test") == "renewed.test"
    assert not certificate.renewed()


def test_half_a_renewal_changes_nothing(settings: TLS, authority: trustme.CA, tmp_path: Path) -> None:
    """The certificate is there and its key is not yet: what serves must not be touched."""
    certificate = Certificate(settings)
    issue(tmp_path, authority, "renewed.test", key=False)
    with pytest.raises(CertificateInvalid, match="the key does not belong to the certificate"):
        certificate.renewed()
    assert not certificate.renewed()  # told once
    assert served_by(certificate, authority, "gateway.test") == "gateway.test"
    issue(tmp_path, authority, "renewed.test")
    assert certificate.renewed()
    certificate.adopt()
    assert served_by(certificate, authority, "renewed.test") == "renewed.test"


def test_files_that_cannot_be_used(settings: TLS, authority: trustme.CA, tmp_path: Path) -> None:
    check(None)
    check(settings)
    wrong = {
        "cannot be read: No such file": lambda: Path(settings.key_file).unlink(),
        "cannot be used": lambda: Path(settings.cert_file).write_text("hello"),
        "the key does not belong": lambda: issue(tmp_path, authority, "x.test", key=False),
    }
    for message, spoil in wrong.items():
        issue(tmp_path, authority, "gateway.test")
        spoil()
        with pytest.raises(CertificateInvalid, match=message):
            check(settings)


def test_a_key_with_a_passphrase_is_refused_and_never_asked_for(settings: TLS) -> None:
    from cryptography.hazmat.primitives import serialization

    path = Path(settings.key_file)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CertificateInvalid, match="it is encrypted"):
        check(settings)


def test_files_that_vanish_leave_the_certificate_in_use(settings: TLS, authority: trustme.CA) -> None:
    certificate = Certificate(settings)
    Path(settings.cert_file).unlink()
    with pytest.raises(CertificateInvalid):
        certificate.renewed()
    assert served_by(certificate, authority, "gateway.test") == "gateway.test"
