"""Access tokens from Application Default Credentials, for ``oauth-`` and Cloud Storage addresses.

The first of these that there is gives the token:

1. the file that ``GOOGLE_APPLICATION_CREDENTIALS`` names,
2. gcloud's ``application_default_credentials.json``: in ``CLOUDSDK_CONFIG``,
   ``%APPDATA%\\gcloud`` or ``~/.config/gcloud``,
3. the metadata server's default service account (``GCE_METADATA_HOST`` names another server).

Kinds of files: ``authorized_user`` (refresh token), ``service_account`` (the program ``openssl``
signs the request), ``external_account`` with the subject token in a file or behind a URL, and
``impersonated_service_account``. A token is kept in memory until shortly before it expires, and for
a minute so is the knowledge that there is none. Tokens, keys and secrets never appear in messages.

Source: public Google Cloud documentation, "How Application Default Credentials works", "Using OAuth
2.0 for Server to Server Applications", "Workload identity federation"; RFC 7523 (JWT grants), RFC
8693 (token exchange).
"""

from __future__ import annotations

import base64
import calendar
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional, Protocol
from urllib.parse import urlencode

from googet.yamltext import is_text
from google_guest.errors import GuestError
from google_guest.records import record

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_FILE_NAME = "application_default_credentials.json"
_TOKEN_URL = "https://oauth2.googleapis.com/token"
_EXCHANGE_URL = "https://sts.googleapis.com/v1/token"
_FILE_LIMIT = 1 << 20
_LIFETIME = 3600
_MARGIN = 225.0
"""Seconds before its end from which on a token is not used; the metadata server has a new one."""
_TOKEN = re.compile(r"[!-~]+")
_FIELD = re.compile(r"[!-~]([ -~]*[!-~])?")
_FAILURE_LIFE = 60.0
_MDS_TIMEOUT = 3.0


class CredentialsError(GuestError):
    """There is no access token; the message says what to do."""


class Send(Protocol):
    """Sends a request and returns the body of a successful answer; raises a ``GuestError``."""

    def __call__(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str],
        body: Optional[bytes] = None,
    ) -> bytes: ...


@record
class _Token:
    text: str
    ends: float


class Credentials:
    """Gives access tokens; threads may share it."""

    def __init__(
        self,
        send: Send,
        *,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.time,
        metadata_seconds: float = 6.0,
    ) -> None:
        """``clock`` gives Unix time; the metadata server has ``metadata_seconds`` in all."""
        self._send = send
        self._environ = environ
        self._clock = clock
        self._metadata_seconds = metadata_seconds
        self._lock = threading.Lock()
        self._token: Optional[_Token] = None
        self._failure: Optional[GuestError] = None
        self._failed_at = 0.0

    def token(self) -> str:
        """Return a valid access token.

        Raises:
            CredentialsError: there are no credentials, or they give no token.
        """
        with self._lock:
            if self._token is not None and self._token.ends - _MARGIN > self._clock():
                return self._token.text
            age = self._clock() - self._failed_at
            if self._failure is not None and 0 <= age < _FAILURE_LIFE:
                raise self._failure
            try:
                self._token = self._new_token()
            except GuestError as error:
                is_clear = isinstance(error, CredentialsError)
                failure = error if is_clear else CredentialsError(f"no access token: {error}")
                self._failure, self._failed_at = failure, self._clock()
                raise failure from error
            self._failure = None
            return self._token.text

    def optional_token(self) -> Optional[str]:
        """Return an access token, or None if this machine has no credentials."""
        try:
            return self.token()
        except CredentialsError:
            return None

    def forget(self, token: str) -> None:
        """Do not use ``token`` again: a server has refused it."""
        with self._lock:
            if self._token is not None and self._token.text == token:
                self._token = None

    def _new_token(self) -> _Token:
        for path in self._files():
            if path is not None:
                return self._from_document(_read(path), path)
        return self._from_metadata_server()

    def _files(self) -> tuple[Optional[Path], ...]:
        """Return the file that the variable names and gcloud's, None where there is none."""
        named = self._environ.get(FILE_VARIABLE)
        if named:
            return (Path(named),)
        folder = self._environ.get("CLOUDSDK_CONFIG")
        if not folder and self._environ.get("APPDATA"):
            folder = str(Path(self._environ["APPDATA"], "gcloud"))
        if not folder and self._environ.get("HOME"):
            folder = str(Path(self._environ["HOME"], ".config", "gcloud"))
        path = Path(folder, _FILE_NAME) if folder else None
        return (path if path is not None and path.is_file() else None,)

    def _from_document(self, document: Mapping[str, Any], path: Path) -> _Token:
        kind = document.get("type")
        source = _Document(document, path)
        if kind == "authorized_user":
            return self._refreshed(source)
        if kind == "service_account":
            return self._granted(source)
        if kind == "external_account":
            return self._exchanged(source)
        if kind == "impersonated_service_account":
            inner = self._from_document(source.document("source_credentials"), path)
            return self._impersonated(source.text("service_account_impersonation_url"), inner)
        raise CredentialsError(f"{path}: credentials of the type {kind!r} are not supported")

    def _refreshed(self, source: _Document) -> _Token:
        fields = {name: source.text(name) for name in ("client_id", "client_secret")}
        fields["refresh_token"] = source.text("refresh_token")
        return self._asked(
            source.text("token_uri", _TOKEN_URL), {**fields, "grant_type": "refresh_token"}
        )

    def _granted(self, source: _Document) -> _Token:
        """Return a token for a service account's signed claim (RFC 7523)."""
        url = source.text("token_uri", _TOKEN_URL)
        now = int(self._clock())
        header = {"alg": "RS256", "typ": "JWT", "kid": source.text("private_key_id", "")}
        claim = {
            "iss": source.text("client_email"),
            "scope": SCOPE,
            "aud": url,
            "iat": now,
            "exp": now + _LIFETIME,
        }
        content = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claim))
        signature = _signed(content, source.text("private_key"))
        assertion = b".".join((content, _base64url(signature))).decode()
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return self._asked(url, {"grant_type": grant, "assertion": assertion})

    def _exchanged(self, source: _Document) -> _Token:
        """Return a token for another identity provider's token (RFC 8693)."""
        token = self._asked(
            source.text("token_url", _EXCHANGE_URL),
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "audience": source.text("audience"),
                "scope": SCOPE,
                "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "subject_token_type": source.text("subject_token_type"),
                "subject_token": self._subject_token(source),
            },
        )
        impersonation = source.text("service_account_impersonation_url", "")
        return self._impersonated(impersonation, token) if impersonation else token

    def _subject_token(self, source: _Document) -> str:
        place = _Document(source.document("credential_source"), source.path)
        file, url = place.text("file", ""), place.text("url", "")
        if file:
            text = _read_text(Path(file))
        elif url and "environment_id" not in place.values:
            named = _Document(place.values.get("headers") or {}, source.path)
            headers = {name: named.text(name) for name in named.values}
            if not all(_FIELD.fullmatch(text) for pair in headers.items() for text in pair):
                raise CredentialsError(f"{source.path}: its headers cannot be sent")
            body = self._send(url, method="GET", headers=headers)
            text = body.decode("utf-8", "replace")
        else:
            raise CredentialsError(
                f"{source.path}: a credential_source is supported if it has a file or a url"
            )
        form = place.values.get("format") or {}
        if isinstance(form, dict) and form.get("type") == "json":
            answer = _Document(_json_object(text, "the subject token"), source.path)
            text = answer.text(str(form.get("subject_token_field_name")))
        return text.strip()

    def _impersonated(self, url: str, token: _Token) -> _Token:
        body = json.dumps({"scope": [SCOPE], "lifetime": f"{_LIFETIME}s"}).encode()
        headers = {"Authorization": f"Bearer {token.text}", "Content-Type": "application/json"}
        answer = _json_object(self._send(url, headers=headers, body=body), "the answer")
        try:
            ends = calendar.timegm(
                time.strptime(str(answer["expireTime"])[:19], "%Y-%m-%dT%H:%M:%S")
            )
        except (KeyError, ValueError) as error:
            raise CredentialsError("the impersonated account's token has no expireTime") from error
        return _Token(_checked(answer.get("accessToken")), float(ends))

    def _asked(self, url: str, fields: Mapping[str, str]) -> _Token:
        """Return the token that a token endpoint gives for a form."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = self._send(url, headers=headers, body=urlencode(fields).encode())
        return self._taken(_json_object(body, "the token endpoint's answer"))

    def _from_metadata_server(self) -> _Token:
        from google_guest.metadata.client import MetadataClient
        from google_guest.metadata.errors import MetadataError

        try:
            client = MetadataClient(environ=self._environ)
            answer = client.get_json(
                "instance/service-accounts/default/token",
                recursive=False,
                timeout=_MDS_TIMEOUT,
                budget=self._metadata_seconds,
            )
        except MetadataError as error:
            raise CredentialsError(
                f"no credentials: {FILE_VARIABLE} is not set, gcloud has none, and the metadata"
                f" server gave none ({error})"
            ) from error
        return self._taken(answer if isinstance(answer, dict) else {})

    def _taken(self, answer: Mapping[str, Any]) -> _Token:
        seconds = answer.get("expires_in", _LIFETIME)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            seconds = 0
        return _Token(_checked(answer.get("access_token")), self._clock() + seconds)


class _Document:
    """The fields of a file of credentials."""

    def __init__(self, values: Any, path: Path) -> None:
        if not isinstance(values, dict):
            raise CredentialsError(f"{path}: something that is no object should be one")
        self.values: Mapping[str, Any] = values
        self.path = path

    def text(self, name: str, default: Optional[str] = None) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str) or (not value and default is None) or not is_text(value):
            raise CredentialsError(f"{self.path}: {name} is missing")
        return value

    def document(self, name: str) -> Mapping[str, Any]:
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise CredentialsError(f"{self.path}: {name} is missing")
        return value


def _read(path: Path) -> Mapping[str, Any]:
    return _json_object(_read_text(path), str(path))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_LIMIT).decode("utf-8-sig", "replace")
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        # No path has a zero byte.
        raise CredentialsError(f"{str(path)!r} names no file") from error


def _json_object(text: Any, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CredentialsError(f"{name} is no JSON") from error
    if not isinstance(value, dict):
        raise CredentialsError(f"{name} is no JSON object")
    return value


def _checked(token: object) -> str:
    """Return a token that may go into a header."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise CredentialsError("the answer holds no access token")
    return token


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _signed(content: bytes, private_key: str) -> bytes:
    from googet.signing import SigningError, sign_with_openssl

    try:
        return sign_with_openssl(content, private_key.encode())
    except SigningError as error:
        raise CredentialsError(f"the service account's key cannot be used: {error}") from error
