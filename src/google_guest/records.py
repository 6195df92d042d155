"""Immutable records: what ``dataclasses.dataclass(frozen=True)`` gives, at a fraction of its cost.

The standard decorator writes and compiles source code for every class that it is applied to, and
imports ``inspect`` for it. With a hundred classes that was more than half of the time that the
agent and the script runner take to start, and megabytes that stay. Here all classes share the same
few methods. Type checkers see a dataclass (PEP 681).

A record has the fields that its annotations name, those of its base classes first; class variables
are left out. Values are given by position or name, defaults by assignment or :func:`field`.
Records of one class compare and hash by their values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> Callable[[_T], _T]:
        return lambda decorator: decorator


_T = TypeVar("_T")
_NOTHING: Any = object()
_FIELDS = "__record_fields__"


class Field:
    """How a field is filled and shown."""

    def __init__(
        self, default: Any, default_factory: Any, show: bool, counts_for_hash: bool
    ) -> None:
        self.default = default
        self.default_factory = default_factory
        self.show = show
        self.counts_for_hash = counts_for_hash

    def value(self) -> Any:
        """Return the default, or ``_NOTHING`` for a field that must be given."""
        return self.default if self.default_factory is _NOTHING else self.default_factory()


def field(
    *,
    default: Any = _NOTHING,
    default_factory: Any = _NOTHING,
    repr: bool = True,
    hash: bool = True,
) -> Any:
    """Describe a field: ``repr=False`` hides the value, ``hash=False`` keeps it out of the hash."""
    return Field(default, default_factory, repr, hash)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[_T]) -> type[_T]:
    """Make ``cls`` a class of immutable records."""
    fields: dict[str, Field] = {}
    for base in reversed(cls.__mro__[1:]):
        fields.update(base.__dict__.get(_FIELDS, {}))
    for name, kind in _annotations(cls).items():
        if kind.startswith("ClassVar"):
            continue
        default = cls.__dict__.get(name, _NOTHING)
        if isinstance(default, Field):
            fields[name] = default
            # A default stays visible on the class, as with the standard decorator.
            if default.default is _NOTHING:
                delattr(cls, name)
            else:
                setattr(cls, name, default.default)
        else:
            fields[name] = Field(default, _NOTHING, True, True)
    setattr(cls, _FIELDS, fields)
    for name, method in _METHODS.items():
        if name not in cls.__dict__:
            setattr(cls, name, method)
    return cls


def replace(original: _T, /, **changes: Any) -> _T:
    """Return a copy of a record in which the named fields have other values."""
    return type(original)(**{**as_dict(original), **changes})


def as_dict(instance: object) -> dict[str, Any]:
    """Return the fields and values of a record; the values themselves are not converted."""
    return dict(_items(instance))


def _annotations(cls: type) -> dict[str, str]:
    if sys.version_info < (3, 10):
        # A class without annotations would answer with those of its base there.
        found: dict[str, str] = vars(cls).get("__annotations__", {})
        return found
    return cls.__annotations__


def _items(instance: object) -> Iterator[tuple[str, Any]]:
    values = instance.__dict__
    for name in getattr(instance, _FIELDS):
        yield name, values[name]


def _init(self: Any, *arguments: Any, **named: Any) -> None:
    fields = getattr(self, _FIELDS)
    if len(arguments) > len(fields):
        raise TypeError(f"{type(self).__name__} takes {len(fields)} values, not {len(arguments)}")
    values = self.__dict__
    for name, value in zip(fields, arguments):
        if name in named:
            raise TypeError(f"{type(self).__name__} got two values for {name!r}")
        values[name] = value
    for name, description in fields.items():
        if name in values:
            continue
        value = named.pop(name) if name in named else description.value()
        if value is _NOTHING:
            raise TypeError(f"{type(self).__name__} needs a value for {name!r}")
        values[name] = value
    if named:
        raise TypeError(f"{type(self).__name__} has no field {next(iter(named))!r}")


def _repr(self: Any) -> str:
    fields = getattr(self, _FIELDS)
    shown = ", ".join(f"{name}={value!r}" for name, value in _items(self) if fields[name].show)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    return all(mine == their for mine, their in zip(_items(self), _items(other)))


def _hash(self: Any) -> int:
    fields = getattr(self, _FIELDS)
    return hash(tuple(value for name, value in _items(self) if fields[name].counts_for_hash))


def _setattr(self: Any, name: str, value: object) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} cannot be assigned to")


def _delattr(self: Any, name: str) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")


_METHODS: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}
