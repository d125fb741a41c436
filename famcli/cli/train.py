"""``famcli train``: a model from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from famcli.training.recipe import Recipe


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="What to train and how, for instance configs/recipes/fam-tiny.yaml.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory of the checkpoint, the log (log.csv) and the finished model.",
)
@click.option(
    "--text",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/text"),
    show_default=True,
    help="Directory of .txt files, for recipes that mix plain text in.",
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --output.")
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads; PyTorch's choice where not given.")
def command(recipe_path: Path, output: Path, text: Path, resume: bool, threads: int | None) -> None:
    """Train a model from random weights. A run that was killed goes on to the same weights with --resume."""
    from famcli.training.recipe import load_recipe

    recipe = load_recipe(recipe_path)
    _train(recipe, recipe_path.stem, output, text, resume, threads)


def _train(recipe: Recipe, name: str, output: Path, text: Path, resume: bool, threads: int | None) -> None:
    import torch

    from famcli.errors import UserError
    from famcli.models.checkpoint import save_checkpoint
    from famcli.models.tokenizer import ByteTokenizer
    from famcli.training.loop import Trainer
    from famcli.training.streams import load_corpus

    if threads:
        torch.set_num_threads(threads)
    tokenizer = ByteTokenizer()
    corpus = load_corpus(text, tokenizer) if recipe.needs_text else None
    trainer = Trainer(recipe, tokenizer, corpus, output)
    found = trainer.has_checkpoint
    if found and not resume:
        raise UserError(
            f"{output} holds an unfinished or finished training run", "add --resume, or take another --output"
        )
    if resume and not found:
        raise UserError(f"no checkpoint to resume in {output}", "leave --resume out to begin")
    if found:
        trainer.resume()
        click.echo(f"resumed at step {trainer.step} of {recipe.steps}", err=True)
    model = trainer.run(lambda line: click.echo(_readable(line, recipe.steps), err=True))
    trained = {"recipe": name, "steps": trainer.step, "tokens": trainer.tokens, "seconds": round(trainer.seconds)}
    save_checkpoint(model, tokenizer, output, {"trained": trained})
    click.echo(f"wrote {output}; evaluate it: famcli eval --task passkey --model {output}")


def _readable(line: dict[str, Any], steps: int) -> str:
    """One line of the log for a person."""
    losses = [
        f"{kind} {line[kind + '_loss']:.3f}"
        for kind in ("recall", "text", "filler")
        if line[kind + "_loss"] is not None
    ]
    recalled = [
        f"{rate:.2f}" if rate is not None else "-" for name, rate in line.items() if name.startswith("recall_at_")
    ]
    speed = line["tokens"] / line["seconds"] if line["seconds"] else 0
    return (
        f"step {line['step']}/{steps}  {'  '.join(losses)}  {speed:,.0f} tokens/s  "
        f"recalled after 0, 1, 2, 4, ... updates: {' '.join(recalled)}"
    )
