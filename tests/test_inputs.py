"""Inputs that are no files, or not what they say: refused by name, at once, by every verb."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from famcli.cli.main import main
from famcli.errors import UserError
from famcli.fields import read_yaml
from famcli.inputs import check_file, read_text

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from fuzz_inputs import make_kit, sample_rows


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    make_kit(folder)
    return folder


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Whoever waits for a pipe fails."""

    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)


@pytest.fixture(params=["pipe", "device"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Puts a pipe, or a link to a device, in a file's place."""
    leader, follower = os.openpty()

    def put(path: Path) -> None:
        path.unlink(missing_ok=True)
        if request.param == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(os.ttyname(follower))

    yield put
    os.close(leader)
    os.close(follower)


EVAL = ["eval", "--output", "out", "-o", "limit=1"]
PASSKEY = ["--task", "passkey", "-o", "lengths=300", "-o", "trials=1"]
TRAIN = ["train", "--output", "out", "--device", "cpu", "--model", "own"]
COMMANDS = {
    "own/config.json": ["eval", *PASSKEY, "--model", "own"],
    "own/model.safetensors": ["eval", *PASSKEY, "--model", "own"],
    "hub/config.json": ["eval", *PASSKEY, "--model", "hub"],
    "hub/model.safetensors": ["eval", *PASSKEY, "--model", "hub"],
    "hub/tokenizer.json": ["eval", *PASSKEY, "--model", "hub"],
    "hub/tokenizer_config.json": ["eval", *PASSKEY, "--model", "hub"],
    "hub/generation_config.json": ["eval", *PASSKEY, "--model", "hub"],
    "hub/chat_template.jinja": ["eval", *PASSKEY, "--model", "hub"],
    "model.gguf": ["eval", *PASSKEY, "--model", "model.gguf"],
    "adapter/adapter_config.json": ["eval", *PASSKEY, "--model", "hub,adapter=adapter"],
    "adapter/adapter_model.safetensors": ["eval", *PASSKEY, "--model", "hub,adapter=adapter"],
    "quality.jsonl": ["eval", "--task", "quality", "--model", "own", "--data", "quality.jsonl"],
    "text/b.thy": ["data", "check", "isabelle", "--data", "text"],
    "d.zip": ["data", "check", "qasper", "--data", "d.zip"],
    "d.csv.gz": ["data", "check", "pg19", "--data", "d.csv.gz"],
    "d.parquet": ["data", "check", "pg19", "--data", "d.parquet"],
    "recipe.yaml": [*TRAIN, "--recipe", "recipe.yaml", "--text", "text"],
    "qa.jsonl": [*TRAIN, "--recipe", "qa.yaml", "--text", "text", "--qa", "qa.jsonl"],
    "text/a.txt": ["data", "cloze", "--text", "text", "--output", "out.jsonl"],
    "baseline.json": ["check", "--run", "RUN", "--output", "results", "--baseline", "baseline.json"],
    "results/RUN/run.json": ["check", "--run", "results/RUN", "--output", "results", "--baseline", "baseline.json"],
    "results/RUN/samples.jsonl": ["compare", "results/RUN", "--output", "results"],
}


@pytest.mark.parametrize("file", COMMANDS)
def test_pipes_and_devices_are_refused_by_name(
    kit: Path,
    file: str,
    special: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shutil

    folder = tmp_path / "here"
    shutil.copytree(kit, folder)
    monkeypatch.chdir(folder)
    recipe = json.loads(Path("recipe.yaml").read_text())
    recipe["phases"][0]["mixture"] = {"qa": 1}
    Path("qa.yaml").write_text(json.dumps(recipe))
    run = next(path.name for path in Path("results").iterdir() if path.name.startswith("passkey-own-"))
    place = file.replace("RUN", run)
    special(Path(place))
    command = [word.replace("RUN", run) for word in COMMANDS[file]]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert Path(place).name in err and ("it is a pipe" in err or "it is a device" in err), err
    assert not Path("out").exists()


def test_a_pipe_of_the_shell_is_read_where_a_recipe_may_be_one() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as file:
        file.write("steps: 1e1\n")
    assert read_yaml(Path(f"/dev/fd/{reader}")) == {"steps": 10}
    os.close(reader)


def test_what_is_a_file_or_is_not_there_passes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    for name in ("a", "nowhere", "."):
        check_file(tmp_path / name)
    (tmp_path / "loop").symlink_to("loop")
    check_file(tmp_path / "loop")
    with pytest.raises(UserError, match=r"cannot be a path: .*embedded null"):
        check_file(tmp_path / "a\0b")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_texts_of_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a").write_bytes("\ufeffword".encode(encoding))
    with pytest.raises(UserError, match=r"is in UTF-(16|32), and famcli reads UTF-8"):
        read_text(tmp_path / "a")


def test_a_mark_before_utf8_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    assert read_text(tmp_path / "a") == "one\ntwo\nthree"


def check(capsys: pytest.CaptureFixture[str], path: Path, task: str = "quality") -> str:
    assert main(["data", "check", task, "--data", str(path)]) in (1, 2)
    out, err = capsys.readouterr()
    return out + err


def rows() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in sample_rows("quality"))


@pytest.mark.parametrize("kind", ["zip", "gz", "zip of gz"])
def test_what_unpacks_to_more_than_a_text_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from famcli.tasks import unpacking

    monkeypatch.setattr(unpacking, "UNPACKED_ALWAYS", 1 << 20)
    bomb = rows() + b" " * (1 << 22) + b"\n"
    content = gzip.compress(bomb) if "gz" in kind else bomb
    path = tmp_path / ("a.jsonl.gz" if kind == "gz" else "a.zip")
    if kind == "gz":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jsonl.gz" if "gz" in kind else "a.jsonl", content)
    assert "that is no text" in check(capsys, path)


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", rows())
    content, size = path.read_bytes(), len(rows()).to_bytes(4, "little")
    path.write_bytes(content.replace(size, (1 << 31).to_bytes(4, "little")))
    assert "says that it unpacks to 2,048 MiB" in check(capsys, path)


def test_a_zip_writes_nothing_whatever_its_members_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with zipfile.ZipFile(inner / "a.zip", "w") as archive:
        archive.writestr("../../evil\x1b[31m.jsonl", rows())
        archive.writestr("/tmp/evil.jsonl", rows().replace(b"900001_SAMPLE", b"900002_SAMPLE"))
    before = sorted(tmp_path.rglob("*"))
    main(["data", "check", "quality", "--data", str(inner / "a.zip")])
    out, err = capsys.readouterr()
    assert sorted(tmp_path.rglob("*")) == before
    assert "\x1b" not in out + err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"a": "\\ud800"}\n', "line 1: invalid JSON: .*surrogates not allowed"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", "line 1: invalid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "line 1: invalid JSON: Exceeds the limit"),
        ("\ufeff{}".encode("utf-16"), "is in UTF-16, and famcli reads UTF-8"),
        (b"\xff\xfe\xfd\n", "line 1: invalid JSON|is in UTF-16"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\x00\x00\n", "line 1: invalid JSON"),
    ],
)
def test_rows_that_cannot_be_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, why: str
) -> None:
    import re

    (tmp_path / "rows.jsonl").write_bytes(content)
    found = check(capsys, tmp_path / "rows.jsonl")
    assert re.search(rf"rows\.jsonl.*({why})", found), found


@pytest.mark.parametrize("gold", [10**30, -1, 2**63, 1e400])
def test_numbers_beyond_any_choice_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], gold: float) -> None:
    row = sample_rows("quality")[0]
    row["questions"][0]["gold_label"] = gold
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert "line 1: field 'questions[0].gold_label' must be" in check(capsys, tmp_path / "rows.jsonl")


def test_paths_that_cannot_be_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    (tmp_path / "round").symlink_to(tmp_path)
    for path in ("loop.jsonl", "round", "no\nbody.jsonl"):
        assert str(tmp_path / path).splitlines()[0] in check(capsys, tmp_path / path)
    for path in ("~nobody-of-this-name/x", "x" * 5000, "a\0b"):
        for command in (
            ["data", "check", "quality", "--data", path],
            ["eval", *PASSKEY, "--model", path],
            ["compare", path, "--output", str(tmp_path)],
        ):
            assert main(command) == 2
            assert "error: " in capsys.readouterr().err


def test_every_row_that_does_not_fit_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good: dict[str, list[dict[str, Any]]] = {task: sample_rows(task) for task in ("quality", "qasper", "narrativeqa")}
    good |= {task: sample_rows(task) for task in ("pg19", "isabelle")}
    good["xlsum"] = [{**row, "language": "english"} for row in sample_rows("xlsum")]
    for task, rows_ in good.items():
        lines = [json.dumps(rows_[0]), *(["{"] * 5), *(['{"x": 1}'] * 17)]
        (tmp_path / f"{task}.jsonl").write_text("\n".join(lines) + "\n")
        assert main(["data", "check", task, "--data", str(tmp_path / f"{task}.jsonl"), "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert (found["misfit_count"], len(found["misfits"])) == (22, 20), task
        assert all(f"{task}.jsonl, line {i + 2}: " in text for i, text in enumerate(found["misfits"])), task
        assert main(["data", "check", task, "--data", str(tmp_path / f"{task}.jsonl")]) == 1
        assert "22 do not fit; shown are 20" in capsys.readouterr().out
