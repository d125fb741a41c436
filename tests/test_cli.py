"""The command line, from what is typed to what is printed, written and returned."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_checkpoint import save_small

from famcli import __version__
from famcli.cli.command import cli
from famcli.cli.main import main
from famcli.cli.verbs import VERBS
from famcli.evaluation.suites import find_suite, list_suites
from famcli.task import load_task

LENGTHS = "lengths=400,512"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two random models over bytes, ``fam`` and ``bswa``, in the current directory."""
    monkeypatch.chdir(tmp_path)
    save_small(Path("fam"), "fam", block_size=32)
    save_small(Path("bswa"), "bswa", block_size=32)


def run_json(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """Runs a command that must succeed and print one JSON object."""
    assert main(args) == 0
    return json.loads(capsys.readouterr().out)


def files() -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in Path().rglob("*") if file.is_file()}


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["list", "models"], ["list", "--help"], ["evl"]])
def test_light_commands_import_nothing_heavy(args: list[str], tmp_path: Path) -> None:
    heavy = ["torch", "numpy", "pandas", "datasets", "transformers", "tokenizers", "huggingface_hub"]
    code = f"import sys; from famcli.cli.main import main; main({args}); print(*(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == ""


def test_every_verb_helps(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        assert f"famcli {verb}" in capsys.readouterr().out


def test_program_says_its_version_and_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"famcli {__version__}\n"
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    assert main([]) == 2


def test_openmp_is_told_to_rest_before_torch_is_there() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = "import os, famcli.cli.main; print(os.environ['OMP_WAIT_POLICY'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment) == "PASSIVE\n"


@pytest.mark.usefixtures("models")
def test_eval_prints_one_json_object_and_writes_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "passkey", "--model", "fam", "--model", "bswa", "-o", LENGTHS, "-o", "trials=2"]
    assert main([*command, "--json"]) == 0
    captured = capsys.readouterr()
    runs = json.loads(captured.out)["runs"]
    assert [(run["model"], run["task"]) for run in runs] == [("fam", "passkey"), ("bswa", "passkey")]
    for run in runs:
        record = json.loads(Path(run["path"]).read_text())
        assert Path(run["path"]) == Path("results", run["run_id"], "run.json")
        assert record["metrics"] == run["metrics"]
        assert record["status"] == "finished"
        assert [(cell["length"], cell["position"], cell["n"]) for cell in run["cells"]] == [
            (400, "start", 2),
            (512, "start", 2),
        ]
        assert all(0 <= cell["accuracy"] <= 1 for cell in run["cells"])
        assert run["metrics"]["accuracy"].keys() == {"value", "stderr", "n"}
    assert "4 samples" in captured.err


@pytest.mark.usefixtures("models")
def test_the_same_command_shows_a_finished_run_and_fresh_starts_over(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "passkey", "--model", "fam", "-o", LENGTHS, "-o", "trials=1"]
    first = run_json(capsys, *command, "--json")
    written = files()
    assert run_json(capsys, *command, "--json") == first
    assert files() == written
    assert main([*command, "--json"]) == 0
    assert "shown again; --fresh runs it anew" in capsys.readouterr().err
    assert run_json(capsys, *command, "--json", "--fresh")["runs"][0]["metrics"] == first["runs"][0]["metrics"]
    assert len(files()) > len(written)


@pytest.mark.usefixtures("models")
def test_eval_table_shows_the_receptive_field_and_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "passkey", "--model", "fam", "--model", "bswa", "-o", LENGTHS, "-o", "trials=2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    fam, bswa = out.split("bswa on passkey")
    assert "unbounded" in fam
    assert "128 tokens" in bswa, "3 layers x 1 segment x 32 tokens and the own block"
    for text in (fam, bswa):
        assert re.search(r"accuracy +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] \(n=4\)", text), "as compare has it"
        assert "interval             95%, Wilson" in text
        assert "start 400" in text
        assert "start 512" in text
        assert "(n=4)" in text


@pytest.mark.usefixtures("models")
def test_models_that_have_learned_no_fam_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "passkey", "--model", "bswa,attention=fam,fam_length=4", "-o", "lengths=400"]
    assert main([*command, "-o", "trials=1", "--json"]) == 0
    captured = capsys.readouterr()
    assert "bswa,attention=fam,fam_length=4: no FAM adapter" in captured.err
    assert len(json.loads(captured.out)["runs"]) == 1


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        ("evl", "unknown command 'evl'", "eval"),
        ("eval --modle fam", "no such option '--modle'", "famcli eval --help"),
        ("eval --task passkey", "no model given", "--model fam-tiny"),
        ("eval --model fam", "no task given", "--task passkey"),
        ("eval --task paskey --model fam", "unknown task 'paskey'", "passkey"),
        ("eval --suite paskey --model fam", "unknown suite 'paskey'", "passkey"),
        ("eval --task passkey --model fam-tny", "unknown model 'fam-tny'", "fam-tiny"),
        ("eval --task passkey --model fam --model ./nowhere", "no directory './nowhere'", "list models"),
        ("eval --task passkey --model fam --model fam-1b", "weights of 'fam-1b'", "hf download"),
        ("eval --task passkey --model fam,widht=3", "'widht'", "width"),
        ("eval --task passkey --model fam -o lenghts=1k", "'lenghts'", "lengths"),
        ("eval --task passkey --model fam -o lengths=long", "option 'lengths' must be", "-o lengths="),
        ("eval --task passkey --model fam --data sample", "no task here takes data: passkey", "leave out --data"),
        ("eval --task passkey --model fam --length 1k", "no such option '--length'", "-o lengths=1k"),
        ("eval --task passkey --model fam --limit 1k", "'1k' is not a whole number", "famcli eval --help"),
        ("eval --task passkey --model fam --adapter nowhere", "adapter_config.json is missing", "--adapter DIR"),
        ("eval --task passkey --model fam,name=a,name=b", "the name is given twice", "give it once"),
        ("eval --task passkey --model fam,block_size=0", "'block_size' must be at least 1", "famcli list memories"),
        ("eval --task ./nowhere.py --model fam", "cannot read nowhere.py", "./my_task.py"),
        ("eval --task quality --model fam --data rows.jsonl", "line 1: field", "famcli data schema quality"),
        ("eval --suite bad.yaml --model fam", "bad.yaml is not valid YAML", "tasks: [{task: passkey"),
        ("eval --suite bare.yaml --model fam", "bare.yaml lacks the field 'tasks'", "tasks: [{task: passkey"),
        ("eval --task passkey --model fam --max-context 8q", "--max-context must be a number", "--max-context 8k"),
        ("eval --task passkey --model fam --max-context 1k,2k", "--max-context must be a number", "--max-context 8k"),
        ("eval --task passkey --model fam --max-context 0", "--max-context must be a number", "--max-context 8k"),
        ("profile --model fam --decode 1M", "--decode must be at most 100,000 tokens, not 1,048,576", "--decode 1k"),
        ("eval --task passkey --model fam -o lengths=20", "length 20 is too short", "-o lengths="),
        ("eval --task passkey --model fam -o lengths", "'lengths' is not KEY=VALUE", "-o lengths"),
        ("eval --task passkey --model fam -o trials=1 -o trials=2", "'trials' is given twice", "give it once"),
        ("eval --task passkey --model fam --device gpu", "'gpu' is not one of", "famcli eval --help"),
        ("eval --task passkey --model fam --limit 0", "0 is not in the range", "famcli eval --help"),
        ("eval --task passkey --model fam --model broken", "broken/model.safetensors is not a whole", "again"),
        ("compare", "no finished runs in results", "famcli eval"),
        ("compare fam", "no runs in results", "famcli eval"),
        ("list model", "no such command 'model'", "famcli list --help"),
    ],
)
def test_bad_usage_says_what_to_type_and_writes_nothing(
    command: str, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_small(Path("broken"))
    file = Path("broken/model.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    Path("rows.jsonl").write_text('{"a": 1}\n')
    Path("bad.yaml").write_text("tasks: [")
    Path("bare.yaml").write_text("models: [fam]")
    before = files()
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error, *hints = captured.err.splitlines()
    assert error.startswith("error: ")
    assert message.lower() in error.lower()
    assert hint and hint in "".join(hints)
    assert all(line.startswith("hint: ") for line in hints)
    assert files() == before
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (OSError(28, "No space left on device", "some/file"), "some/file: No space left on device"),
        (OSError(28, "No space left on device"), "cannot write the output: No space left"),
    ],
)
def test_what_the_machine_lacks_is_no_failed_check(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "main", fail)
    assert main([]) == 2
    assert message in capsys.readouterr().err


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("some mistake with memory_segments")

    monkeypatch.setattr(cli, "main", fail)
    with pytest.raises(RuntimeError, match="some mistake with memory_segments"):
        main([])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk that is always full")
def test_output_that_cannot_be_written_is_told() -> None:
    command = [sys.executable, "-c", "import sys; from famcli.cli.main import main; sys.exit(main())", "list", "tasks"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "error: cannot write the output: No space left on device\n")


@pytest.mark.usefixtures("models")
def test_interruption_says_that_the_command_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    command = ["eval", "--task", "passkey", "--model", "fam", "-o", LENGTHS, "-o", "trials=2", "--batch-size", "2"]
    uninterrupted = run_json(capsys, *command, "--json", "--output", "other")["runs"][0]
    with monkeypatch.context() as patch:
        patch.setattr("famcli.cli.progress.PlainProgress.advance", interrupt)
        assert main(command) == 130
    assert "repeat the command: answered samples are kept" in capsys.readouterr().err
    run = run_json(capsys, *command, "--json")["runs"][0]
    assert run["cells"] == uninterrupted["cells"]


@pytest.mark.usefixtures("models")
def test_listings(capsys: pytest.CaptureFixture[str]) -> None:
    names = {model["name"] for model in run_json(capsys, "list", "models", "--json")["models"]}
    assert {"fam-tiny", "bswa-tiny", "fam-24b"} <= names
    tasks = run_json(capsys, "list", "tasks", "--json")
    assert "lengths" in {option["name"] for task in tasks["tasks"] for option in task["options"]}
    assert run_json(capsys, "list", "runs", "--json") == {"runs": []}
    made = run_json(capsys, "eval", "--task", "passkey", "--model", "fam", "-o", "lengths=400", "--json")["runs"][0]
    listed = run_json(capsys, "list", "runs", "--json")["runs"]
    assert [(run["run_id"], run["status"], run["path"]) for run in listed] == [
        (made["run_id"], "finished", made["path"])
    ]
    for what in ("models", "tasks", "runs"):
        assert main(["list", what]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("bswa-8b", "-o lengths=", made["run_id"]))


def test_every_task_with_data_tells_its_version_licence_and_whom_to_cite(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {task["name"]: task for task in run_json(capsys, "list", "tasks", "--json")["tasks"]}
    assert tasks["passkey"]["data"] is None
    for name in ("isabelle", "narrativeqa", "pg19", "qasper", "quality", "xlsum"):
        assert tasks[name]["data"]["licence"] and tasks[name]["data"]["citation"]
    assert main(["list", "tasks"]) == 0
    out = capsys.readouterr().out
    for task in tasks.values():
        assert f"{task['name']} (version {task['version']}): " in out
        assert task["data"] is None or task["data"]["citation"] in out


@pytest.mark.usefixtures("models")
def test_eval_and_compare_agree(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "passkey", "--model", "fam", "--model", "bswa", "-o", LENGTHS, "--json"]
    runs = run_json(capsys, *command)["runs"]
    rows = run_json(capsys, "compare", "--format", "json")["rows"]
    assert [row["settings"]["length"] for row in rows] == [400, 512]
    for run in runs:
        for cell, row in zip(run["cells"], rows, strict=True):
            score = row["scores"][run["model"]]
            assert (score["value"], score["n"]) == (cell["accuracy"], cell["n"])
    one = run_json(capsys, "compare", runs[1]["run_id"][:-4], "--format", "json")
    assert [model["name"] for model in one["models"]] == ["bswa"]
    assert main(["compare", "famm"]) == 2
    assert "did you mean fam" in capsys.readouterr().err


def test_suites_name_tasks_and_options_that_exist() -> None:
    assert find_suite("passkey") in list_suites()
    for suite in list_suites():
        assert suite.summary
        for entry in suite.entries:
            load_task(entry.task, entry.options)


@pytest.mark.usefixtures("models")
def test_options_on_the_command_line_replace_those_of_a_suite(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--suite", "passkey", "--model", "fam", "-o", "lengths=400", "-o", "trials=1", "--json"]
    runs = run_json(capsys, *command)["runs"]  # of three entries two are alike then
    assert [cell["position"] for run in runs for cell in run["cells"]] == ["start", "random"]
    assert {(cell["length"], cell["n"]) for run in runs for cell in run["cells"]} == {(400, 1)}


@pytest.mark.parametrize(
    "command",
    [
        ["check", "--task", "passkey", "--model", "fam", "--model", "bswa", "--baseline", "b.json"],
        ["compare", "--format", "csv", "--format", "json"],
        ["eval", "--task", "passkey", "--model", "fam", "--seed", "1", "--seed", "1"],
    ],
)
def test_of_two_values_for_one_none_is_chosen_in_silence(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert "is given 2 times" in capsys.readouterr().err


@pytest.mark.usefixtures("models")
def test_a_task_that_is_asked_for_twice_runs_once(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", *("--task", "passkey") * 2, "--model", "fam", "-o", "lengths=400", "-o", "trials=1", "--json"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["runs"]) == 1 and "asked for twice" in err


def test_memories_are_listed_with_their_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "memories", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["memories"]}
    fields = {name: {field["name"] for field in entry["fields"]} for name, entry in listed.items()}
    assert fields["full"] == set() and fields["bswa"] == {"memory_segments", "stop_gradient", "sinks"}
    assert fields["bswa"] | {"fam_length"} <= fields["fam"]
    assert all(field["help"] for entry in listed.values() for field in entry["fields"])
    assert main(["list", "memories"]) == 0
    assert "fam_length=64\n      F: latents" in capsys.readouterr().out
