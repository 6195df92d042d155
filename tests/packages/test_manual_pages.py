"""Manual pages and tables against the programs: everything is described, nothing invented."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from release import TOP

from google_guest.catalog import platform_features
from google_guest.config import Config
from google_guest.features.windows import FEATURES as WINDOWS_FEATURES

PROGRAMS = {
    "google-guest": "google_guest.cli.guest",
    "google_guest_agent": "google_guest.cli.agent",
    "google_metadata_script_runner": "google_guest.cli.scripts",
    "gce_workload_cert_refresh": "google_guest.cli.workload_certs",
}
COMMANDS = ("plan", "apply", "status", "config", "keys", "image-clean", "version")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
UNDESCRIBED = {"--help"}


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each page as plain text, by its file name."""
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run(["/usr/bin/python3", TOP / "tools" / "manual-pages", folder], check=True)
    return {
        path.name: subprocess.run(
            ["man", "--nj", "--nh", "--local-file", path],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "100"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for path in sorted(Path(folder).iterdir())
    }


def help_of(module: str, *arguments: str) -> str:
    code = f"import sys; from {module} import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--help"],
        cwd=TOP / "src",
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def all_help(program: str) -> str:
    module = PROGRAMS[program]
    texts = [help_of(module)]
    if program == "google-guest":
        texts += [help_of(module, command) for command in COMMANDS]
    return "\n".join(texts)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_is_described(pages: dict[str, str], program: str) -> None:
    options = set(OPTION.findall(all_help(program))) - UNDESCRIBED
    assert options - set(OPTION.findall(pages[f"{program}.8"])) == set()


@pytest.mark.parametrize("program", ["google-guest", "google_guest_agent"])
def test_no_option_is_invented(pages: dict[str, str], program: str) -> None:
    described = set(OPTION.findall(pages[f"{program}.8"]))
    assert described - set(OPTION.findall(all_help(program))) == set()


def test_every_command_of_google_guest_is_described(pages: dict[str, str]) -> None:
    text = help_of(PROGRAMS["google-guest"])
    offered = re.findall(r"^ {4}([a-z-]+)(?: |$)", text, re.MULTILINE)
    assert sorted(offered) == sorted(COMMANDS)
    described = re.findall(r"^ {7}([a-z-]+)(?: |$)", pages["google-guest.8"], re.MULTILINE)
    assert set(COMMANDS) <= set(described)


def test_every_setting_has_its_place_in_the_manual_page(pages: dict[str, str]) -> None:
    page = pages["instance_configs.cfg.5"].replace("-", "_")
    hidden = {"startup_windows", "shutdown_windows", "sysprep_specialize", "usermod_cmd"}
    keys = {setting.key for setting in Config().settings()} - hidden
    assert [key for key in sorted(keys) if not re.search(rf"^ +{key}[ \n]", page, re.M)] == []


def test_pages_carry_the_version(pages: dict[str, str]) -> None:
    version = (TOP / "VERSION").read_text().strip()
    assert [name for name, text in pages.items() if version not in text] == []


def test_every_feature_has_a_row_in_the_catalogs_order() -> None:
    text = (TOP / "docs" / "features.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)
    assert rows == [feature.name for feature in (*platform_features(), *WINDOWS_FEATURES)]
