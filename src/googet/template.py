"""Go's text templates, rendered with the variables of goopack's command line.

The data is a map of strings, and a key that it lacks is an empty string. What a template may use is
told in ``templatesyntax``; an error that Go would find while rendering names its line here, too.

Facts: the Go standard library, text/template (evaluation, truth, functions).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from googet.goformat import FormatError, kind_of, shown, sprint, sprintf, sprintln
from googet.templatesyntax import (
    Branch,
    Command,
    Field,
    Function,
    Literal,
    Node,
    Operand,
    Output,
    Pipeline,
    TemplateError,
    Text,
    Variable,
    parse_template,
)

__all__ = ["TemplateError", "render"]

_LARGEST_RESULT = 16 << 20


def render(template: str, variables: Mapping[str, str]) -> str:
    """Return the text that a template gives with these variables.

    Raises:
        TemplateError: it is not valid, uses what is not supported, or fails.
    """
    renderer = _Renderer(variables)
    renderer.render(parse_template(template), variables)
    return "".join(renderer.pieces)


class _Failure(Exception):
    """A function does not take its arguments; the line is added where it is known."""


class _Renderer:
    def __init__(self, data: Mapping[str, str]) -> None:
        self.pieces: list[str] = []
        self._size = 0
        self._variables: list[tuple[str, Any]] = [("$", data)]

    def render(self, nodes: Sequence[Node], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, Text):
                self._print(node.text, 0)
            elif isinstance(node, Output):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.variables:
                    self._print(shown(value), node.pipeline.line)
            else:
                outside = len(self._variables)
                self._branch(node, dot)
                del self._variables[outside:]

    def _print(self, text: str, line: int) -> None:
        self._size += len(text)
        if self._size > _LARGEST_RESULT:
            raise TemplateError("the result is too large", line)
        self.pieces.append(text)

    def _branch(self, node: Branch, dot: Any) -> None:
        if node.kind == "range":
            self._range(node, dot)
            return
        value = self._pipeline(node.pipeline, dot)
        if is_true(value):
            self.render(node.body, value if node.kind == "with" else dot)
        else:
            self.render(node.otherwise, dot)

    def _range(self, node: Branch, dot: Any) -> None:
        pipeline = node.pipeline
        items = self._value(pipeline, dot)
        if not isinstance(items, Mapping):
            raise TemplateError(f"range goes over maps, not {kind_of(items)}", pipeline.line)
        names = pipeline.variables
        for key in sorted(items):
            outside = len(self._variables)
            # One variable takes the values, the first of two the keys.
            for name, value in zip(names, (items[key],) if len(names) < 2 else (key, items[key])):
                self._set(name, value, declares=pipeline.declares)
            self.render(node.body, items[key])
            del self._variables[outside:]
        if not items:
            self.render(node.otherwise, dot)

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value = self._value(pipeline, dot)
        for name in pipeline.variables:
            self._set(name, value, declares=pipeline.declares)
        return value

    def _value(self, pipeline: Pipeline, dot: Any) -> Any:
        value = None
        try:
            for number, command in enumerate(pipeline.commands):
                value = self._command(command, dot, [value] if number else [])
        except (_Failure, FormatError) as error:
            raise TemplateError(str(error), pipeline.line) from error
        return value

    def _set(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        at = next(at for at, (known, _) in self._backwards() if known == name)
        self._variables[at] = (name, value)

    def _backwards(self) -> Sequence[tuple[int, tuple[str, Any]]]:
        return list(enumerate(self._variables))[::-1]

    def _command(self, command: Command, dot: Any, last: list[Any]) -> Any:
        first, *rest = command.operands
        if not isinstance(first, Function):
            return self._operand(first, dot)
        if first.name in ("and", "or"):
            return self._short_circuit(first.name, rest, dot, last)
        arguments = [self._operand(operand, dot) for operand in rest] + last
        function, fewest, most = _FUNCTIONS[first.name]
        if len(arguments) < fewest or (most is not None and len(arguments) > most):
            raise _Failure(f"{first.name} has {len(arguments)} arguments")
        return function(*arguments)

    def _short_circuit(
        self, name: str, operands: Sequence[Operand], dot: Any, last: list[Any]
    ) -> Any:
        if not operands and not last:
            raise _Failure(f"{name} has 0 arguments")
        value = None
        for operand in operands:
            value = self._operand(operand, dot)
            if is_true(value) == (name == "or"):
                return value
        return last[0] if last else value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Variable):
            return next(value for _, (name, value) in self._backwards() if name == operand.name)
        assert isinstance(operand, Field)
        if operand.of is None:
            value = dot
        elif isinstance(operand.of, Pipeline):
            value = self._pipeline(operand.of, dot)
        else:
            value = self._operand(operand.of, dot)
        for name in operand.names:
            if not isinstance(value, Mapping):
                raise _Failure(f".{name} of {kind_of(value)} does not exist")
            value = value.get(name, "")
        return value


def is_true(value: Any) -> bool:
    """Return whether a value counts as true: it is neither zero nor empty."""
    return bool(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping) and isinstance(key, str):
            value = value.get(key, "")
        elif isinstance(value, str) and _is_integer(key):
            data = value.encode("utf-8", "replace")
            if not 0 <= key < len(data):
                raise _Failure(f"index {key} is out of range")
            value = data[key]
        else:
            raise _Failure(f"{kind_of(value)} has no index that is {kind_of(key)}")
    return value


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return len(value)
    raise _Failure(f"len of {kind_of(value)} does not exist")


def _printf(form: Any, *values: Any) -> str:
    if not isinstance(form, str):
        raise _Failure(f"printf needs a format, not {kind_of(form)}")
    return sprintf(form, values)


def _equal(first: Any, *others: Any) -> bool:
    for other in others:
        _check_comparable(first, other)
    return any(first == other for other in others)


def _not_equal(first: Any, second: Any) -> bool:
    return not _equal(first, second)


def _less(first: Any, second: Any) -> bool:
    _check_comparable(first, second)
    if isinstance(first, bool):
        raise _Failure("booleans have no order")
    return bool(first < second)


def _check_comparable(first: Any, second: Any) -> None:
    if isinstance(first, Mapping) or type(first) is not type(second):
        raise _Failure(f"{kind_of(first)} and {kind_of(second)} cannot be compared")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# Each with the fewest and the most arguments; ``and`` and ``or`` look only at what they need.
_FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int, Optional[int]]] = {
    "index": (_index, 1, None),
    "len": (_length, 1, 1),
    "print": (lambda *values: sprint(values), 0, None),
    "printf": (_printf, 1, None),
    "println": (lambda *values: sprintln(values), 0, None),
    "eq": (_equal, 2, None),
    "ne": (_not_equal, 2, 2),
    "lt": (_less, 2, 2),
    "le": (lambda first, second: not _less(second, first), 2, 2),
    "gt": (lambda first, second: _less(second, first), 2, 2),
    "ge": (lambda first, second: not _less(first, second), 2, 2),
    "not": (lambda value: not is_true(value), 1, 1),
}
