"""Layers of one decoder on several devices, for models that no single one holds.

Only the layers are spread. Embeddings, output head and last norm stay on the main device, so that tokens go in and
logits come out there. The state of a layer moves to the layer's device when it is first read, and stays.

Tested between the processor and PyTorch's ``meta`` device, which refuses tensors of another, and with GPUs that were
made up; on several real devices it was never run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from famcli.errors import UserError
from famcli.models.attention import Geometry
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.layer import Layer
from famcli.models.state import LayerState


class PlacedLayer(Layer):
    """A layer that brings what it is given to its own device."""

    def forward(self, x: Tensor, state: LayerState, at: Geometry, output: bool) -> Tensor | None:
        here = self._settle(state)
        return super().forward(x.to(here), state, at.on(here), output)

    def alone(self, x: Tensor, at: Geometry, start: int, visible: Tensor | None = None) -> Tensor:
        here = self._device
        return super().alone(x.to(here), at.on(here), start, None if visible is None else visible.to(here))

    def write_again(self, state: LayerState, at: Geometry, stride: float) -> None:
        super().write_again(state, at.on(self._settle(state)), stride)

    def restore(self, state: LayerState, carried: LayerState, at: Geometry) -> None:
        here = self._settle(state)
        super().restore(state, {name: tensor.to(here) for name, tensor in carried.items()}, at.on(here))

    @property
    def _device(self) -> torch.device:
        return self.attention.q_proj.weight.device

    def _settle(self, state: LayerState) -> torch.device:
        """Brings ``state`` to this layer's device."""
        for name, tensor in state.items():
            state[name] = tensor.to(self._device)
        return self._device


class PlacedDecoder(Decoder):
    """A decoder whose layers may lie on devices of their own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(PlacedLayer(config, number) for number in range(config.layers))
        self.norm.register_forward_pre_hook(lambda norm, given: (given[0].to(norm.weight.device),))


def place_layers(config: ModelConfig, main: torch.device, dtype: torch.dtype) -> list[torch.device]:
    """A device for each layer, as accelerate weighs them up by free memory: GPUs first, then the processor.

    Args:
        config: the decoder to be.
        main: the device of all that is no layer.
        dtype: what the weights will be.

    Raises:
        UserError: accelerate is not installed, or the model does not fit.
    """
    try:
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_max_memory
    except ImportError as error:
        raise UserError("--device-map needs accelerate", "pip install 'famcli[device-map]'") from error

    with torch.device("meta"):
        decoder = PlacedDecoder(config)
    memory = get_max_memory()
    key = (main.index or 0) if main.type == "cuda" else main.type
    whole, layers = (sum(weight.numel() for weight in part.parameters()) for part in (decoder, decoder.layers))
    memory[key] = max(0, memory.get(key, 0) - (whole - layers) * dtype.itemsize)
    found = infer_auto_device_map(decoder.layers, memory, no_split_module_classes=[PlacedLayer.__name__], dtype=dtype)
    devices = [found.get(str(number), found.get("", None)) for number in range(config.layers)]
    if any(device in (None, "disk") for device in devices):
        needed = whole * dtype.itemsize / 2**30
        raise UserError(f"the model takes {needed:.1f} GiB, more than all devices have", "a smaller --dtype helps")
    return [torch.device("cuda", device) if isinstance(device, int) else torch.device(device) for device in devices]
