"""Tasks of lm-evaluation-harness: prompts and scores are those of the harness's own evaluator on the same weights."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from famcli.checkpoints.registry import find_model
from famcli.checkpoints.sources import LoadedModel
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.main import main
from famcli.compare.reference import load_reference
from famcli.errors import UserError
from famcli.evaluation.choice import Given, choose_tasks
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.evaluation.suites import find_suite
from famcli.harness.loading import find_file, make
from famcli.task import Choose, Generate, Read, load_task

pytest.importorskip("lm_eval")

import lm_eval.evaluator
from lm_eval.api.samplers import FirstNSampler
from lm_eval_partner import DecoderLM

WORDS = ("red", "green", "blue", "white")
CHOICES = [
    {
        "id": f"q{i}",
        "question": f"Which colour has number {i}?",
        "choices": {"text": [f"{word} {i}" for word in WORDS], "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[i % 4],
    }
    for i in range(7)
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "arc_easy": CHOICES,
    "lambada_openai": [{"text": f"Ada had {i} keys and told nobody but Boris"} for i in range(7)],
    "nq_open": [{"question": f"who keeps key {i}", "answer": ["Ada", "Boris"][: 1 + i % 2]} for i in range(4)],
    "winogrande": [
        {
            "sentence": f"The trophy {i} does not fit into the box because _ is too large.",
            "option1": "the trophy",
            "option2": "it, the box,",
            "answer": "12"[i % 2],
        }
        for i in range(4)
    ],
    "wikitext": [{"page": f" = Keys = \n Ada keeps key {i} , Boris does not . \n" * (1 + i)} for i in range(4)],
}
KINDS = {"lambada_openai": Choose, "nq_open": Generate, "wikitext": Read}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return find_model("fam-tiny,block_size=64").load(torch.device("cpu"), torch.float32)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def entries(record: RunRecord) -> dict[str, dict[str, Any]]:
    lines = (record.path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["id"]: entry for entry in map(json.loads, lines)}


def theirs(model: LoadedModel, task: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The harness's own means, and what it logs of each sample."""
    name = task.config.task
    tasks = {"tasks": {name: task}, "groups": {}}
    found = lm_eval.evaluator.evaluate(lm=DecoderLM(model.decoder), task_dict=tasks, bootstrap_iters=0)
    return found["results"][name], {str(sample["doc_id"]): sample for sample in found["samples"][name]}


@pytest.mark.parametrize(("name", "fewshot"), [*((name, 0) for name in ROWS), ("arc_easy", 2), ("nq_open", 1)])
def test_scores_are_those_of_the_harness(model: LoadedModel, name: str, fewshot: int, tmp_path: Path) -> None:
    options = {"data": write(tmp_path / "rows.jsonl.gz", ROWS[name]), "num_fewshot": str(fewshot)}
    examples = {"train": [*reversed(ROWS[name])]} if fewshot else {}
    if fewshot:
        options["fewshot_data"] = write(tmp_path / "examples.jsonl", examples["train"])
    task = load_task(f"lm_eval:{name}", options)
    assert isinstance(task.samples(ByteTokenizer(), 0, 1)[0].request(), KINDS.get(name, Choose))
    own = make(find_file(name, name), ROWS[name], examples)
    own.set_config(key="num_fewshot", value=fewshot)
    own.set_fewshot_seed(seed=1234)
    means, samples = theirs(model, own)
    record = evaluate(model, task, results=tmp_path / "runs")
    found = entries(record)
    assert found.keys() == samples.keys() and len(found) == len(ROWS[name])
    for number, entry in found.items():
        if likelihoods := entry["answer"].get("log_likelihoods"):
            expected = [likelihood for likelihood, _ in samples[number]["filtered_resps"]]
            assert likelihoods == pytest.approx(expected, abs=1e-4)
            assert entry["answer"]["greedy"] == [greedy for _, greedy in samples[number]["filtered_resps"]]
        for metric, value in entry["scores"].items():
            if metric in ("acc", "acc_norm", "exact_match"):
                assert value == samples[number][metric]
    for metric, score in record.metrics.items():
        (mean,) = (value for key, value in means.items() if key.startswith(f"{metric},"))
        assert score.value == pytest.approx(mean, rel=1e-4), metric
    assert record.metrics


def test_the_prompt_is_the_harness_s_with_its_examples(tmp_path: Path) -> None:
    options = {"data": write(tmp_path / "rows.jsonl", CHOICES), "num_fewshot": "1"}
    options["fewshot_data"] = write(tmp_path / "examples.jsonl", CHOICES[:1])
    request = load_task("lm_eval:arc_easy", options).samples(ByteTokenizer(), 0, 2)[1].request()
    assert isinstance(request, Choose)
    example = "Question: Which colour has number 0?\nAnswer: red 0\n\n"
    assert request.prompt.segments == (f"{example}Question: Which colour has number 1?\nAnswer:",)
    assert request.options == (" red 1", " green 1", " blue 1", " white 1")


def test_the_same_examples_in_every_prompt_are_read_once(model: LoadedModel, tmp_path: Path) -> None:
    rows, examples = CHOICES[2:], CHOICES[:2]
    options = {"data": write(tmp_path / "rows.jsonl", rows), "num_fewshot": "2", "fewshot_sampler": "first_n"}
    options["fewshot_data"] = write(tmp_path / "examples.jsonl", examples)
    own = make(find_file("arc_easy", "arc_easy"), rows, {"train": examples})
    own.set_config(key="num_fewshot", value=2)
    own.sampler = FirstNSampler(examples)
    _, samples = theirs(model, own)
    record = evaluate(model, load_task("lm_eval:arc_easy", options), results=tmp_path / "runs")
    for number, entry in entries(record).items():
        expected = [likelihood for likelihood, _ in samples[number]["filtered_resps"]]
        assert entry["answer"]["log_likelihoods"] == pytest.approx(expected, abs=1e-4)
        assert entry["scores"]["acc"] == samples[number]["acc"]
    shots = "".join(
        f"Question: {row['question']}\nAnswer: {row['choices']['text']['ABCD'.index(row['answerKey'])]}\n\n"
        for row in examples
    )
    questions = [f"Question: {row['question']}\nAnswer:" for row in rows]
    weighed = sum(len(" " + text) for row in rows for text in row["choices"]["text"])
    shared = len(shots + "Question: Which colour has number ")
    assert record.cost["tokens_read"] == shared + sum(len(shots + text) - shared for text in questions) + weighed
    assert record.cost["tokens_read_alone"] == 4 * sum(len(shots + text) for text in questions) + weighed


def test_prompts_whose_examples_differ_are_read_as_ever(model: LoadedModel, tmp_path: Path) -> None:
    """And what a run is called is what it was called before there was a choice."""
    options = {"data": write(tmp_path / "rows.jsonl", CHOICES), "num_fewshot": "1"}
    options["fewshot_data"] = write(tmp_path / "examples.jsonl", [*reversed(CHOICES)])
    task = load_task("lm_eval:arc_easy", options)
    assert task.recorded_options().keys() == {"data", "num_fewshot", "fewshot_data", "fewshot_seed"}
    assert [sample.header for sample in task.samples(ByteTokenizer(), 0, 3)] == [None] * 3


def test_a_run_goes_by_its_rows_its_examples_and_its_wording(model: LoadedModel, tmp_path: Path) -> None:
    first = write(tmp_path / "first.jsonl", CHOICES[:2])

    def run(name: str = "arc_easy", **options: str) -> RunRecord:
        return evaluate(model, load_task(f"lm_eval:{name}", {"data": first, **options}), results=tmp_path / "runs")

    one = run()
    assert one.task["data"] and one.task["data"]["rows"] == 2 and one.task["name"] == "lm_eval:arc_easy"
    assert run(data=write(tmp_path / "same.jsonl", CHOICES[:2])).run_id == one.run_id
    examples = write(tmp_path / "examples.jsonl", CHOICES[3:5])
    moved = write(tmp_path / "moved" / "examples.jsonl", CHOICES[3:5]) if (tmp_path / "moved").mkdir() is None else ""
    others = write(tmp_path / "others.jsonl", CHOICES[5:])
    shots = [run(num_fewshot="1", fewshot_data=file).run_id for file in (examples, moved, others)]
    different = {one.run_id, shots[0], shots[2], run(data=write(tmp_path / "more.jsonl", CHOICES[:3])).run_id}
    assert shots[0] == shots[1] and len({*different, run("arc_challenge").run_id}) == 5


def test_the_command_line_knows_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = write(tmp_path / "rows.jsonl", CHOICES), str(tmp_path / "runs")
    command = ["eval", "--model", "fam-tiny", "--data", data, "--output", output, "--dry-run", "--task"]
    assert main([*command, "lm_eval:arc_easy"]) == 0
    assert "lm_eval:arc_easy" in capsys.readouterr().out
    assert main([*command, "lm_eva:arc_easy"]) == 2
    assert "unknown task 'lm_eva:arc_easy'" in capsys.readouterr().err


def test_the_identity_is_the_same_in_another_process(tmp_path: Path) -> None:
    options = {"data": write(tmp_path / "rows.jsonl", ROWS["winogrande"])}
    code = f"from famcli.task import load_task; print(load_task('lm_eval:winogrande', {options!r}).template)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == load_task("lm_eval:winogrande", options).template


COPA = [{"premise": "The man turned on the faucet.", "choice1": "A", "choice2": "B", "question": "effect", "label": 0}]
WRONG = [
    ("arc_easyy", {}, "unknown task of lm-evaluation-harness 'arc_easyy'"),
    ("mmlu", {}, "is a group of tasks"),
    ("arc_easy", {}, "needs data: rows in the schema"),
    ("arc_easy", {"data": [{"question": "no more"}]}, "lm-evaluation-harness fails.*choices"),
    ("arc_easy", {"data": CHOICES, "num_fewshot": "2"}, "takes 2 examples from the split 'train'"),
    ("lambada_openai", {"data": ROWS["lambada_openai"], "fewshot_data": CHOICES}, "has no split of examples"),
    (
        "arc_easy",
        {"data": CHOICES, "fewshot_sampler": "first_n"},
        "fewshot_sampler is given, and there are no examples",
    ),
    ("arc_easy", {"data": CHOICES, "fewshot_sampler": "first"}, "'fewshot_sampler' must be one of task, first_n"),
    ("arc_easy", {"data": CHOICES, "num_fewshot": "few"}, "option 'num_fewshot' must be a whole number"),
    ("blimp_adjunct_island", {"data": [{"sentence_good": "a", "sentence_bad": "b"}]}, "that nothing stands before"),
    ("copa", {"data": COPA, "shots": "1"}, "unknown option of task lm_eval:copa: 'shots'"),
]


@pytest.mark.parametrize(("name", "options", "words"), WRONG)
def test_what_cannot_be_run_is_named(name: str, options: dict[str, Any], words: str, tmp_path: Path) -> None:
    rows = {key: value for key, value in options.items() if not isinstance(value, str)}
    given = {**options, **{key: write(tmp_path / f"{key}.jsonl", value) for key, value in rows.items()}}
    with pytest.raises(UserError, match=words):
        load_task(f"lm_eval:{name}", given).samples(ByteTokenizer(), 0, None)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("rows.csv", b"a,b", "not a file of JSON lines"),
        ("rows.jsonl", b'{"a": 1}\n{"a": \n', "rows.jsonl:2 is no JSON"),
        ("rows.jsonl", b"[1]\n", "rows.jsonl:1 is no JSON object"),
        ("rows.jsonl", b"\n\n", "has no rows"),
        ("rows.jsonl.gz", b"not packed", "cannot read .*rows.jsonl.gz"),
        ("none.jsonl", None, "cannot read .*none.jsonl: No such file"),
    ],
)
def test_rows_that_cannot_be_read_are_named(file: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_task("lm_eval:arc_easy", {"data": str(tmp_path / file)}).samples(ByteTokenizer(), 0, None)


def test_scores_over_all_samples_at_once_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"premise": "Ada keeps it.", "hypothesis": "Ada has it", "label": 0, "idx": 0}]
    task = load_task("lm_eval:cb", {"data": write(tmp_path / "rows.jsonl", rows)})
    task.samples(ByteTokenizer(), 0, None)
    assert [metric.name for metric in task.metrics] == ["acc"]
    assert "f1: computed over all samples at once, and left out" in caplog.text


def test_without_the_harness_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match="needs lm-evaluation-harness") as caught:
        load_task("lm_eval:arc_easy", {})
    assert caught.value.hint == "pip install 'famcli[lm-eval]'"


LETTERS = {"text": ["a", "b", "c", "d"], "label": ["A", "B", "C", "D"]}
PAIR = {"premise": "Ada left.", "hypothesis": "Ada is here", "label": 0}
ON_THE_HUB: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("anli_r1", "anli_r2", "anli_r3", "cb", "sglue_rte"), PAIR),
    **dict.fromkeys(("arc_easy", "arc_challenge"), CHOICES[0]),
    "boolq": {"question": "is it so", "passage": "It is.", "label": 1},
    "copa": COPA[0],
    "hellaswag": {
        **{"activity_label": "Cooking", "ctx_a": "A man", "ctx_b": "he", "ctx": "A man he", "label": "1"},
        **{"endings": LETTERS["text"], "ind": 1, "source_id": "", "split": "val", "split_type": ""},
    },
    "multirc": {"paragraph": "Ada left.", "question": "Who?", "answer": "Ada", "label": 1},
    "openbookqa": {"id": "1", "question_stem": "Why", "choices": LETTERS, "answerKey": "A"},
    "piqa": {"goal": "open it", "sol1": "push", "sol2": "pull", "label": 0},
    "race": {"article": "Text.", "problems": "[{'question': 'Why?', 'answer': 'A', 'options': ['a', 'b', 'c', 'd']}]"},
    "storycloze_2016": {
        **{f"input_sentence_{i}": f"Sentence {i}." for i in range(1, 5)},
        **{"story_id": "1", "sentence_quiz1": "End.", "sentence_quiz2": "Stop.", "answer_right_ending": 1},
    },
    "wic": {
        **{"word": "key", "sentence1": "A key.", "sentence2": "The key.", "label": 1},
        **{"start1": 2, "end1": 5, "start2": 4, "end2": 7},
    },
    "winogrande": ROWS["winogrande"][0],
    "wsc273": {
        **{"text": "The cup is in the box as it is big.", "pronoun": "it", "pronoun_loc": 25, "quote": "it is big"},
        **{"quote_loc": 25, "options": ["The cup", "the box"], "label": 1, "source": ""},
    },
    "lambada_openai": ROWS["lambada_openai"][0],
    "nq_open": ROWS["nq_open"][0],
    "triviaqa": {"question": "Who?", "answer": {"value": "Ada", "aliases": ["Ada", "A."]}},
    "webqs": {"url": "", "question": "who left", "answers": ["Ada", "Boris"]},
}
NOT_THERE = {"RACE-M", "Winograd", "ReCoRD", "SQuADv2", "Rank mean", "Generation mean"}


def test_the_suite_has_the_paper_s_short_tasks_that_are_there(tmp_path: Path) -> None:
    reference, _ = load_reference("paper")
    table = {figure.name: figure.task for figure in reference.figures if figure.table == 12}
    suite = find_suite("gpt3")
    assert len(table) == 26 + 2 and {name for name, task in table.items() if task is None} == NOT_THERE
    assert {entry.task for entry in suite.entries} == {task for task in table.values() if task}
    assert {f"lm_eval:{name}" for name in ON_THE_HUB} == {entry.task for entry in suite.entries}
    for name, row in ON_THE_HUB.items():
        write(tmp_path / f"{name}.jsonl.gz", [row])
    for chosen in choose_tasks(suite.entries, Given(data=[str(tmp_path)])):
        (sample,) = chosen.task.samples(ByteTokenizer(), 0, None)
        metrics = {metric.name for metric in chosen.task.metrics}
        assert sample.reference and {f.metric for f in reference.figures if f.task == chosen.task.name} <= metrics


def test_a_folder_has_one_file_of_each_task(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither arc_easy.jsonl nor arc_easy.jsonl.gz"):
        load_task("lm_eval:arc_easy", {"data": str(tmp_path)}).samples(ByteTokenizer(), 0, None)
    for ending in ("jsonl", "jsonl.gz"):
        write(tmp_path / f"arc_easy.{ending}", CHOICES)
    with pytest.raises(UserError, match="more than one file of its rows"):
        load_task("lm_eval:arc_easy", {"data": str(tmp_path)}).samples(ByteTokenizer(), 0, None)


def test_what_is_chosen_by_what_stands_before_it_has_a_reference_to_read(tmp_path: Path) -> None:
    task = load_task("lm_eval:winogrande", {"data": write(tmp_path / "rows.jsonl", ROWS["winogrande"])})
    assert task.samples(ByteTokenizer(), 0, None)[0].reference == (
        "The trophy 0 does not fit into the box because the trophy is too large."
    )
