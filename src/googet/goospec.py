"""Goospecs: what a package is built from, a template that renders to the JSON of a package spec.

Besides the keys of a package spec the JSON has ``build``, a command to run before packing, and
``sources``, the files to pack; neither is stored in the package.

Facts: googet: goolib/goospec.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from googet.gojson import JsonError, fold_keys, load
from googet.pkgspec import JsonObject, PackageSpec, check_packable, spec_from_json
from googet.template import render
from google_guest.errors import GuestError
from google_guest.records import record, replace

_LARGEST_GOOSPEC = 4 << 20
_LINES_AROUND = 2
_SPEC_KEYS = ("Build", "Sources", "Files")
_BUILD_KEYS = ("Windows", "Linux", "WindowsArgs", "LinuxArgs")
_SOURCE_KEYS = ("Include", "Exclude", "Target", "Root")


class GooSpecError(GuestError):
    """A goospec cannot be used; the message names it, and the line where there is one."""


@record
class Build:
    """A command to run before packing; empty for none."""

    command: str = ""
    """Absolute, or relative to the goospec's folder."""
    args: tuple[str, ...] = ()


@record
class Source:
    """Files to pack."""

    include: tuple[str, ...] = ()
    """Paths and globs, relative to ``root``."""
    exclude: tuple[str, ...] = ()
    target: str = ""
    """Folder in the archive; empty for its root."""
    root: str = ""
    """Folder, relative to the current one, that is not part of the names in the archive."""


@record
class GooSpec:
    """A goospec, rendered and checked."""

    spec: PackageSpec
    windows: Build = Build()
    linux: Build = Build()
    sources: tuple[Source, ...] = ()
    file_keys: tuple[str, ...] = ()
    """The keys of ``Files`` as they were written, but for backslashes: ``lic/`` packs nothing."""


def read_goospec(path: Path, variables: Mapping[str, str]) -> GooSpec:
    """Return what a goospec file says with these variables.

    Raises:
        GooSpecError: it is not valid.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(_LARGEST_GOOSPEC + 1)
    if len(data) > _LARGEST_GOOSPEC:
        raise GooSpecError(f"{path} is larger than {_LARGEST_GOOSPEC} bytes")
    try:
        return parse_goospec(data.decode("utf-8", "replace"), variables)
    except GuestError as error:
        raise GooSpecError(f"{path}: {error}") from error


def parse_goospec(text: str, variables: Mapping[str, str]) -> GooSpec:
    """Return what the text of a goospec says with these variables.

    Raises:
        TemplateError: the template is not valid.
        GooSpecError: it does not give valid JSON; the message shows the place.
        SpecError: a rule of specs is broken.
    """
    rendered = render(text, variables)
    try:
        value = load(rendered)
    except JsonError as error:
        raise GooSpecError(_with_place(error, rendered)) from error
    spec = spec_from_json(value)
    check_packable(spec)
    given = JsonObject(fold_keys(value, _SPEC_KEYS), "")
    build = given.object("Build", _BUILD_KEYS)
    return GooSpec(
        # Unknown keys are comments of the goospec's author, none of the package.
        replace(spec, extra={}),
        Build(build.text("Windows"), build.texts("WindowsArgs")),
        Build(build.text("Linux"), build.texts("LinuxArgs")),
        tuple(_source(source) for source in given.objects("Sources", _SOURCE_KEYS)),
        tuple(sorted(key.replace("\\", "/") for key in given.mapping("Files"))),
    )


def _source(given: JsonObject) -> Source:
    return Source(
        given.texts("Include"), given.texts("Exclude"), given.text("Target"), given.text("Root")
    )


def _with_place(error: JsonError, text: str) -> str:
    """Return the message of a syntax error with the lines around it and a caret below it."""
    if not error.line:
        return str(error)
    lines = text.split("\n")
    first = max(error.line - 1 - _LINES_AROUND, 0)
    shown = [str(error) + ":"]
    for number, line in enumerate(lines[first : error.line + _LINES_AROUND], first + 1):
        shown.append(line.rstrip("\r"))
        if number == error.line:
            shown.append(" " * max(error.column - 1, 0) + "^")
    return "\n".join(shown)
