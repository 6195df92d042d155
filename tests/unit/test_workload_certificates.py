"""Workload certificates: complete sets only, and never a moment without one."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.errors import GuestError
from google_guest.metadata.errors import MetadataError, NotConfigured, NotFound, Unreachable
from google_guest.system.files import Files
from google_guest.workload_certificates import (
    CONFIG_STATUS_KEY,
    ENABLE_KEY,
    IDENTITIES_KEY,
    TRUST_ANCHORS_KEY,
    CredentialsError,
    parse_identity,
    parse_key_mode,
    parse_trust_anchors,
    refresh_credentials,
    trust_domain,
)

DOMAIN = "pool.global.42.workload.id.goog"
SPIFFE_ID = f"spiffe://{DOMAIN}/ns/n/sa/s"
LINK = "run/secrets/workload-spiffe-credentials"
Answers = Mapping[str, Union[bytes, MetadataError]]


def identities(number: int = 1, *, key: str = "KEY", spiffe_id: str = SPIFFE_ID) -> bytes:
    entry = {"certificatePem": f"CERT {number}", "privateKeyPem": key}
    return json.dumps({"status": "OK", "workloadCredentials": {spiffe_id: entry}}).encode()


def anchors(**bundles: str) -> bytes:
    named = {name.replace("_", "."): {"trustAnchorsPem": pem} for name, pem in bundles.items()}
    return json.dumps({"status": "OK", "trustAnchors": named}).encode()


ANCHORS = json.dumps(
    {
        "trustAnchors": {
            "global.42.workload.id.goog": {"trustAnchorsPem": "PART OF THE NAME"},
            DOMAIN: {"trustAnchorsPem": "ANCHORS"},
            f"x.{DOMAIN}": {"trustAnchorsPem": "LONGER NAME"},
        }
    }
).encode()
CONFIGURED: Answers = {
    ENABLE_KEY: b"TRUE",
    CONFIG_STATUS_KEY: b'{"status":"OK"}',
    IDENTITIES_KEY: identities(),
    TRUST_ANCHORS_KEY: ANCHORS,
}


class Source:
    """A metadata server with these answers."""

    def __init__(self, answers: Answers) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []

    def get_bytes(self, path: str) -> bytes:
        self.asked.append(path)
        answer = self.answers.get(path, NotFound(path))
        if isinstance(answer, MetadataError):
            raise answer
        return answer


def moments() -> Iterator[datetime]:
    second = 0
    while True:
        second += 1
        yield datetime.fromtimestamp(1_800_000_000 + second, timezone.utc)


CLOCK = moments()


def refresh(root: Path, answers: Optional[Answers] = None, **changed: object) -> bool:
    source = Source({**CONFIGURED, **(answers or {})})
    return refresh_credentials(source, Files(root), now=next(CLOCK), **changed)  # type: ignore[arg-type]


def credentials(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / LINK).iterdir()}


def names(root: Path) -> list[str]:
    folder = root / "run/secrets"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_set_is_complete_and_in_force(tmp_path: Path) -> None:
    assert refresh(tmp_path)
    assert credentials(tmp_path) == {
        "config_status": '{"status":"OK"}',
        "certificates.pem": "CERT 1",
        "private_key.pem": "KEY",
        "ca_certificates.pem": "ANCHORS",
    }


def test_directory_and_files_are_readable_by_every_program(tmp_path: Path) -> None:
    refresh(tmp_path)
    assert (tmp_path / LINK).stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / LINK).iterdir()} == {0o644}


def test_mode_of_the_private_key_is_configurable(tmp_path: Path) -> None:
    refresh(tmp_path, key_mode=0o600)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / LINK).iterdir()}
    assert modes["private_key.pem"] == 0o600
    assert modes["certificates.pem"] == 0o644


def test_names_carry_the_time(tmp_path: Path) -> None:
    source = Source(CONFIGURED)
    now = datetime(2026, 11, 24, 2, 3, 4, tzinfo=timezone.utc)
    refresh_credentials(source, Files(tmp_path), now=now)
    assert os.readlink(tmp_path / LINK) == "workload-spiffe-contents-2026-11-24T02:03:04.000000Z"


def test_key_that_the_platform_keeps_is_left_out(tmp_path: Path) -> None:
    refresh(tmp_path, {IDENTITIES_KEY: identities(key="")})
    assert sorted(credentials(tmp_path)) == [
        "ca_certificates.pem",
        "certificates.pem",
        "config_status",
    ]


def test_next_set_replaces_the_first_as_a_whole(tmp_path: Path) -> None:
    refresh(tmp_path)
    refresh(tmp_path, {IDENTITIES_KEY: identities(2)})
    assert credentials(tmp_path)["certificates.pem"] == "CERT 2"


def test_only_the_set_before_is_kept(tmp_path: Path) -> None:
    for number in range(5):
        refresh(tmp_path, {IDENTITIES_KEY: identities(number)})
    contents = [name for name in names(tmp_path) if "contents" in name]
    assert len(contents) == 2
    assert names(tmp_path) == [*contents, "workload-spiffe-credentials"]


@pytest.mark.parametrize("value", [b"false", b"", b"no", b"maybe"])
def test_instance_that_does_not_ask_gets_nothing(tmp_path: Path, value: bytes) -> None:
    assert not refresh(tmp_path, {ENABLE_KEY: value})
    assert names(tmp_path) == []


def test_instance_without_the_attribute_asks_once(tmp_path: Path) -> None:
    source = Source({})
    assert not refresh_credentials(source, Files(tmp_path))
    assert source.asked == [ENABLE_KEY]


@pytest.mark.parametrize("error", [NotConfigured("412"), NotFound("404"), Unreachable("503")])
def test_failing_config_status_keeps_the_credentials(tmp_path: Path, error: MetadataError) -> None:
    refresh(tmp_path)
    before = (os.readlink(tmp_path / LINK), names(tmp_path))
    assert not refresh(tmp_path, {CONFIG_STATUS_KEY: error})
    assert (os.readlink(tmp_path / LINK), names(tmp_path)) == before


BROKEN: list[Answers] = [
    {IDENTITIES_KEY: Unreachable("503")},
    {TRUST_ANCHORS_KEY: NotFound("404")},
    {IDENTITIES_KEY: b"<html>"},
    {TRUST_ANCHORS_KEY: b"[]"},
    {IDENTITIES_KEY: b'{"workloadCredentials": {}}'},
    {IDENTITIES_KEY: identities(spiffe_id="no-spiffe-id")},
    {TRUST_ANCHORS_KEY: anchors(other_domain="X")},
    {TRUST_ANCHORS_KEY: json.dumps({"trustAnchors": {DOMAIN: {}}}).encode()},
]


@pytest.mark.parametrize("answers", BROKEN)
def test_incomplete_set_is_removed_and_the_old_one_stays(tmp_path: Path, answers: Answers) -> None:
    refresh(tmp_path)
    before = (os.readlink(tmp_path / LINK), names(tmp_path))
    with pytest.raises(GuestError):
        refresh(tmp_path, answers)
    assert (os.readlink(tmp_path / LINK), names(tmp_path)) == before


def test_first_configuration_that_is_wrong_can_be_seen(tmp_path: Path) -> None:
    status = b'{"status":"INVALID"}'
    with pytest.raises(GuestError):
        refresh(tmp_path, {CONFIG_STATUS_KEY: status, IDENTITIES_KEY: NotFound("404")})
    assert credentials(tmp_path) == {"config_status": status.decode()}


def test_configuration_that_stays_wrong_shows_its_newest_status(tmp_path: Path) -> None:
    for status in (b"first", b"second"):
        with pytest.raises(GuestError):
            refresh(tmp_path, {CONFIG_STATUS_KEY: status, IDENTITIES_KEY: NotFound("404")})
    assert credentials(tmp_path) == {"config_status": "second"}


def test_absolute_link_of_another_agent_is_understood(tmp_path: Path) -> None:
    old = tmp_path / "run/secrets/workload-spiffe-contents-2020-01-01T00:00:00Z"
    old.mkdir(parents=True)
    (old / "certificates.pem").write_text("OLD")
    (tmp_path / LINK).symlink_to("/run/secrets/" + old.name)
    with pytest.raises(GuestError):
        refresh(tmp_path, {IDENTITIES_KEY: NotFound("404")})
    assert (old / "certificates.pem").exists()
    refresh(tmp_path)
    assert credentials(tmp_path)["certificates.pem"] == "CERT 1"


def test_left_overs_of_a_crash_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run/secrets"
    (folder / "workload-spiffe-contents-x").mkdir(parents=True)
    (folder / "workload-spiffe-contents-x/private_key.pem").write_text("K")
    (folder / "workload-spiffe-symlink-x").symlink_to("nowhere")
    refresh(tmp_path)
    assert len(names(tmp_path)) == 2


def test_readers_always_find_a_complete_set(tmp_path: Path) -> None:
    refresh(tmp_path)
    failures: list[Exception] = []
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for name in ("certificates.pem", "private_key.pem", "ca_certificates.pem"):
                try:
                    with open(tmp_path / LINK / name) as file:
                        text = file.read()
                except OSError as error:
                    failures.append(error)
                    return
                if name == "certificates.pem":
                    seen.add(text)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(100):
        refresh(tmp_path, {IDENTITIES_KEY: identities(number)})
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("spiffe_id", "domain"),
    [
        (SPIFFE_ID, DOMAIN),
        ("spiffe://Example.ORG/x", "example.org"),
        ("spiffe://example.org", "example.org"),
        ("SPIFFE://example.org/", "example.org"),
        ("https://example.org/", ""),
        ("", ""),
    ],
)
def test_trust_domain_is_what_is_between_the_slashes(spiffe_id: str, domain: str) -> None:
    assert trust_domain(spiffe_id) == domain


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("0644", 0o644),
        ("600", 0o600),
        (" 0o640 ", 0o640),
        ("0", 0),
        *((text, None) for text in ("", "0755", "rw", "0888", "-600", "06000", "2600")),
    ],
)
def test_mode_is_octal_and_not_executable(text: str, mode: Optional[int]) -> None:
    assert parse_key_mode(text) == mode


def test_private_key_is_in_no_representation() -> None:
    assert "SECRET" not in repr(parse_identity(identities(key="SECRET")))


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["workloadCredentials", "trustAnchors", SPIFFE_ID, "certificatePem"])
            | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
)


@given(st.one_of(st.binary(), documents.map(lambda value: json.dumps(value).encode())))
def test_any_answer_is_parsed_or_refused(data: bytes) -> None:
    for parse in (parse_identity, lambda raw: parse_trust_anchors(raw, DOMAIN)):
        try:
            parse(data)
        except CredentialsError:
            continue
