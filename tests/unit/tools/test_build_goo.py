"""Building Windows packages: signing, the version of the runtime, what it says when it cannot."""

from __future__ import annotations

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import goo_bytecode
import goo_payloads
import pytest
import windows_python

BUILD_GOO = Path(__file__).resolve().parents[3] / "tools" / "build-goo"


@pytest.fixture(scope="module")
def build_goo() -> ModuleType:
    loader = SourceFileLoader("build_goo", str(BUILD_GOO))
    specification = importlib.util.spec_from_loader("build_goo", loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package with files of ours and of others."""
    for name in (
        "agent/GCEWindowsAgent.exe",
        "agent/adapt.ps1",
        "agent/LICENSE.txt",
        "python/python.exe",
        "python/Lib/site-packages/pip/t64.exe",
        "python/python313.dll",
        "install.cmd",
    ):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text("unsigned\n")
    return tmp_path / "tree"


def signed(tree: Path) -> list[str]:
    return sorted(
        path.name for path in tree.rglob("*") if path.is_file() and "signature" in path.read_text()
    )


def test_programs_and_powershell_of_ours_are_signed(
    build_goo: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUEST_SIGN_COMMAND", "sh -c 'echo signature >>\"$0\"'")
    build_goo.sign(tree)
    assert signed(tree) == ["GCEWindowsAgent.exe", "adapt.ps1"]


def test_nothing_is_signed_unless_asked_for(
    build_goo: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GUEST_SIGN_COMMAND", raising=False)
    build_goo.sign(tree)
    assert signed(tree) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sh -c 'echo no key; exit 3'", "GUEST_SIGN_COMMAND failed on GCEWindowsAgent.exe: no key"),
        ("false", "GUEST_SIGN_COMMAND failed on GCEWindowsAgent.exe: status 1"),
        ("/nonexistent/signer", "GUEST_SIGN_COMMAND: .*No such file"),
    ],
)
def test_failing_signer_ends_the_build(
    build_goo: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    monkeypatch.setenv("GUEST_SIGN_COMMAND", command)
    with pytest.raises(build_goo.BuildError, match=said):
        build_goo.sign(tree)


def test_runtime_of_known_content_has_its_recorded_version(
    build_goo: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GUEST_RUNTIME_VERSION", raising=False)
    digest = goo_payloads.digest_of(tree)
    monkeypatch.setattr(goo_payloads, "runtime_version", lambda: ("20261124.00", digest))
    assert build_goo.runtime_version(tree) == "20261124.00"


def test_changed_runtime_needs_a_new_version(
    build_goo: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GUEST_RUNTIME_VERSION", raising=False)
    digest = goo_payloads.digest_of(tree)
    monkeypatch.setattr(goo_payloads, "runtime_version", lambda: ("20261124.00", digest))
    (tree / "python" / "python313.dll").write_text("another\n")
    with pytest.raises(build_goo.BuildError, match="is not that of its version 20261124.00"):
        build_goo.runtime_version(tree)


def test_byte_code_alone_makes_no_new_runtime(tree: Path) -> None:
    before = goo_payloads.digest_of(tree)
    (tree / "python" / "x.pyc").write_text("code\n")
    assert goo_payloads.digest_of(tree) == before


def test_builder_may_give_the_runtime_a_version(
    build_goo: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUEST_RUNTIME_VERSION", "20270101.03")
    assert build_goo.runtime_version(tree) == "20270101.03"


def test_version_of_another_form_is_refused(
    build_goo: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUEST_RUNTIME_VERSION", "3.13.2")
    with pytest.raises(build_goo.BuildError, match=r"'3.13.2' is not YYYYMMDD.NN"):
        build_goo.runtime_version(tree)


def test_missing_compiler_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GUEST_WINDOWS_COMPILER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(windows_python.ProvenanceError, match="program node is missing") as raised:
        goo_bytecode.compile_trees(tmp_path)
    assert "\n" not in str(raised.value)


def test_byte_code_of_another_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pyc").write_bytes(b"\xcb\r\r\n" + bytes(12))
    with pytest.raises(windows_python.ProvenanceError, match="byte code of another Python"):
        goo_bytecode.check_magic(tmp_path, b"\xf3\r\r\n")


def test_given_compiler_compiles_and_names_what_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, text in ((first, "x = 1\n"), (second, "print 'old'\n")):
        folder.mkdir()
        (folder / "module.py").write_text(text)
    monkeypatch.setenv("GUEST_WINDOWS_COMPILER", "/usr/bin/python3")
    assert goo_bytecode.compile_trees(first, second) == ((), ("module.py",))
    (compiled,) = (first / "__pycache__").iterdir()
    # PEP 552: hash-based, and never compared with the source.
    assert compiled.read_bytes()[4:8] == b"\x01\0\0\0"
    assert not (second / "__pycache__").exists()


def test_googet_carries_what_it_imports_and_no_server() -> None:
    files = goo_payloads.client_module_files()
    assert {"googet/cli/googet.py", "googet/preload.py", "google_guest/records.py"} <= set(files)
    assert not [name for name in files if "server" in name or "packing" in name]
    assert not [
        name for name in files if name.startswith(("google_guest/features", "metadata_server"))
    ]
