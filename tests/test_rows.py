"""Fields of a row: what does not fit is named with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from famcli.tasks.rows import Row

from famcli.task import DataError


def made(**fields: Any) -> Row:
    return Row(fields, "x.jsonl, line 3", "x.jsonl")


def test_fields_are_reached_by_dotted_names() -> None:
    row = made(document={"text": " a ", "summary": {"title": "t"}}, n=3, digits="-4", yes=False, tags=["a", ""])
    assert row.text("document.text") == " a "
    assert row.object("document").object("summary").text("title") == "t"
    assert (row.integer("n"), row.integer("digits"), row.flag("yes")) == (3, -4, False)
    assert row.texts("tags", blank=True) == row.items("tags") == ["a", ""]
    assert row.has("document.summary") and not row.has("document.url") and not row.has("n.of")
    assert row.optional("document.summary.title") == "t" and row.optional("nothing") is None


def test_lists_of_objects_and_objects_of_lists_are_the_same() -> None:
    as_list = made(qas=[{"q": "a", "n": [1]}, {"q": "b", "n": [2]}])
    as_lists = made(qas={"q": ["a", "b"], "n": [[1], [2]]})
    assert [row.fields for row in as_list.objects("qas")] == [row.fields for row in as_lists.objects("qas")]
    assert made(qas={}).objects("qas") == made(qas=[]).objects("qas") == []


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda r: r.text("title"), "field 'title' is missing"),
        (lambda r: r.text("null"), "field 'null' is missing"),
        (lambda r: r.text("blank"), "field 'blank' is empty"),
        (lambda r: r.text("n"), "field 'n' must be text, not a whole number"),
        (lambda r: r.integer("yes"), "field 'yes' must be a whole number, not true or false"),
        (lambda r: r.integer("half"), "field 'half' must be a whole number, not a number"),
        (lambda r: r.flag("n"), "field 'n' must be true or false, not a whole number"),
        (lambda r: r.items("blank"), "field 'blank' must be a list, not text"),
        (lambda r: r.texts("list"), "field 'list[1]' must be text, not null"),
        (lambda r: r.objects("list"), "field 'list[0]' must be an object, not text"),
        (lambda r: r.objects("uneven"), "field 'uneven' holds lists of different lengths: a 1, b 0"),
        (lambda r: r.objects("nested")[1].text("q"), "field 'nested[1].q' is missing"),
        (lambda r: r.objects("nested")[0].object("in").integer("x"), "field 'nested[0].in.x' is missing"),
        (lambda r: r.fail("list", "must hold 4 texts"), "field 'list' must hold 4 texts"),
    ],
)
def test_field_that_does_not_fit_is_named_with_its_place(read: Callable[[Row], object], message: str) -> None:
    row = made(
        null=None,
        blank=" ",
        n=1,
        yes=True,
        half=0.5,
        list=["a", None],
        uneven={"a": [1], "b": []},
        nested=[{"q": "a", "in": {}}, {}],
    )
    with pytest.raises(DataError) as raised:
        read(row)
    assert raised.value.message == f"x.jsonl, line 3: {message}"
