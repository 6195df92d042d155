"""The program goopack: arguments, exit codes, what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from googet.cli.flags import Flags
from googet.cli.goopack import declare_variables, main, variables

TOOL = Path(__file__).resolve().parents[4] / "tools" / "goopack"


@pytest.fixture
def goospec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.goospec"
    path.write_text('{"name": "a", "version": "{{.version}}.0@1", "arch": "{{.arch}}"}')
    return path


def test_package_is_built_without_a_word(goospec: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["-var:version=20260102.00", "--var:arch", "noarch", "x.goospec"]
    assert main(arguments) == 0
    assert capfd.readouterr() == ("", "")
    assert Path("a.noarch.20260102.00.0@1.goo").is_file()


def test_package_goes_into_the_output_folder(goospec: Path) -> None:
    Path("out").mkdir()
    assert main(["-output_dir", "out", "-var:version=1.0", "-var:arch=arm", str(goospec)]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["a.arm.1.0.0@1.goo"]


@pytest.mark.parametrize(
    ("arguments", "first"), [([], "Not enough args."), (["a", "b"], "Too many args.")]
)
def test_wrong_number_of_arguments_is_told_on_standard_output(
    capsys: pytest.CaptureFixture[str], arguments: list[str], first: str
) -> None:
    assert main(arguments) == 1
    assert capsys.readouterr() == (f"{first}\nUsage: goopack <path/to/goospec>\n", "")


@pytest.mark.parametrize("arguments", [["-x"], ["-output_dir"], ["-var:a"], ["x", "-var:a=b"]])
def test_wrong_flag_is_told_on_standard_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("goopack: flag ")
    assert "Usage: goopack <path/to/goospec>" in err


@pytest.mark.parametrize("arguments", [["help"], ["-h"], ["--help"]])
def test_help_shows_the_usage(
    goospec: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    Path("help").write_text("{}")
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: goopack <path/to/goospec>\n")
    assert "-output_dir" in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.goospec"], "goopack: missing.goospec: "),
        (["x.goospec"], "goopack: x.goospec: Arch is missing or empty"),
        (["-output_dir", "nowhere", "-var:arch=arm", "x.goospec"], "nowhere"),
    ],
)
def test_failure_is_one_line_on_standard_error(
    goospec: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["-var:version=1.0", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert not list(Path().rglob("*.goo"))


def test_warning_goes_to_standard_error(goospec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-var:version=1", "-var:arch=arm", "x.goospec"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("goopack: warning: version 1.0@1 has 2 fields of 3")


def test_null_and_list_are_no_goospecs(goospec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("null", "[]"):
        goospec.write_text(text)
        assert main(["x.goospec"]) == 1
    assert not list(Path().rglob("*.goo"))


def test_variables_are_flags_of_their_own() -> None:
    flags = Flags("goopack")
    flags.boolean("var:test2", "already there")
    arguments = ["-var:test2", "-var:A", "value", "--var:B=value", "var:z", "plain", "-", "-x"]
    declare_variables(flags, arguments)
    declared = [name for name in ("var:A", "var:B", "var:z", "plain", "x") if name in flags]
    assert declared == ["var:A", "var:B"]
    assert variables(flags.parse(["-var:A", "value", "--var:B=value"])) == {
        "A": "value",
        "B": "value",
    }


def test_variable_that_is_not_given_is_none_of_the_variables() -> None:
    flags = Flags("goopack")
    flags.string("var:A", "declared only")
    assert variables(flags.parse([])) == {}


def test_program_runs_from_the_source_tree(goospec: Path) -> None:
    goospec.write_text(json.dumps({"name": "a", "version": "1.0.0", "arch": "arm"}))
    ended = subprocess.run(
        [sys.executable, str(TOOL), "x.goospec"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert Path("a.arm.1.0.0.goo").is_file()
