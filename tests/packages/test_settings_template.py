"""The template of instance_configs.cfg against the settings that the library knows."""

from __future__ import annotations

import re

from release import TOP

from google_guest.config import Config, load_config
from google_guest.system.files import Files

TEMPLATE = TOP / "config/common/usr/share/google-guest-agent/instance_configs.cfg"
PATH = "/etc/default/instance_configs.cfg"
WINDOWS_ONLY = {"startup_windows", "shutdown_windows", "sysprep_specialize"}
OBSOLETE = {"usermod_cmd"}
WITHOUT_DEFAULT = {"accountManager", "addressManager", "diagnostics", "wsfc"}


def with_every_key_in_force() -> str:
    return re.sub(r"^#(\[|[\w-]+ =)", r"\1", TEMPLATE.read_text(), flags=re.MULTILINE)


def loaded(tmp_path, text: str) -> Config:
    file = tmp_path / PATH.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return load_config(Files(tmp_path), environ={})


def test_template_as_it_is_changes_nothing(tmp_path) -> None:
    config = loaded(tmp_path, TEMPLATE.read_text())
    assert config.problems == ()
    assert {setting.origin for setting in config.settings()} == {"built-in"}


def test_every_key_of_the_template_is_known(tmp_path) -> None:
    config = loaded(tmp_path, with_every_key_in_force())
    assert [str(problem) for problem in config.problems] == []


def test_every_setting_is_in_the_template(tmp_path) -> None:
    config = loaded(tmp_path, with_every_key_in_force())
    absent = [
        f"{setting.section}.{setting.key}"
        for setting in config.settings()
        if setting.origin == "built-in" and setting.key not in WINDOWS_ONLY | OBSOLETE
    ]
    assert absent == []


def test_template_shows_the_built_in_values(tmp_path) -> None:
    shown = loaded(tmp_path, with_every_key_in_force()).settings()
    built_in = Config().settings()
    different = [
        f"{one.section}.{one.key}: the template has {one.text!r}, built in is {other.text!r}"
        for one, other in zip(shown, built_in)
        if one.text != other.text and one.section not in WITHOUT_DEFAULT
    ]
    assert different == []
