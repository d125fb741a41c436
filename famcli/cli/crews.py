"""``--workers`` and what goes with it: who answers the runs of a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from famcli.cli.options import PLUGINS, Function, bundled
from famcli.cli.saying import tell
from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.evaluation.record import RunRecord
    from famcli.evaluation.workers.crew import Crew

_OFFERED = ExitStack()
"""What plugins bring to a worker, as long as it lives."""


@dataclass(frozen=True)
class CrewSettings:
    """See the options of ``crew_options``."""

    workers: int | None
    ray_address: str | None
    threads_per_worker: int | None
    gpus_per_worker: float | None
    mixed_devices: bool


def crew_options(function: Function) -> Function:
    """``--workers`` to ``--mixed-devices``, given to the command as ``crew``, a ``CrewSettings``."""
    return bundled(
        function,
        "crew",
        CrewSettings,
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Have N workers answer, each with the model in its memory (needs Ray).",
        ),
        click.option(
            "--ray",
            "ray_address",
            metavar="ADDRESS",
            help="The Ray cluster that has the workers; without it they run on this machine.",
        ),
        click.option(
            "--threads-per-worker",
            type=click.IntRange(min=1),
            metavar="N",
            help="Of the processor; by default this machine's, shared evenly, and 1 on a cluster.",
        ),
        click.option(
            "--gpus-per-worker",
            type=click.FloatRange(min=0, min_open=True),
            metavar="N",
            help="May be a fraction; 1 where the device is cuda.",
        ),
        click.option(
            "--mixed-devices",
            is_flag=True,
            help="Let workers compute on different kinds of devices; answers may differ.",
        ),
    )


@contextmanager
def hired(settings: CrewSettings, device: str, device_map: bool, keep_prompts: bool) -> Iterator[Crew | None]:
    """The workers, as long as the block runs; ``None`` where the command wants none.

    Raises:
        UserError: options do not go together, Ray is not there, or no cluster answers.
    """
    if settings.workers is None:
        for name, value in vars(settings).items():
            if value:
                option = "ray" if name == "ray_address" else name.replace("_", "-")
                raise UserError(f"--{option} is given without --workers", f"for example: --workers 2 --{option} ...")
        yield None
        return
    if keep_prompts:
        raise UserError("workers keep no prompts", "leave --keep-prompts out, or --workers")
    from famcli.evaluation.workers.crew import Crew

    gpus = settings.gpus_per_worker or (1.0 if device == "cuda" else 0.0)
    crew = Crew(
        settings.workers,
        settings.ray_address,
        settings.threads_per_worker,
        gpus,
        settings.mixed_devices,
        device_map,
        _offers(),
    )
    with crew:
        yield crew


def _offers() -> Callable[[], Any] | None:
    """What makes the plugins of this command known to a worker."""
    paths = click.get_current_context().meta.get(PLUGINS, ())
    return partial(_offer, tuple(Path(path).absolute() for path in paths)) if paths else None


def _offer(paths: tuple[Path, ...]) -> None:
    from famcli.plugins import plugins

    _OFFERED.enter_context(plugins(paths))


def tell_crew(record: RunRecord) -> None:
    """What the workers of a run did, by the clock and by their own time."""
    workers = record.environment.get("workers")
    if not workers or not workers["wall_seconds"]:
        return
    seconds = record.cost["seconds"]
    devices = ", ".join(f"{count} on {name}" for name, count in workers["devices"].items())
    lost = f", {workers['lost']} lost" if workers["lost"] else ""
    tell(
        f"{record.run_id}: {workers['count']} workers ({devices}){lost}; {workers['wall_seconds']:,.1f} s by the clock "
        f"in this process, {seconds:,.1f} s of all workers"
    )
