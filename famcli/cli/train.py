"""``famcli train``: a model from a recipe."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from famcli.cli import completing
from famcli.cli.interrupts import leave_in_order
from famcli.cli.options import plugin_option
from famcli.cli.saying import say, tell
from famcli.cli.teams import said_once, start_processes
from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.checkpoints.tokenizer import Tokenizer
    from famcli.models.config import ModelConfig
    from famcli.training.evaluate import Recall
    from famcli.training.loop import Trainer
    from famcli.training.lora import Base
    from famcli.training.material import Material
    from famcli.training.recipe import Recipe
    from famcli.training.recorded.recipe import RecordedRecipe
    from famcli.training.team import Team


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="What to train and how, for instance configs/recipes/fam-135m.yaml.",
)
@click.option(
    "--model",
    metavar="NAME_OR_PATH[,FIELD=VALUE...]",
    shell_complete=completing.models,
    help="The model to fine-tune, see `famcli eval --help`; left out for a recipe that describes a network of its own.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the checkpoint, the log (log.csv) and the finished model or adapter.  [default: models/RECIPE]",
)
@click.option(
    "--text",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/text"),
    show_default=True,
    help="Directory of .txt files, for recipes that mix plain text in.",
)
@click.option(
    "--qa",
    type=click.Path(dir_okay=False, path_type=Path),
    help='JSONL of {"document", "question", "answer"}, for recipes that mix questions in.',
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --output.")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True, help="Where to train."
)
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads; PyTorch's choice where not given.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train in N processes of this machine, each with its own rows and --threads (needs accelerate).",
)
@click.option(
    "--split-optimizer",
    is_flag=True,
    help="Of the optimiser's state, each process keeps a part: less memory, the same weights.",
)
@plugin_option
@said_once()
def command(
    *,
    recipe_path: Path,
    model: str | None,
    output: Path | None,
    text: Path,
    qa: Path | None,
    resume: bool,
    device: str,
    threads: int | None,
    processes: int | None,
    split_optimizer: bool,
) -> int | None:
    """Train a model from random weights, or fine-tune one that is there.

    A run that was killed goes on to the same weights with --resume.
    """
    from famcli.claim import claim
    from famcli.training.launch import check_settings, launched
    from famcli.training.recipe import Recipe
    from famcli.training.recipe_file import load_recipe

    recipe = load_recipe(recipe_path)
    if isinstance(recipe, Recipe):
        _check_model(recipe, recipe_path, model)
        _check_qa(recipe, recipe_path, qa)
        check_settings(recipe.autocast)
    elif max(processes or 1, launched()) > 1:
        told = " and --split-optimizer" if split_optimizer else ""
        raise UserError(f"{recipe_path} trains on recordings, in one process", f"leave --processes{told} out")
    elif qa:
        raise UserError(f"{recipe_path} trains on recordings, which ask about no documents", "leave out --qa")
    if split_optimizer and max(processes or 1, launched()) == 1:
        raise UserError(
            "--split-optimizer shares the optimiser's state out among processes, and there is one",
            "give --processes 2 or more, or leave --split-optimizer out",
        )
    output = output or Path("models") / recipe_path.stem
    if resume and not output.exists():
        raise _nothing_to_resume(output)
    if (processes or 1) > 1 and launched() == 1:
        _check_output(output, resume)
        given = {"recipe": recipe_path, "model": model, "text": text, "qa": qa, "device": device, "threads": threads}
        flags = {"--resume": resume, "--split-optimizer": split_optimizer}
        return start_processes(given, [flag for flag, wanted in flags.items() if wanted], processes or 1, output)
    from famcli.training.team import join, leave

    team = join(device, processes)
    if threads:
        import torch

        torch.set_num_threads(threads)
    with claim(output) if team.first else nullcontext():
        _check_output(output, resume)
        if not isinstance(recipe, Recipe):
            _train_recorded(recipe, recipe_path, model, output, text=text, device=device, resume=resume)
            return None
        trainer, tokenizer, base = _prepare(recipe, model, output, text, qa, device, team=team, split=split_optimizer)
        if resume:
            trainer.resume()
            _tell_resumed(trainer)
        leave_in_order()
        _train(trainer, tokenizer, base, recipe_path.stem, output)
    leave()
    return None


def _check_model(recipe: Recipe, path: Path, model: str | None) -> None:
    if recipe.model and model:
        raise UserError(
            f"{path} describes a network to train from random weights, and --model names a trained one",
            "drop --model, or the recipe's field 'model'",
        )
    if not recipe.model and not model:
        raise UserError(f"{path} fine-tunes a model", "say which: --model fam-tiny, for example")
    if recipe.model and recipe.lora:
        raise UserError(
            f"{path}: lora adapts trained weights", "give --model and drop the field 'model', or drop 'lora'"
        )


def _check_qa(recipe: Recipe, path: Path, qa: Path | None) -> None:
    if recipe.has("qa") and qa is None:
        raise UserError(
            f"{path} mixes questions about documents in",
            "give them: --qa FILE.jsonl, such as `famcli data cloze` makes",
        )


_OF_A_MODEL = ("config.json", "model.safetensors", "model.safetensors.index.json", "adapter_config.json")


def _check_output(output: Path, resume: bool) -> None:
    found = (output / "checkpoint.safetensors").exists()
    if found and not resume:
        raise UserError(
            f"{output} holds an unfinished or finished training run", "add --resume, or take another --output"
        )
    if resume and not found:
        raise _nothing_to_resume(output)
    if not found and any((output / name).exists() for name in _OF_A_MODEL):
        raise UserError(f"{output} holds a model, which training would overwrite", "take another --output")


def _nothing_to_resume(output: Path) -> UserError:
    return UserError(f"no checkpoint to resume in {output}", "leave --resume out to begin")


def _prepare(
    recipe: Recipe,
    spec: str | None,
    output: Path,
    text: Path,
    qa: Path | None,
    device: str,
    *,
    team: Team,
    split: bool,
) -> tuple[Trainer, Tokenizer, Base | None]:
    """The trainer, the model's tokenizer, and what is fine-tuned, if anything is."""
    from famcli.checkpoints.registry import load_model, pick_device
    from famcli.checkpoints.tokenizer import ByteTokenizer
    from famcli.training.loop import Trainer, from_scratch
    from famcli.training.lora import Base

    device = team.device.type if team.size > 1 else device
    if spec is None:
        assert recipe.model is not None
        recipe = recipe.with_model(recipe.model)
        material = _material(recipe, ByteTokenizer(), text, qa)
        model = from_scratch(recipe).to(pick_device(device))
        trainer = Trainer(recipe, model, material, output, team=team, split=split)
        return trainer, material.tokenizer, None
    name, config = _find_base(spec, alone=bool(recipe.lora))
    loaded = load_model(spec, device, "float32")
    recipe = recipe.with_model(loaded.decoder.config)
    material = _material(recipe, loaded.tokenizer, text, qa)
    base = Base(name, loaded.weights_sha256, config)
    trainer = Trainer(recipe, loaded.decoder, material, output, base.sha256, team, split=split)
    return trainer, loaded.tokenizer, base


def _train_recorded(
    recipe: RecordedRecipe, path: Path, spec: str | None, output: Path, *, text: Path, device: str, resume: bool
) -> None:
    """Trains the memory's own weights on recorded blocks."""
    import numpy as np

    from famcli.checkpoints.registry import load_model
    from famcli.training.lora import Base, save_memory
    from famcli.training.material import load_corpus
    from famcli.training.recorded.loop import RecordedTrainer
    from famcli.training.recorded.texts import Texts

    spec = spec or recipe.model
    name, config = _find_base(spec, alone=True)
    loaded = load_model(spec, device, "float32")
    corpus = load_corpus(text, loaded.tokenizer) if recipe.fillers.text else np.empty(0, np.int64)
    texts = Texts(recipe, loaded.tokenizer, corpus)
    trainer = RecordedTrainer(recipe, loaded.decoder, texts, output, loaded.weights_sha256)
    if resume:
        trainer.resume()
        tell(f"resumed at step {trainer.step} of {recipe.steps}")
    leave_in_order()
    size = sum(p.numel() for p in trainer.trained.values())
    tell(f"training {size:,} weights of the memory on {trainer.device}, {recipe.steps:,} steps")
    model = trainer.run(
        lambda line: tell(_readable_recorded(line, recipe.steps)),
        tell,
    )
    about = {"recipe": path.stem, "steps": trainer.step, "seconds": round(trainer.seconds)}
    save_memory(model, Base(name, loaded.weights_sha256, config), output, about)
    say(f"wrote {output}; evaluate it: famcli eval --task passkey --model {output}")


def _readable_recorded(line: dict[str, Any], steps: int) -> str:
    """One line of the log of training on recordings for a person."""
    shown = f"loss {line['loss']:.3f}  missed {line['missed']:.3f}  false {line['false']:.5f}"
    return f"step {line['step']}/{steps}  {shown}  {line['seconds']:.0f} s"


def _find_base(spec: str, alone: bool) -> tuple[str, ModelConfig]:
    """The name of a model without the changes to it, a directory's in full, and its own config.

    ``alone``: what is trained is an adapter, and a base that is an adapter itself is refused. So are rounded weights.
    """
    from famcli.checkpoints.registry import adapter_of, find_checkpoint, split_spec
    from famcli.files import user_path

    name, overrides = split_spec(spec)
    directory = user_path(name)
    if alone and ("adapter" in overrides or adapter_of(name)):
        raise UserError(f"'{spec}' has an adapter already", "an adapter is trained on a base model: name that")
    find_checkpoint(spec).config.refuse_rounded("trained")
    return str(directory.resolve()) if directory.exists() else name, find_checkpoint(name).config


def _material(recipe: Recipe, tokenizer: Tokenizer, text: Path, qa: Path | None) -> Material:
    from famcli.training.material import Material, load_corpus, load_documents

    wants_text = recipe.has("passkey_in_text", "text", "repeat_segment", "fact")
    corpus = load_corpus(text, tokenizer) if wants_text else None
    documents = load_documents(qa, tokenizer) if qa and recipe.has("qa") else None
    for phase in recipe.phases:
        read = phase.block_size * phase.blocks
        if documents and phase.mixture.qa and not phase.state_passing and documents.shortest >= read:
            raise UserError(
                f"no document of {qa} ends within the {read:,} tokens of a step, so no question would be asked",
                "raise the recipe's blocks, or its state_passing",
            )
    return Material(tokenizer, corpus, documents)


def _tell_resumed(trainer: Trainer) -> None:
    team, recipe, before = trainer.team, trainer.recipe, trainer.written_by
    if not team.first:
        return
    tell(f"resumed at step {trainer.step} of {recipe.steps}")
    if before != team.size:
        dropout = ", and dropout leaves out others" if recipe.lora and recipe.lora.dropout else ""
        tell(
            f"the checkpoint is that of {before} process{'es' if before > 1 else ''}, and {team.size} go on: the rows "
            f"are dealt anew, with their memories. Numbers are added up in another order{dropout}: from here on losses "
            f"and weights are those of {before} to rounding, not bit for bit"
        )


def _train(trainer: Trainer, tokenizer: Tokenizer, base: Base | None, name: str, output: Path) -> None:
    from famcli.checkpoints.decoders import save_checkpoint
    from famcli.training.lora import save_adapter

    recipe, team = trainer.recipe, trainer.team
    sizes = [(p.numel(), p.requires_grad) for p in trainer.model.parameters()]
    trained, whole = sum(size for size, wanted in sizes if wanted), sum(size for size, _ in sizes)
    if team.first:
        by = f", {team.size} processes" if team.size > 1 else ""
        by += ", the optimiser's state shared out among them" if trainer.split else ""
        tell(f"training {trained:,} of {whole:,} weights on {trainer.device}, {recipe.steps:,} steps{by}")
    model = trainer.run(
        lambda line: tell(_readable(line, recipe.steps)),
        lambda step, found: tell(_readable_recall(step, found)),
    )
    if not team.first:
        return
    about = {"recipe": name, "steps": trainer.step, "tokens": trainer.tokens, "seconds": round(trainer.seconds)}
    about |= {"processes": team.size} if team.size > 1 else {}
    if recipe.lora and base:
        save_adapter(model, recipe.lora, base, output, about)
    else:
        save_checkpoint(model, tokenizer, output, {"trained": {**about, "base": base.name if base else None}})
    say(f"wrote {output}; evaluate it: famcli eval --task passkey --model {output}")


def _readable(line: dict[str, Any], steps: int) -> str:
    """One line of the log for a person."""
    losses = [
        f"{name.removesuffix('_loss')} {line[name]:.3f}"
        for name in ("recall_loss", "answer_loss", "segment_loss", "text_loss", "filler_loss")
        if line[name] is not None
    ]
    recalled = [
        f"{rate:.2f}" if rate is not None else "-" for name, rate in line.items() if name.startswith("recall_at_")
    ]
    while recalled and recalled[-1] == "-":
        recalled.pop()
    after = f"  recalled after 0, 1, 2, 4, ... updates: {' '.join(recalled)}" if recalled else ""
    return f"step {line['step']}/{steps}  {'  '.join(losses)}  {line['tokens_per_second']:,} tokens/s{after}"


def _readable_recall(step: int, found: list[Recall]) -> str:
    """An evaluation for a person."""
    recalled = ", ".join(f"{r.accuracy:.2f} after {r.updates}" for r in found)
    return f"step {step}  keys that were not trained on, recalled: {recalled} updates"
