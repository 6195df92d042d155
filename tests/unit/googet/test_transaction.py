"""What a change does to files, to the database and to what was there before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.package_changes import NEW, OLD, World

from googet.database import InstalledPackage
from googet.host import FileInUse
from googet.host.memory import MemoryHost
from googet.journal import Journal, JournalError, parse
from googet.placing import Obsolete, PlacedFile, PlacementPlan, PlacingError
from googet.transaction import Transaction, TransactionError
from google_guest.errors import GuestError

on_windows = pytest.mark.skipif(sys.platform != "win32", reason="needs files in use on Windows")
on_linux = pytest.mark.skipif(sys.platform == "win32", reason="needs Linux")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world on the system of the test."""
    return World(tmp_path)


@pytest.fixture
def windows(tmp_path: Path) -> World:
    """Return a world on a Windows in memory."""
    if sys.platform == "win32":
        pytest.skip("the real Windows has the same tests")
    return World(tmp_path, MemoryHost(tmp_path))


def memory(world: World) -> MemoryHost:
    assert isinstance(world.host, MemoryHost)
    return world.host


def fail(unpacked: Path) -> None:
    raise GuestError("exit code 5")


def journals(world: World) -> list[Path]:
    return list((world.root / "cache").glob("txn-*.json"))


class TestFailedCommand:
    def test_old_files_and_row_are_back(self, world: World) -> None:
        world.change("example", "1.0.0@1", OLD)
        before = world.state()
        with pytest.raises(GuestError, match="exit code 5"):
            world.change("example", "2.0.0@1", NEW, command=fail)
        assert world.state() == before
        assert world.leftovers() == []

    def test_its_logs_are_kept(self, world: World) -> None:
        def command(unpacked: Path) -> None:
            (unpacked / "scripts").mkdir()
            (unpacked / "scripts" / "x.ps1.log").write_text("five")
            (unpacked / "not-a-log.txt").touch()
            fail(unpacked)

        with pytest.raises(GuestError):
            world.change("example", "1.0.0@1", OLD, command=command)
        failed = world.root / "cache" / "failed" / "example.noarch.1.0.0@1"
        assert {path.name: path.read_text() for path in failed.iterdir()} == {
            "install.log": "what the command said",
            "x.ps1.log": "five",
        }

    def test_logs_of_the_last_failure_replace_those_before(self, world: World) -> None:
        def command(unpacked: Path) -> None:
            (unpacked / f"{command.__name__}.log").touch()
            fail(unpacked)

        for name in ("first", "second"):
            command.__name__ = name
            with pytest.raises(GuestError):
                world.change("example", "1.0.0@1", OLD, command=command)
        failed = world.root / "cache" / "failed" / "example.noarch.1.0.0@1"
        assert sorted(path.name for path in failed.iterdir()) == ["install.log", "second.log"]

    def test_logs_that_cannot_be_kept_do_not_matter(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.change("example", "1.0.0@1", OLD)
        before = world.state()
        (world.root / "cache" / "failed").write_text("not a folder")
        with pytest.raises(GuestError, match="exit code 5"):
            world.change("example", "2.0.0@1", NEW, command=fail)
        assert world.state() == before
        assert world.leftovers() == []
        assert "logs of example.noarch.2.0.0@1 are not kept" in caplog.text

    def test_what_it_did_to_placed_files_is_undone(self, world: World) -> None:
        world.change("example", "1.0.0@1", OLD)
        before = world.state()

        def command(unpacked: Path) -> None:
            (world.target / "bin" / "tool").unlink()
            (world.target / "lib" / "kept.txt").write_text("changed by the command")
            fail(unpacked)

        with pytest.raises(GuestError):
            world.change("example", "2.0.0@1", NEW, command=command)
        assert world.state() == before

    def test_files_that_it_made_stay(self, world: World) -> None:
        def command(unpacked: Path) -> None:
            (world.target / "lib" / "made.txt").write_text("made")
            fail(unpacked)

        with pytest.raises(GuestError):
            world.change("example", "1.0.0@1", OLD, command=command)
        found = [str(path.relative_to(world.target)) for path in world.target.rglob("*")]
        assert sorted(found) == ["lib", os.path.join("lib", "made.txt")]


class TestSuccess:
    def test_update_deletes_what_is_no_longer_listed(self, world: World) -> None:
        world.change("example", "1.0.0@1", OLD)
        (world.target / "lib" / "user.txt").write_text("the user's own")
        (world.target / "onlyold" / "user.txt").write_text("the user's own")
        done = world.change("example", "2.0.0@1", NEW)
        files = sorted(
            path.relative_to(world.target).as_posix()
            for path in world.target.rglob("*")
            if path.is_file()
        )
        assert files == sorted([*NEW, "lib/user.txt", "onlyold/user.txt"])
        assert not (world.target / "onlyold" / "deep").exists()
        assert (done.left, done.at_restart) == ((), ())
        assert world.leftovers() == []

    def test_removal_empties_nested_folders(self, world: World) -> None:
        world.change("example", "1.0.0@1", OLD)
        shutil.rmtree(world.target / "onlyold")
        world.removal("example")
        assert list(world.root.parent.iterdir()) == [world.root]
        assert world.state() == {}

    def test_removing_the_former_owner_keeps_the_file(self, world: World) -> None:
        world.change("owner", "1.0.0@1", {"shared.txt": "owner's", "own.txt": "1"})
        world.change("taker", "1.0.0@1", {"shared.txt": "taker's"})
        world.removal("owner")
        assert (world.target / "shared.txt").read_text() == "taker's"
        assert not (world.target / "own.txt").exists()
        world.removal("taker")
        assert not (world.target / "shared.txt").exists()

    def test_one_of_two_owners_of_the_same_content_leaves_it(self, world: World) -> None:
        for name in ("one", "two"):
            world.change(name, "1.0.0@1", {"shared.txt": "same", f"{name}.txt": ""})
        world.change("two", "2.0.0@1", {"two.txt": ""})
        assert (world.target / "shared.txt").read_text() == "same"
        world.removal("one")
        assert [path.name for path in world.target.iterdir()] == ["two.txt"]

    @on_linux
    def test_modes_of_files_are_kept(self, world: World) -> None:
        world.change("example", "1.0.0@1", OLD)
        assert (world.target / "bin" / "tool").stat().st_mode & 0o777 == 0o755
        assert (world.target / "lib" / "kept.txt").stat().st_mode & 0o777 == 0o640
        assert (world.target / "lib" / "kept.txt").stat().st_mtime == 1e9

    @on_linux
    def test_folder_behind_a_link_is_used(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (world.target / "lib").symlink_to(tmp_path / "elsewhere")
        world.change("example", "1.0.0@1", {"lib/f": "x"})
        assert (tmp_path / "elsewhere" / "f").read_text() == "x"
        world.removal("example")
        assert (world.target / "lib").is_symlink()
        assert list((tmp_path / "elsewhere").iterdir()) == []

    @on_linux
    def test_link_in_the_place_of_a_file_is_replaced_not_followed(
        self, world: World, tmp_path: Path
    ) -> None:
        (tmp_path / "victim").write_text("untouched")
        (world.target / "f").symlink_to(tmp_path / "victim")
        world.change("example", "1.0.0@1", {"f": "x"})
        assert (tmp_path / "victim").read_text() == "untouched"
        assert not (world.target / "f").is_symlink()

    def test_cached_archive_is_deleted_with_the_commit(self, world: World) -> None:
        archive = world.root / "cache" / "old.goo"
        archive.touch()
        with world.database() as database:
            with Transaction(world.root, world.host, database, title="t") as transaction:
                transaction.discard_cached(archive)
            assert archive.exists()
            with Transaction(world.root, world.host, database, title="t") as transaction:
                transaction.discard_cached(archive)
                transaction.commit()
        assert not archive.exists()

    def test_change_of_rows_alone_needs_no_files(self, world: World) -> None:
        with world.database() as database:
            spec = world.spec("example", "1.0.0@1", {})
            with Transaction(world.root, world.host, database, title="t") as transaction:
                transaction.put(InstalledPackage(spec))
                transaction.remove("absent", "noarch")
                transaction.commit()
            assert [package.full_name for package in database.packages()] == [spec.full_name]
        assert world.leftovers() == []


class TestObstacles:
    def test_users_folder_where_a_file_has_to_be_is_an_error(self, world: World) -> None:
        (world.target / "bin" / "tool").mkdir(parents=True)
        before = world.state()
        with pytest.raises(PlacingError, match="there is a folder"):
            world.change("example", "1.0.0@1", OLD)
        assert world.state() == before

    def test_users_file_where_a_folder_has_to_be_is_an_error(self, world: World) -> None:
        (world.target / "bin").write_text("a file")
        before = world.state()
        with pytest.raises(PlacingError, match="there is a file"):
            world.change("example", "1.0.0@1", OLD)
        assert world.state() == before

    def test_users_file_in_an_obsolete_folder_is_an_error(self, world: World) -> None:
        world.change("example", "1.0.0@1", OLD)
        (world.target / "becomes-file" / "user.txt").write_text("the user's own")
        before = world.state()
        with pytest.raises(PlacingError, match="'user.txt' in it"):
            world.change("example", "2.0.0@1", NEW)
        assert world.state() == before
        assert world.leftovers() == []

    def test_users_file_that_appears_before_the_switch_is_left_alone(self, world: World) -> None:
        def fault(step: str, path: str) -> None:
            if step == "written":
                (world.target / "lib" / "gone.txt").write_text("the user's own")
                raise GuestError("stopped")

        with pytest.raises(GuestError, match="stopped"):
            world.change("example", "1.0.0@1", OLD, fault=fault)
        assert (world.target / "lib" / "gone.txt").read_text() == "the user's own"

    def test_file_that_changed_since_it_was_planned_is_an_error(self, world: World) -> None:
        source = world.folder / "source"
        source.write_text("x")
        file = PlacedFile(
            world.host.host_path(source), world.destination("f"), "0" * 64, 0o600, 10**18
        )
        database = world.database()
        transaction = Transaction(world.root, world.host, database, title="t")
        with database, pytest.raises(GuestError, match="changed while"), transaction:
            transaction.place(PlacementPlan((file,)))
        assert world.leftovers() == []
        assert list(world.target.iterdir()) == []

    def test_journal_that_cannot_be_written_is_an_error_that_changes_nothing(
        self, world: World
    ) -> None:
        shutil.rmtree(world.root / "cache")
        (world.root / "cache").write_text("not a folder")
        with world.database() as database:
            transaction = Transaction(world.root, world.host, database, title="install x")
            with pytest.raises(TransactionError, match="install x: .*cache"), transaction:
                transaction.scratch(world.root / "x", "x")
        assert (world.root / "googet.db").exists()

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_full_disk_leaves_everything_as_it_was(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.change("example", "1.0.0@1", OLD)
        before = world.state()
        original = type(world.host).open_new

        def open_new(self: Any, path: str, mode: int) -> Any:
            file = original(self, path, mode)
            if path.endswith("-2.new"):
                file.close()
                return open("/dev/full", "wb", buffering=0)
            return file

        monkeypatch.setattr(type(world.host), "open_new", open_new)
        with pytest.raises(TransactionError, match="No space left"):
            world.change("example", "2.0.0@1", NEW)
        monkeypatch.undo()
        assert world.state() == before
        assert world.leftovers() == []


class TestFilesInUse:
    def test_running_program_is_replaced_and_goes_at_restart(self, windows: World) -> None:
        windows.change("example", "1.0.0@1", OLD)
        memory(windows).running = {"C:\\TARGET\\bin\\tool"}
        done = windows.change("example", "2.0.0@1", NEW)
        assert (windows.target / "bin" / "tool").read_text() == "tool 2"
        (aside,) = done.at_restart
        assert aside.startswith("C:\\Windows\\TEMP\\tool.old")
        assert Path(windows.host.long_path(aside)).read_text() == "tool 1"
        assert memory(windows).at_restart == [aside]
        assert windows.leftovers() == []

    def test_program_stays_beside_its_place_where_the_other_folder_refuses_it(
        self, windows: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        windows.change("example", "1.0.0@1", OLD)
        host = memory(windows)
        host.running = {"C:\\target\\bin\\tool"}
        original = host.rename

        def rename(source: str, target: str) -> None:
            if target.startswith("C:\\Windows\\TEMP"):
                raise PermissionError(13, "Permission denied", target)
            original(source, target)

        monkeypatch.setattr(host, "rename", rename)
        (aside,) = windows.change("example", "2.0.0@1", NEW).at_restart
        assert aside.startswith("C:\\target\\bin\\tool.old")

    def test_program_on_another_volume_stays_beside_its_place(
        self, windows: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        windows.change("example", "1.0.0@1", OLD)
        memory(windows).running = {"C:\\target\\bin\\tool"}
        monkeypatch.setattr(memory(windows), "is_same_volume", lambda one, other: False)
        (aside,) = windows.change("example", "2.0.0@1", NEW).at_restart
        assert aside.startswith("C:\\target\\bin\\tool.old")

    def test_running_program_is_removed(self, windows: World) -> None:
        windows.change("example", "1.0.0@1", OLD)
        memory(windows).running = {"C:\\target\\bin\\tool"}
        done = windows.removal("example")
        assert windows.state() == {}
        assert len(done.at_restart) == 1

    def test_program_that_started_from_a_failed_update_gives_way(self, windows: World) -> None:
        windows.change("example", "1.0.0@1", OLD)
        before = windows.state()

        def command(unpacked: Path) -> None:
            memory(windows).running = {"C:\\target\\bin\\tool"}
            fail(unpacked)

        with pytest.raises(GuestError, match="exit code 5"):
            windows.change("example", "2.0.0@1", NEW, command=command)
        assert windows.state() == before

    def test_file_that_cannot_be_moved_fails_the_update_and_is_named(self, windows: World) -> None:
        windows.change("example", "1.0.0@1", OLD)
        before = windows.state()
        memory(windows).locked = {"C:\\target\\lib\\kept.txt"}
        with pytest.raises(FileInUse, match=r"kept\.txt is in use by another program"):
            windows.change("example", "2.0.0@1", NEW)
        assert windows.state() == before
        assert windows.leftovers() == []

    def test_obsolete_file_that_cannot_be_moved_is_tried_again_at_the_next_start(
        self, windows: World
    ) -> None:
        windows.change("example", "1.0.0@1", OLD)
        memory(windows).locked = {"C:\\target\\lib\\gone.txt"}
        done = windows.removal("example")
        assert done.left == ("C:\\target\\lib\\gone.txt",)
        assert len(journals(windows)) == 1
        assert windows.recover().problems == ()
        assert (windows.target / "lib" / "gone.txt").exists()
        memory(windows).locked = set()
        recovery = windows.recover()
        assert (recovery.completed, recovery.problems) == ((), ())
        assert windows.state() == {}
        assert windows.leftovers() == []

    def test_file_left_behind_that_is_somebodys_by_now_is_kept(self, windows: World) -> None:
        windows.change("example", "1.0.0@1", OLD)
        memory(windows).locked = {"C:\\target\\lib\\gone.txt"}
        windows.removal("example")
        memory(windows).locked = set()
        windows.change("heir", "1.0.0@1", {"lib/gone.txt": "inherited"})
        windows.recover()
        assert (windows.target / "lib" / "gone.txt").read_text() == "inherited"
        assert windows.leftovers() == []

    @on_windows
    def test_running_exe_is_replaced(self, world: World) -> None:
        program = Path(sys.base_prefix, "python.exe")
        running = world.target / "bin" / "run.exe"
        running.parent.mkdir()
        for name in ("python313.dll", "vcruntime140.dll", "python313.zip"):
            if (program.parent / name).exists():
                shutil.copy(program.parent / name, running.parent / name)
        shutil.copy(program, running)
        process = subprocess.Popen([str(running), "-c", "import time; time.sleep(60)"])
        try:
            done = world.change("example", "1.0.0@1", {"bin/run.exe": "new"})
            assert running.read_text() == "new"
            assert len(done.at_restart) == 1
            assert "run.exe.old" in done.at_restart[0]
        finally:
            process.kill()
            process.wait()

    @on_windows
    def test_file_that_is_open_fails_the_update(self, world: World) -> None:
        world.change("example", "1.0.0@1", OLD)
        before = world.state()
        message = r"kept\.txt is in use by another program"
        kept = world.target / "lib" / "kept.txt"
        with kept.open("rb"), pytest.raises(FileInUse, match=message):
            world.change("example", "2.0.0@1", NEW)
        assert world.state() == before
        assert world.leftovers() == []


class TestRecovery:
    def interrupted(self, world: World, number: Optional[int] = None) -> dict[str, object]:
        """Leave a journal behind, as a kill does; return the state before."""

        class Stop(BaseException):
            pass

        def fault(step: str, path: str) -> None:
            if step == "write rows" or broken:
                broken.append(step)
                raise Stop

        broken: list[str] = []
        world.change("example", "1.0.0@1", OLD)
        before = world.state()
        with pytest.raises(Stop):
            world.change("example", "2.0.0@1", NEW, fault=fault)
        assert len(journals(world)) == 1
        return before

    def test_interrupted_change_is_undone_and_told(self, world: World) -> None:
        before = self.interrupted(world)
        assert world.recover().undone == ("install example.noarch.2.0.0@1",)
        assert world.state() == before

    def test_logs_of_an_interrupted_change_are_kept(self, world: World) -> None:
        self.interrupted(world)
        world.recover()
        failed = world.root / "cache" / "failed" / "example.noarch.2.0.0@1"
        assert [path.name for path in failed.iterdir()] == ["install.log"]

    def test_without_a_journal_there_is_nothing_to_do(self, world: World) -> None:
        recovery = world.recover()
        assert (recovery.completed, recovery.undone, recovery.problems) == ((), (), ())

    def test_database_that_another_program_changed_since_is_left_alone(self, world: World) -> None:
        self.interrupted(world)
        with world.database() as database:
            database.put(InstalledPackage(world.spec("example", "3.0.0@1", {}), install_date=1))
        state = world.state()
        recovery = world.recover()
        assert "another program changed the database" in recovery.problems[0]
        assert world.state() == state
        assert journals(world) == []

    def test_half_written_journal_is_removed(self, world: World) -> None:
        part = world.root / "cache" / ".txn-00.json.googet-00"
        part.write_text("{")
        world.recover()
        assert not part.exists()

    @pytest.mark.parametrize(
        "data", [b"", b"{", b"null", b"[]", b"{}", b'{"version": 2}', b"\xff\xfe", b"[" * 100000]
    )
    def test_damaged_journal_is_kept_under_another_name(self, world: World, data: bytes) -> None:
        path = world.root / "cache" / "txn-0123.json"
        path.write_bytes(data)
        recovery = world.recover()
        assert "txn-0123.json is damaged" in recovery.problems[0]
        assert path.with_name("damaged-txn-0123.json").read_bytes() == data
        assert world.recover().problems == ()

    def test_journal_that_cannot_be_carried_out_is_tried_again(self, windows: World) -> None:
        before = self.interrupted(windows)
        memory(windows).locked = {"C:\\target\\lib\\kept.txt"}
        recovery = windows.recover()
        assert "kept.txt is in use" in recovery.problems[0]
        memory(windows).locked = set()
        assert windows.recover().undone == ("install example.noarch.2.0.0@1",)
        assert windows.state() == before

    def test_failed_undoing_is_told_and_done_at_the_next_start(self, windows: World) -> None:
        windows.change("example", "1.0.0@1", OLD)
        before = windows.state()

        def command(unpacked: Path) -> None:
            memory(windows).locked = {"C:\\target\\lib\\kept.txt"}
            fail(unpacked)

        with pytest.raises(TransactionError, match="could not be undone completely"):
            windows.change("example", "2.0.0@1", NEW, command=command)
        memory(windows).locked = set()
        windows.recover()
        assert windows.state() == before


class TestJournal:
    def journal(self) -> dict[str, Any]:
        return {
            "version": 1,
            "title": "t",
            "stages": [
                {
                    "moved": [{"path": "C:\\a", "backup": "C:\\b"}],
                    "cleared": [{"path": "C:\\c", "mode": 493}],
                    "folders": ["C:\\d"],
                    "files": [
                        {
                            "path": "C:\\e",
                            "temporary": "C:\\f",
                            "backup": "C:\\g",
                            "existed": True,
                        }
                    ],
                    "switching": False,
                }
            ],
            "rows": [{"name": "n", "arch": "a", "before": "", "after": "0"}],
            "files": ["C:\\h"],
            "folders": ["C:\\i"],
            "scratch": [{"folder": "C:\\j", "package": "p"}],
            "committed": False,
        }

    @pytest.fixture
    def host(self, tmp_path: Path) -> MemoryHost:
        return MemoryHost(tmp_path)

    def test_whole_journal_is_read(self, host: MemoryHost) -> None:
        journal = parse(json.dumps(self.journal()).encode(), host)
        assert journal.stages[0].files[0].existed is True
        assert journal.files == ("C:\\h",)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("version", 2),
            ("version", True),
            ("title", 5),
            ("stages", None),
            ("stages", [{}]),
            ("rows", [{"name": "n"}]),
            ("files", ["relative"]),
            ("files", ["C:\\a\\..\\b"]),
            ("files", [5]),
            ("scratch", [["C:\\j", "p"]]),
            ("committed", 1),
        ],
    )
    def test_journal_with_something_wrong_is_refused(
        self, host: MemoryHost, key: str, value: object
    ) -> None:
        with pytest.raises(JournalError):
            parse(json.dumps({**self.journal(), key: value}).encode(), host)

    @given(st.binary())
    def test_any_bytes_are_a_journal_or_an_error(self, data: bytes) -> None:
        try:
            assert isinstance(parse(data, _HOST), Journal)
        except JournalError:
            pass

    @given(st.data())
    def test_any_change_of_a_journal_is_one_or_an_error(self, data: st.DataObject) -> None:
        text = bytearray(json.dumps(self.journal()).encode())
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(text) - 1))
            text[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3))
            if not text:
                return
        try:
            assert isinstance(parse(bytes(text), _HOST), Journal)
        except JournalError:
            pass


class _Host(MemoryHost):
    """Only the rules of its paths are used."""

    def __init__(self) -> None:
        pass


_HOST = _Host()


@on_linux
def test_interrupt_waits_for_the_end_of_the_step(world: World) -> None:
    world.change("example", "1.0.0@1", OLD)
    before = world.state()
    seen: list[str] = []

    def fault(step: str, path: str) -> None:
        seen.append(step)
        if step == "rename" and seen.count("rename") == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        world.change("example", "2.0.0@1", NEW, fault=fault)
    assert world.state() == before
    assert world.leftovers() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@on_linux
def test_interrupt_during_the_command_is_raised_after_it(world: World) -> None:
    ended = []

    def command(unpacked: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        world.change("example", "1.0.0@1", OLD, command=command)
    assert ended == [True]
    assert world.state() == {}


def test_obsolete_paths_that_are_placed_after_all_are_kept(world: World) -> None:
    world.change("example", "1.0.0@1", {"f": "x"})
    source = world.folder / "source"
    source.write_text("y")
    host_source = world.host.host_path(source)
    target = world.destination("f")
    file = PlacedFile(host_source, target, world.host.sha256(host_source), 0o600, 10**18)
    database = world.database()
    with database, Transaction(world.root, world.host, database, title="t") as transaction:
        transaction.discard(Obsolete(files=(target,)))
        transaction.place(PlacementPlan((file,)))
        transaction.commit()
    assert (world.target / "f").read_text() == "y"
