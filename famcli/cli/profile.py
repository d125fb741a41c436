"""``famcli profile``: what reading costs, length by length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from famcli.cli import completing
from famcli.cli.interrupts import leave_in_order
from famcli.cli.naming import check_names
from famcli.cli.options import PLUGINS, Tokens, as_json, models_option, plugin_option
from famcli.cli.saying import say, say_json, tell
from famcli.errors import UserError
from famcli.fields import parse_lengths

if TYPE_CHECKING:
    from famcli.profiling.job import Message
    from famcli.profiling.record import Profile

NAMES = ("profile.json", "profile.csv", "profile.svg")


class Lengths(click.ParamType[tuple[int, ...]]):
    """``4k,16k,1M``."""

    name = "lengths"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """As PassKey's option of that name."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_lengths(value)
        except ValueError as error:
            raise UserError(f"--lengths must be {error}, not '{value}'", "for example --lengths 4k,16k,64k") from None


class Blocks(click.ParamType[tuple[int, ...]]):
    """``1,2,4``."""

    name = "blocks"
    most = 1024

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Sorted, without repetition."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(
            part.isascii() and part.isdigit() and len(part) < 8 and 1 <= int(part) <= self.most for part in parts
        ):
            raise UserError(
                f"--training-blocks must be whole numbers from 1 to {self.most}, not '{value}'",
                "for example --training-blocks 1,2,4,8",
            )
        return tuple(sorted({int(part) for part in parts}))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@models_option
@click.option(
    "--against",
    multiple=True,
    metavar="MODEL[,FIELD=VALUE...]",
    shell_complete=completing.models,
    help="Another model to set beside it.",
)
@click.option(
    "--lengths", type=Lengths(), default="4k,16k,64k", show_default=True, help="Tokens to read; k is 1024, M is 1024k."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "mps", "cpu"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto: on a GPU where there is one.",
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto: bfloat16 on CUDA for weights stored in 16 bits, float32 otherwise.",
)
@click.option("--threads", type=click.IntRange(1, 4096), help="Of the processor; PyTorch's choice otherwise.")
@click.option(
    "--repeat", type=click.IntRange(1, 1000), default=1, show_default=True, help="Streams to read, for the median."
)
@click.option(
    "--decode",
    type=Tokens(100_000),
    default=16,
    show_default=True,
    help="Single tokens to time after each length.",
)
@click.option(
    "--seconds", type=click.IntRange(min=1), help="Most of reading in each stream: what is longer is left out."
)
@click.option(
    "--training-blocks",
    type=Blocks(),
    default=(),
    metavar="N,N,...",
    help="Also the peak memory of forward and backward over so many blocks.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the tokens that are read.")
@click.option(
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Also write {', '.join(NAMES)} to DIR.",
)
@plugin_option
@as_json
def command(
    *,
    models: tuple[str, ...],
    against: tuple[str, ...],
    lengths: tuple[int, ...],
    device: str,
    dtype: str,
    threads: int | None,
    repeat: int,
    decode: int,
    seconds: int | None,
    training_blocks: tuple[int, ...],
    seed: int,
    folder: Path | None,
    json_output: bool,
) -> int:
    """Measure what reading costs: seconds, memory, state and decoding at each length, and how they grow.

    Each model is measured in a process of its own. It reads one stream to the largest length; the exponent b of
    seconds = a tokens^b comes with an interval. A length whose state would not fit into memory is refused, and a model
    that breaks off is a line of the table. What a model was trained on bounds what it understands, not what it costs.

    \b
    famcli profile --model fam-tiny --against bswa-tiny
    famcli profile --model fam-135m --against full-135m \\
        --lengths 4k,16k,64k --seconds 600 --output cost
    famcli profile --model fam-tiny --training-blocks 1,2,4
    """
    from famcli.profiling.job import Job
    from famcli.profiling.run import Profiling
    from famcli.profiling.tokens import DRAWN

    names = list(dict.fromkeys((*models, *against)))
    if not models:
        raise UserError("no model given", "for example: famcli profile --model fam-tiny --lengths 1k,4k,16k")
    _check(names, device, dtype, folder)
    job = Job("", lengths, device, dtype, threads=threads, repeat=repeat, decode=decode, seconds=seconds, seed=seed)
    job = replace(job, plugins=[*map(str, click.get_current_context().meta[PLUGINS])])
    jobs = [replace(job, model=name) for name in names]
    profiling = Profiling(jobs, training_blocks, _hear)
    text = f"{DRAWN:,} token ids drawn with seed {seed}, again and again"
    leave_in_order()
    try:
        profiling.run()
    except KeyboardInterrupt:
        _show(_named(profiling.result(text)), folder, json_output)
        raise
    profile = _named(profiling.result(text))
    _show(profile, folder, json_output)
    return 1 if any(model.status == "failed" and not model.measured for model in profile.models) else 0


def _named(profile: Profile) -> Profile:
    """With the names that specs give to models."""
    from famcli.checkpoints.naming import split_name

    models = [replace(model, name=split_name(model.name)[1] or model.name) for model in profile.models]
    return replace(profile, models=models)


def _check(names: list[str], device: str, dtype: str, folder: Path | None) -> None:
    """All is checked before anything runs.

    Raises:
        UserError: there is no such model or device, or the files cannot be written.
    """
    from famcli.checkpoints.registry import find_model, pick_device, pick_dtype

    where = pick_device(device)
    sources = [find_model(name) for name in names]
    for source in sources:
        pick_dtype(dtype, where, source)
    check_names(sources)
    if folder is not None:
        from famcli.files import target_of

        for name in NAMES:
            try:
                target_of(folder / name)
            except OSError as error:
                raise UserError(
                    f"cannot write {folder / name}: {error.strerror or error}", "give --output another"
                ) from error


def _hear(name: str, message: Message) -> None:
    """How far a model is, on standard error."""
    kind = message["kind"]
    if kind == "warning":
        tell(message["text"])
    elif kind == "opened" and "blocks" in message:
        tell(f"{name}: training over {message['blocks']} blocks")
    elif kind == "opened":
        tell(f"{name}: opened on {message['device']} in {message['dtype']}")
    elif kind == "reached":
        tell(f"{name}: {message['tokens']:,} tokens read")
    elif kind == "length":
        tell(f"{name}: {message['tokens']:,} tokens measured")
    elif kind == "failed":
        tell(f"{name}: {message['why']}")


def _show(profile: Profile, folder: Path | None, json_output: bool) -> None:
    from famcli.cli.tables import show
    from famcli.reports.profile import grids, remarks, to_json

    paths = _write(profile, folder) if folder is not None else []
    if json_output:
        return say_json(to_json(profile))
    show(grids(profile))
    for remark in remarks(profile):
        say(remark)
    for path in paths:
        say(str(path))
    return None


def _write(profile: Profile, folder: Path) -> list[Path]:
    """The files of ``--output``."""
    from famcli.files import write_text
    from famcli.reports.plots.chart import as_svg
    from famcli.reports.plots.profile import profile_chart
    from famcli.reports.profile import to_csv, to_json_text

    chart = profile_chart(profile)
    texts = {"profile.json": to_json_text(profile), "profile.csv": to_csv(profile)}
    if chart is not None:
        texts["profile.svg"] = as_svg([chart]) + "\n"
    for name, text in texts.items():
        write_text(folder / name, text, hint="give --output another directory")
    return [folder / name for name in texts]
