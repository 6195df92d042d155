"""YAML as people write it into ``googet.conf`` and ``*.repo``: nodes, with their style kept.

Values are looked at before YAML turns them into numbers and truth values, because a repository
named ``1.0`` or ``no`` is a name, and because a quoted ``"true"`` is not the same as a plain one.
A byte order mark and Windows line ends are accepted, of several documents the first one counts.
Whatever bytes arrive, the only error is :class:`YamlError`.

Source: googet ``settings/settings.go`` and ``repo/repo.go`` (what is read); YAML 1.1.
"""

from __future__ import annotations

from typing import Optional

import yaml

from google_guest.errors import GuestError

LIMIT = 1 << 20
"""Largest file that is read, in bytes."""


class YamlError(GuestError):
    """The text is no YAML; the message has the line."""


def parse_yaml(data: bytes) -> Optional[yaml.Node]:
    """Return the first document of ``data``; None if there is nothing but blanks and comments.

    Raises:
        YamlError: the text cannot be understood.
    """
    if len(data) > LIMIT:
        raise YamlError(f"larger than {LIMIT} bytes")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise YamlError("the text is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"byte {error.start} is not UTF-8") from error
    try:
        loader = yaml.SafeLoader(text)
        return loader.get_node() if loader.check_node() else None
    except yaml.YAMLError as error:
        raise YamlError(_complaint(error)) from error
    except RecursionError as error:
        raise YamlError("the text is nested too deeply") from error
    except (ValueError, OverflowError) as error:
        # An escape such as "\UFFFFFFFF" that names no character.
        raise YamlError("the text has an escape that names no character") from error


def text_of(node: yaml.Node) -> Optional[str]:
    """Return a scalar as text, a null as an empty one; None if it is a list, a map or no text."""
    if not isinstance(node, yaml.ScalarNode) or not is_text(node.value):
        return None
    return "" if is_null(node) else str(node.value)


def is_null(node: yaml.Node) -> bool:
    """Return whether ``node`` is an absent value: empty, ``~`` or ``null``."""
    return isinstance(node, yaml.ScalarNode) and bool(node.tag == "tag:yaml.org,2002:null")


def is_text(value: str) -> bool:
    """Return whether ``value`` can be encoded: an escape may name half a character."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _complaint(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or "no YAML")
    if mark is None:
        return problem
    return f"line {mark.line + 1}: {problem}"
