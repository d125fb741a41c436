"""A FAM that is written where there is something to write: a variation of ours on arXiv 2404.09173, not the paper's.

In the paper every block rewrites all latents, and what they hold drifts, a little with each of thousands of updates;
and every token sees them, whatever they hold. Here the latents stand in groups. A block's queries come from one empty
group, which looks at the block, at the groups that are filled, and at the sinks. Where it finds something, the latents
it makes become the newest group and the oldest one drops out. Where it looks at the sinks, nothing changes at all. No
token sees an empty latent: a text that writes nothing is read as ``bswa`` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from famcli.errors import UserError
from famcli.models.memories.base import Block, Part, Products, setting
from famcli.models.memories.fam import Fam
from famcli.models.memories.window import Window

if TYPE_CHECKING:
    from torch import Tensor

    from famcli.models.memories.network import DecoderView, LayerView, Place, Shape, State

TAKES = 0.5
"""A latent is filled if its heads attend to something else than the sinks with more than this share, on the mean."""

OPENS = 0.5
"""A block writes a group if the mean of these shares over its latents is above this."""

VOTERS = 2 / 3
"""The share of the layers, the upper ones, whose heads are counted: in the lowest no token is a sink yet."""


@dataclass(frozen=True)
class GatedFam(Fam):
    """Groups of latents, the newest last, each written once.

    State of a layer besides that of ``Window``: ``fam`` [b, F, d], ``fam_keys`` and ``fam_values`` [b, g, F, k];
    ``fam_filled`` [b, F], true where a latent holds something; ``fam_empty`` [b, a, d], an empty group; ``fam_new``
    [b, a, d] and ``fam_found`` [b, a], what the last block would write, and the share of the attention that found it.
    """

    name = "gated_fam"
    summary = "FAM in groups: a block writes one where it has something for it, and tokens see those that were written"
    carried: ClassVar[tuple[str, ...]] = ("fam", "fam_filled")

    fam_group: int = setting(8, "a: latents of a group, which a block writes at once")
    sinks: int = setting(1, "N: first tokens of a stream whose keys and values stay visible; the gate needs one")
    fam_keep_initial: bool = setting(True, "the latents of a group are the empty ones and what they find; must be true")
    fam_null_sink: bool = setting(True, "the FAM's queries see the sinks with values of zero; must be true")

    def check(self, config: Shape) -> None:
        super().check(config)
        for name in ("fam_keep_initial", "fam_null_sink"):
            if not getattr(self, name):
                raise UserError(f"model field '{name}' must be true with attention gated_fam")
        if self.sinks < 1:
            raise UserError(f"model field 'sinks' must be at least 1 with attention gated_fam, not {self.sinks}")
        if self.fam_group < 1 or self.fam_length % self.fam_group:
            raise UserError(
                f"model field 'fam_group' must divide fam_length ({self.fam_length}), and {self.fam_group} does not"
            )

    def describe(self, config: Shape) -> str:
        return f"{super().describe(config)} in groups of {self.fam_group}"

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + self.fam_group * (2 * config.width + 1)

    def embeddings(self, config: Shape) -> Mapping[str, int]:
        return {"fam_embedding": self.fam_group}

    def write_products(self, config: Shape, blocks: int) -> Products:
        return self._update_products(config, blocks, self.fam_group)

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        found = like.new_zeros(batch, self.fam_group)
        new = {"fam_new": like.new_zeros(batch, self.fam_group, config.width), "fam_found": found}
        filled = like.new_zeros(batch, self.fam_length).bool()
        return {**Window.start(self, config, batch, like), **new, "fam_filled": filled}

    def begin(self, decoder: DecoderView, states: Sequence[State]) -> None:
        """The learned embeddings of an empty group are forwarded up the layers on their own (appendix B.1)."""
        latents, groups = decoder.embed_memory("fam_embedding"), self.fam_length // self.fam_group
        for number, state in enumerate(states):
            filled = state["fam_filled"]
            layer, at = decoder.layer(number), decoder.place(number)
            state["fam_empty"] = latents.expand(len(filled), -1, -1)
            fam = latents.repeat(1, groups, 1).expand(len(filled), -1, -1)
            layer.restore(state, {"fam": fam, "fam_filled": filled}, at)
            if number + 1 < len(states):
                latents = self._own(layer).alone(latents, at, -self.fam_group)

    def visible(self, state: State, parts: Sequence[Part]) -> Tensor:
        """The groups that were written, and all that stands before them."""
        from torch.nn.functional import pad

        return pad(state["fam_filled"], (sum(part.count for part in parts[:-1]), 0), value=True)

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        return {**Window.write(self, block, state, layer, at), **self.write_again(block, state, layer, at)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """What the block would write, if the gate opens; a ``stride`` has no meaning here."""
        latents, logs = self.find(block, state, layer, at)
        found = 1 - logs[..., self.sink_places(at)].exp().sum(dim=-1).mean(dim=1)
        return {"fam_new": latents.to(state["fam_new"]), "fam_found": found.to(state["fam_found"])}

    def complete(self, decoder: DecoderView, states: Sequence[State]) -> None:
        """All layers write, or none."""
        from torch import stack

        found = [state["fam_found"] for state in self.voters(states)]
        takes, opens = self.gate(stack([some.to(found[0].device) for some in found]))
        for number, state in enumerate(states):
            new = state["fam_new"]
            pushed = self.push(state, new, takes.to(new.device), opens.to(new.device))
            decoder.layer(number).restore(state, pushed, decoder.place(number))

    @staticmethod
    def voters(states: Sequence[Any]) -> Sequence[Any]:
        """Those of the layers that are counted."""
        return states[len(states) - max(1, round(VOTERS * len(states))) :]

    @staticmethod
    def gate(found: Tensor) -> tuple[Tensor, Tensor]:
        """Which latents of a group are filled [b, a], and in which rows it is written [b]; ``found`` [l, b, a]."""
        shares = found.float().mean(dim=0)
        return shares > TAKES, shares.mean(dim=1) > OPENS

    def longest_stride(self) -> float:
        return 1

    def sink_places(self, at: Place) -> slice:
        """Where the sinks are among the keys that ``seen`` gives."""
        first = 0 if at.blocks else self.fam_length
        return slice(first, first + self.sinks)

    def find(self, block: Block, state: State, layer: LayerView, at: Place) -> tuple[Tensor, Tensor]:
        """Looks at a block from an empty group.

        Returns:
            The group's latents [b, a, d], and the logarithm of what each head attends to, [b, h, a, n], over the keys
            that ``seen`` gives.
        """
        from torch import cat, float32, promote_types
        from torch.nn.functional import pad, rms_norm

        empty, own = state["fam_empty"], self._own(layer)
        seen = self.seen(block, state, at)
        keys, values = (cat(tensors, dim=2) for tensors in zip(*seen, strict=True))
        queries = self._queries(empty, layer, at)
        before = self.sinks if at.blocks else 0
        visible = pad(state["fam_filled"], (before, block.keys.shape[2]), value=True)[:, None, None]
        scores = own.attention.scores(queries, keys, visible)
        logs = scores.to(promote_types(scores.dtype, float32)).log_softmax(dim=-1)
        attended = own.attention.project(own.attention.mixed(logs.exp().to(queries.dtype), values.to(queries.dtype)))
        latents = own.residual(empty, attended) if self.fam_ffn else empty + own.attention_out_norm(attended)
        if self.fam_norm == "rms":
            latents = self.fam_scale * rms_norm(latents, latents.shape[-1:])
        return latents, logs

    def push(self, state: State, latents: Tensor, takes: Tensor, opens: Tensor) -> State:
        """What is carried, with ``latents`` for the newest group in the rows that open [b], filled where it ``takes``
        [b, a]; for ``restore``."""
        from torch import cat, where

        old, filled = state["fam"], state["fam_filled"]
        fam = where(opens[:, None, None], cat((old[:, self.fam_group :], latents.to(old)), dim=1), old)
        filled = where(opens[:, None], cat((filled[:, self.fam_group :], takes), dim=1), filled)
        return {"fam": fam, "fam_filled": filled}

    def restore(self, state: State, carried: State, layer: LayerView, at: Place) -> State:
        return {**self._set(carried["fam"], layer, at), "fam_filled": carried["fam_filled"]}
