"""famcli's models in lm-evaluation-harness: they say what its own model of the same checkpoint says, and read less."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_models import save_any_model, save_byte_tokenizer

from famcli.errors import UserError

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast

from famcli.lm_eval.model import FamcliLM

HEADER = "Question: Who has the key?\nAnswer: Ada\n\n" * 4
CONTEXTS = [
    *(f"{HEADER}Question: Who has key {i}?\nAnswer:" for i in range(3)),
    *(f"{HEADER}Story: {'It rained. ' * 6}Question: Was it dry on day {i}? " for i in range(2)),
    f"{HEADER}Question: Who has key 1?\nAnswer: Boris\n\nQuestion: Why?\nAnswer:",
    "Short",
    "",
]
ANSWERS = (" Ada", " Boris", "\n", " nobody at all")
LONGEST = 400


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    save_any_model(directory, "llama", vocab_size=258, max_position_embeddings=LONGEST, bos_token_id=0, eos_token_id=1)
    save_byte_tokenizer(directory / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> HFLM:
    return HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1)


@pytest.fixture(params=["", "hf:"])
def ours(checkpoint: Path, request: pytest.FixtureRequest) -> FamcliLM:
    return FamcliLM(model=f"{request.param}{checkpoint}", device="cpu", batch_size=3)


def ask(lm: Any, kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    requests = [Instance(kind, {}, given, i) for i, given in enumerate(arguments)]
    found: list[Any] = getattr(lm, kind)(requests, disable_tqdm=True)
    return found


def test_likelihoods_are_theirs_and_headers_are_read_once(theirs: HFLM, ours: FamcliLM) -> None:
    pairs = list(itertools.product(CONTEXTS, ANSWERS))
    order = np.random.default_rng(0).permutation(len(pairs))
    pairs = [pairs[i] for i in order]
    expected, found = ask(theirs, "loglikelihood", pairs), ask(ours, "loglikelihood", pairs)
    assert [likelihood for likelihood, _ in found] == pytest.approx([one for one, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    alone = sum(len(context) + len(answer) - 1 for context, answer in pairs)
    distinct = len(HEADER) + sum(len(context.removeprefix(HEADER)) for context in CONTEXTS)
    once = distinct + len(CONTEXTS) * sum(map(len, ANSWERS))
    assert ours.reader.tokens_read <= once + 32 * len(CONTEXTS) < alone / 4


def test_what_greedy_decoding_gives_is_known(ours: FamcliLM) -> None:
    (text,) = ask(ours, "generate_until", [(CONTEXTS[0], {"until": [], "max_gen_toks": 3})])
    if "\ufffd" not in text:  # half a character cannot be asked for
        assert ask(ours, "loglikelihood", [(CONTEXTS[0], text)])[0][1] is True
    assert ask(ours, "loglikelihood", [(CONTEXTS[0], " no such answer")])[0][1] is False


@pytest.mark.parametrize("length", [1, 7, LONGEST - 2, LONGEST, LONGEST + 1, 3 * LONGEST + 5])
def test_whole_texts_are_weighed_as_theirs(theirs: HFLM, ours: FamcliLM, length: int) -> None:
    text = (HEADER * 9)[:length]
    (expected,), (found,) = (ask(lm, "loglikelihood_rolling", [(text,)]) for lm in (theirs, ours))
    assert found == pytest.approx(expected, abs=1e-4, rel=1e-6)


def test_answers_are_theirs(theirs: HFLM, ours: FamcliLM) -> None:
    arguments = [
        (context, {"until": stops, "max_gen_toks": budget, "do_sample": False})
        for context in CONTEXTS[:-1]
        for stops, budget in ((["\n"], 9), ([], 5), (["e", "!"], 20))
    ]
    assert ask(ours, "generate_until", arguments) == ask(theirs, "generate_until", arguments)


def test_contexts_beyond_the_bound_lose_their_beginning_as_theirs_do(theirs: HFLM, ours: FamcliLM) -> None:
    pairs = [(HEADER * 5 + f"Question {i}:", answer) for i in range(2) for answer in ANSWERS]
    expected, found = ask(theirs, "loglikelihood", pairs), ask(ours, "loglikelihood", pairs)
    assert [likelihood for likelihood, _ in found] == pytest.approx([one for one, _ in expected], abs=1e-4)


def test_answers_by_chance_are_refused(ours: FamcliLM) -> None:
    with pytest.raises(UserError, match=r"drawn by chance \(temperature\)"):
        ask(ours, "generate_until", [("A", {"until": [], "temperature": 0.5})])


def test_a_text_is_read_in_one_stream_without_a_bound() -> None:
    lm = FamcliLM(model="fam-tiny", block_size=64, device="cpu")
    assert lm.loaded.stream.longest_text is None
    text = HEADER * 4
    ids = torch.tensor([[256, *text.encode()]])
    decoder = lm.loaded.decoder
    with torch.no_grad():
        latents, _ = decoder.read(ids[:, :-1], decoder.start(1))
        expected = decoder.logits(latents)[0].double().log_softmax(-1).gather(1, ids[0, 1:, None]).sum().item()
    assert ask(lm, "loglikelihood_rolling", [(text,)])[0] == pytest.approx(expected, abs=1e-3)


TASK = """\
task: keys
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [" Ada", " Boris"]
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_the_program_of_the_harness_knows_the_model(tmp_path: Path) -> None:
    data = tmp_path / "keys.jsonl"
    data.write_text("".join(json.dumps({"question": f"Who has key {i}?", "label": i % 2}) + "\n" for i in range(4)))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "keys.yaml").write_text(TASK.format(data=data))
    command = [sys.executable, "-m", "famcli.lm_eval", "run", "--model", "famcli", "--tasks", "keys"]
    command += ["--include_path", str(tmp_path / "tasks"), "--device", "cpu", "--output_path", str(tmp_path / "out")]
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"}
    wrong = subprocess.run([*command, "--model_args", "model=fam-tinny"], capture_output=True, text=True, env=env)
    assert wrong.returncode == 2 and "error: unknown model 'fam-tinny'" in wrong.stderr
    done = subprocess.run(
        [*command, "--model_args", "model=fam-tiny,block_size=64"], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    assert "famcli ({'model': 'fam-tiny', 'block_size': 64}" in done.stdout and "|acc   |" in done.stdout
