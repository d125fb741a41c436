"""Training in several processes is training in one: gradients, losses, memories, checkpoints, and what goes wrong."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import yaml
from safetensors.torch import load_file
from team_worker import BROKEN_AT, RECIPES, RESUMED, SPLIT, go_on, make_trainer, train

from famcli.cli.main import main
from famcli.cli.train import command
from famcli.errors import UserError
from famcli.training.launch import check_settings, launched
from famcli.training.team import Team, _parcels

SIZE = 2
EXAMPLES = Path(__file__).parent.parent / "examples"
WORKER = Path(__file__).parent / "team_worker.py"
SHAPE = {"vocab_size": 257, "width": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_width": 8, "ffn_width": 32}
HOW: dict[str, Any] = {
    "seed": 1,
    "model": {**SHAPE, "attention": "fam", "block_size": 16, "memory_segments": 0, "fam_length": 2},
    "optimizer": {"name": "adamw", "warmup": 2},
    "log_every": 1,
    "checkpoint_every": 2,
    "evaluate_every": 5,
    "evaluate_streams": 3,
    "phases": [{"steps": 5, "mixture": {"passkey": 2, "repeat": 3}, "blocks": 2, "learning_rate": 0.01}],
}


def write_recipe(path: Path, steps: int = 5, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**HOW, "phases": [{**HOW["phases"][0], "steps": steps}], **changes}))
    return path


def log_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests were started by, it launched one process."""
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "MASTER_", "PMI_", "OMPI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained together."""
    folder = tmp_path_factory.mktemp("team")
    write_recipe(folder / "how.yaml")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    about = {"WORLD_SIZE": str(SIZE), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder)],
            env={**os.environ, **about, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(SIZE)
    ]
    try:
        said = [worker.communicate(timeout=300) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    for rank, (out, err) in enumerate(said):
        (folder / f"said-{rank}").write_text(out + err)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of the two kept."""
    return [torch.load(folder / f"found-{rank}.pt", weights_only=False) for rank in range(SIZE)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same recipes in one process."""
    return {name: train(how, tmp_path_factory.mktemp("alone")) for name, how in RECIPES.items()}


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Numbers, ``None``, and lists and mappings of them; tensors by their largest number."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_close(found[name], expected[name], tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, tolerance)
    elif isinstance(expected, torch.Tensor):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
    else:
        assert found == expected


@pytest.mark.parametrize("name", RECIPES)
def test_the_gradient_of_two_processes_is_that_of_one(
    name: str, found: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    """In float64, before anything is clipped away; weights that no row has a gradient for have none in either."""
    expected, norm = alone[name]["gradient"], alone[name]["lines"][0]["gradient_norm"]
    assert norm > 0 and any(gradient.abs().max() > 0 for gradient in expected.values())
    for of_rank in found:
        assert_close(of_rank[name]["gradient"], expected, 1e-12)
        assert of_rank[name]["lines"][0]["gradient_norm"] == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_train_as_one(name: str, found: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """All losses, and at last weights, memories, places of the rows, recall and what was counted."""
    for of_rank in found:
        for part in ("lines", "weights", "memory", "rows"):
            assert_close(of_rank[name][part], alone[name][part], 1e-7)
        # questions asked together are filled up to the longest of them
        assert of_rank[name]["tokens"] == pytest.approx(alone[name]["tokens"], rel=0.02)
        assert of_rank[name]["tally"] == alone[name]["tally"]
        for one, other in zip(of_rank[name]["recall"], alone[name]["recall"], strict=True):
            assert_close(vars(one), vars(other), 1e-7)


def test_what_is_held_against_each_other_holds_something(alone: dict[str, Any]) -> None:
    """The recipes reach every loss, rows that are lost, and memories that are carried."""
    lines = [line for one in alone.values() for line in one["lines"]]
    reached = {name for line in lines for name, value in line.items() if value is not None}
    kinds = {"recall", "rehearsal", "text", "filler", "retention", "waiting", "drift", "segment"}
    assert reached >= {f"{kind}_loss" for kind in kinds}
    assert {row["carried"] for one in alone.values() for row in one["rows"]["rows"]} == {True, False}
    rows = alone["everything"]["rows"]["rows"]
    assert any(row["offset"] > 64 * (5 - row["drawn_at"]) for row in rows), "no memory was aged"


@pytest.mark.parametrize("name", SPLIT)
def test_each_process_keeps_a_part_of_the_optimisers_state_and_all_have_the_same_weights(
    name: str, found: list[dict[str, Any]]
) -> None:
    """As without, bit for bit. With Muon to rounding: it takes all matrices of a shape that it has into one product."""
    tolerance = 1e-12 if name.startswith("muon") else 0.0
    expected = found[0][name]["state"]
    kept = [of_rank[f"{name}, split"]["state"] for of_rank in found]
    sizes = [sum(tensor.numel() for tensor in state.values()) for state in (*kept, expected)]
    assert sizes[0] + sizes[1] == sizes[2] and max(sizes[:2]) < 0.75 * sizes[2], sizes
    assert_close(kept[0] | kept[1], expected, tolerance)
    for of_rank in found:
        for part in ("gradient", "lines", "weights", "memory"):
            assert_close(of_rank[f"{name}, split"][part], of_rank[name][part], tolerance)


@pytest.mark.parametrize("name", SPLIT)
def test_the_checkpoint_of_a_split_optimiser_is_that_of_a_whole_one(name: str, folder: Path) -> None:
    """So any number of processes may go on from it, with a split optimiser or without."""
    split, whole = (load_file(folder / at / "checkpoint.safetensors") for at in (f"{name}, split", name))
    assert any(at.startswith("optimizer.") for at in whole)
    assert_close(split, whole, 1e-12 if name.startswith("muon") else 0.0)


def test_a_whole_optimiser_is_split_when_resumed(found: list[dict[str, Any]]) -> None:
    for of_rank in found:
        for part in ("weights", "memory"):
            assert_close(of_rank["split again"][part], of_rank["everything"][part], 0.0)


@pytest.mark.parametrize("name", [name for one in RESUMED for name in (one, f"{one}, split")])
def test_resumed_by_as_many_processes_it_ends_at_the_same_weights(name: str, found: list[dict[str, Any]]) -> None:
    for of_rank in found:
        resumed, unbroken = of_rank[f"{name}, resumed"], of_rank[name]
        assert resumed["written_by"] == SIZE
        assert resumed["lines"] == unbroken["lines"][BROKEN_AT:]
        assert resumed["rows"] == unbroken["rows"] and resumed["tally"] == unbroken["tally"]
        for part in ("weights", "memory"):
            assert_close(resumed[part], unbroken[part], 0.0)


def test_resumed_by_another_number_every_row_keeps_its_memory(
    folder: Path, found: list[dict[str, Any]], tmp_path: Path
) -> None:
    name = "everything"
    (tmp_path / "checkpoint.safetensors").write_bytes((folder / name / "checkpoint.safetensors").read_bytes())
    resumed, unbroken = go_on(RECIPES[name], tmp_path), found[0][name]
    assert resumed["written_by"] == SIZE
    assert_close(resumed["lines"], unbroken["lines"][BROKEN_AT:], 1e-7)
    assert_close(resumed["memory"], unbroken["memory"], 1e-7)
    assert resumed["tally"] == unbroken["tally"]


def test_processes_that_have_not_begun_with_the_same_are_told_what_differs(found: list[dict[str, Any]]) -> None:
    assert {one["disagreement"] for one in found} == {"the processes that train together do not have the same recipe"}


def test_the_command_in_two_processes_is_that_of_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of them speaks and writes, once, as one process does."""
    given = ["train", "--recipe", str(folder / "how.yaml"), "--device", "cpu", "--threads", "1"]
    assert main([*given, "--output", str(tmp_path / "one")]) == 0
    capsys.readouterr()
    together, one = log_of(folder / "command"), log_of(tmp_path / "one")
    assert [line["step"] for line in together] == ["1", "2", "3", "4", "5"]
    assert [line["tokens"] for line in together] == [line["tokens"] for line in one]
    for ours, theirs in zip(together, one, strict=True):
        assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-4)
    first, second = ((folder / f"said-{rank}").read_text() for rank in range(SIZE))
    assert "5 steps, 2 processes" in first and first.count("step 5/5") == 1 and second == ""
    assert (folder / "command" / "config.json").exists() and not (folder / "command" / "lock").exists()
    assert (folder / "command" / "evaluation.csv").exists()


def test_what_changes_with_the_number_of_processes_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "--recipe", str(folder / "how.yaml"), "--output", str(folder / "command"), "--device", "cpu"]
    assert main([*given, "--resume"]) == 0
    said = capsys.readouterr().err
    assert "resumed at step 5 of 5" in said
    assert "the checkpoint is that of 2 processes, and 1 go on: the rows are dealt anew, with their memories" in said
    assert "to rounding, not bit for bit" in said


def test_fewer_rows_than_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"phases\[0\] has too few rows for 3 processes: 2"):
        make_trainer(RECIPES["one row asked"], tmp_path, Team(2, 3))


def test_rows_are_dealt_to_all_and_each_to_one() -> None:
    teams = [Team(rank, 3) for rank in range(3)]
    assert sorted(row for team in teams for row in team.deal(8)) == list(range(8))
    for team in teams:
        rows = team.deal(8)
        assert team.own(range(8)) == rows
        assert team.places([7, 2, 5, 0, 3]) == [rows.index(row) for row in (7, 2, 5, 0, 3) if row in rows]


def test_gradients_are_sent_in_parcels_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("famcli.training.team.AT_ONCE", 10)
    tensors = [torch.zeros(n, dtype=t) for n, t in ((6, torch.float32), (4, torch.float32), (1, torch.float32))]
    tensors += [torch.zeros(20, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), torch.zeros(1)]
    assert [[t.numel() for t in parcel] for parcel in _parcels(tensors)] == [[6, 4], [1], [20], [1], [1]]


@pytest.mark.parametrize(
    ("environment", "autocast", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "none", "told to use FSDP, which famcli train does not"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "none", "told to use DeepSpeed"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "none", "the dynamo backend INDUCTOR"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "bfloat16", "mixed_precision fp16, and the recipe's autocast is bfl"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "none", "mixed_precision bf16, and the recipe's autocast is none"),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "1"}, "none", "asked for several processes and started one"),
    ],
)  # fmt: skip
def test_what_accelerate_was_told_and_training_does_not_do_is_refused(
    environment: dict[str, str], autocast: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        check_settings(autocast)
    assert message in refused.value.message


def test_what_accelerate_says_by_itself_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"USE_FSDP": "false", "DYNAMO_BACKEND": "NO", "MIXED_PRECISION": "bf16"}.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    check_settings("bfloat16")


@pytest.mark.parametrize(
    ("args", "sizes", "message"),
    [
        (["--processes", "3"], {"WORLD_SIZE": "2"}, "--processes is 3, and 2 processes were launched"),
        (["--processes", "2"], {"OMPI_COMM_WORLD_SIZE": "3"}, "--processes is 2, and 3 processes were launched"),
    ],
)
def test_two_numbers_of_processes_are_refused(
    args: list[str],
    sizes: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in sizes.items():
        monkeypatch.setenv(name, value)
    recipe = write_recipe(tmp_path / "how.yaml")
    assert main(["train", "--recipe", str(recipe), "--output", str(tmp_path / "out"), *args]) == 2
    assert message in capsys.readouterr().err
    assert launched() == int(next(iter(sizes.values())))


def test_recordings_are_trained_on_in_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Path(__file__).parent.parent / "configs" / "recipes" / "fam-135m.yaml"
    assert main(["train", "--recipe", str(recipe), "--processes", "2"]) == 2
    assert "trains on recordings, in one process" in capsys.readouterr().err


def test_the_processes_are_given_the_command_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    started: list[Any] = []
    monkeypatch.setattr("famcli.training.launch.start", lambda *given: started.append(given) or 3)
    write_recipe(Path("-a recipe.yaml"))
    typed = ["--recipe=-a recipe.yaml", "--text=-t", "--device=cpu", "--threads=3"]
    typed += [f"--plugin={EXAMPLES / 'model-own'}", "--split-optimizer"]
    assert main(["train", *typed, "--processes", "2"]) == 3
    [(words, processes, threads, checkpoint)] = started
    assert (processes, threads, checkpoint) == (2, 3, Path("models/-a recipe/checkpoint.safetensors"))
    assert words[0] == "train"
    expected = {**_parsed(typed), "output": Path("models/-a recipe"), "processes": 2}
    assert _parsed(words[1:]) == expected
    capsys.readouterr()


def _parsed(words: list[str]) -> dict[str, Any]:
    with click.Context(command) as context:
        values, _, _ = command.make_parser(context).parse_args(list(words))
        return {p.name: p.type_cast_value(context, values.get(p.name)) for p in command.params}


def test_one_process_has_nothing_to_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "how.yaml")
    assert main(["train", "--recipe", str(recipe), "--output", str(tmp_path / "out"), "--split-optimizer"]) == 2
    assert "shares the optimiser's state out among processes, and there is one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_process_does_without_accelerate(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "how.yaml", steps=1)
    words = ["train", "--recipe", str(recipe), "--output", str(tmp_path / "out"), "--device", "cpu", "--processes", "1"]
    program = f"import sys; from famcli.cli.main import main; assert main({words!r}) == 0; "
    done = subprocess.run([sys.executable, "-c", program + "sys.exit('accelerate' in sys.modules)"])
    assert done.returncode == 0


@pytest.mark.parametrize("sizes", [{}, {"WORLD_SIZE": "2"}])
def test_without_accelerate_it_is_said_what_to_install(
    sizes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "accelerate"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for name, value in sizes.items():
        monkeypatch.setenv(name, value)
    recipe = write_recipe(tmp_path / "how.yaml")
    words = ["--recipe", str(recipe), "--output", str(tmp_path / "out"), "--device", "cpu", "--processes", "2"]
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert "accelerate" in error and "hint: pip install 'famcli[train]'" in error
    assert not (tmp_path / "out").exists()
