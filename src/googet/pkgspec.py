"""Package specs: what a package says about itself, as archives, indexes and databases store it.

A spec is read from JSON once: keys in any case, paths normalised, every rule checked. Whoever holds
a :class:`PackageSpec` has a valid one.

Facts: googet: goolib/goospec.go (structure, normalisation, validation), googet: goolib/goolib.go
(names). Stricter than the reference: package names that are paths are refused, ``Verify.Path`` is
treated as the other command paths are, ``Files`` keys are cleaned and must stay in the archive.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Optional

from googet.architectures import ARCHITECTURES
from googet.gojson import fold_keys, load
from googet.versions import VersionError, parse_version
from google_guest.errors import GuestError
from google_guest.records import field, record

FILE_SUFFIX = ".goo"
SPEC_SUFFIX = ".pkgspec"

MOST_TAGS = 10
LONGEST_TAG_KEY = 127
"""In bytes of UTF-8."""
LARGEST_TAG = 10 * 1024
"""In bytes, decoded."""

_INT64_MAX = (1 << 63) - 1
_REFUSED_IN_NAMES = re.compile(r"[/\\:\x00-\x1f\x7f]|\.\.")
_PACKABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
_DRIVE = re.compile(r"[A-Za-z]:")


class SpecError(GuestError):
    """A package spec breaks a rule; the message names key and rule."""


@record
class PackageName:
    """A package as users and specs name it: ``name``, ``name.arch`` or ``name.arch.version``."""

    name: str
    arch: str = ""
    """Empty for any."""
    version: str = ""
    """Empty for any."""

    def __str__(self) -> str:
        return ".".join(part for part in (self.name, self.arch, self.version) if part)


@record
class Command:
    """A file of the archive to run; no ``path`` means nothing to run."""

    path: str = ""
    """Relative to the archive's root, with ``/``."""
    args: tuple[str, ...] = ()
    exit_codes: tuple[int, ...] = ()
    """Codes other than 0 that mean success."""


@record
class PackageSpec:
    """A valid package spec; the fields are in the order in which they are written."""

    name: str
    version: str
    arch: str
    lock_arch: bool = False
    release_notes: tuple[str, ...] = ()
    description: str = ""
    license: str = ""
    authors: str = ""
    owners: str = ""
    source: str = ""
    tags: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    dependencies: Mapping[str, str] = field(default_factory=dict, hash=False)
    """``name`` or ``name.arch`` to the lowest version that will do; empty for any."""
    replaces: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    """``name`` or ``name=version``."""
    install: Command = Command()
    uninstall: Command = Command()
    verify: Command = Command()
    files: Mapping[str, str] = field(default_factory=dict, hash=False)
    """File or folder in the archive (``.`` for all of it) to its destination."""
    external_program_name: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keys that this program does not know, kept for the programs that do."""

    @property
    def package(self) -> PackageName:
        """The package with its architecture and version."""
        return PackageName(self.name, self.arch, self.version)

    @property
    def full_name(self) -> str:
        """``name.arch.version``."""
        return f"{self.name}.{self.arch}.{self.version}"


def split_name(text: str) -> PackageName:
    """Return what ``name``, ``name.arch`` or ``name.arch.version`` names; versions keep dots."""
    return PackageName(*text.strip().split(".", 2))


def file_name(spec: PackageSpec) -> str:
    """Return the name of a package's archive: ``name.arch.version.goo``."""
    return spec.full_name + FILE_SUFFIX


def read_spec(data: bytes) -> PackageSpec:
    """Return the spec that the content of a ``.pkgspec`` file describes.

    Raises:
        JsonError: it is not valid JSON.
        SpecError: it breaks a rule of specs.
    """
    return spec_from_json(load(data))


def spec_from_json(value: Any) -> PackageSpec:
    """Return the spec that a JSON value describes, normalised and checked.

    Raises:
        SpecError: it breaks a rule of specs.
    """
    if not isinstance(value, dict):
        raise SpecError("a package spec is a JSON object; this is none")
    given = JsonObject(fold_keys(value, _KEYS), "")
    spec = PackageSpec(
        name=given.text("Name"),
        version=given.text("Version"),
        arch=given.text("Arch"),
        lock_arch=given.flag("LockArch"),
        release_notes=given.texts("ReleaseNotes"),
        description=given.text("Description"),
        license=given.text("License"),
        authors=given.text("Authors"),
        owners=given.text("Owners"),
        source=given.text("Source"),
        tags=given.tags("Tags"),
        dependencies=given.mapping("PkgDependencies"),
        replaces=given.texts("Replaces"),
        conflicts=given.texts("Conflicts"),
        provides=given.texts("Provides"),
        install=_command(given, "Install"),
        uninstall=_command(given, "Uninstall"),
        verify=_command(given, "Verify"),
        files=_files(given.mapping("Files")),
        external_program_name=given.text("ExternalProgramName"),
        extra={key: item for key, item in given.values.items() if key not in _KEYS},
    )
    _check(spec)
    return spec


def spec_to_json(spec: PackageSpec) -> dict[str, Any]:
    """Return the JSON value of a spec: the reference's keys, order and omissions, then extras."""
    value: dict[str, Any] = {"Name": spec.name, "Version": spec.version, "Arch": spec.arch}
    optional: dict[str, Any] = {
        "LockArch": spec.lock_arch,
        "ReleaseNotes": list(spec.release_notes),
        "Description": spec.description,
        "License": spec.license,
        "Authors": spec.authors,
        "Owners": spec.owners,
        "Source": spec.source,
        "Tags": {
            key: base64.b64encode(content).decode("ascii")
            for key, content in sorted(spec.tags.items())
        },
        "PkgDependencies": dict(sorted(spec.dependencies.items())),
    }
    value.update((key, item) for key, item in optional.items() if item)
    value["Replaces"] = list(spec.replaces) or None
    value["Conflicts"] = list(spec.conflicts) or None
    value["Provides"] = list(spec.provides) or None
    value["Install"] = _command_to_json(spec.install)
    value["Uninstall"] = _command_to_json(spec.uninstall)
    value["Verify"] = _command_to_json(spec.verify)
    if spec.files:
        value["Files"] = dict(sorted(spec.files.items()))
    value["ExternalProgramName"] = spec.external_program_name
    value.update(spec.extra)
    return value


def check_packable(spec: PackageSpec) -> None:
    """Refuse names that are read but not written: a name becomes part of file and key names.

    Raises:
        SpecError: the name is not made of letters, digits, ``_``, ``+`` and ``-``.
    """
    if not _PACKABLE_NAME.fullmatch(spec.name):
        raise SpecError(
            f"package name {spec.name!r} is not a letter or digit followed by letters, digits, "
            "'_', '+' and '-'"
        )


def clean_path(text: str) -> str:
    """Return a relative archive path without ``.``, empty and inner ``..`` parts; ``.`` for none.

    Backslashes count as separators on every system, so that a package means the same everywhere.
    Leading ``..`` parts, which lead out of the archive, stay.
    """
    parts: list[str] = []
    for part in text.replace("\\", "/").split("/"):
        if part in ("", "."):
            continue
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts) or "."


def is_absolute(text: str) -> bool:
    """Say whether a path is absolute, or of a certain drive, on any system."""
    return text.startswith(("/", "\\")) or _DRIVE.match(text) is not None


class JsonObject:
    """A JSON object whose values are taken out by type; what is null or missing is empty.

    A value of another type raises SpecError, which names the key after ``place``.
    """

    def __init__(self, values: dict[str, Any], place: str) -> None:
        self.values = values
        self._place = place

    def text(self, key: str) -> str:
        """Return a string."""
        value = self._get(key, str, "a string")
        return "" if value is None else str(value)

    def flag(self, key: str) -> bool:
        """Return a boolean."""
        return bool(self._get(key, bool, "true or false"))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        values = self._get(key, list, "a list of strings") or ()
        for value in values:
            if value is not None and not isinstance(value, str):
                raise self._wrong(key, "a list of strings")
        return tuple(value or "" for value in values)

    def integers(self, key: str) -> tuple[int, ...]:
        """Return a list of 64-bit integers."""
        values = self._get(key, list, "a list of integers") or ()
        for value in values:
            if type(value) is not int or abs(value) > _INT64_MAX:
                raise self._wrong(key, "a list of integers")
        return tuple(values)

    def mapping(self, key: str) -> dict[str, str]:
        """Return an object of strings."""
        values = self._get(key, dict, "an object of strings") or {}
        for value in values.values():
            if value is not None and not isinstance(value, str):
                raise self._wrong(key, "an object of strings")
        return {name: value or "" for name, value in values.items()}

    def tags(self, key: str) -> dict[str, bytes]:
        """Return an object of base64 strings, decoded."""
        return {name: self._decoded(key, value) for name, value in self.mapping(key).items()}

    def object(self, key: str, known: tuple[str, ...]) -> JsonObject:
        """Return an object whose ``known`` keys may be written in any case."""
        value = self._get(key, dict, "an object") or {}
        return JsonObject(fold_keys(value, known), f"{self._place}{key}.")

    def objects(self, key: str, known: tuple[str, ...]) -> tuple[JsonObject, ...]:
        """Return a list of objects."""
        values = self._get(key, list, "a list of objects") or ()
        for value in values:
            if value is not None and not isinstance(value, dict):
                raise self._wrong(key, "a list of objects")
        return tuple(
            JsonObject(fold_keys(value or {}, known), f"{self._place}{key}[{number}].")
            for number, value in enumerate(values)
        )

    def _decoded(self, key: str, text: str) -> bytes:
        try:
            # As in Go, base64 may be broken into lines.
            return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._wrong(key, "an object of base64 strings") from error

    def _get(self, key: str, kind: type, wanted: str) -> Optional[Any]:
        value = self.values.get(key)
        if value is not None and not isinstance(value, kind):
            raise self._wrong(key, wanted)
        return value

    def _wrong(self, key: str, wanted: str) -> SpecError:
        return SpecError(f"{self._place}{key} must be {wanted}")


_KEYS = (
    "Name",
    "Version",
    "Arch",
    "LockArch",
    "ReleaseNotes",
    "Description",
    "License",
    "Authors",
    "Owners",
    "Source",
    "Tags",
    "PkgDependencies",
    "Replaces",
    "Conflicts",
    "Provides",
    "Install",
    "Uninstall",
    "Verify",
    "Files",
    "ExternalProgramName",
)
_COMMAND_KEYS = ("Path", "Args", "ExitCodes")


def _command(given: JsonObject, key: str) -> Command:
    command = given.object(key, _COMMAND_KEYS)
    return Command(
        _command_path(command.text("Path"), f"{key}.Path"),
        command.texts("Args"),
        command.integers("ExitCodes"),
    )


def _command_path(path: str, key: str) -> str:
    if not path:
        return ""
    if is_absolute(path):
        raise SpecError(f"{key} {path!r} is absolute; it must be a path in the package")
    if "\0" in path:
        raise SpecError(f"{key} {path!r} holds a zero character")
    # Cleaned as if the archive were the whole world: ``../../x`` is ``x``.
    parts = [part for part in clean_path(path).split("/") if part not in ("..", ".")]
    if not parts:
        raise SpecError(f"{key} {path!r} does not name a file")
    return "/".join(parts)


def _files(given: Mapping[str, str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for key, destination in given.items():
        if is_absolute(key):
            raise SpecError(f"Files key {key!r} is absolute; it must be a path in the package")
        cleaned = clean_path(key)
        if cleaned == ".." or cleaned.startswith("../"):
            raise SpecError(f"Files key {key!r} leads out of the package")
        if files.setdefault(cleaned, destination) != destination:
            raise SpecError(f"Files names {cleaned!r} twice, with different destinations")
    return files


def _check(spec: PackageSpec) -> None:
    for key, value in (("Name", spec.name), ("Version", spec.version), ("Arch", spec.arch)):
        if not value:
            raise SpecError(f"{key} is missing or empty")
    if _REFUSED_IN_NAMES.search(spec.name):
        raise SpecError(
            f"package name {spec.name!r} holds one of '/', '\\', ':', '..' or a control character"
        )
    try:
        parse_version(spec.version)
    except VersionError as error:
        raise SpecError(f"Version: {error}") from error
    if spec.arch not in ARCHITECTURES:
        raise SpecError(
            f"Arch {spec.arch!r} is not one of the architectures {', '.join(ARCHITECTURES)}"
        )
    _check_tags(spec.tags)
    for dependency, version in spec.dependencies.items():
        try:
            if version:
                parse_version(version)
        except VersionError as error:
            raise SpecError(f"PkgDependencies {dependency!r}: {error}") from error


def _check_tags(tags: Mapping[str, bytes]) -> None:
    if len(tags) > MOST_TAGS:
        raise SpecError(f"Tags has {len(tags)} entries; {MOST_TAGS} are allowed")
    for key, content in tags.items():
        if len(key.encode("utf-8", "replace")) > LONGEST_TAG_KEY:
            raise SpecError(f"Tags key {key!r} is longer than {LONGEST_TAG_KEY} bytes")
        if len(content) > LARGEST_TAG:
            raise SpecError(f"Tags value of {key!r} is larger than {LARGEST_TAG} bytes")


def _command_to_json(command: Command) -> dict[str, Any]:
    value = {
        "Path": command.path,
        "Args": list(command.args),
        "ExitCodes": list(command.exit_codes),
    }
    return {key: item for key, item in value.items() if item}
