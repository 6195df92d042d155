"""The database of installed packages, shared with Go's googet."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from googet import database as databases
from googet.database import (
    Database,
    DatabaseError,
    InstalledApp,
    InstalledPackage,
    decode,
    encode,
)
from googet.pkgspec import spec_from_json

# As Go's googet makes it (googet: googetdb/googetdb.go).
GO_SCHEMA = """
CREATE TABLE IF NOT EXISTS InstalledPackages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pkg_name TEXT NOT NULL,
    pkg_arch TEXT NOT NULL,
    pkg_ver TEXT NOT NULL,
    pkg_json BLOB NOT NULL,
    UNIQUE(pkg_name, pkg_arch) ON CONFLICT REPLACE
) STRICT
"""
GO_RECORD = (
    '{"SourceRepo":"https://h/repos/r","DownloadURL":"https://h/repos/packages/a.noarch.1.0.0@1.goo"'
    ',"Checksum":"9f","LocalPath":"C:\\\\ProgramData\\\\GooGet\\\\cache\\\\a.noarch.1.0.0@1.goo",'
    '"UnpackDir":"","PackageSpec":{"Name":"a","Version":"1.0.0@1","Arch":"noarch","Replaces":null,'
    '"Conflicts":null,"Provides":null,"Install":{},"Uninstall":{},"Verify":{},'
    '"ExternalProgramName":""},"InstalledFiles":{"C:\\\\A":"","C:\\\\A\\\\f.txt":"e3"},'
    '"InstallDate":1767225600,"InstalledApp":{"Name":"","Reg":""}}'
)

# What a program with a current SQLite leaves: that schema, STRICT, with that record.
STRICT_FILE = zlib.decompress(
    base64.b85decode(
        "c-rk&O;6h}7<O7dMkmB&QiXQ0B25BOB`s*6br(Vjs9H!vnoL8ARC%e}W~6aQTt0-jjKfa*Ir}5~89VQ=<KCnJN~>"
        "zxZDM`oD1P79e%=q;ahk`P$0_cxs82ZFLOCP|XcuFIpo`D~dVm1W+?f0)<dEbF^C)9OXdcb*PhmM(NZ~tzHp7#^?"
        "S-(2R#snrF-X8j<n}63St{>VuEi!BL@qUH$i%AH<2*Uvg>?OYB4{)GCwM-$vbvOQj^X+LfuPOsr13(?%S-hj=EV1"
        "D+aT^K>C$*v_=WQ5Eka*~Z^>&aKEDzci?S@-UUBl#r$A)n7m6Dj!bvK}XFmK#v|@TTpn*Fs&ecp+u~cj+dzy;JjB"
        "5eu(-KJQlRh2?JE6!u;+-(#wE_lsZCuwa^-wjjVb+fn^8~+BPq1QJjk*pDN2+d>(vjh5x0OVLE%k$i^#(k)rajn_"
        "6En?rPNQk2PcaMdp4QkKv)Ow6*jCr>yq4~LtmB4`YYqKCtJf@Ss)nZ2)WSM$S|%t8N^YTO%L4L(HoeTMNd}yya%-"
        "Xtt;&Qd4=eiYZfV1~D$6}Nf{P)RBe5jzvx~rIq-~qp@TPb)BFs2sA`QPGQg*{gUB+N`tw-I{c+iKbZ#p1r%q6}-c"
        "n=h{s^b_D>qex%PdIU$L&gp%cN~|vJ?c19DD5C|y6;6m0b-U#Go-Fqy%u$-9T*5$-qR@dSO8K+06GQuKrti+87@G"
        "dz!nv&!NB(+UKVtG&*k?D2=Lr%KMcsK2d-|CP`ptQ9D1FrVPC!EGzuWsVS-s$;>|q+Z6A1k!h4+-LK$Y0b{(f9@k"
        "<UGx-~KbiUb^$o$Z~?&DY!I@(7g@h9k+Rd395FH-Gb0_zj4FOGf"
    )
)

needs_strict_tables = pytest.mark.skipif(
    sqlite3.sqlite_version_info < (3, 37, 0), reason="this SQLite knows no STRICT tables"
)


def installed(
    name: str = "a", version: str = "1.0.0@1", arch: str = "noarch", **more: Any
) -> InstalledPackage:
    spec = spec_from_json({"Name": name, "Version": version, "Arch": arch})
    return InstalledPackage(spec, **{"install_date": 7, **more})


def raw(root: Path) -> sqlite3.Connection:
    return sqlite3.connect(root / "googet.db")


def written_by_go(root: Path, *records: str) -> None:
    connection = raw(root)
    connection.execute(GO_SCHEMA)
    for text in records:
        spec = json.loads(text)["PackageSpec"]
        connection.execute(
            "INSERT INTO InstalledPackages (pkg_name, pkg_arch, pkg_ver, pkg_json)"
            " VALUES (?, ?, ?, ?)",
            (spec["Name"], spec["Arch"], spec["Version"], text.encode()),
        )
    connection.commit()
    connection.close()


def names(packages: tuple[InstalledPackage, ...]) -> list[str]:
    return [package.full_name for package in packages]


def columns(root: Path) -> list[tuple[Any, ...]]:
    connection = raw(root)
    found = connection.execute("PRAGMA table_info(InstalledPackages)").fetchall()
    indexes = connection.execute("PRAGMA index_list(InstalledPackages)").fetchall()
    connection.close()
    return found + [tuple(index[2:]) for index in indexes]


def test_record_has_the_bytes_that_go_writes() -> None:
    assert encode(decode(GO_RECORD.encode())) == GO_RECORD.encode()


def test_record_without_files_has_null() -> None:
    assert b'"InstalledFiles":null' in encode(installed())


def test_record_with_no_files_has_an_empty_object() -> None:
    assert b'"InstalledFiles":{}' in encode(installed(installed_files={}))


def test_installed_files_are_written_in_order() -> None:
    package = installed(installed_files={"C:\\b": "1", "C:\\a": "2"})
    assert b'{"C:\\\\a":"2","C:\\\\b":"1"}' in encode(package)


def test_text_is_escaped_as_go_does() -> None:
    assert "<é>".encode() not in encode(installed(source_repo="<é>"))
    assert '"\\u003cé\\u003e"'.encode() in encode(installed(source_repo="<é>"))


def test_unknown_keys_survive_reading_and_writing() -> None:
    value = json.loads(GO_RECORD)
    value["Newer"] = {"list": [1, "two", None]}
    value["PackageSpec"]["NewerToo"] = True
    kept = json.loads(encode(decode(json.dumps(value).encode())))
    assert kept["Newer"] == {"list": [1, "two", None]}
    assert kept["PackageSpec"]["NewerToo"] is True


def test_record_without_local_path_uses_the_folder_it_was_unpacked_in() -> None:
    value = json.loads(GO_RECORD)
    value.update(LocalPath="", UnpackDir="C:\\cache\\a.noarch.1.0.0@1")
    assert decode(json.dumps(value).encode()).local_path == "C:\\cache\\a.noarch.1.0.0@1.goo"


def test_keys_of_a_record_have_no_case() -> None:
    text = GO_RECORD.replace('"SourceRepo"', '"sourcerepo"')
    assert decode(text.encode()).source_repo == "https://h/repos/r"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PackageSpec", None),
        ("PackageSpec", {"Name": "a"}),
        ("InstalledFiles", ["C:\\a"]),
        ("InstalledFiles", {"C:\\a": 1}),
        ("InstallDate", "yesterday"),
        ("InstallDate", True),
        ("InstalledApp", "app"),
        ("Checksum", 5),
    ],
)
def test_record_of_the_wrong_kind_is_an_error(key: str, value: object) -> None:
    record = {**json.loads(GO_RECORD), key: value}
    with pytest.raises(databases.GuestError):
        decode(json.dumps(record).encode())


@given(st.binary(max_size=200))
def test_garbage_is_no_record(data: bytes) -> None:
    with pytest.raises(databases.GuestError):
        decode(data)


@given(
    st.dictionaries(st.text(min_size=1), st.text()),
    st.text(),
    st.integers(min_value=0, max_value=1 << 40),
)
def test_record_reads_as_it_was_written(files: dict[str, str], text: str, date: int) -> None:
    texts = [text, *files, *files.values()]
    if any("\ud800" <= letter <= "\udfff" for each in texts for letter in each):
        return
    package = installed(
        installed_files=files,
        source_repo=text,
        installed_app=InstalledApp(text, text),
        install_date=date,
    )
    assert decode(encode(package)) == package


@needs_strict_tables
def test_new_database_has_the_shape_of_gos(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    with Database.open(ours) as database:
        database.put(installed())
    written_by_go(theirs, GO_RECORD)
    assert columns(ours) == columns(theirs)
    strict = raw(ours).execute("SELECT strict FROM pragma_table_list('InstalledPackages')")
    assert strict.fetchall() == [(1,)]
    kinds = raw(ours).execute("SELECT typeof(pkg_json), typeof(id) FROM InstalledPackages")
    assert kinds.fetchall() == [("blob", "integer")]
    assert raw(ours).execute("PRAGMA user_version").fetchone() == (0,)
    assert raw(ours).execute("PRAGMA journal_mode").fetchone() == ("delete",)


@needs_strict_tables
def test_database_of_go_is_read_and_written(tmp_path: Path) -> None:
    written_by_go(tmp_path, GO_RECORD)
    with Database.open(tmp_path) as database:
        assert names(database.packages()) == ["a.noarch.1.0.0@1"]
        database.put(installed("b"))
        database.put(installed("a", "2.0.0@1"))
    rows = raw(tmp_path).execute("SELECT pkg_name, pkg_ver FROM InstalledPackages ORDER BY 1")
    assert rows.fetchall() == [("a", "2.0.0@1"), ("b", "1.0.0@1")]


def test_strict_database_is_used_by_an_sqlite_that_cannot_make_one(tmp_path: Path) -> None:
    # Proves it where the SQLite is older than 3.37, as that of Debian 11 and of RHEL 9 is.
    (tmp_path / "googet.db").write_bytes(STRICT_FILE)
    with Database.open(tmp_path) as database:
        assert names(database.packages()) == ["a.noarch.1.0.0@1"]
        database.put(installed("b"))
        assert database.remove("a", "noarch")
    reader = Database.open_existing(tmp_path)
    assert reader is not None
    with reader:
        assert names(reader.packages()) == ["b.noarch.1.0.0@1"]


def test_row_that_another_program_adds_is_seen(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        other = raw(tmp_path)
        other.execute(
            "INSERT INTO InstalledPackages (pkg_name, pkg_arch, pkg_ver, pkg_json)"
            " VALUES ('a', 'noarch', '1.0.0@1', ?)",
            (GO_RECORD.encode(),),
        )
        other.commit()
        other.close()
        assert names(database.packages()) == ["a.noarch.1.0.0@1"]


def test_table_that_is_not_strict_is_used_and_made_by_an_old_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with Database.open(tmp_path) as database:
        database.put(installed())
    monkeypatch.undo()
    schema = raw(tmp_path).execute("SELECT sql FROM sqlite_master WHERE name='InstalledPackages'")
    assert "STRICT" not in schema.fetchone()[0]
    with Database.open(tmp_path) as database:
        assert names(database.packages()) == ["a.noarch.1.0.0@1"]


def test_write_two_read_two(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        database.put(installed("b"))
        database.put(installed("a"))
    with Database.open(tmp_path) as database:
        assert names(database.packages()) == ["a.noarch.1.0.0@1", "b.noarch.1.0.0@1"]


def test_remove_drops_exactly_one(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        database.put(installed("a", arch="x86_32"))
        database.put(installed("a", arch="x86_64"))
        assert not database.remove("a", "arm64")
        assert not database.remove("A", "x86_32")
        assert database.remove("a", "x86_32")
        assert names(database.packages()) == ["a.x86_64.1.0.0@1"]


def test_put_replaces_the_same_name_and_arch_alone(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        for arch in ("arm64", "x86_32", "x86_64"):
            database.put(installed("a", arch=arch))
        database.put(installed("a", "2.0.0@1", "x86_32"))
        found = {package.spec.arch: package.spec.version for package in database.packages()}
    assert found == {"arm64": "1.0.0@1", "x86_32": "2.0.0@1", "x86_64": "1.0.0@1"}


@pytest.mark.parametrize(
    ("wanted", "arch"),
    [
        (("a", "x86_32", ""), "x86_32"),
        (("a", "", ""), "arm64"),
        (("a", "none", ""), None),
        (("a", "", "1.0.0@1"), "arm64"),
        (("a", "x86_64", "2.0.0@1"), None),
        (("b", "", ""), None),
        (("A", "", ""), None),
    ],
)
def test_lookup_is_exact(tmp_path: Path, wanted: tuple[str, str, str], arch: str | None) -> None:
    with Database.open(tmp_path) as database:
        for each in ("x86_64", "x86_32", "arm64"):
            database.put(installed("a", arch=each))
        found = database.get(*wanted)
    assert (None if found is None else found.spec.arch) == arch


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("google_x", ["google_x"]),
        ("GOOGLE_X", ["google_x"]),
        ("google%", ["google_x", "google-x"]),
        ("google*", ["google_x", "google-x"]),
        ("*-x", ["google-x"]),
        ("googl", []),
        ("google\\", []),
        ("", []),
    ],
)
def test_pattern_matches_names(tmp_path: Path, pattern: str, found: list[str]) -> None:
    with Database.open(tmp_path) as database:
        for name in ("google_x", "google-x", "other"):
            database.put(installed(name))
        assert {package.spec.name for package in database.find(pattern)} == set(found)


def test_missing_date_is_now(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        stored = database.put(installed(install_date=0))
        assert abs(stored.install_date - time.time()) < 60
        assert database.get("a") == stored


def test_known_date_is_kept(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        assert database.put(installed(install_date=5)).install_date == 5


def test_transaction_is_undone_by_an_exception(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        database.put(installed("a"))
        with pytest.raises(KeyError), database.transaction():
            database.remove("a", "noarch")
            database.put(installed("b"))
            raise KeyError
        assert names(database.packages()) == ["a.noarch.1.0.0@1"]


def test_reader_needs_no_write_access_and_makes_nothing(tmp_path: Path) -> None:
    assert Database.open_existing(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    with Database.open(tmp_path) as database:
        database.put(installed())
    reader = Database.open_existing(tmp_path)
    assert reader is not None
    with reader:
        assert names(reader.packages()) == ["a.noarch.1.0.0@1"]
        with pytest.raises(DatabaseError):
            reader.put(installed("b"))


def test_damaged_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "googet.db"
    path.write_bytes(b"this is no database, it is only text" * 100)
    with pytest.raises(DatabaseError, match="googet.db is damaged"):
        Database.open(tmp_path)
    assert path.read_bytes().startswith(b"this is no database")


def test_database_without_the_table_is_an_error(tmp_path: Path) -> None:
    connection = raw(tmp_path)
    connection.execute("CREATE TABLE other (id INTEGER)")
    connection.close()
    with pytest.raises(DatabaseError, match="InstalledPackages"):
        Database.open(tmp_path)


def test_record_that_cannot_be_read_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Database.open(tmp_path) as database:
        database.put(installed("good"))
    connection = raw(tmp_path)
    connection.execute(
        "INSERT INTO InstalledPackages (pkg_name, pkg_arch, pkg_ver, pkg_json)"
        " VALUES ('bad', 'noarch', '1', ?)",
        (b"{}",),
    )
    connection.commit()
    connection.close()
    with Database.open(tmp_path) as database:
        assert names(database.packages()) == ["good.noarch.1.0.0@1"]
    assert "bad.noarch" in caplog.text


class TestMigration:
    def test_state_of_googet_2_is_taken_over_with_its_dates(self, tmp_path: Path) -> None:
        other = json.loads(GO_RECORD)
        other["PackageSpec"]["Name"] = "b"
        state = json.dumps([json.loads(GO_RECORD), other]).encode()
        (tmp_path / "googet.state").write_bytes(state)
        with Database.open(tmp_path) as database:
            packages = database.packages()
        assert names(packages) == ["a.noarch.1.0.0@1", "b.noarch.1.0.0@1"]
        assert [package.install_date for package in packages] == [1767225600] * 2
        assert (tmp_path / "googet.state").read_bytes() == state

    def test_records_without_a_spec_are_skipped(self, tmp_path: Path) -> None:
        records = [{"SourceRepo": "x"}, json.loads(GO_RECORD), {"PackageSpec": None}]
        (tmp_path / "googet.state").write_text(json.dumps(records))
        with Database.open(tmp_path) as database:
            assert names(database.packages()) == ["a.noarch.1.0.0@1"]

    def test_backup_is_used_where_the_state_is_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "googet.state").write_text("[{")
        (tmp_path / "googet.state.bak").write_text(f"[{GO_RECORD}]")
        with Database.open(tmp_path) as database:
            assert names(database.packages()) == ["a.noarch.1.0.0@1"]

    @pytest.mark.parametrize("backup", [None, "", "{}", "[1"])
    def test_damaged_state_and_backup_make_no_database(
        self, tmp_path: Path, backup: str | None
    ) -> None:
        (tmp_path / "googet.state").write_text("not JSON")
        if backup is not None:
            (tmp_path / "googet.state.bak").write_text(backup)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(DatabaseError, match=r"googet\.state"):
            Database.open(tmp_path)
        assert sorted(tmp_path.iterdir()) == before

    def test_without_any_state_nothing_is_installed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Database.open(tmp_path) as database:
            assert database.packages() == ()
        assert [path.name for path in tmp_path.iterdir()] == ["googet.db"]
        assert capsys.readouterr() == ("", "")

    def test_state_is_ignored_where_there_is_a_database(self, tmp_path: Path) -> None:
        with Database.open(tmp_path) as database:
            database.put(installed("b"))
        (tmp_path / "googet.state").write_text(f"[{GO_RECORD}]")
        with Database.open(tmp_path) as database:
            assert names(database.packages()) == ["b.noarch.1.0.0@1"]

    def test_null_state_means_nothing_installed(self, tmp_path: Path) -> None:
        (tmp_path / "googet.state").write_text("null")
        with Database.open(tmp_path) as database:
            assert database.packages() == ()


def test_package_lists_its_files_without_folders() -> None:
    assert installed(installed_files={"C:\\A": "", "C:\\A\\f": "e3"}).files == ("C:\\A\\f",)
