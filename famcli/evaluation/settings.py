"""What several runs share: how they are asked, whatever the model and the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from famcli.errors import UserError, unknown_name

if TYPE_CHECKING:
    from famcli.evaluation.asking import OnError
    from famcli.evaluation.prompts import Side

SIDES = ("left", "right", "middle")
ON_ERROR = ("stop", "skip")


@dataclass(frozen=True)
class Settings:
    """The arguments of ``famcli.evaluation.runner.evaluate`` besides model, task and progress; see there.

    Raises:
        UserError: a value does not fit.
    """

    results: Path
    seed: int = 0
    limit: int | None = None
    max_context: int | None = None
    truncate: Side | None = None
    chat_template: bool = False
    chat_arguments: Mapping[str, Any] = field(default_factory=dict)
    thinking: int | None = None
    batch_size: int | None = None
    fresh: bool = False
    on_error: OnError = "stop"
    keep_prompts: bool = False

    def __post_init__(self) -> None:
        for name, number in (("limit", self.limit), ("batch size", self.batch_size), ("max context", self.max_context)):
            if number is not None and number < 1:
                raise UserError(f"the {name} must be at least 1, not {number}")
        if self.truncate is not None and self.truncate not in SIDES:
            raise unknown_name("side to truncate", str(self.truncate), SIDES)
        if self.on_error not in ON_ERROR:
            raise unknown_name("value of on_error", str(self.on_error), ON_ERROR)
