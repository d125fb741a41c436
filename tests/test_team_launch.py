"""``famcli train --processes`` and ``accelerate launch -m famcli train``: processes started, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_checkpoint import save_small
from test_team import HOW, log_of, write_recipe

from famcli.errors import UserError
from famcli.training.launch import _ended, rank_here

LONG = 40
"""Steps of a training that is killed in the middle."""
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")


def words(recipe: Path, output: Path, *more: str) -> list[str]:
    return ["train", "--recipe", str(recipe), "--output", str(output), "--device", "cpu", "--threads", "1", *more]


def environment() -> dict[str, str]:
    strange = ("ACCELERATE_", "MASTER_", "PMI_", "OMPI_", "WORLD_", "RANK", "LOCAL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)}


@contextmanager
def running(command: list[str], said: Path) -> Iterator[subprocess.Popen[bytes]]:
    with said.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment(), cwd=said.parent, start_new_session=True
        )
    try:
        yield process
    finally:
        for pid in [*children_of(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def famcli(command: list[str], said: Path) -> int:
    with running([sys.executable, "-m", "famcli", *command], said) as process:
        return process.wait(timeout=300)


def children_of(parent: int) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(file.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(file.parent.name))
    return found


def ranks_of(parent: int) -> dict[int, int]:
    """The processes of a training by their numbers."""
    found = {}
    for pid in children_of(parent):
        with suppress(OSError):
            variables = dict(v.split("=", 1) for v in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in v)
            if "RANK" in variables:
                found[int(variables["RANK"])] = pid
    return found


def wait_for(what: Callable[[], object], seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def steps_of(output: Path) -> int:
    return len((output / "log.csv").read_text().splitlines()) - 1 if (output / "log.csv").exists() else 0


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() and b"train" in _command_line(pid) for pid in pids)


def _command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_what_is_wrong_in_all_processes_is_said_once(tmp_path: Path) -> None:
    phases = [{**HOW["phases"][0], "mixture": {"passkey": 1}}]
    recipe, output = tmp_path / "how.yaml", tmp_path / "out"
    write_recipe(recipe, phases=phases)
    assert famcli(words(recipe, output, "--processes", "2"), tmp_path / "said") == 2
    said = (tmp_path / "said").read_text()
    assert said.splitlines() == [
        "error: phases[0] has too few rows for 2 processes: 1",
        "hint: each wants one at least: more rows in its mixture, or fewer processes",
    ]
    assert not output.exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken training by two processes."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder / "how.yaml", steps=LONG)
    assert famcli(words(recipe, folder / "out", "--processes", "2"), folder / "said") == 0
    assert (folder / "said").read_text().count(f"step {LONG}/{LONG}") == 1
    return folder


def weights_of(folder: Path) -> bytes:
    return (folder / "out" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_resume_ends_at_the_same_weights(rank: int, whole: Path, tmp_path: Path) -> None:
    recipe, output = write_recipe(tmp_path / "how.yaml", steps=LONG), tmp_path / "out"
    command = words(recipe, output, "--processes", "2")
    with running([sys.executable, "-m", "famcli", *command], tmp_path / "said") as process:
        wait_for(lambda: steps_of(output) > 4)
        ranks = ranks_of(process.pid)
        assert ranks.keys() == {0, 1}
        os.kill(ranks[rank], signal.SIGKILL)
        assert process.wait(timeout=60) == 2
        assert gone(list(ranks.values()))
    said = (tmp_path / "said").read_text()
    assert f"error: process {rank} of 2 was ended by SIGKILL" in said
    assert "hint: repeat the command with --resume" in said and "Traceback" not in said
    assert not (output / "model.safetensors").exists()
    assert famcli([*command, "--resume"], tmp_path / "said") == 0
    assert weights_of(tmp_path) == weights_of(whole)
    told = [[(line["step"], line["loss"]) for line in log_of(folder / "out")] for folder in (tmp_path, whole)]
    assert told[0] == told[1]


@pytest.mark.slow
def test_processes_do_not_outlive_who_started_them(tmp_path: Path) -> None:
    recipe, output = write_recipe(tmp_path / "how.yaml", steps=100_000), tmp_path / "out"
    command = [sys.executable, "-m", "famcli", *words(recipe, output, "--processes", "2")]
    with running(command, tmp_path / "said") as process:
        wait_for(lambda: steps_of(output) > 2)
        ranks = list(ranks_of(process.pid).values())
        process.kill()
        process.wait()
        wait_for(lambda: gone(ranks), 60)


@pytest.mark.slow
def test_ctrl_c_is_one_line(whole: Path, tmp_path: Path) -> None:
    recipe, output = write_recipe(tmp_path / "how.yaml", steps=LONG), tmp_path / "out"
    command = words(recipe, output, "--processes", "2")
    with running([sys.executable, "-m", "famcli", *command], tmp_path / "said") as process:
        wait_for(lambda: steps_of(output) > 4)
        ranks = list(ranks_of(process.pid).values())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert gone(ranks)
    said = (tmp_path / "said").read_text()
    assert said.count("interrupted: --resume goes on from a checkpoint") == 1 and "Traceback" not in said
    assert famcli([*command, "--resume"], tmp_path / "said") == 0
    assert weights_of(tmp_path) == weights_of(whole)


@pytest.mark.slow
def test_accelerate_launch_trains_the_same(whole: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "how.yaml", steps=LONG)
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    command = [sys.executable, "-m", *launch, "-m", "famcli", *words(recipe, tmp_path / "out")]
    with running(command, tmp_path / "said") as process:
        assert process.wait(timeout=300) == 0, (tmp_path / "said").read_text()
    assert weights_of(tmp_path) == weights_of(whole)


@pytest.mark.slow
def test_a_split_optimiser_trains_the_same(whole: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "how.yaml", steps=LONG)
    command = words(recipe, tmp_path / "out", "--processes", "2", "--split-optimizer")
    assert famcli(command, tmp_path / "said") == 0
    assert "2 processes, the optimiser's state shared out among them" in (tmp_path / "said").read_text()
    assert weights_of(tmp_path) == weights_of(whole)


@pytest.mark.slow
def test_an_adapter_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    save_small(tmp_path / "base", "fam", block_size=16)
    recipe = write_recipe(tmp_path / "how.yaml", model=None, lora={"rank": 2, "alpha": 8})
    model = ["--model", str(tmp_path / "base")]
    for name, more in (("one", []), ("two", ["--processes", "2"])):
        assert famcli(words(recipe, tmp_path / name, *model, *more), tmp_path / "said") == 0
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-3
    assert any(not torch.equal(one[name], torch.zeros_like(one[name])) for name in one if "lora_B" in name)
    about = [json.loads((tmp_path / name / "famcli.json").read_text())["trained"] for name in ("one", "two")]
    assert about[1]["processes"] == 2 and "processes" not in about[0]


def test_a_process_knows_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert rank_here() == 0
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    assert rank_here() == 3


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({0: -signal.SIGTERM, 1: 2}, 2),
        ({0: -signal.SIGTERM, 1: -signal.SIGKILL}, "process 1 of 2 was ended by SIGKILL, which systems do when mem"),
        ({0: -signal.SIGSEGV, 1: 1}, "process 0 of 2 was ended by SIGSEGV; all others"),
        ({0: -signal.SIGTERM, 1: -signal.SIGTERM}, "process 0 of 2 was ended by SIGTERM; all others"),
    ],
)
def test_who_ended_is_told_from_who_was_ended_then(codes: dict[int, int], expected: int | str, tmp_path: Path) -> None:
    if isinstance(expected, int):
        assert _ended(codes, 2, tmp_path / "none") == expected
        return
    with pytest.raises(UserError) as raised:
        _ended(codes, 2, tmp_path / "none")
    assert expected in raised.value.message and raised.value.hint == "repeat the command: no checkpoint was written yet"
