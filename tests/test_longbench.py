"""Rows of LongBench are read, those of other collections refused with what to do instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_files import SHARED

from famcli.task import DataError, load_task

REAL = SHARED / "longbench" / "longbench_hf_schema.jsonl.gz"


def longbench(of: str, **fields: Any) -> dict[str, Any]:
    row = {"input": "Who?", "context": "A long story of Ada.", "answers": ["Ada", "Ada L."], "length": 5}
    return {**row, "dataset": of, "language": "en", "all_classes": None, "_id": f"{of}-1", **fields}


def samples(task: str, path: Path, *rows: dict[str, Any]) -> list[Any]:
    if rows:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    class Bytes:
        def encode(self, text: str) -> list[int]:
            return list(text.encode())

    return load_task(task, {"data": str(path)}).samples(Bytes(), 0, None)


@pytest.mark.parametrize("task", ["narrativeqa", "qasper"])
def test_rows_of_the_task_are_read_and_the_others_counted(
    tmp_path: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        longbench("hotpotqa"),
        longbench(task),
        longbench(f"{task}_e", input="Where?", _id="second"),
        longbench(task, dataset=None, context="Another story.", _id=None),
        longbench("lcc"),
    ]
    found = samples(task, tmp_path / "rows.jsonl", *rows)
    assert [sample.reference for sample in found] == ["Ada | Ada L."] * 3
    assert [sample.id for sample in found][:2] == [f"{task}-1", "second"]
    assert found[0].document == found[1].document != found[2].document
    request = found[1].request()
    assert request.prompt.segments == ("A long story of Ada.", "\n\nQuestion: Where?\nAnswer:")
    assert found[0].score(_said("Ada"))["f1"] in (1.0, (1.0, 1.0))
    assert f"2 rows of LongBench are of other tasks than {task}: 1 of hotpotqa, 1 of lcc" in caplog.text


def _said(text: str) -> Any:
    from famcli.task import Generated

    return Generated(text, ())


@pytest.mark.parametrize(
    ("task", "row", "why"),
    [
        ("narrativeqa", longbench("hotpotqa"), "rows of LongBench, and none is of narrativeqa: 1 of hotpotqa"),
        ("qasper", longbench("qasper", answers=[]), "field 'answers' is missing: a split without right answers"),
        ("qasper", longbench("qasper", context=""), "field 'context' is empty"),
        ("quality", longbench("narrativeqa"), "a row of LongBench, which does not have this task"),
        ("quality", {"choice_A": "a", "question": "?"}, "a row of LongBench v2"),
        (
            "qasper",
            {"instructions": ["?"], "outputs": ["a"], "input": "text"},
            "a row of L-Eval, which famcli does not read",
        ),
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_do(tmp_path: Path, task: str, row: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl, line 1: .*{why}"):
        samples(task, tmp_path / "rows.jsonl", row)


@pytest.mark.skipif(not REAL.exists(), reason="the real records are not here")
@pytest.mark.parametrize("task", ["narrativeqa", "qasper"])
def test_real_rows_are_read(task: str) -> None:
    assert len(samples(task, REAL)) == 5


def test_archives_are_to_be_unpacked(tmp_path: Path) -> None:
    from famcli.errors import UserError

    (tmp_path / "qasper-train-dev-v0.3.tgz").write_bytes(b"x")
    with pytest.raises(UserError) as error:
        samples("qasper", tmp_path / "qasper-train-dev-v0.3.tgz")
    assert "unpack it and give its directory" in str(error.value.hint)
