"""Which runs a name means, and which column they are in."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_records import FAM, Cells
from made_runs import passkey_run

from famcli.compare.named import compare_named
from famcli.compare.selection import select
from famcli.errors import UserError
from famcli.evaluation.record import RunRecord

CELLS: Cells = {(1024, "start"): [1, 0]}
OTHER: Cells = {(2048, "start"): [1, 0]}
NEW = {"weights_sha256": "1" * 64}


def columns(names: list[str], results: Path, baseline: str | None = None) -> dict[str, str]:
    """Run directory -> column."""
    selection = select(names, results, baseline)
    return {f"{r.path.parent.name}/{r.run_id}": selection.column(r) for r in selection.records}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two models in ``results``, an older and a newer one of them in ``old`` and ``new``."""
    passkey_run(tmp_path / "results", "fam-tiny", FAM)
    passkey_run(tmp_path / "results", "bswa-tiny", FAM)
    passkey_run(tmp_path / "old", "fam-tiny", CELLS, "2029-01-01")
    passkey_run(tmp_path / "new", "fam-tiny", CELLS, "2031-01-01", model=NEW)
    passkey_run(tmp_path / "more", "fam-tiny", OTHER, "2031-01-02")
    return tmp_path / "results"


def test_no_name_means_all_runs(results: Path) -> None:
    assert columns([], results) == {
        "results/passkey-fam-tiny-2030-01-01": "fam-tiny",
        "results/passkey-bswa-tiny-2030-01-01": "bswa-tiny",
    }


@pytest.mark.parametrize(
    "name",
    ["fam-tiny", "passkey-fam-tiny-2030-01-01", "passkey-fam-tiny-20", "{}/passkey-fam-tiny-2030-01-01"],
)
def test_a_run_is_named_by_model_id_beginning_or_directory(name: str, results: Path) -> None:
    name = name.format(results)
    assert columns([name], results) == {"results/passkey-fam-tiny-2030-01-01": "fam-tiny"}
    if name.startswith("/"):
        assert columns([f"{name}/run.json"], results) == columns([name], results)


def test_a_directory_of_runs_means_all_of_them(results: Path) -> None:
    assert set(columns([str(results)], results.parent / "none").values()) == {"fam-tiny", "bswa-tiny"}


def test_runs_of_one_model_share_its_column_where_they_can(results: Path) -> None:
    old, more = str(results.parent / "old"), str(results.parent / "more")
    assert set(columns([old, more], results).values()) == {"fam-tiny"}


def test_runs_of_other_weights_or_the_same_cells_are_told_apart(results: Path) -> None:
    old, new = str(results.parent / "old"), str(results.parent / "new")
    assert columns([old, new], results) == {
        "old/passkey-fam-tiny-2029-01-01": f"fam-tiny ({old})",
        "new/passkey-fam-tiny-2031-01-01": f"fam-tiny ({new})",
    }
    assert set(columns(["fam-tiny", old], results).values()) == {"fam-tiny", f"fam-tiny ({old})"}


def test_a_baseline_need_not_be_named_twice(results: Path) -> None:
    new = str(results.parent / "new")
    assert select(["fam-tiny"], results, "bswa-tiny").baseline == "bswa-tiny"
    assert select([], results, "bswa-tiny").baseline == "bswa-tiny"
    selection = select([], results, new)
    assert selection.baseline == f"fam-tiny ({new})"
    assert {selection.column(r) for r in selection.records} == {"fam-tiny", "bswa-tiny", f"fam-tiny ({new})"}
    with pytest.raises(UserError, match="means several models"):
        select([new], results, str(results))


def test_a_directory_is_one_model_however_its_path_is_written(tmp_path: Path) -> None:
    """Other weights, another field or a name that somebody gave are another model."""
    for number, name in enumerate(("mine", "./mine", "/models/mine/")):
        passkey_run(tmp_path, name.replace("/", "-"), CELLS, f"2030-01-0{number + 1}", model={"name": name})
    passkey_run(tmp_path, "new", OTHER, "2031-01-01", model={"name": "/new/mine", **NEW})
    passkey_run(tmp_path, "field", OTHER, "2031-01-02", model={"name": "./mine,block_size=8", "config": {"b": 8}})
    passkey_run(tmp_path, "named", OTHER, "2031-01-03", model={"name": "best", "spec": "./mine"})
    found = list(columns([], tmp_path).values())
    assert sorted(found) == ["./mine,block_size=8", "/new/mine", "best", "mine", "mine", "mine"]
    for typed in ("./mine", "/models/mine/"):
        assert list(columns([typed], tmp_path).values()) == ["mine"] * 3
    assert list(columns(["../field/mine,block_size=8"], tmp_path).values()) == ["./mine,block_size=8"], "typed anew"
    with pytest.raises(UserError, match="unknown run or model"):
        columns(["../mine"], tmp_path)  # of two models of that name, which?
    passkey_run(tmp_path / "apart" / "mine,block_size=8", "fam-tiny", CELLS)
    directory = str(tmp_path / "apart" / "mine,block_size=8")
    assert list(columns([directory], tmp_path).values()) == ["fam-tiny"], "a directory of runs comes first"


def test_of_a_task_of_ones_own_the_newest_version_counts(tmp_path: Path) -> None:
    def run(name: str, day: int, source: str, task: str = "mine") -> RunRecord:
        fields = {"name": task, **({"source_sha256": source * 64} if source else {})}
        return passkey_run(tmp_path, name, CELLS, f"2030-01-{day:02}", task=fields)

    old = [run("fam-tiny", day, "a") for day in range(1, 6)]
    new = [run("fam-tiny", 7, "b"), run("bswa-tiny", 6, "b"), run("other", 1, "", "passkey")]
    comparison, _ = compare_named([], tmp_path)
    assert {one.run_id for one in comparison.runs} == {one.run_id for one in new}
    assert [note for note in comparison.notes if "older versions" in note] == [
        "left out: 5 run(s) of older versions of mine: passkey-fam-tiny-2030-01-05, passkey-fam-tiny-2030-01-04, "
        "passkey-fam-tiny-2030-01-03 and 2 more; a run that is named is shown"
    ]
    comparison, _ = compare_named([old[0].run_id, "bswa-tiny"], tmp_path, force=True)
    assert old[0].run_id in {one.run_id for one in comparison.runs}


def test_names_that_mean_nothing(results: Path) -> None:
    passkey_run(results, "broken", FAM).path.joinpath("run.json").write_text("{}")
    for names, baseline in ((["fam-tniy"], None), (["fam-tiny"], "fam-tniy")):
        with pytest.raises(UserError, match="unknown run or model 'fam-tniy'") as caught:
            select(names, results, baseline)
        assert "fam-tiny" in (caught.value.hint or "")
    with pytest.raises(UserError, match="no runs in"):
        select(["fam-tiny"], results.parent / "none")
