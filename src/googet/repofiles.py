"""``ROOT/repos/*.repo``: which repositories the machine uses.

A file is a YAML list of maps, or one map. Keys, in any case: ``name``, ``url``, ``useoauth``
(``true``), ``priority`` (``default`` 500, ``canary`` 1300, ``pin`` 1400, ``rollback`` 1500, or a
number; absent, zero and less mean 500). Values are taken as text, unknown keys are kept but mean
nothing. An entry that cannot be used is logged and skipped, a file that is no YAML is logged and
left out.

Without ``allowunsafeurl`` only https, Cloud Storage and folders of this machine are used, from
files and from ``-sources`` alike.

Files are written as the list below, with the comments at their beginning kept, atomically; a file
without entries is removed.

    - name: example
      url: https://pkgs.example.com/repos/example
      useoauth: false
      priority: pin

Source: googet ``repo/repo.go``, ``priority/priority.go``, ``cli/addrepo``, ``cli/rmrepo``; osconfig
``policies/googet.go`` for the file that OS Config writes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Optional

import yaml

from googet.atomic import replace_file
from googet.settings import Settings
from googet.urls import (
    OAUTH,
    UrlError,
    check_repository_url,
    is_safe,
    repository_key,
    shown,
    split_oauth,
)
from googet.yamltext import LIMIT, YamlError, parse_yaml, text_of
from google_guest.errors import GuestError
from google_guest.records import record

DEFAULT_PRIORITY = 500
PRIORITIES = {"default": DEFAULT_PRIORITY, "canary": 1300, "pin": 1400, "rollback": 1500}
SUFFIX = ".repo"
_MODE = 0o664
_NUMBER = re.compile(r"[+-]?0*[0-9]{1,18}")
_ALSO_TRUE = frozenset({"1", "on", "y", "yes"})
_FILE_NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|]+\.repo")
_STRING, _BOOL, _INT = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "bool", "int"))

_logger = logging.getLogger(__name__)


class RepositoryFileError(GuestError):
    """A ``.repo`` file cannot be read or written, or what should go into it is malformed."""


@record
class Repository:
    """A repository that packages may come from; ``url`` is without ``oauth-``."""

    url: str
    priority: int = DEFAULT_PRIORITY
    name: str = ""
    oauth: bool = False

    @property
    def display_url(self) -> str:
        """The address with ``oauth-`` where credentials are used, as states and files have it."""
        return OAUTH + self.url if self.oauth else self.url


@record
class Entry:
    """One entry of a file; ``priority`` 0 means that it has none."""

    name: str
    url: str
    oauth: bool = False
    priority: int = 0


@record
class RepositoryFile:
    """A file and those of its entries that can be used."""

    path: Path
    entries: tuple[Entry, ...]


@record
class Change:
    """What ``add_repository`` did: the file, the new entry as YAML, all files that changed."""

    path: Path
    text: str
    changed: tuple[Path, ...]


@record
class _Row:
    """An item of a file as it was read; ``entry`` is None if it cannot be used."""

    node: yaml.Node
    entry: Optional[Entry]


@record
class _Content:
    path: Path
    comment: str
    rows: tuple[_Row, ...]


def read_repositories(folder: Path, settings: Settings) -> tuple[Repository, ...]:
    """Return the repositories of all files in ``folder``; of duplicates the highest priority."""
    found: dict[str, Repository] = {}
    for file in list_repository_files(folder):
        for entry in file.entries:
            url, oauth = split_oauth(entry.url)
            repository = Repository(
                url, entry.priority or DEFAULT_PRIORITY, entry.name, oauth or entry.oauth
            )
            known = found.get(repository.display_url)
            if known is None or repository.priority > known.priority:
                found[repository.display_url] = repository
    _warn_of_unused_pins(found.values(), settings)
    return tuple(_acceptable(found.values(), settings))


def repositories_from_sources(text: str, settings: Settings) -> tuple[Repository, ...]:
    """Return the repositories of ``-sources A,B``: priority 500, the same rules for addresses."""
    found: dict[str, Repository] = {}
    for source in text.split(","):
        url, oauth = split_oauth(source.strip())
        if url:
            repository = Repository(url, oauth=oauth)
            found.setdefault(repository.display_url, repository)
    return tuple(_acceptable(found.values(), settings))


def list_repository_files(folder: Path) -> tuple[RepositoryFile, ...]:
    """Return all files, in the order of their names; broken ones are logged and left out."""
    return tuple(
        RepositoryFile(content.path, tuple(row.entry for row in content.rows if row.entry))
        for content in _contents(folder)
    )


def parse_priority(text: str) -> int:
    """Return the number of a priority: a name or an integer; 0 if ``text`` says "the default".

    Raises:
        RepositoryFileError: ``text`` is neither.
    """
    if text in PRIORITIES:
        return PRIORITIES[text]
    if not text:
        return 0
    if _NUMBER.fullmatch(text):
        return max(0, int(text))
    names = ", ".join(PRIORITIES)
    raise RepositoryFileError(f"priority {text[:40]!r} is neither a number nor one of {names}")


def add_repository(
    folder: Path,
    name: str,
    url: str,
    *,
    file: str = "",
    priority: int = 0,
    dry_run: bool = False,
) -> Change:
    """Put an entry at the end of ``file``, or of ``NAME.repo``.

    An entry with the same name, in whatever case, or the same address is replaced, wherever it is.
    ``url`` may begin with ``oauth-``.

    Raises:
        RepositoryFileError: the file's name is unusable, the file is no YAML or is not writable.
    """
    path = folder / (file or f"{name}{SUFFIX}")
    if not _FILE_NAME.fullmatch(path.name) or path.parent != folder:
        raise RepositoryFileError(f"{file or name!r} names no file that ends in {SUFFIX}")
    plain, oauth = split_oauth(url)
    entry = Entry(name, plain, oauth, priority)
    target = _read(path) if path.exists() else _Content(path, "", ())
    contents = [content for content in _contents(folder) if content.path != path]

    def is_replaced(other: Entry) -> bool:
        return other.name.lower() == name.lower() or repository_key(other.url) == repository_key(
            url
        )

    changed = [kept for content in contents if (kept := _without(content, is_replaced))]
    kept = _without(target, is_replaced) or target
    row = _Row(_entry_node(entry, None), entry)
    changed.append(_Content(path, target.comment, (*kept.rows, row)))
    if not dry_run:
        _write(changed)
    return Change(path, _dumped([row]), tuple(content.path for content in changed))


def remove_repository(folder: Path, name: str, *, dry_run: bool = False) -> tuple[Path, ...]:
    """Remove the entries with this name, in whatever case; return the files that had one.

    Raises:
        RepositoryFileError: a file is not writable; earlier ones are already changed.
    """
    changed = [
        kept
        for content in _contents(folder)
        if (kept := _without(content, lambda entry: entry.name.lower() == name.lower()))
    ]
    if not dry_run:
        _write(changed)
    return tuple(content.path for content in changed)


def _without(content: _Content, is_dropped: Callable[[Entry], bool]) -> Optional[_Content]:
    """Return the file without some entries, or None if it has none of them."""
    rows = tuple(row for row in content.rows if row.entry is None or not is_dropped(row.entry))
    return None if len(rows) == len(content.rows) else _Content(content.path, content.comment, rows)


def _acceptable(repositories: Iterable[Repository], settings: Settings) -> Iterator[Repository]:
    for repository in repositories:
        try:
            check_repository_url(repository.url)
        except UrlError as error:
            _logger.error("repository skipped: %s", error)
            continue
        if settings.allow_unsafe_url or is_safe(repository.url):
            yield repository
        else:
            _logger.error(
                "repository %s skipped: it is not https; allowunsafeurl would permit it",
                shown(repository.url),
            )


def _warn_of_unused_pins(repositories: Iterable[Repository], settings: Settings) -> None:
    """A pin whose address is misspelled protects nothing."""
    known = {repository_key(repository.url) for repository in repositories}
    for url in settings.signed_repos:
        if repository_key(url) not in known:
            _logger.warning("signedrepos names %s, which no repository file has", shown(url))


def _contents(folder: Path) -> Iterator[_Content]:
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix == SUFFIX)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RepositoryFileError(f"{folder} cannot be read: {error.strerror}") from error
    for name in names:
        try:
            yield _read(folder / name)
        except RepositoryFileError as error:
            _logger.error("%s; the file is ignored", error)


def _read(path: Path) -> _Content:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise RepositoryFileError(f"{path} cannot be read: {error.strerror}") from error
    try:
        document = parse_yaml(data)
    except YamlError as error:
        raise RepositoryFileError(f"{path}: {error}") from error
    if document is None:
        items: list[yaml.Node] = []
    elif isinstance(document, yaml.SequenceNode):
        items = document.value
    elif isinstance(document, yaml.MappingNode):
        items = [document]
    else:
        raise RepositoryFileError(f"{path}: must be a list of repositories")
    rows = tuple(_Row(item, _entry(path, item)) for item in items)
    return _Content(path, _leading_comment(data.decode("utf-8-sig")), rows)


def _entry(path: Path, item: yaml.Node) -> Optional[Entry]:
    """Return what an item says; None, and a line in the log, if it cannot be used."""
    place = f"{path}:{item.start_mark.line + 1}"
    if not isinstance(item, yaml.MappingNode):
        _logger.error("%s: no repository, skipped: write name: and url:", place)
        return None
    values = {(text_of(key) or "").lower(): text_of(value) for key, value in item.value}
    url = (values.get("url") or "").strip()
    try:
        if not url:
            raise RepositoryFileError("there is no url")
        priority = parse_priority((values.get("priority", "") or "").strip())
        if values.get("priority", "") is None:
            raise RepositoryFileError("priority is neither a number nor a name")
    except RepositoryFileError as error:
        _logger.error("%s: repository skipped: %s", place, error)
        return None
    oauth = (values.get("useoauth") or "").lower()
    if oauth in _ALSO_TRUE:
        _logger.warning("%s: useoauth: %s is taken for true; write true", place, oauth)
    return Entry(values.get("name") or "", url, oauth == "true" or oauth in _ALSO_TRUE, priority)


def _leading_comment(text: str) -> str:
    """Return the comments and blank lines at the beginning of a file."""
    lines = []
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            break
        lines.append(f"{line.rstrip()}\n")
    return "".join(lines)


def _write(contents: Iterable[_Content]) -> None:
    for content in contents:
        try:
            if content.rows:
                content.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                text = content.comment + _dumped(content.rows)
                replace_file(content.path, text.encode(), mode=_MODE)
            else:
                content.path.unlink()
        except OSError as error:
            raise RepositoryFileError(
                f"{content.path} cannot be written: {error.strerror}"
            ) from error


def _dumped(rows: Iterable[_Row]) -> str:
    nodes = [_entry_node(row.entry, row.node) if row.entry else row.node for row in rows]
    document = yaml.SequenceNode("tag:yaml.org,2002:seq", nodes, flow_style=False)
    return str(
        yaml.serialize(document, Dumper=yaml.SafeDumper, allow_unicode=True, width=float("inf"))
    )


def _entry_node(entry: Entry, original: Optional[yaml.Node]) -> yaml.MappingNode:
    """Return an entry as it is written; keys that mean nothing here are taken over."""
    pairs = [("name", _STRING, entry.name), ("url", _STRING, entry.url)]
    pairs.append(("useoauth", _BOOL, "true" if entry.oauth else "false"))
    if entry.priority:
        names = {number: name for name, number in PRIORITIES.items()}
        name = names.get(entry.priority)
        pairs.append(("priority", _STRING if name else _INT, name or str(entry.priority)))
    nodes = [
        (yaml.ScalarNode(_STRING, key), yaml.ScalarNode(tag, value)) for key, tag, value in pairs
    ]
    known = {"name", "url", "useoauth", "priority"}
    for key, value in original.value if isinstance(original, yaml.MappingNode) else ():
        if (text_of(key) or "").lower() not in known:
            nodes.append((key, value))
    return yaml.MappingNode("tag:yaml.org,2002:map", nodes, flow_style=False)
