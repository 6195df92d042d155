"""What a path is on Windows and on Linux."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.host.paths import POSIX_PATHS, WINDOWS_PATHS, PathError, with_long_prefix


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("C:\\a\\b", "C:\\a\\b"),
        ("C:/a//b/./c/", "C:\\a\\b\\c"),
        ("C:\\a\\..\\b", "C:\\b"),
        ("C:\\..\\..\\b", "C:\\b"),
        ("c:\\", "c:\\"),
        ("C:/", "C:\\"),
        ("\\\\?\\C:\\a", "C:\\a"),
        ("\\\\server\\share\\a", "\\\\server\\share\\a"),
        ("\\\\?\\UNC\\server\\share\\a", "\\\\server\\share\\a"),
        ("\\\\?\\unc\\server\\share\\a", "\\\\server\\share\\a"),
        ("C:\\Ünïcode ß\\文", "C:\\Ünïcode ß\\文"),
        ("C:\\.hidden", "C:\\.hidden"),
        ("C:\\console\\com10\\nullable", "C:\\console\\com10\\nullable"),
    ],
)
def test_windows_path_is_cleaned(text: str, path: str) -> None:
    assert WINDOWS_PATHS.cleaned(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\\b",
        "\\a",
        "/a",
        "C:a",
        "C:",
        "\\\\server",
        "\\\\.\\pipe\\x",
        "\\\\?\\GLOBALROOT\\x",
        "\\\\.\\C:\\x",
        "1:\\a",
        "C:\\a:stream",
        "C:\\a?",
        "C:\\a\x00b",
        "C:\\a\nb",
        "C:\\<x>",
        "C:\\a.",
        "C:\\a \\b",
        "C:\\nul",
        "C:\\a\\COM1.txt",
        "C:\\lpt9",
        "C:\\con .x",
    ],
)
def test_text_that_no_windows_file_has_is_refused(text: str) -> None:
    with pytest.raises(PathError):
        WINDOWS_PATHS.cleaned(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [("/a//b/./c/", "/a/b/c"), ("/../a", "/a"), ("//a", "/a"), ("/", "/"), ("/a/..", "/")],
)
def test_posix_path_is_cleaned(text: str, path: str) -> None:
    assert POSIX_PATHS.cleaned(text) == path


@pytest.mark.parametrize("text", ["", "a/b", "./a", "/a\0b"])
def test_text_that_no_posix_file_has_is_refused(text: str) -> None:
    with pytest.raises(PathError):
        POSIX_PATHS.cleaned(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("C:\\Program Files", "c:\\PROGRAM FILES", True),
        ("C:\\é", "C:\\É", True),
        ("C:\\ß", "C:\\SS", False),
        ("C:\\a", "C:\\b", False),
    ],
)
def test_windows_paths_are_the_same_whatever_their_case(one: str, other: str, same: bool) -> None:
    assert (WINDOWS_PATHS.key(one) == WINDOWS_PATHS.key(other)) is same


def test_posix_paths_have_case() -> None:
    assert POSIX_PATHS.key("/a") != POSIX_PATHS.key("/A")


@pytest.mark.parametrize(
    ("path", "long"),
    [
        ("C:\\a", "\\\\?\\C:\\a"),
        ("\\\\server\\share\\a", "\\\\?\\UNC\\server\\share\\a"),
        ("\\\\?\\C:\\a", "\\\\?\\C:\\a"),
    ],
)
def test_long_form_of_a_windows_path(path: str, long: str) -> None:
    assert with_long_prefix(path) == long


@pytest.mark.parametrize(
    ("path", "above"),
    [
        ("C:\\a\\b", ["C:\\a", "C:\\"]),
        ("\\\\s\\h\\a", ["\\\\s\\h\\"]),
        ("C:\\", []),
    ],
)
def test_windows_folders_above(path: str, above: list[str]) -> None:
    assert list(WINDOWS_PATHS.ancestors(path)) == above


def test_posix_folders_above() -> None:
    assert list(POSIX_PATHS.ancestors("/a/b")) == ["/a", "/"]


@pytest.mark.parametrize(("path", "root"), [("C:\\", True), ("\\\\s\\h\\", True), ("C:\\a", False)])
def test_root_of_a_drive_or_share(path: str, root: bool) -> None:
    assert WINDOWS_PATHS.is_root(path) is root


@given(st.text(max_size=40))
def test_cleaned_windows_path_stays_as_it_is(text: str) -> None:
    for prefix in ("", "C:\\", "C:/", "\\\\?\\", "\\\\"):
        try:
            path = WINDOWS_PATHS.cleaned(prefix + text)
        except PathError:
            continue
        assert WINDOWS_PATHS.cleaned(path) == path
        assert ".." not in path.split("\\")
        assert WINDOWS_PATHS.cleaned(with_long_prefix(path)) == path
        assert WINDOWS_PATHS.cleaned(WINDOWS_PATHS.join(WINDOWS_PATHS.parent(path), "x"))


@given(st.text(max_size=40))
def test_cleaned_posix_path_stays_as_it_is(text: str) -> None:
    try:
        path = POSIX_PATHS.cleaned("/" + text)
    except PathError:
        return
    assert POSIX_PATHS.cleaned(path) == path
    assert ".." not in path.split("/")
