"""The syntax of Go's text templates: from text to a tree, as far as goospecs use it.

Text between ``{{`` and ``}}`` is an action: a pipeline whose value is printed, the declaration or
assignment of a variable, a comment, or ``if``, ``with``, ``range``, ``else`` and ``end``. ``{{-``
and ``-}}`` take the white space around an action away. Everything else that Go knows (``define``,
``template``, ``block``, ``break``, ``continue``, ``call`` and further functions) is an error that
tells the line.

Facts: the Go standard library, text/template and text/template/parse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Optional, Union

from google_guest.errors import GuestError
from google_guest.records import record

FUNCTIONS = frozenset(
    {"index", "len", "print", "printf", "println"}
    | {"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not"}
)

_DEEPEST = 60
_INT64 = 1 << 63
_LONGEST_NUMBER = 80
_SPACE = " \t\r\n"
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_TRIMMING_END = re.compile(r"[ \t\r\n]+-\}\}")
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<character>'(?:[^'\\\n]|\\.)*')
      | (?P<mark>:=|[=|(),])
      | (?P<variable>\$\w*)
      | (?P<number>[+-]?\.?[0-9][0-9A-Za-z_.]*(?:(?<=[eEpP])[+-][0-9_]+)?)
      | (?P<field>\.\w+)
      | (?P<dot>\.)
      | (?P<word>\w+)""",
    re.VERBOSE,
)
_INTEGER = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]+)?")
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)",
    re.DOTALL,
)
_SIMPLE_ESCAPES = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\""))


class TemplateError(GuestError):
    """A template cannot be rendered; the message tells the line."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(f"template error in line {line}: {reason}")
        self.line = line
        """Counted from 1."""


@record
class Literal:
    """A constant."""

    value: Union[str, int, float, bool]


@record
class Field:
    """``.a.b`` of the current value, of a variable or of a pipeline in parentheses."""

    of: Union[Variable, Pipeline, None]
    names: tuple[str, ...] = ()


@record
class Variable:
    """``$name``; ``$`` is the data that the template was given."""

    name: str


@record
class Function:
    """A function by its name."""

    name: str


Operand = Union[Literal, Field, Variable, Function]


@record
class Command:
    """An operand, or a function and its arguments."""

    operands: tuple[Operand, ...]


@record
class Pipeline:
    """Commands, each of which has the value of the one before as its last argument."""

    line: int
    commands: tuple[Command, ...]
    variables: tuple[str, ...] = ()
    """The variables that take the value."""
    declares: bool = False
    """Whether they are new."""


@record
class Text:
    """Text to print as it is."""

    text: str


@record
class Output:
    """A pipeline whose value is printed, unless a variable takes it."""

    pipeline: Pipeline


@record
class Branch:
    """``if``, ``with`` or ``range``."""

    kind: str
    pipeline: Pipeline
    body: tuple[Any, ...]
    otherwise: tuple[Any, ...]


Node = Union[Text, Output, Branch]


@record
class Token:
    """A piece of an action."""

    kind: str
    text: str
    line: int


@record
class Action:
    """The tokens of one action."""

    line: int
    tokens: tuple[Token, ...]


def parse_template(text: str) -> tuple[Node, ...]:
    """Return the tree of a template.

    Raises:
        TemplateError: it is not valid, or uses what is not supported.
    """
    return _Parser(_pieces(text)).template()


def _pieces(source: str) -> list[Union[Text, Action]]:
    """Take a template apart into text and actions."""
    pieces: list[Union[Text, Action]] = []
    at = 0
    trims = False
    while True:
        start = source.find("{{", at)
        text = source[at:] if start < 0 else source[at:start]
        if trims:
            text = text.lstrip(_SPACE)
        if start >= 0 and source[start + 2 : start + 3] == "-" and _is_space(source, start + 3):
            text = text.rstrip(_SPACE)
        pieces.append(Text(text))
        if start < 0:
            return pieces
        action, at, trims = _Lexer(source, start).action()
        if action is not None:
            pieces.append(action)


def _is_space(source: str, at: int) -> bool:
    return source[at : at + 1] in (" ", "\t", "\r", "\n")


class _Lexer:
    """Reads one action."""

    def __init__(self, source: str, start: int) -> None:
        self._source = source
        self._line = source.count("\n", 0, start) + 1
        self._at = start + 2
        if source[self._at : self._at + 1] == "-" and _is_space(source, self._at + 1):
            self._at += 1

    def action(self) -> tuple[Optional[Action], int, bool]:
        """Return the action (None for a comment), where it ends, and whether it trims there."""
        first = self._line
        comment = self._at
        while self._source[comment : comment + 1] in tuple(_SPACE):
            comment += 1
        if self._source.startswith("/*", comment):
            return self._comment(comment)
        tokens: list[Token] = []
        while True:
            end = self._end()
            if end is not None:
                return Action(first, tuple(tokens)), *end
            tokens.append(self._token())

    def _comment(self, at: int) -> tuple[None, int, bool]:
        match = _COMMENT.match(self._source, at)
        if match is None:
            raise TemplateError("a comment has no end", self._line)
        self._at = match.end()
        end = self._end()
        if end is None:
            raise TemplateError("a comment is not alone in its action", self._line)
        return None, *end

    def _end(self) -> Optional[tuple[int, bool]]:
        if self._source.startswith("}}", self._at):
            return self._at + 2, False
        match = _TRIMMING_END.match(self._source, self._at)
        return (match.end(), True) if match else None

    def _token(self) -> Token:
        if self._at >= len(self._source):
            raise TemplateError("an action has no end: '}}' is missing", self._line)
        match = _TOKEN.match(self._source, self._at)
        if match is None:
            rest = self._source[self._at : self._at + 1]
            quote = rest in ("'", '"', "`")
            reason = (
                f"a text that begins with {rest} has no end" if quote else f"unexpected {rest!r}"
            )
            raise TemplateError(reason, self._line)
        token = Token(str(match.lastgroup), match[0], self._line)
        self._line += match[0].count("\n")
        self._at = match.end()
        return token


class _Parser:
    """Makes the tree of the pieces."""

    def __init__(self, pieces: Sequence[Union[Text, Action]]) -> None:
        self._pieces = list(pieces)
        self._next = 0
        self._variables = ["$"]
        self._depth = 0

    def template(self) -> tuple[Node, ...]:
        nodes, ending = self._nodes()
        if ending is not None:
            raise TemplateError(f"unexpected {{{{{ending.keyword()}}}}}", ending.line)
        return nodes

    def _nodes(self) -> tuple[tuple[Node, ...], Optional[_Tokens]]:
        """Parse up to an ``else`` or ``end``, which is returned, or to the template's end."""
        nodes: list[Node] = []
        while self._next < len(self._pieces):
            piece = self._pieces[self._next]
            self._next += 1
            if isinstance(piece, Text):
                nodes.append(piece)
                continue
            tokens = _Tokens(piece)
            word = tokens.keyword()
            if word in ("else", "end"):
                return tuple(nodes), tokens
            if word in ("if", "with", "range"):
                nodes.append(self._branch(word, tokens))
            elif word in ("define", "template", "block", "break", "continue"):
                raise TemplateError(f"{{{{{word}}}}} is not supported", tokens.line)
            else:
                nodes.append(Output(self._pipeline(tokens)))
                tokens.expect_end()
        return tuple(nodes), None

    def _branch(self, kind: str, tokens: _Tokens) -> Branch:
        tokens.take()
        self._descend(tokens.line)
        outside = len(self._variables)
        pipeline = self._pipeline(tokens, most_variables=2 if kind == "range" else 1)
        tokens.expect_end()
        inside = len(self._variables)
        body, ending = self._nodes()
        del self._variables[inside:]
        otherwise: tuple[Node, ...] = ()
        if ending is not None and ending.keyword() == "else":
            ending.take()
            if kind == "if" and ending.keyword() == "if":
                # Its end is that of both.
                otherwise = (self._branch("if", ending),)
            else:
                ending.expect_end()
                otherwise, ending = self._nodes()
                _close(kind, tokens.line, ending)
        else:
            _close(kind, tokens.line, ending)
        del self._variables[outside:]
        self._depth -= 1
        return Branch(kind, pipeline, body, otherwise)

    def _descend(self, line: int) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise TemplateError(f"more than {_DEEPEST} levels within each other", line)

    def _pipeline(self, tokens: _Tokens, *, most_variables: int = 1) -> Pipeline:
        line = tokens.line
        variables, sign = tokens.targets(most_variables)
        if sign == "=":
            for name in variables:
                self._check_known(name, line)
        commands = [self._command(tokens)]
        while tokens.skip("|"):
            command = self._command(tokens)
            if not isinstance(command.operands[0], Function):
                raise TemplateError("only a function can follow after |", line)
            commands.append(command)
        if sign == ":=":
            self._variables += variables
        return Pipeline(line, tuple(commands), variables, sign == ":=")

    def _command(self, tokens: _Tokens) -> Command:
        operands = [self._operand(tokens)]
        while tokens.at_operand():
            if not tokens.after_space:
                raise TemplateError(f"a space is missing before {tokens.shown()}", tokens.line)
            operands.append(self._operand(tokens))
        if len(operands) > 1 and not isinstance(operands[0], Function):
            raise TemplateError("what is no function has arguments", tokens.line)
        if any(isinstance(operand, Function) for operand in operands[1:]):
            raise TemplateError("a function as an argument needs parentheses", tokens.line)
        return Command(tuple(operands))

    def _operand(self, tokens: _Tokens) -> Operand:
        token = tokens.take()
        if token.kind == "variable":
            self._check_known(token.text, token.line)
            return _with_fields(Variable(token.text), tokens.fields())
        if token.kind in ("field", "dot"):
            names = (token.text[1:],) if token.kind == "field" else ()
            return Field(None, names + tokens.fields())
        if token.text == "(" and token.kind == "mark":
            self._descend(token.line)
            pipeline = self._pipeline(tokens)
            if not tokens.skip(")"):
                raise TemplateError("a parenthesis is not closed", token.line)
            self._depth -= 1
            return Field(pipeline, tokens.fields())
        if token.kind == "word":
            return _word(token)
        return Literal(_constant(token))

    def _check_known(self, name: str, line: int) -> None:
        if name not in self._variables:
            raise TemplateError(f"variable {name} is not declared", line)


class _Tokens:
    """The tokens of one action, taken one by one; white space is skipped but remembered."""

    def __init__(self, action: Action) -> None:
        self._tokens = action.tokens
        self._at = 0
        self._action_line = action.line
        self.after_space = False
        self._skip_space()

    @property
    def line(self) -> int:
        """The line of the next token."""
        token = self._peek()
        return token.line if token else self._action_line

    def keyword(self) -> str:
        """Return the next token if it is a word, without taking it."""
        token = self._peek()
        return token.text if token and token.kind == "word" else ""

    def shown(self) -> str:
        """Return the next token for a message."""
        token = self._peek()
        return repr(token.text) if token else "the end of the action"

    def take(self) -> Token:
        """Return the next token and go on."""
        token = self._peek()
        if token is None:
            raise TemplateError("a value is missing", self._action_line)
        self._at += 1
        self._skip_space()
        return token

    def skip(self, mark: str) -> bool:
        """Take the next token if it is ``mark``; return whether it was."""
        token = self._peek()
        if token is None or token.kind != "mark" or token.text != mark:
            return False
        self.take()
        return True

    def at_operand(self) -> bool:
        """Return whether another operand follows."""
        token = self._peek()
        return token is not None and not (token.kind == "mark" and token.text != "(")

    def fields(self) -> tuple[str, ...]:
        """Take the fields that follow without a space."""
        names = []
        while not self.after_space:
            token = self._peek()
            if token is None or token.kind != "field":
                break
            names.append(self.take().text[1:])
        return tuple(names)

    def targets(self, most: int) -> tuple[tuple[str, ...], str]:
        """Take the variables before ``:=`` or ``=`` and that sign, if the action has them."""
        start, spaced = self._at, self.after_space
        names = []
        while True:
            token = self._peek()
            if token is None or token.kind != "variable":
                break
            names.append(self.take().text)
            if not self.skip(","):
                break
        for sign in (":=", "="):
            if names and self.skip(sign):
                if len(names) > most or "$" in names:
                    raise TemplateError("variables cannot be set like this", self._action_line)
                return tuple(names), sign
        self._at, self.after_space = start, spaced
        return (), ""

    def expect_end(self) -> None:
        """Raise unless all tokens were taken."""
        if self._peek() is not None:
            raise TemplateError(f"unexpected {self.shown()}", self.line)

    def _peek(self) -> Optional[Token]:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _skip_space(self) -> None:
        self.after_space = False
        while self._at < len(self._tokens) and self._tokens[self._at].kind == "space":
            self._at += 1
            self.after_space = True


def _close(kind: str, line: int, ending: Optional[_Tokens]) -> None:
    if ending is None:
        raise TemplateError(f"{{{{{kind}}}}} has no {{{{end}}}}", line)
    if ending.keyword() != "end":
        raise TemplateError("unexpected {{else}}", ending.line)
    ending.take()
    ending.expect_end()


def _with_fields(variable: Variable, names: tuple[str, ...]) -> Operand:
    return Field(variable, names) if names else variable


def _word(token: Token) -> Operand:
    if token.text in ("true", "false"):
        return Literal(token.text == "true")
    if token.text in FUNCTIONS:
        return Function(token.text)
    raise TemplateError(f"{token.text!r} is no function that goospecs have", token.line)


def _constant(token: Token) -> Union[str, int, float]:
    if token.kind == "raw":
        return token.text[1:-1].replace("\r", "")
    if token.kind == "string":
        return _unquoted(token)
    if token.kind == "character":
        text = _unquoted(token)
        if len(text) != 1:
            raise TemplateError(f"{token.text} is not one character", token.line)
        return ord(text)
    if token.kind == "number":
        return _number(token)
    raise TemplateError(f"unexpected {token.text!r}", token.line)


def _number(token: Token) -> Union[int, float]:
    match = _INTEGER.fullmatch(token.text)
    if match is not None and len(token.text) < _LONGEST_NUMBER:
        sign, hexadecimal, binary, octal, decimal = match.groups()
        digits, base = next(
            (digits, base)
            for digits, base in ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10))
            if digits
        )
        number = int(sign + digits, base)
        if -_INT64 <= number < _INT64:
            return number
    elif _REAL.fullmatch(token.text) and math.isfinite(float(token.text)):
        return float(token.text)
    raise TemplateError(f"{token.text[:40]} is no number, or too large", token.line)


def _unquoted(token: Token) -> str:
    data = bytearray()
    text, at = token.text[1:-1], 0
    for match in _ESCAPE.finditer(text):
        data += text[at : match.start()].encode("utf-8", "replace")
        data += _escaped(match, token.line)
        at = match.end()
    data += text[at:].encode("utf-8", "replace")
    return data.decode("utf-8", "replace")


def _escaped(match: re.Match[str], line: int) -> bytes:
    simple, hexadecimal, octal, short, long = match.groups()
    if simple:
        return _SIMPLE_ESCAPES[simple].encode()
    if hexadecimal or octal:
        number = int(hexadecimal, 16) if hexadecimal else int(octal, 8)
        if number < 256:
            return bytes([number])
    elif short or long:
        number = int(short or long, 16)
        if number < 0x110000 and not 0xD800 <= number < 0xE000:
            return chr(number).encode()
    raise TemplateError(f"{match[0]} is no escape that strings have", line)
