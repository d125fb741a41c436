"""``famcli show``, and the prompts that ``--keep-prompts`` keeps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from asked_samples import Asks, answers, asked, story
from made_runs import Answer, document_run, entry
from small_runs import small_model, without_times

from famcli.cli.main import main
from famcli.errors import UserError
from famcli.evaluation.journal import Entry
from famcli.evaluation.kept_prompts import PROMPTS_NAME, PromptKeeper, kept_ids, prompt_of
from famcli.evaluation.runner import evaluate
from famcli.reports.html.samples import samples_data
from famcli.reports.html.task_runs import runs_by_task
from famcli.reports.one_run import PROMPT
from famcli.seams import NO_SPECIAL_TOKENS
from famcli.task import Read, Sample

OPTIONS = (" two three", " one")


def given() -> list[Sample]:
    """Two questions about one document, one of them with options; one without a document; a text to read."""
    text = Sample("text", {}, "", lambda: Read("read — me"), lambda answer: {"length": 1.0})
    first = [asked("a", story(1, 300), "\nWhy?", ()), asked("b", story(1, 300), "\nWhat?", OPTIONS)]
    return [*first, asked("c", story(2, 80), "\nHow?", (), alone=True), text]


def text_of(run: Path, sample: str) -> str:
    found = prompt_of(run, sample)
    assert found is not None
    return f"{found[0].before}{found[1]}{found[0].after}"


def documents(run: Path) -> list[str]:
    lines = gzip.decompress((run / PROMPTS_NAME).read_bytes()).decode().splitlines()
    return [json.loads(line)["text"] for line in lines if "text" in json.loads(line)]


def segments(sample: Sample) -> str:
    request: Any = sample.request()
    return request.text if isinstance(request, Read) else "".join(request.prompt.segments)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["show", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_prompts_are_kept_whole_a_document_once_and_change_nothing(tmp_path: Path) -> None:
    plain = evaluate(small_model(), Asks(given()), results=tmp_path / "plain")
    kept = evaluate(small_model(), Asks(given()), results=tmp_path / "kept", keep_prompts=True)
    assert without_times(kept) == without_times(plain)
    assert not (plain.path / PROMPTS_NAME).exists() and prompt_of(plain.path, "a") is None
    for sample in given():
        assert text_of(kept.path, sample.id) == segments(sample)
    assert documents(kept.path).count(story(1, 300)) == 1


@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_a_cut_document_is_kept_as_it_was_read(tmp_path: Path, side: Any) -> None:
    sample = asked("cut", story(2, 900), "\nWhat now?", OPTIONS)
    run = evaluate(small_model(), Asks([sample]), results=tmp_path, max_context=500, truncate=side, keep_prompts=True)
    line = answers(run.path)["cut"]
    text = text_of(run.path, "cut")
    assert len(text) == line["prompt_tokens"] == 900 + 10 - line["cut_tokens"], "a token is a byte"
    document, kept = story(2, 900), 900 - line["cut_tokens"]
    wants = {"left": document[-kept:], "right": document[:kept]}
    wants["middle"] = document[: (kept + 1) // 2] + document[-(kept // 2) :]
    assert text == wants[side] + "\nWhat now?"
    assert (line["truncate"], line["options"], line["template"]) == (side, list(OPTIONS), "")


def test_a_run_that_goes_on_mends_a_part_that_was_being_written(tmp_path: Path) -> None:
    run = evaluate(small_model(), Asks(given()), results=tmp_path, keep_prompts=True, batch_size=1)
    journal, prompts = run.path / "samples.jsonl", run.path / PROMPTS_NAME
    whole = prompts.read_bytes()
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    prompts.write_bytes(whole[:-5])
    evaluate(small_model(), Asks(given()), results=tmp_path, keep_prompts=True, batch_size=1)
    assert kept_ids(run.path) == {sample.id for sample in given()}
    assert documents(run.path).count(story(1, 300)) == 1
    for sample in given():
        assert text_of(run.path, sample.id) == segments(sample)


def test_a_finished_run_says_how_to_get_prompts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(small_model(), Asks(given()), results=tmp_path)
    run = evaluate(small_model(), Asks(given()), results=tmp_path, keep_prompts=True)
    assert "prompts of 0 of 4 samples; --keep-prompts --fresh answers again" in caplog.text
    assert not (run.path / PROMPTS_NAME).exists()
    caplog.clear()
    fresh = evaluate(small_model(), Asks(given()), results=tmp_path, keep_prompts=True, fresh=True)
    evaluate(small_model(), Asks(given()), results=tmp_path, keep_prompts=True)
    assert fresh.run_id == run.run_id and "prompts of" not in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"{}\n"), gzip.compress(b"x\n"), gzip.compress(b'{"id": 3}\n')],
    ids=["no gzip", "nothing", "no JSON", "wrong type"],  # what is packed has the time in it
)
def test_damaged_prompts_are_named(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    run = document_run(tmp_path, "fam-tiny", [Answer("a", {"f1": 1.0})])
    (run.path / PROMPTS_NAME).write_bytes(content)
    assert main(["show", str(run.path), "a"]) == 2
    assert PROMPTS_NAME in capsys.readouterr().err
    with pytest.raises(UserError, match=PROMPTS_NAME):
        PromptKeeper(run.path, small_model().tokenizer, NO_SPECIAL_TOKENS, None)


def test_a_sample_is_shown_as_the_model_saw_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = asked("long", story(3, 5 * PROMPT), "\nWhat?", OPTIONS)
    run = evaluate(small_model(), Asks([*given(), long]), results=tmp_path, keep_prompts=True)
    line = answers(run.path)["long"]
    out = shown(capsys, str(run.path), "long")
    prompt = segments(long)
    left_out = len(prompt) - 2 * PROMPT
    assert f"[... {left_out:,} characters are left out here; --full shows them ...]" in out
    block = "\n".join(f"  | {text}" for text in prompt[:PROMPT].split("\n"))
    assert block in out and f"{prompt[PROMPT:][:40]}" not in out
    assert "\n".join(f"  | {text}" for text in prompt.split("\n")) in shown(capsys, str(run.path), "long", "--full")
    values, tokens = line["answer"]["log_likelihoods"], line["answer"]["tokens"]
    for i, (option, value) in enumerate(zip(OPTIONS, values, strict=True)):
        mark = ", chosen" if value == max(values) else ""
        assert f"{value:.3f}, {value / tokens[i]:.3f} a token{mark}\n  | {option}\n" in out
    assert json.loads(shown(capsys, str(run.path), "long", "--json"))["prompt"] == prompt
    table = samples_data(runs_by_task([run], lambda _: "m", ["m"]), ["m"])
    (data,) = (sample for sample in table["samples"] if sample[3] == "b")
    assert [text.rpartition(": ")[2] for text in data[9]] == ["two three", "one"] and "chosen" in "".join(data[9])


def test_the_list_has_the_worst_first_and_wrong_ones_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"right": 1.0, "half": 0.5, "none": 0.0, "apart": 0.0}
    made = [Answer(id, {"f1": value}, weights={"f1": 0.0} if id == "apart" else {}) for id, value in scores.items()]
    run = document_run(tmp_path, "fam-tiny", made)
    listed = shown(capsys, run.run_id, "--output", str(tmp_path)).splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["none", "half", "right", "apart"]
    wrong = json.loads(shown(capsys, run.run_id[:12], "--wrong", "--json", "--output", str(tmp_path)))
    assert [sample["id"] for sample in wrong["samples"]] == ["none"]
    described = {"paper": True, "higher_is_better": False, "mean": "arithmetic"}
    less = document_run(tmp_path / "less", "fam-tiny", made, "pg19", task={"metrics": {"f1": described}})
    listed = shown(capsys, str(less.path)).splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["right", "half", "none", "apart"]
    assert main(["show", str(less.path), "--wrong"]) == 2
    assert "less of it is better" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["qualty"], "unknown run or model 'qualty'"),
        (["quality"], "'quality' means 2 runs: quality-"),
        (["quality-fam", "aa"], "unknown sample of quality-fam-tiny-2030-01-01: 'aa'"),
        (["quality-fam", "a", "--wrong"], "both a sample and --wrong"),
        (["quality-fam", "--full"], "--full is of one sample"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fam-tiny", "bswa-tiny"):
        document_run(tmp_path, name, [Answer("a", {"f1": 1.0})])
    assert main(["show", *words, "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_prompt_and_an_answer_do_not_steer_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\r\u202eevil\n::error::x\n##[command]"
    sample = asked("a", hostile, hostile, (hostile, " b"))
    run = evaluate(small_model(), Asks([sample]), results=tmp_path, keep_prompts=True)
    for words in ([], ["a"], ["a", "--full"], ["--json"], ["a", "--json"]):
        out = shown(capsys, str(run.path), *words)
        assert not set("\x1b\r\u202e") & set(out)
        assert not any(line.lstrip().startswith(("::", "##[")) for line in out.splitlines())
    assert "##[" not in shown(capsys, str(run.path), "a")


def test_older_journals_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = json.loads(entry(Answer("a", {"f1": 1.0}, output="said")).to_line())
    for name in ("options", "template", "around", "truncate", "prompt_tail", "computed_tokens"):
        del values[name]
    values["answer"] = {"log_likelihoods": [-1.0, -2.0], "tokens": [1, 2]}
    assert Entry.from_line(json.dumps(values).encode(), "here").options == []
    run = document_run(tmp_path, "fam-tiny", [Answer("a", {"f1": 1.0})])
    (run.path / "samples.jsonl").write_text(json.dumps(values) + "\n")
    out = shown(capsys, str(run.path), "a")
    assert "-1.000, -1.000 a token, chosen\n  | option 1\n" in out
    assert "--keep-prompts --fresh keeps all of it" in out


def test_options_and_likelihoods_of_other_numbers_are_refused() -> None:
    values = json.loads(entry(Answer("a", {"f1": 1.0})).to_line())
    values |= {"options": ["x", "y"], "answer": {"log_likelihoods": [-1.0], "tokens": [1]}}
    with pytest.raises(UserError, match=r"answer\.log_likelihoods' must have 2 values"):
        Entry.from_line(json.dumps(values).encode(), "here")


def test_the_template_and_the_chat_around_it_are_in_the_journal(tmp_path: Path) -> None:
    class Templated(Asks):
        template = "Question: "

    run = evaluate(small_model(), Templated(given()[:1]), results=tmp_path)
    assert answers(run.path)["a"]["template"] == "Question: " and answers(run.path)["a"]["around"] == []


def test_a_model_means_its_only_run_and_of_several_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [Answer("a", {"f1": 0.0}), Answer("b", {"f1": 1.0})]
    one = document_run(tmp_path, "fam-tiny", told)
    assert shown(capsys, "fam-tiny", "--output", str(tmp_path)) == shown(capsys, one.run_id, "--output", str(tmp_path))
    newer = document_run(tmp_path, "fam-tiny", told, "qasper", finished="2031-01-01")
    listed = shown(capsys, "fam-tiny", "--output", str(tmp_path))
    assert listed.index(newer.run_id) < listed.index(one.run_id)
    told_runs = json.loads(shown(capsys, "fam-tiny", "--json", "--output", str(tmp_path)))["runs"]
    assert [run["run_id"] for run in told_runs] == [newer.run_id, one.run_id]
    assert main(["show", "fam-tiny", "a", "--output", str(tmp_path)]) == 2
    assert f"fam-tiny has 2 runs\nhint: say which; the newest: famcli show {newer.run_id}" in capsys.readouterr().err
