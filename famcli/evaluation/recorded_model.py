"""What follows from the config in a run record, where it is one of famcli's own decoder."""

from __future__ import annotations

from famcli.errors import UserError
from famcli.evaluation.record import RunRecord
from famcli.models.config import ModelConfig


def config_of(record: RunRecord) -> ModelConfig | None:
    """The config of a run's model; ``None`` for a model of another package, which has none that says so."""
    try:
        return ModelConfig.from_mapping(record.model["config"], str(record.path))
    except UserError:
        return None


def context_of(record: RunRecord) -> int | None:
    """The longest text that a model that sees all of it was made to read; ``None`` for any other, or not known."""
    if (told := record.model.get("longest_text")) is not None:
        return told
    config = config_of(record)
    return config.trained_context if config and config.memory.whole else None
