"""The built-in sample rows: small, ours, and in the schema of the real ones."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_files import REAL, SHARED, open_path, rows_of
from famcli.tasks.rows import Row
from famcli.tasks.sources import SAMPLES, open_data

LANGUAGES = {
    "arabic": "ARABIC",
    "bengali": "BENGALI",
    "english": "LATIN",
    "indonesian": "LATIN",
    "japanese": "HIRAGANA",
    "korean": "HANGUL",
    "russian": "CYRILLIC",
    "swahili": "LATIN",
    "telugu": "TELUGU",
    "thai": "THAI",
    "turkish": "LATIN",
}

pytestmark = pytest.mark.usefixtures("offline")


@pytest.mark.parametrize("task", ["narrativeqa", "pg19", "qasper", "quality", "xlsum", "isabelle"])
def test_sample_opens_is_small_and_ours(task: str) -> None:
    dataset = open_data(task, "sample", texts=("*.thy", "ROOT"))
    assert dataset.provenance.source == "sample"
    assert dataset.provenance.rows == len(rows_of(dataset)) >= 2
    content = "".join(json.dumps(row) for row in rows_of(dataset))
    assert content.count("http") == content.count("https://example.org")


def test_samples_together_are_small() -> None:
    assert sum(file.stat().st_size for file in SAMPLES.rglob("*") if file.is_file()) < 120_000


def schema(value: Any) -> Any:
    """Names of all fields, with nested objects; of the objects of a list those that all have."""
    if isinstance(value, dict):
        return {name: schema(inner) for name, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [{name: schema(inner) for name, inner in value[0].items()}]
    return None


@pytest.mark.skipif(not SHARED.exists(), reason="needs real rows")
@pytest.mark.parametrize("task", REAL)
def test_samples_have_the_fields_of_real_records(task: str) -> None:
    real = schema(rows_of(open_path(SHARED / REAL[task]))[0])
    for row in rows_of(open_data(task, "sample")):
        ours = schema(row)
        if task == "quality":  # the real ones at hand lack the untimed answers
            ours["questions"][0].pop("validation")
            ours["questions"][0].pop("speed_validation")
            real["questions"][0].pop("speed_validation", None)
        assert ours == real


@pytest.mark.skipif(not SHARED.exists(), reason="needs real rows")
def test_real_files_are_read_in_full() -> None:
    def lines(path: Path) -> Iterator[bytes]:
        with gzip.open(path) as stream:
            yield from stream

    for path in (SHARED / REAL["pg19"], SHARED / REAL["qasper"], SHARED / "isabelle" / "isabelle_afp.jsonl.gz"):
        assert rows_of(open_path(path)) == [json.loads(line) for line in lines(path)]


def test_xlsum_sample_has_the_languages_of_the_paper_in_their_scripts() -> None:
    found: dict[str, list[Row]] = {}
    for row in open_data("xlsum", "sample").rows:
        found.setdefault(Path(row.file).stem, []).append(row)
    assert set(found) == set(LANGUAGES)
    for language, rows in found.items():
        for row in rows:
            assert set(row.fields) == {"id", "url", "title", "summary", "text"}
            for name in ("title", "summary", "text"):
                letters = [unicodedata.name(sign).split()[0] for sign in row.text(name) if sign.isalpha()]
                expected = {LANGUAGES[language]} | ({"KATAKANA", "CJK"} if language == "japanese" else set())
                assert sum(letter in expected for letter in letters) > 0.9 * len(letters)


def test_quality_sample_fits_its_own_rules() -> None:
    for row in open_data("quality", "sample").rows:
        for question in row.objects("questions"):
            assert len(set(question.texts("options"))) == 4
            assert 1 <= question.integer("gold_label") <= 4
            assert question.integer("difficult") in (0, 1)


def test_qasper_sample_has_all_kinds_of_answers_and_its_evidence_stands_in_the_paper() -> None:
    kinds = set()
    for row in open_data("qasper", "sample").rows:
        paragraphs = [text for section in row.items("full_text.paragraphs") for text in section]
        for question in row.objects("qas"):
            for answer in question.object("answers").objects("answer"):
                kinds |= {
                    name for name in ("unanswerable", "extractive_spans", "free_form_answer") if answer.fields[name]
                }
                kinds |= {"yes_no"} if answer.has("yes_no") else set()
                assert set(answer.texts("evidence")) <= set(paragraphs)
                assert all(any(span in text for text in paragraphs) for span in answer.texts("extractive_spans"))
    assert kinds == {"unanswerable", "extractive_spans", "free_form_answer", "yes_no"}
