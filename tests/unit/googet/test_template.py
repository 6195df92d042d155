"""Go templates: what goospecs use renders as in Go (which printed the expectations)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from googet.template import TemplateError, render

DATA = {"version": "20260102.00", "a": 'x"y', "empty": ""}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ('{"a": "}}"}', '{"a": "}}"}'),
        ("{{.version}}", "20260102.00"),
        ("{{ .version }}", "20260102.00"),
        ("[{{.missing}}]", "[]"),
        ('{{$x := "lit"}}{{$x}}', "lit"),
        ("{{$.version}}", "20260102.00"),
        ('{{printf "%s.0+win@1" .version}}', "20260102.00.0+win@1"),
        ('{{.version | printf "%s.%s" "a"}}', "a.20260102.00"),
        ('{{$v := printf "%s.0@1" .version -}}\n{ "{{$v}}" }', '{ "20260102.00.0@1" }'),
        ("a \n{{- .version -}}\t\n b", "a20260102.00b"),
        ("a {{/* comment }} */}} b", "a  b"),
        ("a {{- /* two\nlines */ -}} b", "ab"),
        ("{{- 3}} {{-3}}", "3 -3"),
        ("{{/* a */}}{{/* b */}}", ""),
        # Literals
        ('{{"\\n\\t\\"\\\\\\x41\\101\\u00e9\\U0001f600"}}', '\n\t"\\AAé\U0001f600'),
        ('{{"\\xc3\\xa9"}}', "é"),
        ('{{`raw\\n\n"text`}}', 'raw\\n\n"text'),
        ("{{`a\r\nb`}}", "a\nb"),
        ("{{'a'}} {{'\\n'}} {{'é'}}", "97 10 233"),
        ("{{1}} {{-3}} {{+4}} {{0x1F}} {{0b11}} {{0o17}} {{017}} {{0}}", "1 -3 4 31 3 15 15 0"),
        ("{{1.5}} {{.5}} {{2.0}} {{1e3}} {{1e-7}}", "1.5 0.5 2 1000 1e-07"),
        ("{{true}} {{false}}", "true false"),
        # Functions
        ('{{index . "version"}}{{index . "missing"}}', "20260102.00"),
        ('{{index "abc" 1}}', "98"),
        ("{{len .version}} {{len .}} {{len `ü`}}", "11 3 2"),
        ('{{print 1 2 "a" 3}}{{println "x" 1}}', "1 2a3x 1\n"),
        ('{{eq .a "q" .a}}{{eq .a "q"}}{{ne 1 2}}', "truefalsetrue"),
        ("{{lt 1 2}}{{le 2 2}}{{gt 1 2}}{{ge `b` `a`}}", "truetruefalsetrue"),
        ("{{and .a .empty}}|{{and .a 1}}|{{or .empty .a}}|{{or 0 ``}}", '|1|x"y|'),
        ("{{and .empty (index .a 99)}}{{or .a (index .a 99)}}", 'x"y'),
        ("{{not .empty}}{{not .a}}{{not 0}}", "truefalsetrue"),
        ("{{.empty | or `d`}}", "d"),
        ('{{(print .a | len) | printf "%d"}}', "3"),
        ("{{.}}", 'map[a:x"y empty: version:20260102.00]'),
        # Branches
        ("{{if .a}}1{{else}}2{{end}}{{if .empty}}1{{else}}2{{end}}", "12"),
        ("{{if .empty}}1{{else if .a}}2{{else}}3{{end}}", "2"),
        ("{{if .empty}}1{{else if .empty}}2{{else if eq 1 1}}3{{else}}4{{end}}", "3"),
        ("{{if $x := .a}}{{$x}}{{else}}{{$x}}no{{end}}", 'x"y'),
        ("{{with .a}}[{{.}}]{{end}}{{with .empty}}x{{else}}{{.a}}{{end}}", '[x"y]x"y'),
        ("{{with $x := .a}}{{$x}}{{$.version}}{{end}}", 'x"y20260102.00'),
        ("{{range .}}[{{.}}]{{end}}", '[x"y][][20260102.00]'),
        ("{{range $k, $v := .}}{{$k}}={{$v}};{{end}}", 'a=x"y;empty=;version=20260102.00;'),
        ("{{range $v := .}}[{{$v}}]{{end}}", '[x"y][][20260102.00]'),
        # Variables
        ("{{$x := ``}}{{if true}}{{$x = .a}}{{end}}{{$x}}", 'x"y'),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("{{$k := ``}}{{range $k, $v := .}}{{end}}[{{$k}}]", "[]"),
        ("{{$k := ``}}{{$v := ``}}{{range $k, $v = .}}{{end}}{{$k}}", "version"),
        ("{{$x := (1 | print)}}{{$x}}", "1"),
    ],
)
def test_template_is_rendered(template: str, text: str) -> None:
    assert render(template, DATA) == text


def test_range_over_nothing_takes_the_other_branch() -> None:
    assert render("{{range .}}x{{else}}none{{end}}", {}) == "none"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.a", "action has no end"),
        ("{{", "action has no end"),
        ("{{}}", "value is missing"),
        ("{{/* c }}", "comment has no end"),
        ("{{/* c */ .a}}", "comment is not alone"),
        ('{{"a}}', 'begins with " has no end'),
        ("{{`a}}", "begins with ` has no end"),
        ("{{'a}}", "begins with ' has no end"),
        ("{{''}}", "not one character"),
        ("{{'ab'}}", "not one character"),
        ('{{"\\z"}}', "no escape"),
        ('{{"\\777"}}', "no escape"),
        ('{{"\\ud800"}}', "no escape"),
        ("{{99999999999999999999}}", "no number, or too large"),
        ("{{1e999}}", "no number, or too large"),
        ("{{1i}}", "no number"),
        ("{{08}}", "no number"),
        ("{{$x}}", r"\$x is not declared"),
        ("{{$x = 1}}", r"\$x is not declared"),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", r"\$x is not declared"),
        ("{{$ := 1}}", "variables cannot be set"),
        ("{{$a, $b := .}}", "variables cannot be set"),
        ("{{unknown}}", "'unknown' is no function"),
        ("{{nil}}", "'nil' is no function"),
        ("{{call .a}}", "'call' is no function"),
        ("{{html .a}}", "'html' is no function"),
        ("{{slice .a 1}}", "'slice' is no function"),
        ('{{define "x"}}{{end}}', "{{define}} is not supported"),
        ('{{template "x"}}', "{{template}} is not supported"),
        ('{{block "x" .}}{{end}}', "{{block}} is not supported"),
        ("{{range .}}{{break}}{{end}}", "{{break}} is not supported"),
        ("{{range .}}{{continue}}{{end}}", "{{continue}} is not supported"),
        ("{{with .a}}{{else with .b}}{{end}}", "unexpected 'with'"),
        ("{{if}}{{end}}", "value is missing"),
        ("{{if .a}}", "{{if}} has no {{end}}"),
        ("{{if .a}}{{else}}", "{{if}} has no {{end}}"),
        ("{{if .a}}{{else if .a}}", "{{if}} has no {{end}}"),
        ("{{if .a}}{{else}}{{else}}{{end}}", "unexpected {{else}}"),
        ("{{range .}}", "{{range}} has no {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if .a}}{{end x}}", "unexpected 'x'"),
        ("{{1 2}}", "no function has arguments"),
        ("{{.a .b}}", "no function has arguments"),
        ('{{"a""b"}}', "space is missing"),
        ('{{print"a"}}', "space is missing"),
        ("{{(1}}", "parenthesis is not closed"),
        ("{{1)}}", "unexpected '\\)'"),
        ("{{print (}}", "value is missing"),
        ("{{1 | }}", "value is missing"),
        ('{{1 | "a"}}', "only a function can follow"),
        ("{{print len}}", "needs parentheses"),
        ("{{.a.b}}", r"\.b of a string does not exist"),
        ("{{$.a.b}}", r"\.b of a string does not exist"),
        ("{{(1).b}}", r"\.b of an integer does not exist"),
        ("{{index .a 99}}", "index 99 is out of range"),
        ("{{index .a true}}", "no index that is a boolean"),
        ("{{index 1 1}}", "an integer has no index"),
        ("{{len 1}}", "len of an integer"),
        ("{{len}}", "len has 0 arguments"),
        ("{{not 1 2}}", "not has 2 arguments"),
        ("{{eq 1}}", "eq has 1 arguments"),
        ("{{and}}", "and has 0 arguments"),
        ("{{eq 1 `1`}}", "an integer and a string cannot be compared"),
        ("{{eq 1 1.0}}", "cannot be compared"),
        ("{{eq . .}}", "a map and a map cannot be compared"),
        ("{{lt true false}}", "booleans have no order"),
        ("{{printf 1}}", "printf needs a format"),
        ('{{printf "%d" .a}}', "%d does not print a string"),
        ("{{range .a}}{{end}}", "range goes over maps, not a string"),
        ("{{range 3}}{{end}}", "range goes over maps, not an integer"),
        ("{{.a # }}", "unexpected '#'"),
        ("{{if true}}" * 61 + "{{end}}" * 61, "more than 60 levels"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "more than 60 levels"),
    ],
)
def test_error_names_the_line(template: str, message: str) -> None:
    with pytest.raises(TemplateError, match=f"template error in line 3: .*{message}") as caught:
        render("{\n\n" + template, DATA)
    assert caught.value.line == 3


def test_line_of_a_long_action_is_that_of_the_mistake() -> None:
    with pytest.raises(TemplateError, match="line 3"):
        render("{{print\n1\n unknown}}", DATA)


def test_untaken_branch_is_not_evaluated() -> None:
    assert render("{{if false}}{{index .a 99}}{{end}}", DATA) == ""


def test_result_has_a_limit() -> None:
    template = "{{range .}}" * 5 + "{{.}}" + "{{end}}" * 5
    data = {str(number): "x" * 50 for number in range(30)}
    # A range makes the value the current one: only the outermost goes over the map.
    with pytest.raises(TemplateError, match="range goes over maps"):
        render(template, data)
    with pytest.raises(TemplateError, match="too large"):
        render("{{range $}}" * 4 + "{{.}}" + "{{end}}" * 4, data)


_PIECES = st.sampled_from(
    ["{{", "}}", "{{-", "-}}", "/*", "*/", "if", "else", "end", "with", "range", ".", ".a", ".a.b"]
    + ["$", "$x", ":=", "=", "|", "(", ")", ",", "print", "printf", "len", "eq", "index", "and"]
    + ["or", "not", "define", '"%s"', "`x`", "'a'", "1", "1.5", "0x1", "true", "text", " ", "\n"]
    + ["{{end}}", "{{.a}}", "{{if .a}}", "{{range .}}"]
)


@given(st.lists(_PIECES | st.text(max_size=3), max_size=30).map("".join))
@example("{{-}}")
@example("{{- -}}")
@example("{{'\\''}}")
def test_any_text_is_rendered_or_refused(template: str) -> None:
    try:
        render(template, DATA)
    except TemplateError as error:
        assert 1 <= error.line <= template.count("\n") + 1


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_actions_stays(text: str) -> None:
    assert render(text, DATA) == text


@given(st.dictionaries(st.from_regex(r"[A-Za-z_]\w*", fullmatch=True), st.text(), max_size=3))
def test_every_variable_can_be_printed(data: dict[str, str]) -> None:
    template = "".join(f"{{{{.{name}}}}}|" for name in data)
    assert render(template, data) == "".join(f"{value}|" for value in data.values())
