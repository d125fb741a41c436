"""The task longbench: its prompts against those of lm-evaluation-harness, its scores against the official packages."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from data_files import SHARED
from famcli.tasks.longbench import SCORES, LongBench
from famcli.tasks.longbench_words import DATASETS

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.errors import UserError
from famcli.metrics.longbench import (
    chinese_f1,
    chinese_rouge_l,
    class_share,
    code_similarity,
    number_share,
    rouge_l_of_sets,
)
from famcli.task import DataError, Generated, Sample

REAL = SHARED / "longbench" / "longbench_hf_schema.jsonl.gz"
JIEBA = importlib.util.find_spec("jieba") is not None
ROW = {"dataset": "hotpotqa", "context": "A {long} story.", "input": "Who {came}?", "answers": ["Ada", "Ada L."]}


def samples(path: Path, *rows: dict[str, Any], limit: int | None = None, **options: str) -> list[Sample]:
    if rows:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LongBench.from_options({"data": str(path), **options}).samples(ByteTokenizer(), 0, limit)


def theirs(name: str) -> dict[str, Any]:
    """The task in lm-evaluation-harness."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec and spec.submodule_search_locations
    text = Path(spec.submodule_search_locations[0], "tasks", "longbench", f"{name}.yaml").read_text()
    return yaml.safe_load(re.sub(r"!function \S+", "x", text))  # type: ignore[no-any-return]


def test_all_data_sets_are_there() -> None:
    assert len(DATASETS) == 21
    assert {words.score for words in DATASETS.values()} == SCORES.keys()


@pytest.mark.parametrize("name", list(DATASETS))
def test_prompts_and_budgets_are_those_of_lm_evaluation_harness(name: str) -> None:
    """Which strips the white space at the end, and has one line break where two stand before the last question."""
    theirs_of, words = theirs(name), DATASETS[name]
    assert theirs_of["generation_kwargs"]["max_gen_toks"] == words.tokens
    ours = words.prompt.replace("{context}", "{{context}}").replace("{input}", "{{question}}").rstrip()
    if name in ("triviaqa", "samsum"):
        ours = ours.replace("{{context}}\n\n{{question}}", "{{context}}\n{{question}}")
    assert ours == theirs_of["doc_to_text"].rstrip()


def test_a_prompt_has_the_row_as_it_is(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path / "rows.jsonl", ROW)
    request = sample.request()
    assert request.prompt.segments == (
        "Answer the question based on the given passages. Only give me the answer and do not output any other words."
        "\n\nThe following are given passages.\n",
        "A {long} story.",
        "\n\nAnswer the question based on the given passages. Only give me the answer and do not output any other "
        "words.\n\nQuestion: Who {came}?\nAnswer:",
    )
    assert request.prompt.document == 1 and request.max_new_tokens == 32 and request.stop == ()
    assert sample.reference == "Ada | Ada L." and sample.cell == {"dataset": "hotpotqa"}


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        # by rouge 1.0.1, Rouge().get_scores([said], [right], avg=True)["rouge-l"]["f"]
        ("mat and mat cat two ran sat sat a", "cat sat away house .", 0.363636),
        (
            "ran and . sat old saw two mat . and old on sat the",
            "it and on ran house two and cat and a on and it house",
            0.470588,
        ),
        ("two two saw the on on mat . saw and dogs", "old saw away dogs saw saw sat . dogs near saw", 0.307692),
        ("it house mat . . mat saw it near . a old", "house cat it old a two near the house ran . a cat sat", 0.444444),
        ("", "a cat", 0.0),
        (".", "a cat", 0.0),
        ("a cat", "a cat", 1.0),
    ],
)
def test_rouge_is_that_of_the_package(said: str, right: str, score: float) -> None:
    assert rouge_l_of_sets(said, right) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        # by fuzzywuzzy 0.18 with difflib
        ("x = foo(1)", "# c;", 0.14),
        ("`code`\nif a == b:", "for i in range(3):;", 0.28),
        ("return self.bar", "if a == b:", 0.16),
        ("# c\nint y = 2; // z\n", "for i in range(3):", 0.0),
        ("\n\nreturn 1\nreturn 2", "return 1", 1.0),
        ("```", "", 1.0),
    ],
)
def test_code_is_compared_by_its_first_line(said: str, right: str, score: float) -> None:
    assert code_similarity(said, right) == score


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("Location", "Location", 1.0),
        ("a City or a Location", "Location", 1 / 2),
        ("City", "Location", 0.0),
        ("Other location", "Other location", 1.0),  # 'location' is a part of the right one
        ("", "City", 0.0),
    ],
)
def test_classes_share_a_point(said: str, right: str, score: float) -> None:
    assert class_share(said, right, ["Location", "City", "location", "Other location"]) == score


def test_numbers_share_a_point() -> None:
    assert number_share("Paragraph 12, or 13 or 12", "12") == pytest.approx(2 / 3)
    assert number_share("Paragraph 012", "12") == number_share("none", "12") == 0.0


@pytest.mark.skipif(not JIEBA, reason="jieba is not installed")
def test_chinese_is_cut_by_jieba() -> None:
    assert chinese_rouge_l("今天天气很好，我们去公园散步。", "我们今天去公园。") == pytest.approx(0.571429, abs=1e-6)
    assert chinese_rouge_l("答案是1945年", "1945年") == pytest.approx(2 / 3, abs=1e-6)
    assert chinese_f1("我们去公园。", "我们去公园") == 1.0 and chinese_f1("。", "公园") == 0.0


@pytest.mark.skipif(JIEBA, reason="jieba is installed")
def test_without_jieba_chinese_data_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dureader are scored by words of Chinese") as error:
        samples(tmp_path / "rows.jsonl", ROW, {**ROW, "dataset": "dureader"})
    assert "pip install jieba" in str(error.value.hint)
    assert samples(tmp_path / "rows.jsonl", datasets="hotpotqa")


@pytest.mark.parametrize(
    ("dataset", "answers", "said", "score"),
    [
        ("hotpotqa", ["Boris", "Ada L."], "The Ada\nL", 1.0),
        ("triviaqa", ["Ada"], "\n\nAda\nBoris", 1.0),
        ("trec", ["City"], "\nCity\nLocation", 1.0),
        ("passage_retrieval_en", ["Paragraph 7"], "7", 1.0),
        ("passage_count", ["7"], "7 or 8", 0.5),
        ("lcc", ["x = 1"], "\nx = 1\ny = 2", 1.0),
        ("samsum", ["Ada came."], "Ada came\nMore", pytest.approx(1.0)),
    ],
)
def test_each_data_set_has_its_score(tmp_path: Path, dataset: str, answers: list[str], said: str, score: float) -> None:
    row = {**ROW, "dataset": dataset, "answers": answers, "all_classes": ["City", "Location"]}
    (sample,) = samples(tmp_path / "rows.jsonl", row)
    (value,) = sample.score(Generated(said, ())).values()
    assert value == (score, 1.0)


def test_all_is_the_mean_of_the_means(tmp_path: Path) -> None:
    rows = [{**ROW, "dataset": name, "input": str(n)} for name, n in (("lcc", 0), ("lcc", 1), ("qmsum", 0))]
    found = samples(tmp_path / "rows.jsonl", *rows)
    weights = [sample.score(Generated("", ()))["score"].weight for sample in found]  # type: ignore[union-attr]
    assert [sample.cell["dataset"] for sample in found] == ["qmsum", "lcc", "lcc"] and weights == [1, 0.5, 0.5]
    assert [s.cell["dataset"] for s in samples(tmp_path / "rows.jsonl", limit=2)] == ["qmsum", "lcc"]


def test_names_of_files_say_the_data_set(tmp_path: Path) -> None:
    row = {name: value for name, value in ROW.items() if name != "dataset"}
    assert samples(tmp_path / "musique.jsonl", row)[0].cell == {"dataset": "musique"}
    (tmp_path / "musique_e.jsonl").write_text(json.dumps({**row, "input": "E?"}))
    assert len(samples(tmp_path)) == 1
    assert samples(tmp_path, extended="true")[0].request().prompt.segments[2].endswith("Question: E?\nAnswer:")
    with pytest.raises(UserError, match="no row is of any kind"):
        samples(tmp_path / "musique.jsonl", extended="true")


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("rows", {**ROW, "dataset": None}, "no field 'dataset', and the file is not named"),
        ("rows", {**ROW, "dataset": "squad"}, "field 'dataset' must be one of"),
        ("qmsum", ROW, "field 'dataset' is hotpotqa, and the file is named qmsum"),
        ("rows", {**ROW, "dataset": "trec"}, "field 'all_classes' is missing: trec is scored by"),
        ("rows", {**ROW, "dataset": "passage_retrieval_en"}, "field 'answers' must name a paragraph"),
        ("rows", {**ROW, "answers": []}, "field 'answers' is missing"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, name: str, row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        samples(tmp_path / f"{name}.jsonl", row)


def test_the_sample_is_read() -> None:
    found = samples(Path("sample"))
    assert [sample.cell["dataset"] for sample in found] == ["hotpotqa"] * 2 + ["qmsum", "trec", "passage_count", "lcc"]
    assert all(next(iter(s.score(Generated(s.reference, ())).values())).value > 0.99 for s in found)  # type: ignore[union-attr]


@pytest.mark.skipif(not REAL.exists(), reason="the real records are not here")
def test_real_rows_are_read() -> None:
    found = samples(REAL, datasets="hotpotqa,lcc,multi_news,passage_retrieval_zh,repobench-p,samsum")
    assert len(found) == 7 + 13 + 36 + 38 + 12 + 8
    for sample in found:
        (value,) = sample.score(Generated(sample.reference.split(" | ")[0], ())).values()
        assert value.value == pytest.approx(1.0, abs=1e-6)  # type: ignore[union-attr]
