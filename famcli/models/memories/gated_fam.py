"""A FAM of tokens that are kept as they are: a variation of ours on arXiv 2404.09173, not the paper's.

In the paper every block rewrites all latents: each is a mean of what its query finds, and all have to come out of the
projections of a latent. What a pretrained model reads best are the keys and values of tokens. So attention is hard
here: a query in each layer scores the block's tokens by their keys, the scores of all layers are added, and the tokens
whose sum is above 0 are kept with those around them. The last F tokens that were kept stay visible, in every layer with
that layer's keys and values. They stand before the segments, as they did in the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from famcli.errors import UserError
from famcli.models.memories.base import Block, Part, Products, setting
from famcli.models.memories.slots import Slots

if TYPE_CHECKING:
    from torch import Tensor, nn

    from famcli.models.memories.network import DecoderView, LayerView, Place, Shape, State


@dataclass(frozen=True)
class GatedFam(Slots):
    """Slots for the last F tokens worth keeping, the newest last; none that is empty is seen.

    State of a layer besides that of ``Slots``: ``fam_unturned`` [b, g, F, k], the keys of the slots before they are
    turned to any position; ``fam_filled`` [b, F], true where a slot holds a token; and, between ``write`` and
    ``complete``, ``fam_new`` [b, 2 g, B, k], such keys and the values of the block, and ``fam_scores`` [b, B].
    """

    name = "gated_fam"
    summary = "FAM of tokens: a gate keeps those worth it as they are, and the last F of them stay visible"
    chooses = True
    carried: ClassVar[tuple[str, ...]] = ("fam_unturned", "fam_values", "fam_filled")

    fam_before: int = setting(10, "tokens that are kept before one that is worth it, as far as they are in its block")
    fam_after: int = setting(8, "tokens that are kept after it, likewise")
    sinks: int = setting(1, "N: first tokens of a stream whose keys and values stay visible in every block")

    def check(self, config: Shape) -> None:
        super().check(config)
        for name in ("fam_before", "fam_after"):
            if getattr(self, name) < 0:
                raise UserError(f"model field '{name}' must be at least 0, not {getattr(self, name)}")

    def state_values(self, config: Shape) -> int:
        return super().state_values(config) + self.fam_length * config.kv_heads * config.head_width

    def reach(self, config: Shape) -> int:
        return self.memory_length(config) + self.fam_length + self.sinks

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        from famcli.models.memories.token_score import TokenScore

        return TokenScore(config.kv_heads * config.head_width)

    def layer_shapes(self, config: Shape, number: int) -> Mapping[str, tuple[int, ...]]:
        return {"weight": (1, config.kv_heads * config.head_width), "bias": (1,)}

    def write_products(self, config: Shape, blocks: int) -> Products:
        """The scores of a block's tokens."""
        return Products(config.block_size * config.kv_heads * config.head_width)

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        size = (batch, config.kv_heads, self.fam_length, config.head_width)
        slots = {name: like.new_zeros(size) for name in ("fam_keys", "fam_values", "fam_unturned")}
        filled = like.new_zeros(batch, self.fam_length).bool()
        return {**super().start(config, batch, like), **slots, "fam_filled": filled}

    def visible(self, state: State, parts: Sequence[Part]) -> Tensor:
        """The slots that hold something, and all that stands before them."""
        from torch.nn.functional import pad

        return pad(state["fam_filled"], (sum(part.count for part in parts[:-1]), 0), value=True)

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        return {**super().write(block, state, layer, at), **self.write_again(block, state, layer, at)}

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """What ``complete`` decides on; a ``stride`` has no meaning here."""
        from torch import cat

        keys = at.turned_back(block.keys)
        return {"fam_new": cat((keys, block.values), dim=1), "fam_scores": layer.memory(keys)}

    def complete(self, decoder: DecoderView, states: Sequence[State]) -> None:
        """All layers keep the same tokens."""
        worth = self.score(states) > 0
        self.keep(decoder, states, self.around(worth))

    @staticmethod
    def score(states: Sequence[State]) -> Tensor:
        """[b, B] of all layers together: above 0 is worth keeping. One layer alone cannot tell."""
        from torch import stack

        scores = [state["fam_scores"] for state in states]
        return stack([some.to(scores[0].device) for some in scores]).sum(dim=0)

    def around(self, worth: Tensor) -> Tensor:
        """[b, B] the tokens ``worth`` [b, B] keeping, and those before and after them."""
        from torch.nn.functional import max_pool1d, pad

        before, after = (min(count, worth.shape[1]) for count in (self.fam_before, self.fam_after))
        wide = pad(worth.float(), (after, before))
        return max_pool1d(wide[:, None], before + 1 + after, stride=1)[:, 0] > 0

    def keep(self, decoder: DecoderView, states: Sequence[State], kept: Tensor) -> None:
        """Puts the tokens ``kept`` [b, B] of ``fam_new`` in the newest slots of every layer, in place."""
        places, filled = self._last(states[0]["fam_filled"].to(kept.device), kept)
        some = bool(kept.any())
        for number, state in enumerate(states):
            new = state.pop("fam_new")
            del state["fam_scores"]
            if some:  # each layer with its own tensors: a state whose tensors share memory cannot be saved
                pushed = self._pushed(state, new, places.to(new.device), filled.to(new.device, copy=True))
                decoder.layer(number).restore(state, pushed, decoder.place(number))

    def _last(self, filled: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Where the last F of [slots; block] stand that are filled or kept, and which slots they fill, from the end:
        twice [b, F]."""
        from torch import arange, cat

        held = cat((filled, kept), dim=1)
        order = held * arange(1, held.shape[1] + 1, device=held.device)
        order = order.topk(self.fam_length, dim=1).values.flip(1)
        return (order - 1).clamp(min=0), order > 0

    def _pushed(self, state: State, new: Tensor, places: Tensor, filled: Tensor) -> State:
        from torch import cat

        def taken(old: Tensor, newest: Tensor) -> Tensor:
            index = places[:, None, :, None].expand(-1, old.shape[1], -1, old.shape[3])
            return cat((old, newest.to(old)), dim=2).gather(2, index) * filled[:, None, :, None]

        keys, values = new.chunk(2, dim=1)
        unturned, values = taken(state["fam_unturned"], keys), taken(state["fam_values"], values)
        return {"fam_unturned": unturned, "fam_values": values, "fam_filled": filled}

    def restore(self, state: State, carried: State, layer: LayerView, at: Place) -> State:
        return {**carried, "fam_keys": at.moved_to(carried["fam_unturned"], -self.sink_distance(at))}

    def sink_distance(self, at: Place) -> int:
        """The slots hold older tokens than the segments and stand before them, and the sinks before all."""
        return self.memory_segments * at.span + self.fam_length
