"""What a training run tells of itself: tables beside the checkpoint, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from famcli.files import replacing
from famcli.training.evaluate import Recall
from famcli.training.losses import AGE_BUCKETS, Loss

LOSS_COLUMNS = [f"{kind}_loss" for kind in get_args(Loss)]
AGE_COLUMNS = [f"recall_at_{low}_updates" for low in AGE_BUCKETS]
COLUMNS = ["step", "seconds", "tokens", "tokens_per_second", "learning_rate", "loss", *LOSS_COLUMNS, "gradient_norm"]
RECALL_COLUMNS = ["step", "updates", "accuracy", "loss"]


class Table:
    """A CSV file that grows by lines of known columns, the first of which is ``step``."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, list(columns)

    def keep_until(self, step: int) -> None:
        """Drops the lines of later steps, which will be taken again; with ``step`` 0 there is no file."""
        if not self.path.exists():
            return
        if not step:
            self.path.unlink()
            return
        with open(self.path, newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if int(line["step"]) <= step]
        with replacing(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(lines)

    def append(self, line: Mapping[str, Any]) -> None:
        """A line; what is ``None`` or missing stays empty."""
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})


class Log:
    """``log.csv`` and ``evaluation.csv`` in a directory, and TensorBoard's files in ``tensorboard``."""

    def __init__(self, directory: Path) -> None:
        self._steps = Table(directory / "log.csv", COLUMNS + AGE_COLUMNS)
        self._recalls = Table(directory / "evaluation.csv", RECALL_COLUMNS)
        self._board: Any = None
        self._board_at = directory / "tensorboard"

    def keep_until(self, step: int) -> None:
        """Drops the lines of later steps, which will be taken again; with ``step`` 0 the log is empty."""
        for table in (self._steps, self._recalls):
            table.keep_until(step)
        self._board = _open_board(self._board_at, step)

    def write(self, line: Mapping[str, Any]) -> None:
        """A line of the columns ``COLUMNS`` and ``AGE_COLUMNS``; what is ``None`` or missing stays empty."""
        self._steps.append(line)
        self._show(line["step"], {name: value for name, value in line.items() if name != "step"})

    def write_recall(self, step: int, found: list[Recall]) -> None:
        """The lines of an evaluation."""
        for recall in found:
            self._recalls.append({"step": step, **vars(recall)})
            self._show(step, {f"recall_after_{recall.updates}_updates": recall.accuracy})

    def _show(self, step: int, values: Mapping[str, float | None]) -> None:
        if self._board is not None:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
            self._board.flush()


def _open_board(directory: Path, step: int) -> Any:
    """TensorBoard's writer, which forgets the steps after ``step``; ``None`` where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=step + 1)
