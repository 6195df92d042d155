"""Application Default Credentials: all kinds of files, the metadata server, how long they hold."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.googet.loopback import Origin, Reply

from googet.credentials import SCOPE, Credentials, CredentialsError
from googet.settings import Settings
from googet.signing import parse_public_key, verify
from googet.transport import Transport
from google_guest.errors import GuestError
from metadata_server.emulator import Emulator

DEAD = {"GCE_METADATA_HOST": "127.0.0.1:9"}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


def credentials(clock: Clock, **environ: str) -> Credentials:
    transport = Transport(Settings(), environ={}, sleep=lambda seconds: None)
    return Credentials(transport.send, environ={**DEAD, **environ}, clock=clock, metadata_seconds=0)


def save(folder: Path, values: Any, name: str = "adc.json") -> str:
    path = folder / name
    path.write_text(json.dumps(values))
    return str(path)


def token(text: str, seconds: object = 3600) -> Reply:
    return Reply(json.dumps({"access_token": text, "expires_in": seconds}).encode())


def authorized_user(origin: Origin) -> dict[str, str]:
    return {
        "type": "authorized_user",
        "client_id": "id",
        "client_secret": "s3cret",
        "refresh_token": "r3fresh",
        "token_uri": f"{origin.url}/token",
    }


def form(origin: Origin, number: int = -1) -> dict[str, str]:
    fields = parse_qs(origin.visits[number].body.decode(), strict_parsing=True)
    return {name: values[0] for name, values in fields.items()}


def test_refresh_token_of_a_user(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    origin.page("/token", token("t1"))
    path = save(tmp_path, authorized_user(origin))
    assert credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token() == "t1"
    assert form(origin) == {
        "client_id": "id",
        "client_secret": "s3cret",
        "refresh_token": "r3fresh",
        "grant_type": "refresh_token",
    }


def test_token_is_kept_until_shortly_before_its_end(
    origin: Origin, clock: Clock, tmp_path: Path
) -> None:
    origin.page("/token", token("t1"), token("t2"))
    path = save(tmp_path, authorized_user(origin))
    found = credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert [found.token(), found.token()] == ["t1", "t1"]
    clock.now += 3600 - 226
    assert found.token() == "t1"
    clock.now += 2
    assert found.token() == "t2"
    assert len(origin.visits) == 2


def test_forgotten_token_is_replaced(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    origin.page("/token", token("t1"), token("t2"))
    path = save(tmp_path, authorized_user(origin))
    found = credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path)
    found.token()
    found.forget("another")
    assert found.token() == "t1"
    found.forget("t1")
    assert found.token() == "t2"


@pytest.mark.parametrize("variable", ["CLOUDSDK_CONFIG", "APPDATA", "HOME"])
def test_file_of_gcloud(origin: Origin, clock: Clock, tmp_path: Path, variable: str) -> None:
    folders = {"CLOUDSDK_CONFIG": "", "APPDATA": "gcloud", "HOME": ".config/gcloud"}
    folder = tmp_path / folders[variable]
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, authorized_user(origin), "application_default_credentials.json")
    origin.page("/token", token("t1"))
    assert credentials(clock, **{variable: str(tmp_path)}).token() == "t1"


def test_named_file_precedes_that_of_gcloud(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    save(tmp_path, {"type": "other"}, "application_default_credentials.json")
    origin.page("/token", token("t1"))
    named = save(tmp_path, authorized_user(origin))
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": named, "CLOUDSDK_CONFIG": str(tmp_path)}
    assert credentials(clock, **environ).token() == "t1"


def test_named_file_that_is_missing_is_an_error(clock: Clock, tmp_path: Path) -> None:
    path = str(tmp_path / "none.json")
    with pytest.raises(CredentialsError, match=r"none\.json cannot be read"):
        credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token()


def test_metadata_server(clock: Clock) -> None:
    with Emulator(profile="linux") as server:
        found = credentials(clock, GCE_METADATA_HOST=server.host)
        assert found.token().startswith("fake-")
        assert found.optional_token() == found.token()
        assert not server.failures


def test_without_any_credentials(clock: Clock) -> None:
    found = credentials(clock)
    with pytest.raises(CredentialsError, match="GOOGLE_APPLICATION_CREDENTIALS is not set"):
        found.token()
    assert found.optional_token() is None


def test_absence_is_remembered_for_a_minute(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    origin.page("/token", Reply(status=400), token("t1"))
    path = save(tmp_path, authorized_user(origin))
    found = credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert found.optional_token() is None
    assert found.optional_token() is None
    assert len(origin.visits) == 1
    clock.now += 61
    assert found.optional_token() == "t1"


def test_refusal_shows_no_secrets(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    origin.page("/token", Reply(b'{"error": "invalid_grant"}', 400))
    path = save(tmp_path, authorized_user(origin))
    with pytest.raises(CredentialsError, match="/token: status 400") as caught:
        credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token()
    assert "s3cret" not in str(caught.value)
    assert "r3fresh" not in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_key_of_a_service_account(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    argv = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    private = subprocess.run(argv, check=True, capture_output=True).stdout
    public = subprocess.run(
        ["openssl", "pkey", "-pubout"], input=private, check=True, capture_output=True
    ).stdout
    origin.page("/token", token("t1"))
    path = save(
        tmp_path,
        {
            "type": "service_account",
            "client_email": "a@b.iam",
            "private_key": private.decode(),
            "private_key_id": "k1",
            "token_uri": f"{origin.url}/token",
        },
    )
    assert credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token() == "t1"
    assert form(origin)["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    content, _, signature = form(origin)["assertion"].rpartition(".")
    assert verify(parse_public_key(public), content.encode(), decoded(signature))
    header, claim = (json.loads(decoded(part)) for part in content.split("."))
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert claim == {
        "iss": "a@b.iam",
        "scope": SCOPE,
        "aud": f"{origin.url}/token",
        "iat": 1_000_000,
        "exp": 1_003_600,
    }


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_service_account_without_openssl_is_one_error(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("googet.signing.shutil.which", lambda name: None)
    values = {"type": "service_account", "client_email": "a", "private_key": "secret key"}
    path = save(tmp_path, values)
    with pytest.raises(CredentialsError, match="needs the program openssl") as caught:
        credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token()
    assert "secret" not in str(caught.value)


def external(origin: Origin, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "external_account",
        "audience": "//iam/pool",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{origin.url}/sts",
        "credential_source": source,
        **more,
    }


def test_external_account_with_a_file(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    origin.page("/sts", token("t1"))
    (tmp_path / "subject").write_text("subject-1\n")
    path = save(tmp_path, external(origin, {"file": str(tmp_path / "subject")}))
    assert credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token() == "t1"
    assert form(origin)["subject_token"] == "subject-1"
    assert form(origin)["audience"] == "//iam/pool"


def test_external_account_with_an_address(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    url = origin.page("/subject", Reply(b'{"inner": "subject-2"}'))
    origin.page("/sts", token("t1"))
    shape = {"type": "json", "subject_token_field_name": "inner"}
    source = {"url": url, "headers": {"X-Ask": "please"}, "format": shape}
    path = save(tmp_path, external(origin, source))
    assert credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token() == "t1"
    assert origin.visits[0].headers["x-ask"] == "please"
    assert form(origin)["subject_token"] == "subject-2"


def test_external_account_that_impersonates(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    origin.page("/sts", token("t1"))
    answer = {"accessToken": "t2", "expireTime": "2099-01-01T00:00:00Z"}
    url = origin.page("/impersonate", Reply(json.dumps(answer).encode()))
    (tmp_path / "subject").write_text("s")
    more = {"service_account_impersonation_url": url}
    path = save(tmp_path, external(origin, {"file": str(tmp_path / "subject")}, **more))
    assert credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token() == "t2"
    assert origin.visits[1].authorization == "Bearer t1"


def test_impersonation_by_gcloud(origin: Origin, clock: Clock, tmp_path: Path) -> None:
    origin.page("/token", token("t1"))
    answer = {"accessToken": "t2", "expireTime": "1970-01-12T14:46:40Z"}
    url = origin.page("/impersonate", Reply(json.dumps(answer).encode()))
    values = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": url,
        "source_credentials": authorized_user(origin),
    }
    found = credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=save(tmp_path, values))
    assert found.token() == "t2"
    clock.now += 3600
    found.token()
    assert len(origin.visits) == 4


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "no JSON object"),
        ({}, "type None are not supported"),
        ({"type": "gdch"}, "type 'gdch' are not supported"),
        ({"type": "authorized_user"}, "client_id is missing"),
        ({"type": "authorized_user", "client_id": 1}, "client_id is missing"),
        ({"type": "service_account"}, "private_key is missing|client_email is missing"),
        ({"type": "impersonated_service_account"}, "source_credentials is missing"),
        ({"type": "external_account", "audience": "a", "subject_token_type": "t"}, "missing"),
        (
            {
                "type": "external_account",
                "audience": "a",
                "subject_token_type": "t",
                "credential_source": {"environment_id": "aws1", "url": "http://h"},
            },
            "supported if it has a file or a url",
        ),
    ],
)
def test_unusable_files(clock: Clock, tmp_path: Path, values: object, why: str) -> None:
    path = save(tmp_path, values)
    with pytest.raises(CredentialsError, match=why):
        credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token()


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b"[]", b'{"access_token": 1}', b'{"access_token": ""}']
    + [b'{"access_token": "a\\r\\nX: y"}', b'{"access_token": "\\u00e4"}'],
)
def test_answers_without_a_token(
    origin: Origin, clock: Clock, tmp_path: Path, answer: bytes
) -> None:
    origin.page("/token", Reply(answer))
    path = save(tmp_path, authorized_user(origin))
    with pytest.raises(CredentialsError):
        credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path).token()


@pytest.mark.parametrize("seconds", [None, "soon", True, -5])
def test_token_of_unknown_life_is_used_once(
    origin: Origin, clock: Clock, tmp_path: Path, seconds: object
) -> None:
    origin.page("/token", token("t1", seconds), token("t2", seconds))
    path = save(tmp_path, authorized_user(origin))
    found = credentials(clock, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert [found.token(), found.token()] == ["t1", "t2"]


_TEXTS = st.sampled_from(["", "x", "\0", "\ud800", "http://[", "a\nb", "authorized_user", "/"])
_VALUES = _TEXTS | st.none() | st.integers(0, 3)
_FIELDS = {
    "type": st.sampled_from(
        ["authorized_user", "service_account", "external_account", "impersonated_service_account"]
    ),
    "credential_source": _VALUES
    | st.dictionaries(
        st.sampled_from(["file", "url", "headers", "format"]),
        _VALUES | st.dictionaries(st.just("type"), st.just("json")),
    ),
    "source_credentials": _VALUES | st.dictionaries(st.just("type"), _TEXTS),
}
_OTHERS = (
    *("client_id", "client_secret", "refresh_token", "token_uri", "private_key", "client_email"),
    *("audience", "subject_token_type", "token_url", "service_account_impersonation_url"),
)


@given(
    st.binary()
    | st.fixed_dictionaries(_FIELDS, optional={name: _VALUES for name in _OTHERS}).map(
        lambda values: json.dumps(values).encode()
    )
)
def test_no_file_crashes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("adc") / "adc.json"
    path.write_bytes(data)

    def refuse(*_: object, **__: object) -> bytes:
        raise GuestError("refused")

    found = Credentials(
        refuse, environ={**DEAD, "GOOGLE_APPLICATION_CREDENTIALS": str(path)}, clock=Clock()
    )
    with pytest.raises(CredentialsError):
        found.token()
