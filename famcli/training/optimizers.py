"""The optimisers a recipe may ask for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from famcli.checkpoints.checkpoint import memory_weights
from famcli.models.decoder import Decoder
from famcli.training.recipe import Optimizer


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz iterations, for matrices (Jordan et al. 2024).

    It iterates in the parameters' own dtype, all matrices of a shape at once, and so does the same on every machine.
    ``torch.optim.Muon`` iterates in bfloat16: to the same losses, twice as fast where the processor has units for it,
    which is 4 % of a step of ``fam-tiny``, and more than ten times slower where it has none.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, parameters in by_shape.items():
                updates = orthogonalise(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(parameters, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, p: Tensor, momentum: float) -> Tensor:
        """Nesterov momentum of the gradient of ``p``."""
        assert p.grad is not None
        buffer: Tensor = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Brings all singular values of ``matrices`` [n, rows, columns] near 1, by five quintic Newton-Schulz steps."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if matrices.shape[1] <= matrices.shape[2] else x.mT


def make_optimizers(model: Decoder, how: Optimizer, split: bool = False) -> list[torch.optim.Optimizer]:
    """The recipe's optimisers of all weights that are trained.

    A memory's embeddings, gates and biases are a group of their own: Adam moves a weight by the learning rate a step,
    whatever it weighs, and a gate that begins at nothing has to go far.

    Parameter groups carry ``factor``, their multiple of the learning rate, and, where another order was needed,
    ``place``, where they stand in the checkpoint. Weight decay is for the layers' matrices.

    Args:
        model: the decoder.
        how: the recipe's word.
        split: every process of a team steps a part of the weights, keeps the state of these alone, and is told the
            others (ZeRO stage 1, arXiv 1910.02054). Which part is whose follows from the sizes of the weights.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    of_memory = memory_weights(model.config)
    matrices = [p for name, p in trained.items() if p.dim() == 2 and name.startswith("layers.")]
    fam = [p for name, p in trained.items() if name in of_memory and (p.dim() == 1 or not name.startswith("layers."))]
    others = [p for p in trained.values() if not any(p is q for q in matrices + fam)]
    decayed: list[dict[str, Any]] = [{"params": matrices, "weight_decay": how.weight_decay, "factor": 1.0}]
    plain: list[dict[str, Any]] = [
        {"params": others, "weight_decay": 0.0, "factor": 1.0},
        {"params": fam, "weight_decay": 0.0, "factor": how.fam_factor},
    ]
    if how.name == "muon":
        decayed[0]["factor"] = how.muon_factor
        return [_made(Muon, decayed, split), _made(torch.optim.AdamW, plain, split, betas=(0.9, 0.98))]
    if how.name == "adafactor":
        return [_made(torch.optim.Adafactor, decayed + plain, split)]
    return [_made(torch.optim.AdamW, decayed + plain, split, betas=(0.9, 0.98))]


def _made(
    kind: type[torch.optim.Optimizer], groups: list[dict[str, Any]], split: bool, **how: Any
) -> torch.optim.Optimizer:
    """An optimiser of ``groups``, or of those of their weights that this process steps."""
    if not split or not any(group["params"] for group in groups):
        return kind(groups, **how)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    # Each weight goes to the process that has least so far, group by group: even parts want large weights first.
    placed = [{**group, "place": place} for place, group in enumerate(groups)]
    placed.sort(key=lambda group: max((p.numel() for p in group["params"]), default=0), reverse=True)
    return ZeroRedundancyOptimizer(placed, kind, **how)
