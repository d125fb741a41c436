"""``openai:``: a model behind an endpoint answers as the same model does here, and whatever fails there is told."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from famcli.checkpoints.registry import find_model, load_model
from famcli.checkpoints.sources import LoadedModel
from famcli.errors import UserError
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.task import Task, load_task

pytest.importorskip("openai")

from openai_server import Server, serving

KEY = "sk-secret-0123456789"
PASSKEY = {"lengths": "300,400", "trials": "3"}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return find_model("fam-tiny,block_size=64").load(torch.device("cpu"), torch.float32)


@pytest.fixture
def server(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_, **__: 0.01)
    with serving(model) as found:
        yield found


def remote(server: Server, *fields: str, timeout: float = 60) -> LoadedModel:
    return load_model(",".join([f"openai:{server.url}", "model=tiny", f"timeout={timeout}", "retries=2", *fields]))


def entries(record: RunRecord) -> dict[str, dict[str, Any]]:
    lines = (record.path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["id"]: entry for entry in map(json.loads, lines)}


TASKS = [
    load_task("passkey", PASSKEY),
    load_task("quality", {"data": "sample"}),
    load_task("narrativeqa", {"data": "sample"}),
    load_task("pg19", {"data": "sample"}),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_answers_are_those_of_the_model_itself(server: Server, model: LoadedModel, task: Task, tmp_path: Path) -> None:
    bound = {"max_context": 3000, "truncate": "right", "limit": 2} if task.name != "passkey" else {}
    ours = evaluate(model, task, results=tmp_path / "ours", **bound)  # type: ignore[arg-type]
    theirs = evaluate(remote(server, "concurrency=3"), task, results=tmp_path / "theirs", **bound)  # type: ignore[arg-type]
    expected = entries(ours)
    assert entries(theirs).keys() == expected.keys()
    for name, found in entries(theirs).items():
        if task.name == "pg19":
            pairs = zip(found["answer"]["by_position"], expected[name]["answer"]["by_position"], strict=True)
            assert all(one["tokens"] == other["tokens"] and one["bytes"] == other["bytes"] for one, other in pairs)
            continue  # what follows the start of a text is known there, and not here
        assert (found["output"], found["prompt_tokens"]) == (expected[name]["output"], expected[name]["prompt_tokens"])
        assert found["scores"] == pytest.approx(expected[name]["scores"])
        if likelihoods := found["answer"].get("log_likelihoods"):
            assert likelihoods == pytest.approx(expected[name]["answer"]["log_likelihoods"], abs=1e-3)
    assert theirs.cost["tokens_read"] >= ours.cost["tokens_read"]


def test_what_the_model_says_of_a_text_is_scored(server: Server, model: LoadedModel) -> None:
    text = "The pass key is 12345. Remember it."
    found = remote(server).stream.weigh(text)  # type: ignore[attr-defined]
    ids = list(text.encode())
    likelihoods = server.likelihoods(ids)
    assert found.tokens == tuple(text) and found.log_likelihoods[0] is None
    assert list(found.log_likelihoods[1:]) == pytest.approx(
        [float(likelihoods[i, one]) for i, one in enumerate(ids[1:])]
    )
    assert list(found.hits[1:]) == [int(row.argmax()) == one for row, one in zip(likelihoods, ids[1:], strict=False)]


def test_parts_of_characters_and_a_mark_before_the_text_are_no_hindrance(server: Server) -> None:
    text = "He said “no”"
    for marked in (False, True):
        server.marked = marked
        ids = [*([256] if marked else []), *text.encode()]
        values = [float(row[one]) for row, one in zip(server.likelihoods(ids), ids[1:], strict=False)]
        found = remote(server).stream.weigh(text)  # type: ignore[attr-defined]
        assert "".join(found.tokens) == text and len(found.tokens) == len(text.encode())
        assert list(found.log_likelihoods) == pytest.approx(values if marked else [None, *values])


def test_the_key_is_sent_and_stands_nowhere(server: Server, tmp_path: Path) -> None:
    server.faults = ["400"]
    with pytest.raises(UserError, match=r"refuses: .*fault 400 for Bearer \*\*\*") as caught:
        evaluate(remote(server), load_task("passkey", PASSKEY), results=tmp_path)
    assert KEY not in f"{caught.value.message} {caught.value.hint}"
    evaluate(remote(server), load_task("passkey", PASSKEY), results=tmp_path)
    assert {key for _, _, key in server.asked} == {f"Bearer {KEY}"}
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


@pytest.mark.parametrize("faults", [["500", "500"], ["429", "429"], ["cut", "500"], ["stall"]])
def test_what_passes_is_asked_again(server: Server, faults: list[str], tmp_path: Path) -> None:
    server.faults = list(faults)
    model = remote(server, "concurrency=1", timeout=1 if "stall" in faults else 60)
    record = evaluate(model, load_task("passkey", PASSKEY), results=tmp_path)
    assert record.status == "finished" and len(server.asked) == 6 + len(faults)


LASTING = [
    ("500", "fails: .*fault 500"),
    ("429", "takes no more questions now: .*fault 429"),
    ("stall", "gave no answer within 1 seconds"),
    ("cut", "cannot be reached"),
    ("401", "refuses the key"),
    ("text", "without 'choices'|what is no answer"),
]


@pytest.mark.parametrize(("fault", "words"), LASTING)
def test_what_lasts_is_told_and_the_run_goes_on_later(server: Server, fault: str, words: str, tmp_path: Path) -> None:
    task, model = load_task("passkey", PASSKEY), remote(server, "concurrency=1", timeout=1 if fault == "stall" else 60)
    server.faults = ["", "", *[fault] * 3]
    with pytest.raises(UserError, match=words):
        evaluate(model, task, results=tmp_path)
    server.faults, before = [], len(server.asked)
    record = evaluate(remote(server, "concurrency=1"), task, results=tmp_path)
    assert record.status == "finished" and len(server.asked) - before == 4, "two answers were there already"


@pytest.mark.parametrize("name", ["passkey", "quality"])
def test_whatever_is_refused_the_other_answers_are_kept(server: Server, name: str, tmp_path: Path) -> None:
    task = load_task(name, PASSKEY if name == "passkey" else {"data": "sample"})
    bound = {"limit": 4} if name == "passkey" else {"limit": 4, "max_context": 600, "truncate": "right"}
    evaluate(remote(server, "concurrency=1"), task, results=tmp_path / "whole", **bound)  # type: ignore[arg-type]
    asked = [body["prompt"] for _, body, _ in server.asked]
    of_each = len(asked) // 4
    server.asked.clear()
    server.refused = asked[of_each]  # the first question about the second sample
    with pytest.raises(UserError, match=r"refuses: .*fault 400"):
        evaluate(remote(server, "concurrency=3"), task, results=tmp_path / "broken", **bound)  # type: ignore[arg-type]
    server.refused = ""
    evaluate(remote(server, "concurrency=3"), task, results=tmp_path / "broken", **bound)  # type: ignore[arg-type]
    times = Counter(body["prompt"] for _, body, _ in server.asked)
    assert times == Counter(asked) + Counter([asked[of_each]]), "what was refused twice, all else once"


def test_an_answer_is_kept_while_others_are_waited_for(server: Server, tmp_path: Path) -> None:
    server.faults, seen = ["stall"], list[int]()

    class Watch:
        def begin(self, samples: int, done: int, tokens: int) -> None: ...

        def advance(self, tokens: int) -> None:
            seen.append(sum(len(file.read_bytes().splitlines()) for file in tmp_path.glob("*/samples.jsonl")))

        def end(self) -> None: ...

    evaluate(remote(server, "concurrency=2"), load_task("passkey", PASSKEY), results=tmp_path, progress=Watch())
    assert seen == [0, 1, 2, 3, 4, 5]


def test_ctrl_c_does_not_wait_for_an_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = f"openai:http://127.0.0.1:{silent.getsockname()[1]}/v1,model=x"
        code = "import sys; from famcli.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "eval", "--task", "passkey", "-o", "lengths=300", "--model", model]
        process = subprocess.Popen([*command, "--output", str(tmp_path)], stderr=subprocess.PIPE, text=True)
        connection, _ = silent.accept()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=90)  # an answer would be waited for six times two minutes
        finally:
            process.kill()
            connection.close()
    assert (process.returncode, "Traceback" in said) == (130, False)


def test_nobody_there_is_told(tmp_path: Path) -> None:
    model = load_model("openai:http://127.0.0.1:9/v1,model=x,retries=0")
    with pytest.raises(UserError, match="cannot be reached"):
        evaluate(model, load_task("passkey", PASSKEY), results=tmp_path)


def test_without_likelihoods_of_prompts_choices_are_refused_and_texts_are_not(server: Server, tmp_path: Path) -> None:
    server.faults = ["422"]
    with pytest.raises(UserError, match=r"refuses: .*fault 422") as caught:
        evaluate(remote(server), load_task("quality", {"data": "sample"}), results=tmp_path)
    assert "ask tasks that generate" in str(caught.value.hint)
    server.faults, server.tells = [], False
    for task in ("quality", "pg19"):
        with pytest.raises(UserError, match="does not tell how likely the tokens of a prompt are") as caught:
            evaluate(remote(server), load_task(task, {"data": "sample"}), results=tmp_path)
        assert "ask tasks that generate" in str(caught.value.hint)
    assert evaluate(remote(server), load_task("passkey", PASSKEY), results=tmp_path).status == "finished"


def test_chats_generate_and_weigh_nothing(server: Server, model: LoadedModel, tmp_path: Path) -> None:
    chat, task = remote(server, "api=chat"), load_task("passkey", PASSKEY)
    found, expected = (evaluate(one, task, results=tmp_path / name) for one, name in ((chat, "chat"), (model, "own")))
    assert {n: e["output"] for n, e in entries(found).items()} == {n: e["output"] for n, e in entries(expected).items()}
    assert all(path.endswith("/chat/completions") for path, _, _ in server.asked)
    with pytest.raises(UserError, match="asked in chats"):
        evaluate(chat, load_task("quality", {"data": "sample"}), results=tmp_path)


def test_what_works_with_tokens_here_is_refused(server: Server, tmp_path: Path) -> None:
    for option, name in (({"thinking": 9}, "--strip-thinking"), ({"keep_prompts": True}, "--keep-prompts")):
        with pytest.raises(UserError, match=f"{name} is not for it"):
            evaluate(remote(server), load_task("passkey", PASSKEY), results=tmp_path, **option)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="shows no latents"):
        remote(server).stream.start(1)
    with pytest.raises(UserError, match="more than the context of 200"):
        evaluate(remote(server, "context=200"), load_task("passkey", PASSKEY), results=tmp_path)


WRONG = [
    ("openai:", "is no address of an endpoint"),
    ("openai:localhost:8000,model=x", "is no address of an endpoint"),
    ("openai:http://me:secret@localhost/v1,model=x", "would stand in every record"),
    ("openai:http://localhost/v1", "names no model"),
    ("openai:http://localhost/v1,model=x,api=words", "'api' must be one of completions, chat"),
    ("openai:http://localhost/v1,model=x,speed=3", "unknown field .*'speed'"),
    ("openai:http://localhost/v1,model=x,concurrency=0", "'concurrency' must be at least 1"),
    ("openai:http://localhost/v1,model=x,tokenizer=./none", "tokenizer cannot be had"),
]


@pytest.mark.parametrize(("spec", "words"), WRONG)
def test_what_cannot_be_asked_is_named(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        find_model(spec)
    assert "secret" not in caught.value.message


def test_without_the_client_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match="needs the client openai") as caught:
        find_model("openai:http://localhost/v1,model=x")
    assert caught.value.hint == "pip install 'famcli[openai]'"
