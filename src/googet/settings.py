"""``ROOT/googet.conf``: the administrator's settings.

====================  =========  ==================================================================
Key                   Default    Meaning
====================  =========  ==================================================================
``archs``             machine's  list of architectures that may be installed, the preferred first
``cachelife``         ``3m``     how long a repository's index is used without asking again
``lockfilemaxage``    ``24h``    age at which a lock file is taken for a leftover
``proxyserver``       none       URL of the proxy for everything
``allowunsafeurl``    false      permit repositories other than https and Cloud Storage
``strictconflicts``   false      two packages with one file is an error
``signedrepos``       none       map of repository URL to the file of its public key (PEM; relative
                                 to ROOT): only an index that this key has signed is accepted
====================  =========  ==================================================================

Keys are lower case; another case is accepted with a warning, unknown keys are ignored. A value of
the wrong type or an invalid duration is logged and the default holds, while the other keys apply.
Two things are errors instead, because going on would drop what protects the machine: a file that
cannot be read, and a ``signedrepos`` that is not a map of texts.

Source: googet ``settings/settings.go``; Go's ``time.ParseDuration`` for durations.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Optional

import yaml

from googet.yamltext import LIMIT, YamlError, is_null, parse_yaml, text_of
from google_guest.errors import GuestError
from google_guest.records import field, record

FILE_NAME = "googet.conf"
_KEYS = (
    *("archs", "cachelife", "lockfilemaxage", "proxyserver"),
    *("allowunsafeurl", "strictconflicts", "signedrepos"),
)
_TRUE = frozenset({"y", "yes", "true", "on"})
_FALSE = frozenset({"n", "no", "false", "off"})
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_MOST_DIGITS = 19
"""Of an int64; Python would refuse to read thousands."""

_logger = logging.getLogger(__name__)


class SettingsError(GuestError):
    """``googet.conf`` cannot be used."""


@record
class Settings:
    """What ``googet.conf`` says; durations are seconds."""

    architectures: tuple[str, ...] = ()
    cache_life: float = 180.0
    lock_file_max_age: float = 86400.0
    proxy_server: str = ""
    allow_unsafe_url: bool = False
    strict_conflicts: bool = False
    signed_repos: Mapping[str, str] = field(default_factory=dict)
    """Repository URL, as written, to the path of the public key's file."""


def load_settings(root: Path, default_architectures: Iterable[str]) -> Settings:
    """Return the settings of the installation at ``root``; without a file, the defaults.

    Raises:
        SettingsError: the file cannot be read or its ``signedrepos`` is malformed.
    """
    path = root / FILE_NAME
    reader = _Reader(path, _values(path))
    settings = Settings()
    return Settings(
        architectures=reader.texts("archs") or tuple(default_architectures),
        cache_life=reader.duration("cachelife", settings.cache_life),
        lock_file_max_age=reader.duration("lockfilemaxage", settings.lock_file_max_age),
        proxy_server=reader.text("proxyserver"),
        allow_unsafe_url=reader.truth("allowunsafeurl"),
        strict_conflicts=reader.truth("strictconflicts"),
        signed_repos={url: str(root / key) for url, key in reader.pins().items()},
    )


def parse_go_duration(text: str) -> Optional[float]:
    """Return the seconds of a Go duration such as ``1h30m``, ``1.5h`` or ``-300ms``, or None.

    A number without a unit is invalid but for 0; days do not exist. More than an int64 of
    nanoseconds, some 292 years, is invalid, too.
    """
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    if not rest:
        return None
    total = 0.0
    while rest:
        match = _PART.match(rest)
        if match is None or not (match[1] or match[2]):
            return None
        whole, fraction = match[1].lstrip("0"), match[2] or ""
        if len(whole) > _MOST_DIGITS:
            return None
        total += (int(whole or "0") + float(f"0.{fraction[:_MOST_DIGITS] or 0}")) * _UNITS[match[3]]
        rest = rest[match.end() :]
    return sign * total / 10**9 if total < 2**63 else None


def _values(path: Path) -> Mapping[str, yaml.Node]:
    """Return the known keys that the file sets, whatever their case."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    try:
        document = parse_yaml(data)
    except YamlError as error:
        raise SettingsError(f"{path}: {error}; correct it or remove the file") from error
    if document is None or is_null(document):
        return {}
    if not isinstance(document, yaml.MappingNode):
        raise SettingsError(f'{path}: must consist of lines "key: value"')
    return _known_keys(path, document)


def _known_keys(path: Path, document: yaml.MappingNode) -> Mapping[str, yaml.Node]:
    exact: dict[str, yaml.Node] = {}
    other: dict[str, yaml.Node] = {}
    for key_node, value in document.value:
        key = text_of(key_node) or ""
        if key in _KEYS:
            if key in exact:
                _logger.warning("%s: %s is set twice; the last value counts", path, key)
            exact[key] = value
        elif key.lower() in _KEYS:
            _logger.warning("%s: write %s in lower case: %s", path, key, key.lower())
            other[key.lower()] = value
    return {**other, **exact}


class _Reader:
    """Takes typed values out of the file; a wrong one is logged and counts as absent."""

    def __init__(self, path: Path, values: Mapping[str, yaml.Node]) -> None:
        self._path = path
        self._values = {key: node for key, node in values.items() if not is_null(node)}

    def text(self, key: str) -> str:
        node = self._values.get(key)
        if node is None:
            return ""
        text = text_of(node)
        if text is None:
            self._complain(key, "must be a text")
        return text or ""

    def texts(self, key: str) -> tuple[str, ...]:
        node = self._values.get(key)
        if node is None:
            return ()
        items = [text_of(item) for item in node.value] if _is_list(node) else [None]
        texts = tuple(item for item in items if item)
        if len(texts) != len(items):
            self._complain(key, "must be a list of texts")
            return ()
        return texts

    def duration(self, key: str, default: float) -> float:
        text = self.text(key)
        seconds = parse_go_duration(text) if text else default
        if seconds is None:
            self._complain(key, f"{text[:40]!r} is no duration such as 90s or 1h30m")
            return default
        return seconds

    def truth(self, key: str) -> bool:
        node = self._values.get(key)
        if node is None:
            return False
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        word = str(node.value).lower() if plain else ""
        if word not in _TRUE | _FALSE:
            self._complain(key, "must be true or false, without quotes")
        return word in _TRUE

    def pins(self) -> Mapping[str, str]:
        node = self._values.get("signedrepos")
        if node is None:
            return {}
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(node, node)]
        pins: dict[str, str] = {}
        for url_node, key_node in pairs:
            url, key = text_of(url_node), text_of(key_node)
            if not url or not key or "\0" in key or not isinstance(node, yaml.MappingNode):
                raise SettingsError(
                    f'{self._path}: signedrepos must consist of lines "URL: file of the public key"'
                )
            pins[url] = key
        return pins

    def _complain(self, key: str, problem: str) -> None:
        _logger.error("%s: %s %s; the default is used", self._path, key, problem)


def _is_list(node: yaml.Node) -> bool:
    return isinstance(node, yaml.SequenceNode)
