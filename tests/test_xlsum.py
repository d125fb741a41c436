"""XL-Sum: every language scores, counts and is told apart alike; the budget serves any tokenizer and script."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.xlsum import LANGUAGES, XLSum
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import WordTokenizer

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.metrics.statistics import clustered_mean
from famcli.task import Generate, Generated, Sample

THAI = "ชาวบ้านในหมู่บ้านริมแม่น้ำช่วยกันสร้างสะพาน"


def article(number: int = 0, **fields: Any) -> dict[str, Any]:
    row = {
        "id": f"a{number}",
        "url": "",
        "title": "T",
        "summary": "A bridge was built.",
        "text": "They built a bridge.",
    }
    return row | fields


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def samples(data: Path | str, limit: int | None = None, tokenizer: Any = None) -> list[Sample]:
    found: list[Sample] = XLSum.from_options({"data": str(data)}).samples(tokenizer or ByteTokenizer(), 0, limit)
    return found


def request(sample: Sample) -> Generate:
    made = sample.request()
    assert isinstance(made, Generate)
    return made


def mean(name: str, scores: list[Any]) -> float:
    """As runs average it."""
    values, weights = zip(*(each[name] for each in scores), strict=True)
    found = clustered_mean(values, weights, [str(i) for i in range(len(scores))])
    assert found
    return found.value


def test_identical_text_scores_1_in_every_language_and_other_text_less() -> None:
    found = samples("sample")
    assert {sample.cell["language"] for sample in found} == set(LANGUAGES)
    for i, sample in enumerate(found):
        for name, value in sample.score(Generated(f" {sample.reference}\t", ())).items():
            assert value.value == pytest.approx(1), (name, sample.id)  # type: ignore[union-attr]
        other: Any = sample.score(Generated(found[i - 1].reference, ()))
        assert other["rouge_l"].value < 0.5 and other["chrf"].value < 0.5
        assert sample.score(Generated("", ()))["rouge_l"].value == 0  # type: ignore[union-attr]


def test_the_prompt(tmp_path: Path) -> None:
    write(tmp_path / "swahili.jsonl", article(text="Walijenga daraja.\n\nWatu walifurahi. "))
    [sample] = samples(tmp_path)
    made = request(sample)
    assert made.prompt.segments == (
        "Walijenga daraja.\n\nWatu walifurahi. ",
        "\n\nSummarize the article above in one sentence, in Swahili.\nSummary:",
    )
    assert (made.prompt.document, made.stop) == (0, ("\n",))
    assert (sample.id, sample.document, sample.reference) == ("swahili/a0", "swahili/a0", "A bridge was built.")
    assert XLSum.template == "{document}" + str(made.prompt.segments[1]).replace("Swahili", "{language}")


@pytest.mark.parametrize(
    "name",
    [
        "thai.jsonl",
        "thai_val.jsonl",
        "XLSum-Thai.jsonl",
        "thai/validation/0000.jsonl",
        "thai/xlsum-validation.jsonl",
        "english/thai.jsonl",
    ],
)
def test_the_language_is_in_the_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, article())
    given = [tmp_path, tmp_path / Path(name).parts[0]]
    if "thai" in Path(name).name.lower():
        given.append(tmp_path / name)
    for data in given:
        assert [sample.cell for sample in samples(data)] == [{"language": "thai"}]


def test_the_language_is_a_field(tmp_path: Path) -> None:
    write(tmp_path / "english.jsonl", article(language="thai"), article(language="Korean"), article())
    assert [sample.cell["language"] for sample in samples(tmp_path)] == ["english", "korean", "thai"]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("x.jsonl", article(), r"x.jsonl, line 1: no field 'language', and neither file nor folder is named"),
        ("chinese_simplified.jsonl", article(), r"chinese_simplified.jsonl, line 1: no field 'language'"),
        ("englishman.jsonl", article(), r"englishman.jsonl, line 1: no field 'language'"),
        ("english-thai.jsonl", article(), r"english-thai.jsonl, line 1: .* of several languages: english, thai"),
        ("thai.jsonl", article(language="lao"), r"thai.jsonl, line 1: field 'language' must be one of .*, not 'lao'"),
        ("thai.jsonl", article(summary=" "), r"thai.jsonl, line 1: field 'summary' is empty"),
        ("thai.jsonl", article(text=None), r"thai.jsonl, line 1: field 'text' is missing"),
        ("thai.jsonl", article(id=None), r"thai.jsonl, line 1: field 'id' is missing"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, name: str, row: dict[str, Any], message: str) -> None:
    write(tmp_path / "data" / name, row)
    with pytest.raises(UserError, match=message):
        samples(tmp_path / "data")


def test_the_same_articles_in_another_language_are_other_data(tmp_path: Path) -> None:
    """A finished run is found by its data; the file's name alone may tell the language."""
    for name in ("thai.jsonl", "korean.jsonl", "copy/thai.jsonl"):
        write(tmp_path / name, article())
    thai, korean, copy = (
        XLSum.from_options({"data": str(tmp_path / name)}).provenance()["sha256"]
        for name in ("thai.jsonl", "korean.jsonl", "copy/thai.jsonl")
    )
    assert thai == copy != korean


@settings(max_examples=25)
@given(
    st.dictionaries(st.sampled_from(LANGUAGES), st.integers(1, 5), min_size=1, max_size=5),
    st.none() | st.integers(1, 12),
    st.data(),
)
def test_a_limit_takes_evenly_and_every_language_counts_the_same(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int], limit: int | None, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("xlsum")
    for language, size in sizes.items():
        write(folder / f"{language}.jsonl", *(article(i) for i in range(size)))
    found = samples(folder, limit)
    taken = Counter(str(sample.cell["language"]) for sample in found)
    assert len(found) == min(limit or 99, sum(sizes.values()))
    most = max(taken.values())
    for language, size in sizes.items():
        assert taken[language] >= min(size, most - 1)
        ids = [sample.id for sample in found if sample.cell["language"] == language]
        assert ids == [f"{language}/a{i}" for i in range(taken[language])]
    answers = [data.draw(st.sampled_from(("A bridge was built.", "A bridge", "no"))) for _ in found]
    scores = [sample.score(Generated(text, ())) for sample, text in zip(found, answers, strict=True)]
    by_language: dict[str, list[Any]] = {}
    for sample, each in zip(found, scores, strict=True):
        by_language.setdefault(str(sample.cell["language"]), []).append(each)
    for name in ("rouge_l", "chrf"):
        means = [mean(name, group) for group in by_language.values()]
        assert mean(name, scores) == pytest.approx(sum(means) / len(means))


def test_the_budget_is_equally_long_in_every_script(tmp_path: Path) -> None:
    write(tmp_path / "thai.jsonl", article(text=THAI))
    write(
        tmp_path / "english.jsonl", article(text="word " * 1000), article(1, text="word " * 1000, summary="other " * 99)
    )
    english, same, thai = samples(tmp_path)
    assert request(english).max_new_tokens == request(same).max_new_tokens == 400
    assert request(thai).max_new_tokens == 3 * 400
    words = samples(tmp_path, tokenizer=WordTokenizer())
    assert request(words[0]).max_new_tokens == pytest.approx(400 / len(" word"), abs=1)


def test_ids_are_unique(tmp_path: Path) -> None:
    write(tmp_path / "thai.jsonl", article(), article())
    write(tmp_path / "korean.jsonl", article())
    assert [sample.id for sample in samples(tmp_path)] == ["korean/a0", "thai/a0", "thai/a0-2"]


def test_the_hub_is_asked_for_the_validation_split_of_all_languages() -> None:
    assert XLSum.hub.split == "validation"
    assert XLSum.hub.patterns == tuple(f"{language}/*validation*.parquet" for language in LANGUAGES)
    assert "NC" in XLSum.hub.licence
