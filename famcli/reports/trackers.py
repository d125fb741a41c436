"""Experiment trackers, through their own clients: they are told what a finished run came to, and nothing is read back.

The run record stays the truth. A run has its id there as well, so the same command again tells of the same run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from famcli.compare.measure import scored
from famcli.errors import UserError
from famcli.evaluation.cost import known_cost
from famcli.evaluation.record import RunRecord

PROJECT = "famcli"
"""What runs are filed under where the environment names nothing else."""


class Tracker(Protocol):
    """Where a finished run is told of."""

    def log(self, record: RunRecord) -> None:
        """Tells of one run. Any exception may come out of it: it is code of others, and may need a network."""
        ...


def figures(record: RunRecord) -> dict[str, float]:
    """Numbers of a run: each metric, its interval as ``_low`` and ``_high``, its samples as ``_n``; ``cost/NAME``."""
    found: dict[str, float] = {}
    for one in scored(record, [(name, {}, metric) for name, metric in record.metrics.items()]):
        found |= {one.metric: one.score.value, f"{one.metric}_n": one.score.n}
        if one.interval is not None:
            found |= {f"{one.metric}_low": one.interval.low, f"{one.metric}_high": one.interval.high}
    found |= {f"cost/{name}": value for name, value in known_cost(record).items() if value is not None}
    return {re.sub(r"[^\w./ -]", "_", name): float(value) for name, value in found.items()}


def settings(record: RunRecord) -> dict[str, str]:
    """What determines a run: its id is a hash of this and of what it says of the files."""
    told: dict[str, Any] = {
        "run_id": record.run_id,
        "model": record.model["name"],
        "weights_sha256": record.model["weights_sha256"],
        "task": record.task["name"],
        "task_version": record.task["version"],
        "seed": record.seed,
        "limit": record.limit,
        "device": record.device,
        "dtype": record.dtype,
        **{f"option.{name}": value for name, value in record.task["options"].items()},
    }
    return {re.sub(r"[^\w./ -]", "_", name): str(value) for name, value in told.items()}


class Wandb:
    """Weights & Biases; ``WANDB_PROJECT``, ``WANDB_MODE`` and the other variables of its client are heeded."""

    def __init__(self, output: Path) -> None:
        import wandb

        self.client = wandb
        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.api.api_key:
            raise UserError("--log wandb: nobody is logged in to wandb here", "wandb login; or set WANDB_MODE=offline")

    def log(self, record: RunRecord) -> None:
        """See ``Tracker``. ``console`` off: what famcli prints is not theirs to keep, or to change."""
        with self.client.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=record.run_id,
            name=record.run_id,
            config=settings(record),
            resume="allow",
            settings=self.client.Settings(console="off", silent=True),
        ) as run:
            run.summary.update(figures(record))


class MLflow:
    """MLflow; ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and the other variables of its client are heeded."""

    def __init__(self, output: Path) -> None:
        import mlflow

        self.client = mlflow

    def log(self, record: RunRecord) -> None:
        """See ``Tracker``."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.set_experiment(name).experiment_id
        known = self.client.search_runs(
            [experiment], f"tags.`famcli.run_id` = '{record.run_id}'", output_format="list", max_results=1
        )
        run = {"run_id": known[0].info.run_id} if known else {"run_name": record.run_id}
        with self.client.start_run(**run):
            self.client.set_tags({"famcli.run_id": record.run_id, **_versions(record)})
            self.client.log_params(settings(record))
            self.client.log_metrics(figures(record))


class TensorBoard:
    """TensorBoard: event files in ``OUTPUT/tensorboard/RUN_ID``."""

    def __init__(self, output: Path) -> None:
        import tensorboard  # noqa: F401  # PyTorch's writer needs it, and says so less clearly
        from torch.utils.tensorboard import SummaryWriter

        self.writer, self.folder = SummaryWriter, output / "tensorboard"

    def log(self, record: RunRecord) -> None:
        """See ``Tracker``."""
        with self.writer(str(self.folder / record.run_id)) as writer:
            for name, value in figures(record).items():
                writer.add_scalar(name, value, global_step=0)
            for name, text in {**settings(record), **_versions(record)}.items():
                writer.add_text(name, text, global_step=0)


def _versions(record: RunRecord) -> dict[str, str]:
    """What made the run, which may be another the next time."""
    return {name: str(value) for name, value in record.environment.items()}


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"wandb": Wandb, "mlflow": MLflow, "tensorboard": TensorBoard}


def open_trackers(names: Sequence[str], output: Path) -> dict[str, Tracker]:
    """The trackers by name, each once.

    Args:
        names: keys of ``TRACKERS``.
        output: the directory of the run records.

    Raises:
        UserError: the client of one is not installed, does not work, or knows nobody here.
    """
    found: dict[str, Tracker] = {}
    for name in dict.fromkeys(names):
        try:
            found[name] = TRACKERS[name](output)
        except ImportError as error:
            message = f"--log {name}: its client cannot be imported: {error}"
            raise UserError(message, f"pip install 'famcli[{name}]'") from error
        except UserError:
            raise
        except Exception as error:  # code of others
            hint = f"leave it out, or try another version: pip install --upgrade 'famcli[{name}]'"
            raise UserError(f"--log {name}: its client does not work here: {error!r}", hint) from error
    return found
