"""The key that signs repositories: where it comes from, and what is refused."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import release
import signing
from signing import SigningError
from support.signing_keys import new_key_file


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key_file(tmp_path_factory.mktemp("key") / "key.asc")


def refused(**environment: str) -> str:
    """What is said when there is no signer."""
    with pytest.raises(SigningError) as refusal, signing.signer(environment=environment):
        pass
    return str(refusal.value)


@contextmanager
def keyring_with(*files: Path, folder: Path) -> Iterator[str]:
    """A GNUPGHOME with the keys of files, as a person has one."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    for file in files:
        command = ["gpg", "--homedir", home, "--batch", "--quiet", "--import", file]
        subprocess.run(command, check=True, capture_output=True)
    try:
        yield str(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


def fingerprint_of(key: Path) -> str:
    with signing.signer(environment={"GUEST_GPG_KEY_FILE": str(key)}) as signer:
        assert signer is not None
        return signer.fingerprint


def test_key_of_a_file_signs_and_its_keyring_is_removed(key: Path, tmp_path: Path) -> None:
    with signing.signer(environment={"GUEST_GPG_KEY_FILE": str(key)}) as signer:
        assert signer is not None
        home = Path(signer.home)
        (tmp_path / "data").write_bytes(b"data")
        (tmp_path / "data.asc").write_bytes(signer.detached(b"data"))
        (tmp_path / "key.asc").write_bytes(signer.public_key())
    assert not home.exists()
    ring = str(tmp_path / "key.gpg")
    subprocess.run(["gpg", "--dearmor", "--output", ring, tmp_path / "key.asc"], check=True)
    command = ["gpgv", "--keyring", ring, tmp_path / "data.asc", tmp_path / "data"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Good signature" in done.stderr) == (0, True)


def test_public_key_has_no_secret_part(key: Path) -> None:
    with signing.signer(environment={"GUEST_GPG_KEY_FILE": str(key)}) as signer:
        assert signer is not None
        assert b"PUBLIC KEY" in signer.public_key()
        assert b"PRIVATE" not in signer.public_key()


@pytest.mark.parametrize("name", ["fingerprint", "t@example.com"])
def test_key_of_the_callers_keyring_signs(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fingerprint = fingerprint_of(key)
    with keyring_with(key, folder=tmp_path) as home:
        monkeypatch.setenv("GNUPGHOME", home)
        wanted = fingerprint if name == "fingerprint" else name
        with signing.signer(environment={"GUEST_GPG_KEY": wanted}) as signer:
            assert signer is not None
            assert signer.fingerprint == fingerprint
            assert b"\nThe text\n" in signer.clearsigned(b"The text\n")
        assert Path(home).is_dir()


def test_name_that_means_several_keys_is_refused(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = new_key_file(tmp_path / "other.asc", user="Other <o@example.com>")
    with keyring_with(key, other, folder=tmp_path) as home:
        monkeypatch.setenv("GNUPGHOME", home)
        assert "2 secret keys" in refused(GUEST_GPG_KEY="example.com")


def test_name_that_means_no_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with keyring_with(folder=tmp_path) as home:
        monkeypatch.setenv("GNUPGHOME", home)
        assert refused(GUEST_GPG_KEY="nobody").startswith("GUEST_GPG_KEY=nobody: no secret key")


def test_file_with_several_keys_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.asc"
    for user in ("First <f@example.com>", "Second <s@example.com>"):
        new_key_file(file, user=user)
    assert "2 secret keys" in refused(GUEST_GPG_KEY_FILE=str(file))


def test_file_with_a_public_key_alone_is_refused(key: Path, tmp_path: Path) -> None:
    with signing.signer(environment={"GUEST_GPG_KEY_FILE": str(key)}) as signer:
        assert signer is not None
        (tmp_path / "public.asc").write_bytes(signer.public_key())
    assert "no secret key" in refused(GUEST_GPG_KEY_FILE=str(tmp_path / "public.asc"))


def test_expired_key_is_refused(tmp_path: Path) -> None:
    file = new_key_file(tmp_path / "key.asc", valid="seconds=1")
    made = time.time()
    # gpg counts whole seconds.
    while time.time() < made + 2:
        time.sleep(0.1)
    assert "has expired" in refused(GUEST_GPG_KEY_FILE=str(file))


def test_key_that_cannot_sign_is_refused(tmp_path: Path) -> None:
    file = new_key_file(tmp_path / "key.asc", use="cert")
    assert "is not for signing" in refused(GUEST_GPG_KEY_FILE=str(file))


def test_key_in_the_tree_is_refused(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "TOP", key.parent.parent)
    assert "is in the tree" in refused(GUEST_GPG_KEY_FILE=str(key))


def test_link_to_a_key_in_the_tree_is_refused(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(key)
    monkeypatch.setattr(release, "TOP", key.parent)
    assert "is in the tree" in refused(GUEST_GPG_KEY_FILE=str(tmp_path / "link"))


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refused(GUEST_GPG_KEY_FILE=str(tmp_path / "nothing"))


def test_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no key")
    assert "no keys" in refused(GUEST_GPG_KEY_FILE=str(tmp_path / "text"))


def test_key_with_a_passphrase_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = new_key_file(tmp_path / "key.asc", passphrase="secret")
    with signing.signer(environment={"GUEST_GPG_KEY_FILE": str(file)}) as signer:
        assert signer is not None
        with pytest.raises(SigningError, match="must not need a passphrase"):
            signer.detached(b"data")


def test_both_variables_are_refused() -> None:
    assert "both set" in refused(GUEST_GPG_KEY="a", GUEST_GPG_KEY_FILE="b")


def test_no_key_is_refused_unless_unsigned_is_wanted() -> None:
    assert "--unsigned" in refused()
    with signing.signer(unsigned=True, environment={}) as signer:
        assert signer is None


def test_key_beats_the_wish_for_none(key: Path) -> None:
    environment = {"GUEST_GPG_KEY_FILE": str(key)}
    with signing.signer(unsigned=True, environment=environment) as signer:
        assert signer is not None
