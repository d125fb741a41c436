"""What is shown of others does nothing: in a line, in JSON, in a cell, in Markdown."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from famcli.display import csv_value, in_markdown, json_text, visible

UNSEEN = "\u200b\u202e\u2066\ufeff\u00ad\u034f\u3164\u115f\u2800\ufe0f\U000e0041\U000e0100"
any_text = st.text(st.characters(exclude_categories=[]), max_size=30)


@given(any_text)
def test_a_line_is_one_line_that_shows_all_it_has(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable() and shown.encode().decode() == shown
    assert not set(shown) & set(UNSEEN)
    assert not shown.lstrip().startswith("::") and "##[" not in shown
    assert visible(shown) == shown


@given(any_text, any_text)
def test_two_texts_never_look_the_same(one: str, other: str) -> None:
    if one != other and "\\" not in one + other:
        assert visible(one) != visible(other)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fam-tiny", "fam-tiny"),
        ("Überzeugung 日本語 ไทย", "Überzeugung 日本語 ไทย"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("::error::no", r"\x3a:error::no"),
        ("  ::error::no", r"  \x3a:error::no"),
        ("a::b", "a::b"),
        ("a\n::error::b", r"a\n::error::b"),
        ("x ##[error]y", r"x \x23#[error]y"),
        ("x ##vso[task.setvariable]y", r"x \x23#vso[task.setvariable]y"),
        ("# heading ## two", "# heading ## two"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_lines(text: str, shown: str) -> None:
    assert visible(text) == shown


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)


@given(json_values)
def test_json_means_the_same_and_is_safe_to_show(value: object) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert text.isprintable() and text.encode().decode() == text
    assert not set(text) & set(UNSEEN) and "##[" not in text


def test_json_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"a": float("nan")})


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "::", "＝"])
def test_a_cell_that_would_run_gets_an_apostrophe(begin: str) -> None:
    assert str(csv_value(f"{begin}HYPERLINK(1)")).startswith("'")
    assert str(csv_value(f"{begin}HYPERLINK(1)"))[1:] == visible(f"{begin}HYPERLINK(1)")


@pytest.mark.parametrize("value", ["-0.5", "+1", "-1e-05", "-.5", -0.5, 1, None, True, "a=b", "a-b", "0.5"])
def test_numbers_and_plain_text_stay_as_they_are(value: object) -> None:
    assert csv_value(value) is value


@given(st.lists(any_text, min_size=1, max_size=4))
def test_no_line_of_csv_commands_anything(cells: list[str]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([csv_value(cell) for cell in cells])
    assert text.getvalue().count("\n") == 1
    assert not text.getvalue().lstrip("\"' ").startswith(("=", "+", "@", "::")) or text.getvalue()[0] in "\"'"


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "`code`",
        "*bold* __bold__ _it_",
        "[text](http://example.org)",
        "![image](x)",
        "<script>alert(1)</script>",
        "&lt;b&gt;",
        "~~gone~~",
        "a\nb",
        "\\",
        "# heading",
        "- item",
        "---",
        "::error::x",
    ],
)
def test_markdown_is_nothing_but_text(text: str) -> None:
    markdown = pytest.importorskip("markdown_it")
    made = markdown.MarkdownIt("gfm-like", {"linkify": False}).render(in_markdown(text))
    import html
    import re

    tags = set(re.findall(r"</?([a-z0-9]+)", made))
    assert tags == {"p"}, made
    assert html.unescape(re.sub(r"<[^>]+>", "", made)).strip() == visible(text).strip()
