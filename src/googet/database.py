"""What is installed: ``ROOT/googet.db``, a SQLite file that Go's googet reads and writes too.

One table holds one row for each package and architecture; ``pkg_json`` is the record as compact
JSON. Where the file is missing it is made, from the state file of googet 2.x (``googet.state``,
else ``googet.state.bak``) if there is one; it is made under another name and renamed, so that a
state that cannot be read never leaves an empty database behind.

Facts: googet: googetdb/googetdb.go (schema, lookups), googet: client/client.go (record).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from googet import gojson
from googet.pkgspec import PackageSpec, SpecError, spec_from_json, spec_to_json
from google_guest.errors import GuestError
from google_guest.records import field, record, replace

_log = logging.getLogger(__name__)

BUSY_TIMEOUT = 30.0
"""Seconds to wait for another program that writes to the database."""

_COLUMNS = (
    "id INTEGER PRIMARY KEY AUTOINCREMENT, pkg_name TEXT NOT NULL, pkg_arch TEXT NOT NULL,"
    " pkg_ver TEXT NOT NULL, pkg_json BLOB NOT NULL,"
    " UNIQUE(pkg_name, pkg_arch) ON CONFLICT REPLACE"
)
# The first release that knows STRICT tables; earlier ones call such a schema malformed.
_STRICT_SINCE = (3, 37, 0)
_RECORD_KEYS = (
    "SourceRepo",
    "DownloadURL",
    "Checksum",
    "LocalPath",
    "UnpackDir",
    "PackageSpec",
    "InstalledFiles",
    "InstallDate",
    "InstalledApp",
)


class DatabaseError(GuestError):
    """The database, or the state file that it is made from, cannot be used."""


class RecordError(GuestError):
    """A record of an installed package that is not one."""


@record
class InstalledApp:
    """The application that a package stands for: its display name and registry key below HKLM."""

    name: str = ""
    reg: str = ""


@record
class InstalledPackage:
    """One installed package.

    ``installed_files`` maps host paths to SHA-256 digests, folders to empty strings;
    ``install_date`` is in seconds since 1970; ``extra`` keeps the keys that are not ours.
    """

    spec: PackageSpec
    source_repo: str = ""
    download_url: str = ""
    checksum: str = ""
    local_path: str = ""
    unpack_dir: str = ""
    installed_files: Optional[Mapping[str, str]] = field(default=None, hash=False)
    install_date: int = 0
    installed_app: InstalledApp = InstalledApp()
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def full_name(self) -> str:
        """Return ``N.A.V``."""
        return self.spec.full_name

    @property
    def files(self) -> tuple[str, ...]:
        """Return the recorded host paths that are no folders, in order."""
        return tuple(path for path, digest in (self.installed_files or {}).items() if digest)


def database_path(root: Path) -> Path:
    """Return where the database of a ROOT is."""
    return root / "googet.db"


def encode(package: InstalledPackage) -> bytes:
    """Return the record as the database keeps it: compact JSON, UTF-8, Go's key order."""
    files = package.installed_files
    value: dict[str, Any] = {
        "SourceRepo": package.source_repo,
        "DownloadURL": package.download_url,
        "Checksum": package.checksum,
        "LocalPath": package.local_path,
        "UnpackDir": package.unpack_dir,
        "PackageSpec": spec_to_json(package.spec),
        "InstalledFiles": None if files is None else dict(sorted(files.items())),
        "InstallDate": package.install_date,
        "InstalledApp": {"Name": package.installed_app.name, "Reg": package.installed_app.reg},
    }
    value.update((key, each) for key, each in package.extra.items() if key not in value)
    return gojson.dumps(value).encode()


def decode(data: bytes) -> InstalledPackage:
    """Return the record that ``data`` holds.

    Raises:
        GuestError: it is no JSON, no record, or its package specification is not valid.
    """
    return record_from_json(gojson.load(data))


def record_from_json(value: Any) -> InstalledPackage:
    """Return the record of a parsed JSON value; see :func:`decode`."""
    if not isinstance(value, Mapping):
        raise RecordError("an installed package is a JSON object")
    fields = gojson.fold_keys(value, _RECORD_KEYS)
    unpack_dir = _text(fields, "UnpackDir")
    local_path = _text(fields, "LocalPath")
    if not local_path and unpack_dir:
        local_path = unpack_dir + ".goo"
    if fields.get("PackageSpec") is None:
        raise RecordError("an installed package has no PackageSpec")
    return InstalledPackage(
        spec=spec_from_json(fields["PackageSpec"]),
        source_repo=_text(fields, "SourceRepo"),
        download_url=_text(fields, "DownloadURL"),
        checksum=_text(fields, "Checksum"),
        local_path=local_path,
        unpack_dir=unpack_dir,
        installed_files=_files(fields.get("InstalledFiles")),
        install_date=_date(fields.get("InstallDate")),
        installed_app=_app(fields.get("InstalledApp")),
        extra={key: each for key, each in fields.items() if key not in _RECORD_KEYS},
    )


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError(f"{key} of an installed package is not text")
    return value


def _files(value: Any) -> Optional[Mapping[str, str]]:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(
        isinstance(digest, str) for digest in value.values()
    ):
        raise RecordError("InstalledFiles of an installed package does not map paths to digests")
    return dict(value)


def _date(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecordError("InstallDate of an installed package is not a number of seconds")
    return value


def _app(value: Any) -> InstalledApp:
    if value is None:
        return InstalledApp()
    if not isinstance(value, Mapping):
        raise RecordError("InstalledApp of an installed package is not an object")
    fields = gojson.fold_keys(value, ("Name", "Reg"))
    return InstalledApp(name=_text(fields, "Name"), reg=_text(fields, "Reg"))


class Database:
    """The installed packages of one ROOT."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, root: Path) -> Database:
        """Open the database of ``root`` for writing; make it where it is missing.

        Raises:
            DatabaseError: it is damaged, or the state of googet 2.x cannot be read (then there is
                no database afterwards either).
        """
        path = database_path(root)
        if not path.exists():
            _create(root, path)
        return cls(path, _connect(path, f"{path.absolute().as_uri()}?mode=rw"))

    @classmethod
    def open_existing(cls, root: Path) -> Optional[Database]:
        """Open the database for reading, without any lock; None where there is none."""
        path = database_path(root)
        if not path.exists():
            return None
        return cls(path, _connect(path, f"{path.absolute().as_uri()}?mode=ro"))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def packages(self) -> tuple[InstalledPackage, ...]:
        """Return all installed packages by name and architecture; unreadable ones are logged."""
        return self._select("")

    def get(self, name: str, arch: str = "", version: str = "") -> Optional[InstalledPackage]:
        """Return the package of exactly that name, architecture and version (empty: any)."""
        return next(
            (
                package
                for package in self.named(name)
                if arch in ("", package.spec.arch) and version in ("", package.spec.version)
            ),
            None,
        )

    def named(self, name: str) -> tuple[InstalledPackage, ...]:
        """Return the packages of exactly that name, by architecture."""
        return self._select("WHERE pkg_name = ?", name)

    def find(self, pattern: str) -> tuple[InstalledPackage, ...]:
        """Return the packages whose name is like ``pattern``.

        Letters have no case; ``*`` and ``%`` stand for any text, ``_`` for itself.
        """
        escaped = pattern.replace("\\", "\\\\").replace("_", "\\_").replace("*", "%")
        return self._select("WHERE pkg_name LIKE ? ESCAPE '\\'", escaped)

    def stored(self, name: str, arch: str) -> Optional[bytes]:
        """Return the bytes of the record of exactly that name and architecture."""
        with self._errors():
            row = self._connection.execute(
                "SELECT pkg_json FROM InstalledPackages WHERE pkg_name = ? AND pkg_arch = ?",
                (name, arch),
            ).fetchone()
        return None if row is None else _as_bytes(row[0])

    def put(self, package: InstalledPackage) -> InstalledPackage:
        """Write the record over that of the same name and architecture; return it as written.

        An ``install_date`` of 0 becomes now.
        """
        package = dated(package)
        spec = package.spec
        with self._errors():
            self._connection.execute(
                "INSERT INTO InstalledPackages (pkg_name, pkg_arch, pkg_ver, pkg_json)"
                " VALUES (?, ?, ?, ?)",
                (spec.name, spec.arch, spec.version, encode(package)),
            )
        return package

    def remove(self, name: str, arch: str) -> bool:
        """Delete the record of exactly that name and architecture; return whether it was there."""
        with self._errors():
            done = self._connection.execute(
                "DELETE FROM InstalledPackages WHERE pkg_name = ? AND pkg_arch = ?", (name, arch)
            )
        return done.rowcount > 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything that is written in the block one step; nothing after an exception."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        try:
            with self._errors():
                self._connection.execute("COMMIT")
        except DatabaseError:
            # A full disk leaves the transaction open in some cases and ended in others.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _select(self, condition: str, *values: str) -> tuple[InstalledPackage, ...]:
        with self._errors():
            rows = self._connection.execute(
                "SELECT pkg_name, pkg_arch, pkg_json FROM InstalledPackages"
                f" {condition} ORDER BY pkg_name, pkg_arch",
                values,
            ).fetchall()
        found = []
        for name, arch, data in rows:
            try:
                found.append(decode(_as_bytes(data)))
            except GuestError as error:
                _log.warning(
                    "the record of %s.%s in %s is skipped: %s", name, arch, self.path, error
                )
        return tuple(found)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return _database_errors(self.path)


def dated(package: InstalledPackage) -> InstalledPackage:
    """Return the record with the date of now where it has none."""
    return package if package.install_date else replace(package, install_date=int(time.time()))


def _as_bytes(data: Any) -> bytes:
    # A table that is not STRICT may hold what another program wrote as text.
    return data.encode() if isinstance(data, str) else bytes(data)


@contextlib.contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DatabaseError(f"{path} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise DatabaseError(
            f"{path} is damaged ({error}); restore it from a backup, or move it away"
        ) from error


def _connect(path: Path, uri: str) -> sqlite3.Connection:
    with _database_errors(path):
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            if sqlite3.sqlite_version_info < _STRICT_SINCE:
                # It must be the first statement: it lets the schema of a STRICT table be read.
                connection.execute("PRAGMA writable_schema=ON")
            connection.execute("SELECT id, pkg_ver FROM InstalledPackages LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
    return connection


def _create(root: Path, path: Path) -> None:
    packages = _legacy_packages(root)
    temporary = root / f".{path.name}.new-{os.urandom(6).hex()}"
    strict = " STRICT" if sqlite3.sqlite_version_info >= _STRICT_SINCE else ""
    try:
        with _database_errors(path):
            connection = sqlite3.connect(temporary, timeout=BUSY_TIMEOUT, isolation_level=None)
            try:
                connection.execute(f"CREATE TABLE InstalledPackages ({_COLUMNS}){strict}")
                database = Database(temporary, connection)
                with database.transaction():
                    for package in packages:
                        database.put(package)
            finally:
                connection.close()
        # The lock is held: nobody else makes the database at the same time.
        os.replace(temporary, path)
    except OSError as error:
        raise DatabaseError(f"{path} cannot be made: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    if packages:
        _log.info("%d installed packages were taken over from googet.state", len(packages))


def _legacy_packages(root: Path) -> tuple[InstalledPackage, ...]:
    problems = []
    for name in ("googet.state", "googet.state.bak"):
        try:
            data = (root / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{root / name}: {error.strerror}")
            continue
        try:
            return _state_records(data)
        except GuestError as error:
            problems.append(f"{root / name}: {error}")
    if problems:
        raise DatabaseError(
            f"the list of installed packages cannot be read ({'; '.join(problems)});"
            " restore the file from a backup, or delete it to begin with nothing installed"
        )
    return ()


def _state_records(data: bytes) -> tuple[InstalledPackage, ...]:
    values = gojson.load(data)
    if values is None:
        return ()
    if not isinstance(values, list):
        raise RecordError("it is not a JSON array")
    found = []
    for value in values:
        try:
            found.append(record_from_json(value))
        except (RecordError, SpecError) as error:
            _log.warning("a record of googet.state is skipped: %s", error)
    return tuple(found)
