"""Which files sources name: globs, roots, targets, and the names in the archive."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.collecting import CollectError, collect, matches, missing_files, walk_roots
from googet.goospec import Source

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")


def tree(top: Path, *names: str) -> Path:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    return top


def collected(top: Path, *sources: Source, windows: Optional[bool] = False) -> dict[str, str]:
    """Names in the archive to paths below ``top``."""
    found = collect(sources, top, windows=bool(windows))
    return {name: path.relative_to(top).as_posix() for name, path in found.items()}


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/path**.file", "/path/to.file", True),
        ("/path[a-z]", "/pathb", False),
        ("/path[a-z]", "/path[a-z]", True),
        ("path/*/file", "path/to/file", True),
        ("path/*/file", "path/to/the/file", False),
        ("path/**/file", "path/to/the/file", True),
        ("path/**/file", "path/file", False),
        ("a(b)c[d]e{f}g.h^i$j?k+l\\m%n=o-p", "a(b)c[d]e{f}g.h^i$j?k+l\\m%n=o-p", True),
        ("*", "", True),
        ("*", "a/b", False),
        ("**", "a/b\nc", True),
        ("a*", "ab", True),
        ("*a", "ab", False),
        ("a.b", "axb", False),
        ("a", "a\n", False),
        ("a", "xa", False),
        # Alternatives, as the reference's regular expression has them.
        ("a|b", "a", True),
        ("a|b", "b", True),
        ("a|b", "a and more", True),
        ("a|b", "less and b", True),
        ("a|b", "xay", False),
    ],
)
def test_glob_matches(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) == expected


def test_one_star_crosses_folders_on_windows() -> None:
    assert matches("path/*/file", "path/to/the/file", windows=True)


@pytest.mark.parametrize("pattern", ["***", "a/***/b", "****"])
def test_three_stars_are_refused(pattern: str) -> None:
    with pytest.raises(CollectError, match="three"):
        matches(pattern, "a")


@given(st.text().filter(lambda text: "*" not in text and "|" not in text), st.text())
def test_text_without_stars_matches_only_itself(pattern: str, path: str) -> None:
    assert matches(pattern, pattern)
    assert matches(pattern, path) == (pattern == path)


@given(st.lists(st.text("ab/", max_size=3), min_size=2, max_size=4))
def test_two_stars_match_anything_between(parts: list[str]) -> None:
    assert matches("**".join((parts[0], parts[-1])), "".join(parts))


@pytest.mark.parametrize(
    ("patterns", "roots"),
    [
        (["foo/bar/*.txt", "foo/x", "foo/baz/*", "y", "foo/*"], ("foo",)),
        (["foo/bar/*.txt", "foo/baz/*"], ("foo/bar", "foo/baz")),
        (["foo/*", "foobar/*"], ("foo", "foobar")),
        (["a/b*/c/*", "a/*"], ("a",)),
        (["*", "a/*"], (".",)),
        (["*", "../a/*"], (".", "../a")),
        (["/*", "/a/*", "b/*"], ("/", "b")),
        (["a", "b/c"], ()),
    ],
)
def test_folders_are_walked_once(patterns: list[str], roots: tuple[str, ...]) -> None:
    assert walk_roots(patterns) == roots


def test_excludes_and_target_apply_to_a_tree(tmp_path: Path) -> None:
    top = tree(
        tmp_path / "R", "globme.file", "notme.file", "notmeeither.file", "globdir/globmetoo.file"
    )
    source = Source(("**",), ("notme*",), "foo", str(top))
    assert collected(top, source) == {
        "foo/globme.file": "globme.file",
        "foo/globdir/globmetoo.file": "globdir/globmetoo.file",
    }


def test_root_is_not_part_of_the_names(tmp_path: Path) -> None:
    top = tree(tmp_path, "sub/b.txt", "sub/dir/c.txt", "other")
    source = Source(("**",), ("dir/**",), "T", "sub")
    assert collected(top, source) == {"T/b.txt": "sub/b.txt"}


@pytest.mark.parametrize("root", ["", "."])
def test_all_files_are_found_without_a_root(tmp_path: Path, root: str) -> None:
    top = tree(tmp_path, "a", "d/b", "d/e/c")
    names = {"a": "a", "d/b": "d/b", "d/e/c": "d/e/c"}
    assert collected(top, Source(("**",), root=root)) == names


@pytest.mark.parametrize("include", ["./d/b", "d//b", "d/../d/b", "d\\b"])
def test_include_is_cleaned(tmp_path: Path, include: str) -> None:
    assert collected(tree(tmp_path, "d/b"), Source((include,))) == {"d/b": "d/b"}


def test_excludes_leave_literal_includes_alone(tmp_path: Path) -> None:
    top = tree(tmp_path, "a", "b")
    assert collected(top, Source(("a", "*"), ("*",))) == {"a": "a"}


def test_glob_without_a_match_is_silent(tmp_path: Path) -> None:
    assert collected(tree(tmp_path, "a"), Source(("*.txt",))) == {}


def test_star_stays_in_its_folder(tmp_path: Path) -> None:
    top = tree(tmp_path, "bin/a", "bin/sub/b")
    assert collected(top, Source(("bin/*",))) == {"bin/a": "bin/a"}
    assert set(collected(top, Source(("bin/*",)), windows=True)) == {"bin/a", "bin/sub/b"}


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("missing", "missing is included but does not exist"),
        ("d", "d is included but is no file"),
        ("missing/*", "missing cannot be searched"),
        ("a/*", "a cannot be searched"),
        ("d/***", "three"),
    ],
)
def test_include_that_names_nothing_is_refused(tmp_path: Path, include: str, message: str) -> None:
    with pytest.raises(CollectError, match=message):
        collected(tree(tmp_path, "a", "d/b"), Source((include,)))


def test_file_that_is_included_twice_is_packed_once(tmp_path: Path) -> None:
    top = tree(tmp_path, "d/b")
    sources = (Source(("d/b", "d/b", "d/*", "**")), Source(("b",), root="d", target="d"))
    assert collected(top, *sources) == {"d/b": "d/b"}


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    top = tree(tmp_path, "x/f", "y/f")
    with pytest.raises(CollectError, match="would both be f in the package"):
        collected(top, Source(("f",), root="x"), Source(("f",), root="y"))


@pytest.mark.parametrize(
    ("root", "names", "moved"),
    [
        ("sub/", {"sub/b.txt", "dir/c.txt"}, "'sub/' is not 'sub'"),
        ("./sub", {"sub/b.txt", "sub/dir/c.txt"}, "'./sub' is not 'sub'"),
        ("sub", {"b.txt", "dir/c.txt"}, None),
        ("sub\\dir", {"c.txt"}, None),
    ],
)
def test_root_that_is_not_clean_is_kept_with_a_warning(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    root: str,
    names: set[str],
    moved: Optional[str],
) -> None:
    top = tree(tmp_path, "sub/b.txt", "sub/dir/c.txt")
    with caplog.at_level(logging.WARNING):
        assert set(collected(top, Source(("**",), root=root))) == names
    assert [record.levelname for record in caplog.records] == (["WARNING"] if moved else [])
    assert (moved or "") in caplog.text


def test_root_of_a_dot_takes_the_dot_of_hidden_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    top = tree(tmp_path, ".hid/h", ".f", "d/x")
    with caplog.at_level(logging.WARNING):
        assert set(collected(top, Source(("**",), root="."))) == {"hid/h", ".f", "d/x"}
    assert "makes hid/h of what would be .hid/h" in caplog.text


@pytest.mark.parametrize("target", ["../up", "/abs", "a/../..", "\\abs", "C:x"])
def test_target_outside_the_package_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(CollectError, match="leads out of the package"):
        collected(tree(tmp_path, "a"), Source(("a",), target=target))


@pytest.mark.parametrize(
    ("target", "name"), [("t/", "t/a"), ("./t//u", "t/u/a"), ("t\\u", "t/u/a"), (".", "a")]
)
def test_target_is_cleaned(tmp_path: Path, target: str, name: str) -> None:
    assert collected(tree(tmp_path, "a"), Source(("a",), target=target)) == {name: "a"}


def test_source_above_the_current_folder_keeps_no_dots_with_a_root(tmp_path: Path) -> None:
    tree(tmp_path, "a")
    (tmp_path / "work").mkdir()
    found = collect([Source(("a",), root="..")], tmp_path / "work", windows=False)
    assert list(found) == ["a"]


def test_source_above_the_current_folder_needs_a_root(tmp_path: Path) -> None:
    tree(tmp_path, "a")
    (tmp_path / "work").mkdir()
    with pytest.raises(CollectError, match="leads out"):
        collect([Source(("../a",))], tmp_path / "work")


@posix_only
def test_links_are_followed(tmp_path: Path) -> None:
    top = tree(tmp_path, "real/f")
    (top / "link").symlink_to("real", target_is_directory=True)
    (top / "file").symlink_to("real/f")
    assert set(collected(top, Source(("link/**", "fil*")))) == {"link/f", "file"}


@posix_only
def test_link_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    top = tree(tmp_path, "d/f")
    (top / "d/up").symlink_to("..", target_is_directory=True)
    with pytest.raises(CollectError, match="d/up is a link to a folder that it is in"):
        collected(top, Source(("**",)))


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        (["lic"], []),
        (["lic/a.txt", "lic/sub", "lic/sub/b.txt"], []),
        (["lic/"], ["lic/"]),
        (["li", "lic/sub/", "./lic"], ["./lic", "lic/sub/", "li"]),
        (["."], []),
        (["top"], []),
    ],
)
def test_key_of_files_is_a_packed_file_or_a_folder_above_one(
    keys: list[str], missing: list[str]
) -> None:
    names = ["lic/a.txt", "lic/sub/b.txt", "top"]
    assert missing_files(keys, names) == sorted(missing)


def test_whole_archive_is_no_key_without_a_file_at_its_root() -> None:
    assert missing_files(["."], ["d/f"]) == ["."]
