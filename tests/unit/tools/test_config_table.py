"""The table of configuration files in the documentation: its rows, and its place in a document."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import artifact_table
import pytest

TOOL = artifact_table.TOP / "tools" / "config-table"


def _load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("config_table", str(TOOL))
    spec = importlib.util.spec_from_loader("config_table", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


config_table = _load()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def row(path: str) -> list[str]:
    """The cells of a file's only row."""
    found = [line for line in config_table.rows() if line[0] == f"`{path}`"]
    assert len(found) == 1
    return list(found[0])


@pytest.mark.parametrize(
    ("path", "distributions", "kind"),
    [
        ("/etc/sysctl.d/60-gce-network-security.conf", "all", "configuration"),
        (
            "/etc/rsyslog.d/90-google.conf",
            "Debian, Enterprise Linux, Fedora, SUSE",
            "configuration",
        ),
        ("/etc/cloud/cloud.cfg.d/91-gce.cfg", "Ubuntu", "configuration"),
        (
            "/usr/lib/systemd/system/rsyslog.service.d/90_google_serial.conf",
            "Debian 13",
            "replaced",
        ),
        ("/usr/lib/udev/rules.d/65-gce-disk-naming.rules", "all", "replaced"),
    ],
)
def test_row_names_the_distributions_and_the_kind(path: str, distributions: str, kind: str) -> None:
    assert row(path)[2:] == [distributions, kind]


def test_every_file_with_a_purpose_has_one_row() -> None:
    purposes = {
        item["path"]
        for entry in artifact_table.table().values()
        for item in entry.get("files", ())
        if "purpose" in item
    }
    assert [line[0] for line in config_table.rows()] == [f"`{path}`" for path in sorted(purposes)]


def test_cells_do_not_break_the_table() -> None:
    assert [cell for line in config_table.rows() for cell in line if "|" in cell] == []
    assert {line.count(" | ") for line in config_table.table().splitlines()} == {3}


def test_written_table_is_the_right_one_and_nothing_else_changes(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    begin, end = config_table.BEGIN, config_table.END
    document.write_text(f"before\n\n{begin}\nold\n{end}\n\nafter\n")
    assert run("--check", document).returncode == 1
    assert run("--write", document).returncode == 0
    assert document.read_text() == (f"before\n\n{begin}\n{config_table.table()}{end}\n\nafter\n")
    assert run("--check", document).returncode == 0


def test_document_without_a_place_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("no table here\n")
    done = run("--write", document)
    assert (done.returncode, document.read_text()) == (1, "no table here\n")
    assert str(document) in done.stderr


def test_table_is_printed_without_arguments() -> None:
    assert run().stdout == config_table.table()
