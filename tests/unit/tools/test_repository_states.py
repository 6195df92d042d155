"""What repositories remember: kept states, names that were published, dates."""

from __future__ import annotations

from pathlib import Path

import pytest
import repository_states as states
from hypothesis import given
from hypothesis import strategies as st
from repository_states import History, Ledger, RepositoryError, State

A, B = "a" * 64, "b" * 64
names = st.from_regex(r"(\.\./){0,2}[a-z][a-z0-9.+-]{0,8}(/[a-z]{1,5})?", fullmatch=True)
changes = st.lists(st.tuples(st.text("0123456789abcdef", min_size=1), st.sets(names)))


@given(changes, st.integers(1, 4))
def test_current_state_is_known_and_as_many_are_kept(
    made: list[tuple[str, set[str]]], keep: int
) -> None:
    history = History("Release")
    for root, files in made:
        history = history.with_state(root, files, keep=keep)
        assert history.knows(root)
        assert history.states[0].files == tuple(sorted(files))
        assert len(history.states) <= keep
        assert len({state.files for state in history.states}) == len(history.states)


@given(changes, st.integers(1, 4))
def test_history_is_read_as_it_was_written(made: list[tuple[str, set[str]]], keep: int) -> None:
    history = History("Release")
    for root, files in made:
        history = history.with_state(root, files, keep=keep)
    assert states.parse_history(history.text(), source="x") == history


@given(st.one_of(st.text(), st.recursive(st.none(), st.lists).map(str)))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(RepositoryError, match="the source"):
        states.parse_history(text, source="the source")


def test_dating_anew_adds_a_root_and_no_state() -> None:
    history = History("Release").with_state("1", ["a"], keep=2).with_state("2", ["b"], keep=2)
    again = history.with_state("3", ["b"], keep=2)
    assert again.states == (State(("3", "2"), ("b",)), State(("1",), ("a",)))


def test_roots_of_one_state_are_forgotten_at_last() -> None:
    history = History("Release")
    for number in range(100):
        history = history.with_state(str(number), ["a"], keep=2)
    assert history.knows("99")
    assert not history.knows("0")


def test_files_that_a_kept_state_names_stay(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    before = History("Release", (State(("1",), ("a", "b")), State(("0",), ("c",))))
    now = before.with_state("2", ["b"], keep=2)
    assert states.remove_unnamed(tmp_path, before, now) == [tmp_path / "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_ledger_remembers(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "sums")
    ledger.add("x.deb", A)
    ledger.save()
    again = Ledger(tmp_path / "sums")
    assert again.check("x.deb", A)
    assert not again.check("y.deb", A)
    with pytest.raises(RepositoryError, match=r"x\.deb is published with another content"):
        again.add("x.deb", B)


@pytest.mark.parametrize("line", ["x", f"{A} x.deb", f"{A}  ../x.deb", f"{A[1:]}  x.deb"])
def test_ledger_that_is_no_list_of_sums_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "sums").write_text(f"{line}\n")
    with pytest.raises(RepositoryError, match="no line of sha256sum"):
        Ledger(tmp_path / "sums")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("@1795478400", 1795478400),
        ("2026-11-24", 1795478400),
        ("2026-11-24T00:00:01Z", 1795478401),
        ("2026-11-24T01:00:00+01:00", 1795478400),
    ],
)
def test_moment_of(text: str, moment: int) -> None:
    assert states.moment(text) == moment


def test_moment_is_that_of_the_build_if_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert states.moment("") == 1700000000


@pytest.mark.parametrize("text", ["yesterday", "@", "@x", "2026-13-01", "24.11.2026"])
def test_other_moment_is_refused(text: str) -> None:
    with pytest.raises(RepositoryError, match="--date"):
        states.moment(text)


def test_newest_version_is_first() -> None:
    def is_greater(first: str, second: str) -> bool:
        return int(first) > int(second)

    assert states.newest_first(["2", "10", "1", "2"], is_greater) == ["10", "2", "1"]
