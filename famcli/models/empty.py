"""A decoder whose weights have shapes and no values."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder


class _NoInitialisation(TorchFunctionMode):
    """Weights are not drawn: others will replace them, and drawing without memory takes seconds of imports."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs.get("tensor", *args[:1])
        return function(*args, **kwargs)


def empty_decoder(config: ModelConfig, kind: type[Decoder] = Decoder) -> Decoder:
    """A decoder whose weights take no memory."""
    with torch.device("meta"), _NoInitialisation():
        return kind(config)
