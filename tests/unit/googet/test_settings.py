"""``googet.conf``: defaults, wrong values, spellings, durations, and any bytes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.settings import Settings, SettingsError, load_settings, parse_go_duration
from google_guest.errors import GuestError

ARCHITECTURES = ("x86_64", "noarch")


def load(folder: Path, text: str) -> Settings:
    (folder / "googet.conf").write_bytes(text.encode())
    return load_settings(folder, ARCHITECTURES)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(tmp_path, ARCHITECTURES) == Settings(
        architectures=ARCHITECTURES,
        cache_life=180.0,
        lock_file_max_age=86400.0,
        proxy_server="",
        allow_unsafe_url=False,
        strict_conflicts=False,
        signed_repos={},
    )


def test_reference_example(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "archs: [noarch, x86_64, arm64]\ncachelife: 10m\nlockfilemaxage: 1x\n"
    settings = load(tmp_path, f"{text}allowunsafeurl: true\n")
    assert settings.architectures == ("noarch", "x86_64", "arm64")
    assert settings.cache_life == 600.0
    assert settings.lock_file_max_age == 86400.0
    assert settings.allow_unsafe_url
    assert "lockfilemaxage '1x' is no duration" in caplog.text


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "~", "\ufeff# BOM\r\n"])
def test_empty_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == Settings(architectures=ARCHITECTURES)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("archs: x86_64", "archs"),
        ("archs: {a: b}", "archs"),
        ("archs: [[x86_64]]", "archs"),
        ("archs: [x86_64, null]", "archs"),
        ("cachelife: [10m]", "cachelife"),
        ("lockfilemaxage: {a: b}", "lockfilemaxage"),
        ("proxyserver: [a]", "proxyserver"),
        ("allowunsafeurl: maybe", "allowunsafeurl"),
        ('allowunsafeurl: "true"', "allowunsafeurl"),
        ("allowunsafeurl: 'yes'", "allowunsafeurl"),
        ("strictconflicts: 1", "strictconflicts"),
        ("strictconflicts: [true]", "strictconflicts"),
    ],
)
def test_wrong_type_is_logged_and_other_keys_apply(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, key: str
) -> None:
    other = "cachelife" if key != "cachelife" else "lockfilemaxage"
    settings = load(tmp_path, f"{line}\n{other}: 7s\n")
    assert 7.0 in (settings.cache_life, settings.lock_file_max_age)
    assert not settings.allow_unsafe_url
    assert not settings.strict_conflicts
    assert settings.architectures == ARCHITECTURES
    assert f"googet.conf: {key} " in caplog.text


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("true", True),
        ("True", True),
        ("yes", True),
        ("YES", True),
        ("on", True),
        ("y", True),
        ("false", False),
        ("no", False),
        ("off", False),
        ("", False),
    ],
)
def test_truth_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, word: str, meaning: bool
) -> None:
    assert load(tmp_path, f"strictconflicts: {word}\n").strict_conflicts is meaning
    assert not caplog.records


def test_key_in_another_case_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(tmp_path, "Archs: [arm64]\n").architectures == ("arm64",)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "write Archs in lower case: archs" in caplog.text


def test_lower_case_key_wins_over_another_case(tmp_path: Path) -> None:
    assert load(tmp_path, "cachelife: 1s\nCacheLife: 2s\n").cache_life == 1.0


def test_unknown_keys_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(tmp_path, "colour: blue\n? [a]\n: b\n")
    assert not caplog.records


def test_crlf_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeffcachelife: 5s\r\nproxyserver: http://p:3128\r\n") == Settings(
        architectures=ARCHITECTURES, cache_life=5.0, proxy_server="http://p:3128"
    )


def test_pinned_keys_are_below_the_root(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.pem"
    settings = load(
        tmp_path, f"signedrepos:\n  https://a/r: keys/a.pem\n  https://b/r: '{elsewhere}'\n"
    )
    assert settings.signed_repos == {
        "https://a/r": str(tmp_path / "keys" / "a.pem"),
        "https://b/r": str(elsewhere),
    }


@pytest.mark.parametrize("value", ["a.pem", "[a]", "{https://a/r: [b]}", "{https://a/r: }"])
def test_malformed_pins_are_an_error(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match="signedrepos must consist of"):
        load(tmp_path, f"signedrepos: {value}\n")


@pytest.mark.parametrize(
    "text", ["[a]\n", "just text\n", "a: b: c\n", "\tx: y\n", "a: [\n", "\0", "[" * 5000]
)
def test_file_that_is_no_settings_is_one_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="googet.conf"):
        load(tmp_path, text)


def test_unreadable_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "googet.conf").mkdir()
    with pytest.raises(SettingsError, match="googet.conf cannot be read"):
        load_settings(tmp_path, ARCHITECTURES)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("+0", 0.0),
        ("-0", 0.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("90s", 90.0),
        ("300ms", 0.3),
        ("-300ms", -0.3),
        ("+5s", 5.0),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("1us", 1e-6),
        ("1\u00b5s", 1e-6),
        ("1\u03bcs", 1e-6),
        ("1ns", 1e-9),
        ("1m1m", 120.0),
        ("2562047h", 2562047 * 3600.0),
        ("0000000000000000000000000000001s", 1.0),
    ],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert parse_go_duration(text) == pytest.approx(seconds, abs=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1x", "1d", "s", ".s", ".", "-", "+", "1h 30m", " 1s", "1s ", "1e3s", "2562048h"]
    + ["--1s", "1S", "\u0661s", "9" * 5000 + "s"],
)
def test_no_go_durations(text: str) -> None:
    assert parse_go_duration(text) is None


@given(st.text())
def test_any_text_is_a_duration_or_none(text: str) -> None:
    seconds = parse_go_duration(text)
    assert seconds is None or isinstance(seconds, float)


_LINES = st.lists(
    st.sampled_from(
        ["archs: [x86_64]", "archs:", "- a", "cachelife: &a 3m", "proxyserver: *a", "signedrepos:"]
        + ["  https://h/r: k", "&a [*a]", "? {x: y}", "allowunsafeurl: yes", "<<: *a", "--- !!x"]
        + ['"\\UFFFFFFFF": 1', '"\\ud800": "\\ud800"', "[" * 50, "%YAML 9.9", "\x00", "!!int a"]
    )
).map("\n".join)


@given(st.one_of(st.binary(), _LINES.map(str.encode), st.text().map(str.encode)))
def test_no_bytes_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "googet.conf").write_bytes(data)
    try:
        load_settings(folder, ARCHITECTURES)
    except GuestError as error:
        assert "\n" not in str(error)
