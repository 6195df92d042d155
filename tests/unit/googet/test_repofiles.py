"""``*.repo`` files: reading, the policy on addresses, adding, removing, and their written form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet.repofiles import (
    Entry,
    Repository,
    RepositoryFileError,
    add_repository,
    list_repository_files,
    parse_priority,
    read_repositories,
    remove_repository,
    repositories_from_sources,
)
from googet.settings import Settings
from google_guest.errors import GuestError

U = "https://h/repos/stable"
OPEN = Settings(allow_unsafe_url=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "repos"
    path.mkdir()
    return path


def write(folder: Path, text: str, name: str = "a.repo") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def priorities(folder: Path, settings: Settings = Settings()) -> dict[str, int]:  # noqa: B008
    return {one.display_url: one.priority for one in read_repositories(folder, settings)}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n\n  \n# c\r\n", "\ufeff", "---\n"])
def test_empty_file_has_no_repositories(folder: Path, text: str) -> None:
    write(folder, text)
    assert priorities(folder) == {}


@pytest.mark.parametrize(
    "text",
    [
        f"url: {U}",
        f"# comment\nurl: {U}\n",
        f"- url: {U}\n",
        f"URL: {U}",
        f"\n# a\n\n- name: x\n  url: {U}\n",
        f"[{{name: x, Url: '{U}'}}]",
        f"\ufeff- url: {U}\r\n  name: x\r\n",
        f"- url: {U}\n  unknown: [a, {{b: c}}]\n",
        f"- url: {U}\n  priority:\n  useoauth:\n",
        f"# OS Config\n- name: x\n  url: {U}\n",
    ],
)
def test_one_repository_with_the_default_priority(folder: Path, text: str) -> None:
    write(folder, text)
    assert priorities(folder) == {U: 500}


def test_plain_http_is_dropped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, "- url: http://h/r\n")
    assert priorities(folder) == {}
    assert "http://h/r skipped: it is not https; allowunsafeurl would permit it" in caplog.text


def test_plain_http_is_kept_with_allowunsafeurl(folder: Path) -> None:
    write(folder, "- url: http://h/r\n")
    assert priorities(folder, OPEN) == {"http://h/r": 500}


def test_https_beside_http(folder: Path) -> None:
    write(folder, f"- url: {U}\n- url: http://h/r\n")
    assert priorities(folder) == {U: 500}
    assert priorities(folder, OPEN) == {U: 500, "http://h/r": 500}


def test_cloud_storage_and_local_folders_are_kept(folder: Path) -> None:
    local = "C:\\repo" if sys.platform == "win32" else "/srv/repo"
    write(folder, f"- url: gs://b/r\n- url: '{local}'\n- url: http://storage.googleapis.com/b/r\n")
    assert list(priorities(folder)) == ["gs://b/r", local, "http://storage.googleapis.com/b/r"]


def test_duplicate_keeps_its_highest_priority(folder: Path) -> None:
    write(folder, f"- url: {U}\n  priority: canary\n- url: https://h/other\n")
    write(folder, f"- url: {U}\n- url: {U}\n  priority: pin\n", "b.repo")
    assert priorities(folder) == {U: 1400, "https://h/other": 500}


@pytest.mark.parametrize(
    ("value", "is_used"),
    [
        ("true", True),
        ("TRUE", True),
        ("True", True),
        ('"true"', True),
        ("false", False),
        ("no", False),
        ("", False),
        ("2", False),
        ("[true]", False),
    ],
)
def test_useoauth(
    folder: Path, caplog: pytest.LogCaptureFixture, value: str, is_used: bool
) -> None:
    write(folder, f"- url: {U}\n  useoauth: {value}\n")
    assert priorities(folder) == {f"oauth-{U}" if is_used else U: 500}
    assert not caplog.records


@pytest.mark.parametrize("value", ["yes", "On", "1", "y"])
def test_useoauth_in_other_words_has_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    write(folder, f"- url: {U}\n  useoauth: {value}\n")
    assert priorities(folder) == {f"oauth-{U}": 500}
    assert "write true" in caplog.text


def test_the_address_itself_may_ask_for_credentials(folder: Path) -> None:
    write(folder, f"- url: oauth-{U}\n")
    assert read_repositories(folder, Settings()) == (Repository(U, oauth=True),)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1200", 1200),
        ("default", 500),
        ("canary", 1300),
        ("pin", 1400),
        ("rollback", 1500),
        ("0", 500),
        ("-7", 500),
        ("+9", 9),
        ("007", 7),
        ("'42'", 42),
    ],
)
def test_priorities(folder: Path, text: str, number: int) -> None:
    write(folder, f"- url: {U}\n  priority: {text}\n")
    assert priorities(folder) == {U: number}


@pytest.mark.parametrize("text", ["high", "Pin", "1.5", "1e3", "0x10", "[1]", "9" * 30])
def test_entry_with_an_unknown_priority_is_skipped_alone(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    write(folder, f"- url: https://h/bad\n  priority: {text}\n- url: {U}\n")
    assert priorities(folder) == {U: 500}
    assert "a.repo:1: repository skipped: priority" in caplog.text


def test_unknown_priority_is_an_error_of_its_own() -> None:
    with pytest.raises(RepositoryFileError, match="neither a number nor one of default, canary"):
        parse_priority("high")


@pytest.mark.parametrize("bad", ["name: x", "name: x\n  url:", "url: [a]", "[a]", "x", "url: ''"])
def test_entry_without_address_is_skipped_alone(
    folder: Path, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    write(folder, f"# c\n- {bad}\n- url: {U}\n")
    assert priorities(folder) == {U: 500}
    assert "a.repo:2: " in caplog.text
    assert "skipped" in caplog.text


@pytest.mark.parametrize(
    "text", [f"URL: {U}\n  useoauth: true\n", "just text", "- [", "\t- a", "a: 'b", "%YAML 9"]
)
def test_file_that_is_no_yaml_is_dropped_alone(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    write(folder, text)
    write(folder, f"url: {U}\n", "b.repo")
    assert priorities(folder) == {U: 500}
    assert "a.repo" in caplog.text
    assert "the file is ignored" in caplog.text


def test_values_are_text(folder: Path) -> None:
    write(folder, f"- name: 1.0\n  url: {U}\n- name: no\n  url: https://h/2\n")
    names = [one.name for one in read_repositories(folder, Settings())]
    assert names == ["1.0", "no"]


def test_files_are_read_in_the_order_of_their_names(folder: Path) -> None:
    for name in ("b.repo", "a.repo", "C.repo", "d.txt", "e.repo.bak"):
        write(folder, f"url: https://h/{name}\n", name)
    assert list(priorities(folder)) == ["https://h/C.repo", "https://h/a.repo", "https://h/b.repo"]


def test_no_folder_means_no_repositories(tmp_path: Path) -> None:
    assert priorities(tmp_path / "none") == {}


def test_a_pin_that_no_file_has_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, f"url: {U}/\n")
    pins = {U: "k", "https://h/misspelt?token=x": "k"}
    read_repositories(folder, Settings(signed_repos=pins))
    assert [record.getMessage() for record in caplog.records] == [
        "signedrepos names https://h/misspelt, which no repository file has"
    ]


def test_sources_have_priority_500_and_may_ask_for_credentials() -> None:
    found = repositories_from_sources(f" {U} , oauth-https://h/b,,{U}", Settings())
    assert found == (Repository(U), Repository("https://h/b", oauth=True))


def test_sources_follow_the_same_policy(caplog: pytest.LogCaptureFixture) -> None:
    sources = "http://h/r,oauth-http://h/s,https://u:secret@h/t,ftp://h/u,gs://b"
    found = repositories_from_sources(sources, Settings())
    assert [one.url for one in found] == ["https://u:secret@h/t", "gs://b"]
    assert "ftp://h/u is no repository" in caplog.text
    assert "secret" not in caplog.text
    assert len(repositories_from_sources(sources, OPEN)) == 4


@pytest.mark.parametrize(
    ("priority", "line"),
    [
        (0, ""),
        (500, "  priority: default\n"),
        (1300, "  priority: canary\n"),
        (1400, "  priority: pin\n"),
        (1500, "  priority: rollback\n"),
        (42, "  priority: 42\n"),
    ],
)
def test_written_form(folder: Path, priority: int, line: str) -> None:
    change = add_repository(folder, "example", U, priority=priority)
    assert change.path == folder / "example.repo"
    assert change.text == f"- name: example\n  url: {U}\n  useoauth: false\n{line}"
    assert change.path.read_bytes() == change.text.encode()


@pytest.mark.skipif(sys.platform == "win32", reason="modes of Linux")
def test_written_mode(folder: Path) -> None:
    assert add_repository(folder, "x", U).path.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize("name", ["1.0", "no", "~", "a: b", "#", "- x", "\u00e4", "'", "a" * 200])
def test_written_names_are_read_back(folder: Path, name: str) -> None:
    add_repository(folder, name, U, file="f.repo")
    assert list_repository_files(folder)[0].entries == (Entry(name, U),)


def test_credentials_are_written_as_useoauth(folder: Path) -> None:
    text = add_repository(folder, "x", f"oauth-{U}").text
    assert text == f"- name: x\n  url: {U}\n  useoauth: true\n"


def test_adding_appends(folder: Path) -> None:
    path = write(folder, "- {url: https://h/1, name: one, priority: pin}\n", "f.repo")
    change = add_repository(folder, "two", "https://h/2", file="f.repo")
    assert change.changed == (path,)
    assert list_repository_files(folder)[0].entries == (
        Entry("one", "https://h/1", False, 1400),
        Entry("two", "https://h/2"),
    )
    assert "priority: pin\n" in path.read_text()


@pytest.mark.parametrize(
    ("name", "url"), [("one", "https://h/new"), ("ONE", "https://h/new"), ("new", "https://h/1")]
)
def test_entry_with_the_same_name_or_address_is_replaced(folder: Path, name: str, url: str) -> None:
    write(folder, "- {url: https://h/1, name: one}\n- {url: https://h/2, name: two}\n", "f.repo")
    add_repository(folder, name, url, file="f.repo")
    assert list_repository_files(folder)[0].entries == (
        Entry("two", "https://h/2"),
        Entry(name, url),
    )


def test_one_address_added_under_two_names_has_one_entry(folder: Path) -> None:
    add_repository(folder, "x", U)
    change = add_repository(folder, "y", U)
    assert change.changed == (folder / "x.repo", folder / "y.repo")
    files = list_repository_files(folder)
    assert [(file.path.name, file.entries) for file in files] == [("y.repo", (Entry("y", U),))]
    assert remove_repository(folder, "Y") == (folder / "y.repo",)
    assert list(folder.iterdir()) == []
    assert remove_repository(folder, "Y") == ()


def test_comments_at_the_beginning_are_kept(folder: Path) -> None:
    path = write(folder, f"# first\r\n\r\n  # second\r\n- url: {U}\r\n# lost\r\n", "f.repo")
    add_repository(folder, "n", "https://h/n", file="f.repo")
    assert path.read_text() == (
        f"# first\n\n  # second\n- name: ''\n  url: {U}\n  useoauth: false\n"
        "- name: n\n  url: https://h/n\n  useoauth: false\n"
    )


def test_what_is_not_understood_survives_rewriting(folder: Path) -> None:
    path = write(
        folder,
        f"- {{url: {U}, Extra: [1, 'yes'], PRIORITY: 7}}\n- name: without address\n",
        "f.repo",
    )
    add_repository(folder, "n", "https://h/n", file="f.repo")
    text = path.read_text()
    assert "  priority: 7\n  Extra: [1, 'yes']\n" in text
    assert "- name: without address\n" in text


def test_file_that_is_no_yaml_is_not_overwritten(folder: Path) -> None:
    path = write(folder, "a: [", "f.repo")
    with pytest.raises(RepositoryFileError, match="f.repo"):
        add_repository(folder, "n", U, file="f.repo")
    assert path.read_text() == "a: ["


@pytest.mark.parametrize("file", ["../x.repo", "x.txt", "a/b.repo", "..", ".repo", "a:b.repo"])
def test_file_outside_the_folder_is_refused(folder: Path, file: str) -> None:
    with pytest.raises(RepositoryFileError, match="names no file that ends in .repo"):
        add_repository(folder, "n", U, file=file)
    assert list(folder.parent.rglob("*.repo")) == []


def test_name_that_leaves_the_folder_is_refused(folder: Path) -> None:
    with pytest.raises(RepositoryFileError):
        add_repository(folder, "../n", U)


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert add_repository(tmp_path / "new" / "repos", "x", U).path.is_file()


def test_dry_run_changes_nothing(folder: Path) -> None:
    change = add_repository(folder, "x", U, dry_run=True)
    assert change.path == folder / "x.repo"
    assert list(folder.iterdir()) == []
    add_repository(folder, "x", U)
    assert remove_repository(folder, "x", dry_run=True) == (folder / "x.repo",)
    assert len(list_repository_files(folder)) == 1


def test_removing_from_all_files(folder: Path) -> None:
    one = write(folder, "- {name: foo, url: https://h/1}\n- {name: bar, url: https://h/2}\n")
    two = write(folder, "- {name: FOO, url: https://h/3}\n", "b.repo")
    other = write(folder, "- {name: baz, url: https://h/4}  # kept\n", "c.repo")
    before = other.read_text()
    assert remove_repository(folder, "foo") == (one, two)
    assert one.read_text() == "- name: bar\n  url: https://h/2\n  useoauth: false\n"
    assert not two.exists()
    assert other.read_text() == before


def test_file_with_an_unusable_entry_is_not_deleted(folder: Path) -> None:
    path = write(folder, f"- {{name: foo, url: '{U}'}}\n- name: broken\n")
    remove_repository(folder, "foo")
    assert path.read_text() == "- name: broken\n"


def test_unwritable_file_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("googet.repofiles.replace_file", fail)
    with pytest.raises(RepositoryFileError, match=r"x\.repo cannot be written: Permission denied"):
        add_repository(folder, "x", U)


_PIECES = st.lists(
    st.sampled_from(
        ["- ", "name: x\n", f"url: {U}\n", "  url: gs://b\n", "priority: ", "pin\n", "- [", "]\n"]
        + ["&a ", "*a\n", "{", "}", ": ", "'", '"\\ud800"', '"\\U00110000"', "# c\n", "\r\n", "\t"]
        + ["useoauth: yes\n", "--- ", "!!binary ", "? ", "<<: ", "\x07", "- &a [*a]\n", "|\n  x\n"]
    )
).map("".join)


@given(st.one_of(st.binary(), st.text().map(str.encode), _PIECES.map(str.encode)))
def test_no_bytes_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("repos")
    path = folder / "a.repo"
    path.write_bytes(data)
    before = read_repositories(folder, OPEN)
    try:
        add_repository(folder, "added", "https://added/r", file="a.repo")
    except GuestError:
        assert path.read_bytes() == data
        return
    after = read_repositories(folder, OPEN)
    kept = {one.url for one in before if one.name.lower() != "added"}
    assert {one.url for one in after} == kept | {"https://added/r"}
