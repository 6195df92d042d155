"""Layered configuration: who wins, what is forgiven, what is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.config import (
    BUILT_IN,
    AccountsSection,
    Config,
    Duration,
    load_config,
    parse_duration,
)
from google_guest.system.files import Files

CFG = "/etc/default/instance_configs.cfg"


def _load(root: Path, environ: dict[str, str] | None = None, **layers: str) -> Config:
    folder = root / "etc/default"
    folder.mkdir(parents=True, exist_ok=True)
    for layer, text in layers.items():
        suffix = "" if layer == "cfg" else f".{layer}"
        (folder / f"instance_configs.cfg{suffix}").write_text(text)
    return load_config(Files(root), environ=environ or {})


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("distro", "cfg", "template"), "template"),
        (("distro", "cfg"), "cfg"),
        (("distro",), "distro"),
    ],
)
def test_stronger_layer_wins(tmp_path: Path, layers: tuple[str, ...], expected: str) -> None:
    config = _load(tmp_path, **{layer: f"[Accounts]\ngroups = {layer}\n" for layer in layers})
    assert config.accounts.groups == expected
    suffix = "" if expected == "cfg" else f".{expected}"
    assert config.origin("accounts", "groups") == CFG + suffix


def test_extra_file_is_the_weakest_layer(tmp_path: Path) -> None:
    (tmp_path / "extra.cfg").write_text("[Accounts]\ngroups = extra\nreuse_homedir = true\n")
    config = _load(
        tmp_path,
        environ={"GUEST_AGENT_EXTRA_CONFIG": "/extra.cfg"},
        distro="[Accounts]\ngroups = distro\n",
    )
    assert config.accounts.groups == "distro"
    assert config.accounts.reuse_homedir


def test_without_a_file_the_built_in_values_are_in_force(tmp_path: Path) -> None:
    config = load_config(Files(tmp_path), environ={})
    assert config.daemons.accounts_daemon
    assert not config.daemons.clock_skew_daemon
    assert {setting.origin for setting in config.settings()} == {BUILT_IN}
    assert config.problems == ()


def test_names_of_sections_and_keys_ignore_case(tmp_path: Path) -> None:
    assert _load(tmp_path, cfg="[ACCOUNTS]\nGroups=x\n").accounts.groups == "x"


@pytest.mark.parametrize("key", ["sysprep-specialize", "sysprep_specialize"])
def test_hyphen_and_underscore_are_the_same(tmp_path: Path, key: str) -> None:
    config = _load(tmp_path, cfg=f"[MetadataScripts]\n{key} = false\n")
    assert not config.metadata_scripts.sysprep_specialize


def test_wrong_boolean_keeps_the_layer_below_and_warns(tmp_path: Path) -> None:
    config = _load(tmp_path, cfg="[Daemons]\nnetwork_daemon = flase\n")
    assert config.daemons.network_daemon
    assert len(config.problems) == 1
    assert "network_daemon" in str(config.problems[0])
    assert CFG in str(config.problems[0])
    assert not config.problems[0].is_error


def test_syntax_error_skips_that_file_alone(tmp_path: Path) -> None:
    config = _load(tmp_path, cfg="[Accounts]\ngroups = b\n", template="[Accounts\ngroups")
    assert config.accounts.groups == "b"
    assert [problem.is_error for problem in config.problems] == [True]


def test_unknown_key_is_one_warning(tmp_path: Path) -> None:
    config = _load(tmp_path, cfg="[Daemons]\nflux_daemon = true\n[Nonsense]\na = 1\n")
    assert [str(problem) for problem in config.problems] == [
        f"{CFG}: unknown key [Daemons] flux_daemon is ignored",
        f"{CFG}: unknown key [Nonsense] a is ignored",
    ]


def test_keys_of_the_reference_without_meaning_are_accepted_in_silence(tmp_path: Path) -> None:
    text = "[ACS]\nendpoint = x\n[Core]\nacs_client = true\n[Telemetry]\nx = 1\n"
    assert _load(tmp_path, cfg=text).problems == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("useradd_cmd = mk {user} # comment", "mk {user}"),
        ("useradd_cmd = mk {user} ; comment", "mk {user}"),
        ('useradd_cmd = "mk {user} ; x"', "mk {user} ; x"),
        ("useradd_cmd = mk {user};x", "mk {user};x"),
        ("useradd_cmd: mk -p * {user}", "mk -p * {user}"),
        ("useradd_cmd = mk\r", "mk"),
        ("useradd_cmd = 100%", "100%"),
        ("useradd_cmd = one\nuseradd_cmd = two", "two"),
        ("# note\n; note\nuseradd_cmd = 'a b' # note", "a b"),
    ],
)
def test_values_are_read_as_the_reference_reads_them(
    tmp_path: Path, line: str, expected: str
) -> None:
    assert _load(tmp_path, cfg=f"[Accounts]\n{line}\n").accounts.useradd_cmd == expected


def test_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    assert _load(tmp_path, cfg="\ufeff[Accounts]\ngroups = x\n").accounts.groups == "x"


def test_section_without_default_tells_presence_by_value(tmp_path: Path) -> None:
    assert _load(tmp_path).address_manager.disable is None
    assert _load(tmp_path, cfg="[addressManager]\ndisable=false\n").address_manager.disable is False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("", None), ("10", None),
     ("10s x", None), ("s", None), ("-5s", None)],
)  # fmt: skip
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@given(st.text(alphabet="0123456789.hmsnuµ +-", max_size=20))
def test_any_text_is_a_duration_or_none(text: str) -> None:
    seconds = parse_duration(text)
    assert seconds is None or 0 <= seconds < float("inf")


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_every_duration_that_is_written_is_read(h: int, m: int, s: int, ms: int) -> None:
    expected = pytest.approx(h * 3600 + m * 60 + s + ms / 1000)
    assert parse_duration(f"{h}h{m}m{s}s{ms}ms") == expected


def test_duration_prints_as_it_is_written(tmp_path: Path) -> None:
    config = _load(tmp_path, cfg="[Routes]\nmonitor_interval = 1m\n")
    assert config.routes.monitor_interval == Duration(60)
    texts = [row.text for row in config.settings() if row.key == "monitor_interval"]
    assert texts == ["60s"]


@given(st.binary(max_size=400))
def test_no_bytes_in_a_file_stop_the_load(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "etc/default").mkdir(parents=True)
    (root / "etc/default/instance_configs.cfg").write_bytes(data)
    config = load_config(Files(root), environ={})
    assert isinstance(config.accounts.groups, str)


@given(
    st.text(
        st.characters(
            blacklist_categories=("Cs",),
            blacklist_characters="\r\n\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029",
        ),
        max_size=60,
    )
)  # fmt: skip
def test_any_one_line_value_is_taken_or_cut_at_its_comment(
    tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "etc/default").mkdir(parents=True)
    (root / "etc/default/instance_configs.cfg").write_text(
        f"[Accounts]\ngroups = {value}\n", encoding="utf-8"
    )
    assert load_config(Files(root), environ={}).accounts.groups in value


def test_sections_are_immutable_and_compare_by_value() -> None:
    section = AccountsSection(groups="x")
    assert section == AccountsSection(groups="x")
    assert section != AccountsSection()
    assert hash(section) == hash(AccountsSection(groups="x"))
    with pytest.raises(AttributeError, match="cannot be assigned"):
        section.groups = "y"
    with pytest.raises(TypeError, match="has no field 'flux'"):
        AccountsSection(flux=True)


@pytest.mark.parametrize(
    ("layers", "disable", "origin"),
    [
        ({}, None, BUILT_IN),
        ({"cfg": "[accountManager]\n"}, False, CFG),
        ({"cfg": "[accountmanager]\ndisable = true\n"}, True, CFG),
        ({"cfg": "[accountManager]\ndisable = maybe\n"}, False, CFG),
        (
            {"distro": "[accountManager]\ndisable = true\n", "cfg": "[accountManager]\n"},
            True,
            f"{CFG}.distro",
        ),
        ({"cfg": "[addressManager]\n"}, None, BUILT_IN),
    ],
)
def test_section_that_is_there_says_that_it_is_not_disabled(
    tmp_path: Path, layers: dict[str, str], disable: bool | None, origin: str
) -> None:
    config = _load(tmp_path, **layers)
    assert config.account_manager.disable is disable
    assert config.origin("account_manager", "disable") == origin
