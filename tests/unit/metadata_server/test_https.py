"""HTTPS with client certificates, and the encrypted certificate for the instance."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import ssl
from pathlib import Path

import pytest

from metadata_server import Emulator
from metadata_server.credentials import aes_gcm_encrypt, credentials_source, unsealed
from metadata_server.tls import TlsFiles, generate

from .conftest import FLAVOR, ask_host

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return generate(str(tmp_path_factory.mktemp("tls")))


def _context(files: TlsFiles, *, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.path("root.crt"))
    if certificate:
        context.load_cert_chain(files.path("client.key"))
    return context


def _ask(mds: Emulator, context: ssl.SSLContext, path: str = "instance/name") -> bytes:
    connection = http.client.HTTPSConnection("127.0.0.1", mds.tls_port, context=context, timeout=20)
    try:
        connection.request("GET", f"/computeMetadata/v1/{path}", headers=FLAVOR)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_client_with_certificate_is_served(files: TlsFiles) -> None:
    with Emulator(tls=files) as mds:
        assert _ask(mds, _context(files)) == b"demo-1"
        assert mds.requests()[0].tls
        assert ask_host(mds.host, "instance/name").text == "demo-1"


def test_client_without_certificate_is_not(files: TlsFiles) -> None:
    with Emulator(tls=files) as mds:
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            _ask(mds, _context(files, certificate=False))
        assert mds.requests() == []


def test_long_poll_over_https_wakes(files: TlsFiles) -> None:
    import threading

    with Emulator(tls=files) as mds:
        threading.Timer(0.1, lambda: mds.set("instance/name", "renamed")).start()
        path = "instance/name?wait_for_change=true&timeout_sec=10"
        assert _ask(mds, _context(files), path) == b"renamed"


def test_plain_http_on_the_https_port_is_survived(files: TlsFiles) -> None:
    with Emulator(tls=files) as mds:
        with pytest.raises((OSError, http.client.HTTPException)):
            ask_host(f"127.0.0.1:{mds.tls_port}", "instance/name")
        assert _ask(mds, _context(files)) == b"demo-1"


def test_existing_certificates_are_kept(files: TlsFiles) -> None:
    before = Path(files.path("root.crt")).read_bytes()
    generate(files.directory)
    assert Path(files.path("root.crt")).read_bytes() == before


def test_keys_are_for_their_owner_only(files: TlsFiles) -> None:
    for name in ("root.key", "server.key", "client.key"):
        assert Path(files.path(name)).stat().st_mode & 0o077 == 0


# Vectors of the GCM specification (cases 13, 14 and 15: 256-bit keys).
@pytest.mark.parametrize(
    ("key", "nonce", "plaintext", "expected"),
    [
        ("00" * 32, "00" * 12, "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            "00" * 32,
            "00" * 12,
            "00" * 16,
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
        ),
        (
            "feffe9928665731c6d6a8f9467308308" * 2,
            "cafebabefacedbaddecaf888",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
            "b094dac5d93471bdec1a502270e3cc6c",
        ),
    ],
)
def test_encryption_agrees_with_the_specification(
    key: str, nonce: str, plaintext: str, expected: str
) -> None:
    sealed = aes_gcm_encrypt(*(bytes.fromhex(text) for text in (key, nonce, plaintext)))
    assert sealed.hex() == expected


def test_instance_certificate_is_absent_unless_served(files: TlsFiles) -> None:
    path = "instance/credentials/mds-client-certificate"
    with Emulator() as mds:
        assert ask_host(mds.host, path).status == 404
        mds.serve_credentials(credentials_source(files, unsealed))
        document = json.loads(ask_host(mds.host, path).body)
        assert sorted(document) == ["encryptedCredentials", "keyImportBlob"]
        assert "encryptedCredentials" not in ask_host(mds.host, "?recursive=true").text
        key = base64.b64decode(document["keyImportBlob"]["duplicate"])
        sealed = base64.b64decode(document["encryptedCredentials"])
        pem = Path(files.path("client.key")).read_bytes()
        assert sealed[12:] == aes_gcm_encrypt(key, sealed[:12], pem)
