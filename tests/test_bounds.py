"""What asks for more than there can be is refused before anything is made of it."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from famcli.tasks.passkey import PassKey
from safetensors.torch import save_file

from famcli.checkpoints.chat import ChatTemplate
from famcli.checkpoints.rendering import LONGEST, render
from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.cli.main import main
from famcli.errors import UserError
from famcli.fields import LONGEST as MOST_TOKENS
from famcli.fields import read_fields
from famcli.training.recipe import Recipe

SECONDS, MEMORY = 12.0, 200 << 20


@pytest.fixture(autouse=True)
def little() -> Iterator[None]:
    """Whatever is refused takes next to no time and memory."""
    began, before = os.times(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert sum(os.times()[:4]) - sum(began[:4]) < SECONDS, "seconds of the processor, children included"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


@pytest.mark.parametrize("text", [str(10**30), "1" * 5000, "129M", "1000000000k", f"1k,{10**12}"])
def test_lengths_of_passkey_have_a_bound(text: str) -> None:
    with pytest.raises(UserError, match="option 'lengths' must be numbers of tokens of at most 128M"):
        PassKey.from_options({"lengths": text})


@pytest.mark.parametrize("text", [str(10**12), "9" * 5000, "100001"])
def test_trials_of_passkey_have_a_bound(text: str) -> None:
    with pytest.raises(UserError, match="option 'trials' must be a whole number from 1 to 100000"):
        PassKey.from_options({"trials": text})


def test_samples_of_passkey_have_a_bound_unless_limited() -> None:
    task = PassKey.from_options({"lengths": "400,500", "trials": "100000"})
    with pytest.raises(UserError, match="2 cells of 100000 trials are 200,000 samples, and a run has at most 100,000"):
        task.samples(ByteTokenizer(), 0, None)
    first = task.samples(ByteTokenizer(), 0, 3)
    few = PassKey.from_options({"lengths": "400,500", "trials": "2"}).samples(ByteTokenizer(), 0, 3)
    assert [sample.id for sample in first] == [sample.id for sample in few]


def test_a_length_at_the_bound_is_taken() -> None:
    assert PassKey.from_options({"lengths": "128M"}).options.lengths == (MOST_TOKENS,)


OWN = {
    **{"vocab_size": 257, "width": 8, "layers": 1, "heads": 2, "kv_heads": 1, "head_width": 4, "ffn_width": 8},
    **{"attention": "bswa", "block_size": 16},
}


@pytest.mark.parametrize("field", ["vocab_size", "width", "layers", "heads", "head_width", "ffn_width"])
@pytest.mark.parametrize("value", [10**9, 2**62])
def test_a_small_file_whose_config_says_much_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: int
) -> None:
    config = {"format": "famcli", "tokenizer": "bytes", "model": {**OWN, field: value}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    layer = "layers.0.attention"
    tensors = {"embedding.weight": (257, 8), f"{layer}.q_proj.weight": (8, 8), f"{layer}.k_proj.weight": (4, 8)}
    tensors |= {"layers.0.ffn.gate_proj.weight": (8, 8)}
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "model.safetensors")
    assert main(["eval", "--task", "passkey", "-o", "lengths=300", "--model", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path) in err
    assert any(words in err for words in (str(value), "lacks the tensor", "expected [")), err


RECIPE: dict[str, Any] = {
    "seed": 1,
    "phases": [{"steps": 1, "mixture": {"passkey": 1}, "blocks": 1, "learning_rate": 0.01, "block_size": 64}],
}


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("mixture", "passkey"), 2**62, "rows and weights must be at most 65,536"),
        (("mixture", "rows"), 10**9, "rows must be at most 65,536"),
        (("blocks",), 10**12, "blocks must be at most 1,048,576"),
        (("questions",), 10**9, "questions must be at most 65,536"),
        (("rehearsed_rows",), 10**9, "rehearsed_rows must be at most 65,536"),
    ],
)
def test_counts_of_a_recipe_have_bounds(place: tuple[str, ...], value: int, why: str) -> None:
    phase: dict[str, Any] = json.loads(json.dumps(RECIPE["phases"][0]))
    holder = phase
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    with pytest.raises(UserError, match=why):
        read_fields(Recipe, {**RECIPE, "phases": [phase]}, "the recipe", least=0)


def test_a_step_has_so_many_tokens_at_most() -> None:
    from famcli.models.config import ModelConfig

    phase = {**RECIPE["phases"][0], "mixture": {"passkey": 60_000}, "blocks": 1000}
    recipe = read_fields(Recipe, {**RECIPE, "phases": [phase]}, "the recipe", least=0)
    with pytest.raises(UserError, match=r"phases\[0\]: a step would read 3,840,000,000 tokens"):
        recipe.with_model(ModelConfig.from_mapping(OWN, "test"))


MUCH = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ 'x' * 10**10 }}",
    "{% for a in 'x' * 9999 %}{% for b in 'x' * 9999 %}{% for c in 'x' * 9999 %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in 'x' * 9999 %}{% for b in 'x' * 999 %}word{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ 'a'|center(10**11) }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch evil') }}",
    "{% include '/etc/passwd' %}",
    "{{ [0] * 10**9 }}",
    "{{" + "(" * 5000 + ")" * 5000 + "}}",
    "x" * (LONGEST + 1),
]


@pytest.mark.parametrize("source", MUCH, ids=lambda source: source[:40])
def test_a_template_that_never_ends_or_reaches_out_is_stopped(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    template = ChatTemplate(source + "{{ messages[0].content }}", {})
    with pytest.raises(UserError, match="the chat template cannot be rendered: ") as error:
        template.around()
    assert len(error.value.message) < 600 and error.value.hint == "leave out --chat-template"
    assert template.after_answer() is None
    assert not list(tmp_path.iterdir())


def test_a_template_may_not_be_given_what_is_ours() -> None:
    template = ChatTemplate("{{ messages[0].content }}{{ tools }}{{ mine }}", {})
    for name in ("messages", "tools", "add_generation_prompt", "other"):
        with pytest.raises(UserError, match=f"the chat template has no variable '{name}'"):
            template.around({name: 1})
    assert template.around({"mine": "x"}) == ("", "Nonex")


def test_what_a_template_writes_is_what_jinja_would() -> None:
    assert (
        render("a{% if x is defined %}{{ x }}{% endif %}\ud7ff😀", {"x": [1, None, "é"]}) == "a[1, None, 'é']\ud7ff😀"
    )
