"""https: certificates, the system's verifier, redirects that lower the protection, proxies."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from unit.scripts.web import Certificate, Page, Web, make_certificate

from googet.settings import Settings
from googet.transport import Transport
from googet.web import TransportError

LIMIT = 1 << 20
HOST = "https://scripts.example.test"
OTHER = "https://other.example.test"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


class Token:
    """Credentials with one token."""

    def token(self) -> str:
        return "t1"

    def optional_token(self) -> Optional[str]:
        return "t1"

    def forget(self, token: str) -> None:
        raise AssertionError("nothing was refused")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def web(certificate: Certificate) -> Iterator[Web]:
    with Web(certificate) as server:
        yield server


@pytest.fixture
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.chain))


def transport(web: Web, **options: Any) -> Transport:
    options = {"environ": web.environment, "credentials": Token(), **options}
    return Transport(Settings(), sleep=lambda seconds: None, **options)


@pytest.mark.usefixtures("trusted")
def test_trusted_server_through_a_proxy(web: Web) -> None:
    web.page(f"{HOST}/x", Page(b"body"))
    assert transport(web).fetch(f"{HOST}/x", limit=LIMIT) == b"body"
    assert web.connects == ["scripts.example.test:443"]


def test_server_that_nobody_vouches_for(web: Web) -> None:
    with pytest.raises(TransportError, match="TLS: ") as caught:
        transport(web).fetch(f"{HOST}/x", limit=LIMIT)
    assert not caught.value.temporary
    assert web.visits == []


@pytest.mark.usefixtures("trusted")
def test_certificate_of_another_host(web: Web) -> None:
    with pytest.raises(TransportError, match=r"TLS: .*wrong\.example\.test"):
        transport(web).fetch("https://wrong.example.test/x", limit=LIMIT)
    assert web.visits == []


def test_system_is_asked_where_openssl_refuses(web: Web, certificate: Certificate) -> None:
    asked = []

    def verifier() -> ssl.SSLContext:
        asked.append(1)
        return ssl.create_default_context(cafile=str(certificate.chain))

    web.page(f"{HOST}/x", Page(b"body"))
    client = transport(web, system_verifier=verifier)
    assert client.fetch(f"{HOST}/x", limit=LIMIT) == b"body"
    assert client.fetch(f"{HOST}/x", limit=LIMIT) == b"body"
    assert asked == [1]


def test_system_may_refuse_too(web: Web) -> None:
    client = transport(web, system_verifier=ssl.create_default_context)
    with pytest.raises(TransportError, match="TLS: "):
        client.fetch(f"{HOST}/x", limit=LIMIT)
    assert web.visits == []


@pytest.mark.usefixtures("trusted")
def test_redirect_to_plain_http_is_refused(web: Web) -> None:
    web.page(f"{HOST}/x", Page(status=302, headers={"Location": "http://other.example.test/y"}))
    web.page("http://other.example.test/y", Page(b"body"))
    with pytest.raises(TransportError, match="redirects from https to http; refused"):
        transport(web).fetch(f"{HOST}/x", limit=LIMIT)
    assert web.urls() == [f"{HOST}/x"]


@pytest.mark.usefixtures("trusted")
def test_redirect_from_plain_http_to_https(web: Web) -> None:
    web.page("http://other.example.test/y", Page(status=302, headers={"Location": f"{HOST}/x"}))
    web.page(f"{HOST}/x", Page(b"body"))
    assert transport(web).fetch("http://other.example.test/y", limit=LIMIT) == b"body"


@pytest.mark.usefixtures("trusted")
def test_token_is_for_its_host_alone(web: Web) -> None:
    web.page(f"{HOST}/x", Page(status=302, headers={"Location": f"{OTHER}/y"}))
    web.page(f"{OTHER}/y", Page(b"body"))
    assert transport(web).fetch(f"oauth-{HOST}/x", limit=LIMIT) == b"body"
    assert [(visit.url, visit.authorization) for visit in web.visits] == [
        (f"{HOST}/x", "Bearer t1"),
        (f"{OTHER}/y", None),
    ]


@pytest.mark.usefixtures("trusted")
def test_cloud_storage_is_read_over_https(web: Web) -> None:
    web.page("https://storage.googleapis.com/b/r/index.gz", Page(b"body"))
    for url in ("gs://b/r/index.gz", "http://b.storage.googleapis.com/r/index.gz"):
        assert transport(web).fetch(url, limit=LIMIT) == b"body"
    assert [visit.authorization for visit in web.visits] == ["Bearer t1"] * 2
