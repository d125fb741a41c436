"""A finished run is shown again without its model, and looks as it does with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf_files import save_as_gguf
from hub_models import save_hub_model
from test_pretrained_runs import base  # noqa: F401

from famcli.checkpoints.sources import CheckpointSource
from famcli.cli.main import main

RUN = ("eval", "--task", "passkey", "-o", "trials=1")
FIRST = (*RUN, "-o", "lengths=400")
BOTH = (*RUN, "-o", "lengths=400,512")
IMPORTED = "import sys; from famcli.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"


@pytest.fixture(autouse=True)
def _of_another_base(base: None) -> None:  # noqa: F811
    """``adapter`` was trained on other weights than those of ``base``."""
    file = Path("adapter/famcli.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_sha256": "0" * 64}))


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[str, str]:
    """What a command that succeeds says on both streams."""
    capsys.readouterr()
    assert main(args) == 0
    told = capsys.readouterr()
    return told.out, told.err


def refuse(*_: Any) -> None:
    raise AssertionError("a model was read")


@pytest.mark.parametrize(
    "args",
    [
        ("--model", "base"),
        ("--model", "base", "--json"),
        ("--model", "base", "--keep-prompts"),
        ("--model", "base", "--as", "mine", "--strip-thinking"),
        ("--model", "base,attention=fam,fam_length=2"),
        ("--model", "adapter"),
        ("--model", "base", "--model", "adapter", "--temperature", "0.5", "--draws", "2"),
    ],
    ids=" ".join,
)
def test_it_looks_the_same_with_and_without_the_model(
    args: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown(capsys, *FIRST, *[arg for arg in args if arg != "--keep-prompts"])
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointSource, "known", lambda *_: None)
        read = shown(capsys, *FIRST, *args)
    assert "shown again" in read[1]
    assert ("nobody has trained its memory" in read[1]) == ("fam_length=2" in args[1])
    assert ("trained on other weights" in read[1]) == ("adapter" in args)
    monkeypatch.setattr(CheckpointSource, "load", refuse)
    assert shown(capsys, *FIRST, *args) == read


def test_what_is_not_finished_is_run_and_warned_of_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two tasks is there; then ``--fresh`` wants both anew."""
    Path("suite.yaml").write_text(
        "summary: two lengths\ntasks:\n"
        + "".join(f"  - task: passkey\n    options: {{lengths: {length}, trials: 1}}\n" for length in (400, 512))
    )
    shown(capsys, *FIRST, "--model", "adapter")
    loaded = []
    load = CheckpointSource.load
    monkeypatch.setattr(CheckpointSource, "load", lambda *given: loaded.append(1) or load(*given))
    _, told = shown(capsys, "eval", "--suite", "suite.yaml", "--model", "adapter")
    assert (told.count("shown again"), told.count("trained on other weights"), len(loaded)) == (1, 1, 1)
    _, told = shown(capsys, "eval", "--suite", "suite.yaml", "--model", "adapter", "--fresh")
    assert ("shown again" in told, len(loaded)) == (False, 2)


def test_a_damaged_record_is_named_without_the_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown(capsys, *FIRST, "--model", "base")
    file = next(Path("results").glob("*/run.json"))
    file.write_text("{")
    monkeypatch.setattr(CheckpointSource, "load", refuse)
    assert main([*FIRST, "--model", "base"]) == 2
    assert "--fresh starts over" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["base", "base,attention=fam,fam_length=2", "adapter"])
def test_it_imports_no_torch(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown(capsys, *FIRST, "--model", model)
    command = [sys.executable, "-c", IMPORTED, *FIRST, "--model", model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "shown again" in done.stderr


def test_files_of_others_are_known_without_torch() -> None:
    save_as_gguf(save_hub_model(Path("hub")), Path("model.gguf"), "llama")
    code = (
        "import sys; from famcli.checkpoints.registry import find_model\n"
        "for name in 'hub', 'hub,attention=gated_fam,fam_length=4', 'model.gguf':\n"
        "    assert find_model(name).known('cpu', 'float32')\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_run_without_its_samples_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown(capsys, *FIRST, "--model", "base")
    assert "is gone" not in shown(capsys, *FIRST, "--model", "base")[1]
    (samples,) = Path("results").glob("passkey-base-*/samples.jsonl")
    samples.unlink()
    monkeypatch.setattr(CheckpointSource, "load", refuse)
    told = shown(capsys, *FIRST, "--model", "base")[1]
    assert "samples.jsonl is gone" in told and "--fresh" in told
