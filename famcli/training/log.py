"""What a training run tells of itself: tables beside the checkpoint, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from famcli.errors import UserError
from famcli.files import append, read_bytes, write_text
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
        """Drops the lines of later steps, which will be taken again; with ``step`` 0 there is no file.

        Raises:
            UserError: it is damaged, or cannot be written.
        """
        if not os.path.lexists(self.path):
            return
        lines = _lines_until(step, self.path) if step else []
        if lines:
            write_text(self.path, _as_csv(self.columns, lines, header=True))
        else:
            self.path.unlink()

    def append(self, line: Mapping[str, Any]) -> None:
        """A line; what is ``None`` or missing stays empty."""
        shown = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()}
        append(self.path, _as_csv(self.columns, [shown], header=not self.path.exists()).encode())


class Log:
    """``log.csv`` and ``evaluation.csv`` in a directory, and TensorBoard's files in ``tensorboard``."""

    def __init__(self, directory: Path) -> None:
        self._steps = Table(directory / "log.csv", COLUMNS + AGE_COLUMNS)
        self._recalls = Table(directory / "evaluation.csv", RECALL_COLUMNS)
        self._board: Any = None
        self._board_at = directory / "tensorboard"

    def keep_until(self, step: int) -> None:
        """Drops the lines of later steps, which will be taken again; with ``step`` 0 the log is empty.

        Raises:
            UserError: a table is damaged, or cannot be written.
        """
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


def _lines_until(step: int, path: Path) -> list[dict[str, str]]:
    """The lines of the steps up to ``step``; a last line without its end is what a killed process was writing."""
    try:
        text = read_bytes(path).decode()
        whole = text[: text.rfind("\n") + 1]
        return [line for line in csv.DictReader(io.StringIO(whole, newline="")) if int(line["step"]) <= step]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}", "move it away: the training does not need it") from error


def _as_csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]], header: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    if header:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _open_board(directory: Path, step: int) -> Any:
    """TensorBoard's writer, which forgets the steps after ``step``; ``None`` where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=step + 1)
