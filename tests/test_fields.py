"""The one reader of fields: what is wrong is named with its place, and nothing strange gets through."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from famcli.errors import UserError, unknown_name
from famcli.fields import from_json, parse_value, read_fields, read_json, read_pairs, read_yaml


@dataclass(frozen=True)
class Part:
    amount: float
    kind: Literal["big", "small"] = "big"

    def __post_init__(self) -> None:
        if self.amount == 13:
            raise UserError("amount must not be 13", "take 14")


class Settings(TypedDict):
    name: str


@dataclass(frozen=True)
class Own:
    """Reads itself."""

    place: str

    @classmethod
    def from_mapping(cls, fields: dict[str, Any], where: str) -> Own:
        return cls(where)


@dataclass(frozen=True)
class Whole:
    steps: int
    parts: tuple[Part, ...]
    settings: Settings
    rate: float | None = None
    names: list[str] = dataclasses.field(default_factory=list)
    table: dict[str, Part] = dataclasses.field(default_factory=dict)
    own: Own | None = None
    mixed: int | str = 0
    anything: Any = None


FIELDS: dict[str, Any] = {"steps": 3, "parts": [{"amount": 1}], "settings": {"name": "a"}}


def refusal(changes: dict[str, Any], **how: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        read_fields(Whole, {**FIELDS, **changes}, "a.yaml", **how)
    return caught.value


def test_values_become_what_the_class_says() -> None:
    more = {"rate": 2, "table": {"x": {"amount": 0.5, "kind": "small"}}, "own": {}, "mixed": "a", "anything": [1, None]}
    whole = read_fields(Whole, {**FIELDS, **more, "names": ["a"]}, "a.yaml")
    assert whole == Whole(
        3,
        (Part(1.0),),
        {"name": "a"},
        2.0,
        ["a"],
        {"x": Part(0.5, "small")},
        Own("a.yaml, field 'own'"),
        "a",
        [1, None],
    )
    assert isinstance(whole.rate, float) and isinstance(whole.parts[0].amount, float)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"step": 1}, "unknown field in a.yaml: 'step'", "did you mean steps"),
        ({"parts": [{"amount": 1, "kid": 1}]}, "unknown field in a.yaml, field 'parts[0]': 'kid'", "kind"),
        ({"parts": [{"amount": 1}, {}]}, "a.yaml lacks the field 'parts[1].amount'", ""),
        ({"settings": {}}, "a.yaml lacks the field 'settings.name'", ""),
        ({"table": {"x": {"amount": "1"}}}, "a.yaml: field 'table.x.amount' must be a number, not '1'", ""),
        ({"parts": []}, "a.yaml: field 'parts' must be a list with at least one entry, not []", ""),
        ({"parts": 1}, "a.yaml: field 'parts' must be a list with at least one entry, not 1", ""),
        ({"parts": [{"amount": 13}]}, "a.yaml, field 'parts[0]': amount must not be 13", "take 14"),
        (
            {"parts": [{"amount": 1, "kind": "bug"}]},
            "a.yaml: field 'parts[0].kind' must be one of big, small, not 'bug'",
            "did you mean big?",
        ),
        ({"settings": "a"}, "a.yaml: field 'settings' must be a mapping of fields, not 'a'", ""),
        ({"table": {1: {}}}, "a.yaml: field 'table' must be a mapping of names, not {1: {}}", ""),
        ({"rate": "fast"}, "a.yaml: field 'rate' must be a number or none, not 'fast'", ""),
        ({"names": [1]}, "a.yaml: field 'names[0]' must be text, not 1", ""),
        ({"mixed": 1.5}, "a.yaml: field 'mixed' must be a whole number or text, not 1.5", ""),
        ({"steps": True}, "a.yaml: field 'steps' must be a whole number, not true", ""),
        ({"steps": 2.0}, "a.yaml: field 'steps' must be a whole number, not 2.0", ""),
        ({"steps": None}, "a.yaml: field 'steps' must be a whole number, not none", ""),
        ({"steps": 2**63}, f"a.yaml: field 'steps' must be a whole number of at most 64 bits, not {2**63}", ""),
        ({"rate": math.nan}, "a.yaml: field 'rate' must be finite, not nan", ""),
        ({"rate": 10**400}, "a.yaml: field 'rate' must be finite", ""),
        (
            {"names": ["\ud800"]},
            r"a.yaml: field 'names[0]' must be text without halves of characters, not '\ud800'",
            "",
        ),
        ({"names": ["a"], "x\x1b[31m\ud800": 1}, r"unknown field in a.yaml: 'x\x1b[31m\ud800'", ""),
    ],
)
def test_what_is_wrong_is_named_with_its_place(changes: dict[str, Any], message: str, hint: str) -> None:
    error = refusal(changes)
    assert error.message.startswith(message)
    assert hint in (error.hint or "")


def test_all_missing_fields_are_named() -> None:
    with pytest.raises(UserError, match=r"^a\.yaml lacks the fields 'steps', 'parts', 'settings'$"):
        read_fields(Whole, {}, "a.yaml")
    with pytest.raises(UserError, match=r"^a\.yaml must be a mapping of fields, not \[\]$"):
        read_fields(Whole, [], "a.yaml")


def test_other_fields_may_be_allowed() -> None:
    fields = {**FIELDS, "later": 1, "settings": {"name": "a", "new": 2}}
    assert read_fields(Whole, fields, "a.json", others=True).settings == {"name": "a", "new": 2}
    assert "'settings'" in refusal({"settings": {"name": "a", "new": 2}}).message


def test_numbers_may_have_a_least() -> None:
    assert refusal({"parts": [{"amount": -0.5}]}, least=0).message.endswith(
        "field 'parts[0].amount' must be at least 0, not -0.5"
    )
    assert read_fields(Whole, {**FIELDS, "rate": -1}, "x").rate == -1


@pytest.mark.parametrize(
    ("typed", "hint", "meant"),
    [
        ("256", int, 256),
        ("1e-5", float, 1e-5),
        ("3", float, 3.0),
        ("False", bool, False),
        ("none", int | None, None),
        ("null", float | None, None),
        ("none", Literal["none", "rms"], "none"),
        ("12", str, "12"),
        ("12", int | None, 12),
    ],
)
def test_what_is_typed_means_what_yaml_means(typed: str, hint: Any, meant: Any) -> None:
    assert parse_value(typed, hint, "f", "x", text=True) == meant
    assert parse_value(meant, hint, "f", "x") == meant


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("1.5", int), ("0x10", int), ("nan", float), ("-inf", float), ("1e999", float), ("yes", bool), ("none", int)],
)
def test_what_is_typed_may_be_wrong(typed: str, hint: Any) -> None:
    with pytest.raises(UserError, match=f"^-v: field 'f' must be .*, not '{typed}'$"):
        parse_value(typed, hint, "f", "-v", text=True)


def test_text_is_no_number_unless_it_was_typed() -> None:
    for hint in (int, float, bool, int | None):
        with pytest.raises(UserError):
            parse_value("1", hint, "f", "x")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(ANY_JSON, st.booleans())
def test_whatever_is_given_is_read_or_refused_in_words(value: Any, text: bool) -> None:
    for name in ("steps", "parts", "settings", "rate", "names", "table", "mixed"):
        try:
            read_fields(Whole, {**FIELDS, name: value}, "a.yaml", text=text)
        except UserError as error:
            assert error.message.isprintable() and len(error.message) < 400


def parts_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *(part for inner in value.values() for part in parts_of(inner))]
    return [part for inner in value for part in parts_of(inner)] if isinstance(value, list) else [value]


def too_much(part: Any) -> bool:
    """A whole number that takes more than 64 bits, or text with half of a character."""
    if isinstance(part, str):
        return any("\ud800" <= c <= "\udfff" for c in part)
    return type(part) is int and not -(2**63) < part < 2**63


@given(ANY_JSON.filter(lambda value: isinstance(value, dict)))
def test_json_is_read_as_python_reads_it(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    try:
        read = from_json(text)
    except ValueError:
        assert "NaN" in text or "Infinity" in text or any(map(too_much, parts_of(value)))
    else:
        assert not any(map(too_much, parts_of(value)))
        assert read == json.loads(text) and from_json(text.encode()) == read


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not valid JSON: Expecting"),
        (b"[1]", "must hold a JSON object"),
        (b'{"a": 1, "b": 2, "a": 3}', "is not valid JSON: field 'a' is there twice"),
        (b'{"a": {"x\\u001b": 1, "x\\u001b": 1}}', r"is not valid JSON: field 'x\x1b' is there twice"),
        (b'{"a": NaN}', "is not valid JSON: NaN is no number in JSON"),
        (b'{"a": "\xff"}', "is not valid JSON: 'utf-8' codec can't decode"),
        ('{"a": 1}'.encode("utf-16"), "is in UTF-16, and famcli reads UTF-8"),
        ('{"a": 1}'.encode("utf-32"), "is in UTF-32, and famcli reads UTF-8"),
        (b'{"a": ' + b"[" * 1_000 + b"]" * 1_000 + b"}", "is not valid JSON: it is nested more than 100 levels deep"),
        (b'{"a": ' * 100_000, "is not valid JSON: it is nested more than 100 levels deep"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "is not valid JSON: Exceeds the limit"),
        (b'{"a": [1e400]}', "is not valid JSON: it holds a number too large"),
        (b'{"a": [1, -1e+0999]}', "is not valid JSON: it holds a number too large"),
        (b'{"a": ' + b"9" * 400 + b".0}", "is not valid JSON: it holds a number too large"),
        (b'{"a":\n' + b"9" * 19 + b"}", "is not valid JSON: it holds a whole number of more than 64 bits"),
        (b'{"a": {"\\uDC00": 1}}', "is not valid JSON: '\\udc00' holds half of a character"),
    ],
)
def test_files_that_are_no_json_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(file)
    assert caught.value.message.startswith(f"{file} {reason}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: [", "is not valid YAML: line 1, column 5: "),
        (b"a: 1\nb: {c: 1, c: 2}", "is not valid YAML: line 2, column 11: field 'c' is there twice"),
        (b"a: !!python/object/apply:os.system [ls]", "is not valid YAML: line 1, column 4: could not determine"),
        (b"a: \xff", "is not valid YAML: 'utf-8' codec can't decode"),
        (b"a: \x07", "is not valid YAML: unacceptable character #x0007"),
        (b"a: 2020-13-45", "is not valid YAML: month must be in 1..12"),
        (b"a: " + b"[" * 1_000 + b"]" * 1_000, "is not valid YAML: it is nested more than 100 levels deep"),
        (b"a: &a [*a]", "is not valid YAML: it is nested more than 100 levels deep"),
        (b"a: " + b" " * (1 << 20), "has more than 1 MiB"),
    ],
)
def test_files_that_are_no_yaml_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_yaml(file)
    assert caught.value.message.startswith(f"{file} {reason}")


def test_yaml_has_anchors_and_numbers_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: &a {x: 1e-5, y: -2E+3, z: 1.0e-5, name: 1e}\nb: {<<: *a, x: 5}\nc: *a")
    read = read_yaml(file)
    assert read["a"] == read["c"] == {"x": 1e-5, "y": -2e3, "z": 1e-5, "name": "1e"}
    assert read["b"] == {**read["a"], "x": 5}


def test_a_part_that_stands_in_many_places_costs_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 60)]
    file = tmp_path / "a.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match="'steps' must be a whole number, not "):
        read_fields(Whole, {**FIELDS, "steps": read_yaml(file)["a59"]}, "a.yaml")


@given(ANY_JSON)
def test_yaml_is_read_as_pyyaml_reads_it(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    written = yaml.safe_dump(value)
    assume(not re.search("[0-9][.]?[0-9]*[eE][-+]?[0-9]", written))  # a number to us, text to PyYAML
    file = tmp_path_factory.mktemp("yaml") / "a.yaml"
    file.write_text(written, encoding="utf-8", errors="surrogatepass")
    try:
        read = read_yaml(file)
    except UserError:
        assert any("\ud800" <= c <= "\udfff" for c in str(value)) or "\\" in file.read_text(errors="replace")
    else:
        assert repr(read) == repr(yaml.safe_load(file.read_text(encoding="utf-8")))


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for read in (read_json, read_yaml):
        with pytest.raises(UserError, match=r"^the recipe is missing$") as caught:
            read(tmp_path / "a", "the recipe", "see there")
        assert caught.value.hint == "see there"
        with pytest.raises(UserError, match=f"^cannot read {tmp_path}: Is a directory"):
            read(tmp_path)


def test_other_programs_may_write_numbers_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"limit": [0.0, Infinity]}')
    assert read_json(tmp_path / "a.json", nan=True) == {"limit": [0.0, math.inf]}


def test_pairs() -> None:
    assert read_pairs(["a=1", " b = x=y ", "c="], "option", "KEY=VALUE", "") == {"a": "1", "b": "x=y", "c": ""}
    for given_pairs, message in (
        (["a"], "option 'a' is not KEY=VALUE"),
        (["=1"], "option '=1' is not KEY=VALUE"),
        (["a=1", "a=2"], "option 'a' is given twice"),
    ):
        with pytest.raises(UserError, match=f"^{message}$"):
            read_pairs(given_pairs, "option", "KEY=VALUE", "-o a=1")


def test_names_are_printed_so_that_they_can_be() -> None:
    error = unknown_name("task", "pass\x1b[2Jkey\udcff" + "x" * 500, ["passkey"])
    assert error.message.isprintable() and len(error.message) < 120
