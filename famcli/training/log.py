"""What a training run tells of itself: tables beside the checkpoint, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from famcli.files import replacing
from famcli.training.evaluate import Recall
from famcli.training.losses import AGE_BUCKETS, Loss

LOSS_COLUMNS = [f"{kind}_loss" for kind in get_args(Loss)]
AGE_COLUMNS = [f"recall_at_{low}_updates" for low in AGE_BUCKETS]
COLUMNS = ["step", "seconds", "tokens", "tokens_per_second", "learning_rate", "loss", *LOSS_COLUMNS, "gradient_norm"]
RECALL_COLUMNS = ["step", "updates", "accuracy", "loss"]


class Log:
    """``log.csv`` and ``evaluation.csv`` in a directory, and TensorBoard's files in ``tensorboard``."""

    def __init__(self, directory: Path) -> None:
        self._tables = {directory / "log.csv": COLUMNS + AGE_COLUMNS, directory / "evaluation.csv": RECALL_COLUMNS}
        self._steps, self._recalls = self._tables
        self._board: Any = None
        self._board_at = directory / "tensorboard"

    def keep_until(self, step: int) -> None:
        """Drops the lines of later steps, which will be taken again; with ``step`` 0 the log is empty."""
        for path, columns in self._tables.items():
            if path.exists():
                with open(path, newline="", encoding="utf-8") as file:
                    lines = [line for line in csv.DictReader(file) if int(line["step"]) <= step]
                if not step:
                    path.unlink()
                    continue
                with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, columns, extrasaction="ignore")
                    writer.writeheader()
                    writer.writerows(lines)
        self._board = _open_board(self._board_at, step)

    def write(self, line: Mapping[str, Any]) -> None:
        """A line of the columns ``COLUMNS`` and ``AGE_COLUMNS``; what is ``None`` or missing stays empty."""
        self._append(self._steps, line)
        self._show(line["step"], {name: value for name, value in line.items() if name != "step"})

    def write_recall(self, step: int, found: list[Recall]) -> None:
        """The lines of an evaluation."""
        for recall in found:
            self._append(self._recalls, {"step": step, **vars(recall)})
            self._show(step, {f"recall_after_{recall.updates}_updates": recall.accuracy})

    def _append(self, path: Path, line: Mapping[str, Any]) -> None:
        new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._tables[path])
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()})

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
