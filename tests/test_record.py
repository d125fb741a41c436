"""Run records on disk: what was written is read, what is damaged is named."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from famcli.tasks.passkey import PassKey
from small_runs import small_model

from famcli.errors import UserError
from famcli.evaluation.record import RunRecord, load_record, load_records
from famcli.evaluation.runner import evaluate


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return evaluate(small_model(), PassKey.from_options({"lengths": "400", "trials": "2"}), results=tmp_path)


def rewrite(record: RunRecord, change: Any) -> None:
    file = record.path / "run.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_a_record_is_read_as_it_was_written(record: RunRecord) -> None:
    assert load_record(record.path) == record
    assert load_record(record.path / "run.json") == record
    assert record.path.name == record.run_id


def test_the_record_says_what_it_rests_on(record: RunRecord) -> None:
    values = json.loads((record.path / "run.json").read_text())
    assert values["status"] == "finished"
    assert values["schema_version"] == 2
    assert values["model"]["config"]["block_size"] == 32
    assert values["model"]["parameters"] == sum(w.numel() for w in small_model().decoder.parameters())
    assert values["task"] == {
        "name": "passkey",
        "version": 1,
        "options": {"lengths": [400], "position": ["start"], "trials": 2, "key_digits": 5},
        "template_sha256": hashlib.sha256(PassKey.template.encode()).hexdigest(),
        "data": None,
        "metrics": {
            "accuracy": {"paper": True, "higher_is_better": True, "mean": "arithmetic"},
            "token_accuracy": {"paper": False, "higher_is_better": True, "mean": "arithmetic"},
        },
    }
    assert values["context"] == {"max_context": None, "truncate": None}
    assert (values["seed"], values["limit"], values["device"], values["dtype"]) == (0, None, "cpu", "float32")
    assert set(values["environment"]) == {"python", "torch", "famcli", "git_commit", "platform"}
    assert set(values["metrics"]["accuracy"]) == {"value", "stderr", "n"}
    assert values["cost"]["tokens_read"] == values["cost"]["tokens_read_alone"] == 2 * 390
    assert values["cost"]["tokens_generated"] == 2 * 10
    assert values["cost"]["peak_memory_bytes"] > 10 * 2**20
    assert values["cost"]["state_bytes"] == small_model().decoder.start(1).nbytes
    assert values["started"] <= values["finished"]
    assert values["started"].endswith("+00:00")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("cells"), "lacks the field 'cells'"),
        (lambda v: v["model"].pop("name"), "lacks the field 'model.name'"),
        (lambda v: v.update(cost=[]), "field 'cost' must be a mapping of fields"),
        (lambda v: v["metrics"]["accuracy"].pop("n"), "lacks the field 'metrics.accuracy.n'"),
        (lambda v: v.update(metrics=[1]), "field 'metrics'"),
        *((lambda v, name=name: v.update({name: None}), f"field '{name}'") for name in ("run_id", "device", "cells")),
        (lambda v: v.update(finished=5), "field 'finished'"),
        (lambda v: v["cells"][0].pop("n"), r"lacks the field 'cells\[0\].n'"),
        (lambda v: v["cells"][0].pop("accuracy"), r"lacks the field 'cells\[0\].accuracy'"),
        (lambda v: v["cells"][0].update(length=[]), r"field 'cells\[0\].length' must be"),
        (
            lambda v: v["task"]["metrics"]["accuracy"].update(mean="median"),
            "field 'task.metrics.accuracy.mean' ",
        ),
        (lambda v: v["task"]["metrics"].pop("accuracy"), "field 'metrics.accuracy' is a score that"),
        (lambda v: v["task"].update(data={"sha256": 5}), "field 'task.data.sha256' must be text"),
        (lambda v: v["model"].update(receptive_field=0), "field 'model.receptive_field' must be at least 1"),
        (lambda v: v.update(schema_version=1), "has schema version 1; famcli .* reads version 2"),
    ],
)
def test_damage_is_named_with_its_file(record: RunRecord, change: Any, message: str) -> None:
    rewrite(record, change)
    with pytest.raises(UserError, match=f"{record.path}/run.json.* {message}"):
        load_record(record.path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\ufeff{"])
def test_what_is_no_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        UserError, match=f"the run record {tmp_path}/run.json (is not valid JSON|must hold a JSON object)"
    ):
        load_record(tmp_path)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the run record {tmp_path}/run.json is missing"):
        load_record(tmp_path / "run.json")


def test_a_model_may_be_called_old(record: RunRecord, tmp_path: Path) -> None:
    name = "passkey-fam.old-1-0123456789ab"
    (tmp_path / name).mkdir()
    (tmp_path / name / "run.json").write_text((record.path / "run.json").read_text().replace(record.run_id, name))
    assert {r.run_id for r in load_records(tmp_path)} == {record.run_id, name}


def test_listings_go_from_new_to_old_and_warn_of_damage(
    record: RunRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, finished in (("b", "2020-01-01T00:00:00.000+00:00"), ("c", "2030-01-01T00:00:00.000+00:00")):
        (tmp_path / name).mkdir()
        text = (record.path / "run.json").read_text().replace(str(record.finished), finished)
        (tmp_path / name / "run.json").write_text(text.replace(record.run_id, name))
    for name, content in (("damaged", "{"), (f"{record.run_id}.old-1", (record.path / "run.json").read_text())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        records = load_records(tmp_path)
    assert [r.run_id for r in records] == ["c", record.run_id, "b"]
    assert f"{tmp_path}/damaged/run.json is not valid JSON" in caplog.text
    assert load_records(tmp_path / "nowhere") == []
