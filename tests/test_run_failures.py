"""Runs that cannot go on: what is said, and what is kept."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from asked_samples import Asks
from famcli.tasks.passkey import PassKey
from small_runs import journal_without_times, small_model, without_times

from famcli.checkpoints.sources import LoadedModel
from famcli.claim import claim
from famcli.cli.main import main
from famcli.errors import UserError
from famcli.evaluation import stream
from famcli.evaluation.generation import answer_batch
from famcli.evaluation.journal import Entry, Journal
from famcli.evaluation.prompts import prompt_tokens
from famcli.evaluation.record import load_record
from famcli.evaluation.runner import evaluate
from famcli.task import Choose, Generate, Prompt, Read, Sample


def passkey() -> PassKey:
    return PassKey.from_options({"lengths": "400,512", "trials": "3"})


def answer(model: LoadedModel, request: Generate | Choose) -> None:
    prompt = prompt_tokens(request, model.tokenizer)
    answer_batch(model.decoder, model.tokenizer, [request], [prompt], None, lambda tokens: None)


@pytest.mark.parametrize("request_of", [lambda p: Generate(p, 3), lambda p: Choose(p, ("a", "bc"))])
def test_a_broken_model_does_not_pass_for_a_forgetful_one(request_of: Callable[[Prompt], Any]) -> None:
    model = small_model()
    with torch.no_grad():
        model.decoder.norm.weight[0] = float("nan")
    with pytest.raises(UserError, match="the model gives NaN"):
        answer(model, request_of(Prompt(("say",))))


def test_tokens_that_the_model_lacks_are_named() -> None:
    model = small_model(vocab_size=100)
    with pytest.raises(UserError, match="gives token 115, but the model has only 100"):
        answer(model, Generate(Prompt(("say",)), 3))


@pytest.mark.parametrize("when", ["begin", "end", "state"])
def test_a_full_disk_is_told_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """``run.json`` is written when a run begins and when it ends, and a state while a document is read."""
    monkeypatch.setattr(stream, "KEEP_EVERY", 4)
    text = "once upon a time " * 20
    sample = Sample("x", {}, "", lambda: Read(text), lambda answer: {"length": len(answer.hits)}, document="x")
    undisturbed = evaluate(small_model(), Asks([sample]), results=tmp_path / "undisturbed")
    replace_file, left = os.replace, {"begin": 0, "state": 1, "end": 3}[when]

    def full(source: Any, target: Any) -> None:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= 1
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", full)
    name = "state.safetensors" if when == "state" else "run.json"
    with pytest.raises(UserError, match=rf"cannot write .*{name}: No space left") as error:
        evaluate(small_model(), Asks([sample]), results=tmp_path)
    assert "it continues the run" in str(error.value.hint)
    monkeypatch.undo()
    assert without_times(evaluate(small_model(), Asks([sample]), results=tmp_path)) == without_times(undisturbed)


def test_a_journal_of_something_else_is_not_mixed_in(tmp_path: Path) -> None:
    record = evaluate(small_model(), passkey(), results=tmp_path)
    journal = record.path / "samples.jsonl"
    journal.write_text(journal.read_text().replace('"reference": "', '"reference": "9'))
    (record.path / "run.json").unlink()
    with pytest.raises(UserError, match=f"{journal}: sample 400/start/000 is not one of this run") as error:
        evaluate(small_model(), passkey(), results=tmp_path)
    assert "--fresh" in str(error.value.hint)
    assert evaluate(small_model(), passkey(), results=tmp_path, fresh=True).status == "finished"


def test_a_damaged_record_is_an_error_until_fresh(tmp_path: Path) -> None:
    record = evaluate(small_model(), passkey(), results=tmp_path)
    (record.path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is not valid JSON") as error:
        evaluate(small_model(), passkey(), results=tmp_path)
    assert "--fresh" in str(error.value.hint)
    assert evaluate(small_model(), passkey(), results=tmp_path, fresh=True).status == "finished"


def test_deleted_samples_of_a_finished_run_are_asked_again(tmp_path: Path) -> None:
    first = evaluate(small_model(), passkey(), results=tmp_path)
    journal = first.path / "samples.jsonl"
    whole = journal_without_times(journal)
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[2:]))
    again = evaluate(small_model(), passkey(), results=tmp_path)
    assert journal_without_times(journal) == whole and without_times(again) == without_times(first)


@pytest.mark.parametrize("answered", [1, 3, 6])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_journal_shortened_while_the_run_goes_on_ends_it_unfinished(
    answered: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six samples, one a batch: after the first, in the middle, after the last."""
    whole = evaluate(small_model(), passkey(), results=tmp_path / "whole", batch_size=1)
    written = Journal.append

    def append(self: Journal, entries: Sequence[Entry]) -> None:
        written(self, entries)
        if len(self.entries) == answered:
            lines = self.path.read_bytes().splitlines(keepends=True)
            self.path.write_bytes(b"".join(lines[: min(kept, answered - 1)]))

    monkeypatch.setattr(Journal, "append", append)
    with pytest.raises(UserError, match="was changed by somebody else while the run went on"):
        evaluate(small_model(), passkey(), results=tmp_path / "cut", batch_size=1)
    monkeypatch.undo()
    broken = load_record(tmp_path / "cut" / whole.run_id)
    assert (broken.status, broken.standing) == ("running", "interrupted")
    again = evaluate(small_model(), passkey(), results=tmp_path / "cut", batch_size=1)
    assert without_times(again) == without_times(whole)
    assert journal_without_times(again.path / "samples.jsonl") == journal_without_times(whole.path / "samples.jsonl")


def test_listings_tell_a_run_at_work_from_one_that_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = evaluate(small_model(), passkey(), results=tmp_path)

    def listed() -> str:
        assert main(["list", "runs", "--output", str(tmp_path), "--json"]) == 0
        (run,) = json.loads(capsys.readouterr().out)["runs"]
        assert main(["list", "runs", "--output", str(tmp_path)]) == 0
        assert f"  {run['status']}  " in capsys.readouterr().out
        return str(run["status"])

    assert listed() == "finished"
    record.status, record.finished = "running", None
    record.save()
    assert listed() == "interrupted"
    with claim(record.path, fresh=False):
        assert listed() == "running"
        assert main(["compare", record.run_id, "--output", str(tmp_path)]) == 2
        assert "it is running\nhint: wait" in capsys.readouterr().err
    assert listed() == "interrupted"
    assert main(["compare", record.run_id, "--output", str(tmp_path)]) == 2
    assert "it is interrupted\nhint: repeat" in capsys.readouterr().err
