"""The decoder: reads tokens in any chunking and carries a state of fixed size (TransformerFAM, arXiv 2404.09173).

Shapes: ``b`` batch, ``t`` time, ``d`` width, ``h`` heads, ``k`` head width, ``s`` memory length, ``f`` FAM length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from famcli.errors import UserError
from famcli.models.attention import Geometry, RotaryTable, SkippedPositions, rope_frequencies
from famcli.models.beginning import Beginning
from famcli.models.config import ModelConfig
from famcli.models.cost import state_values_per_token
from famcli.models.facts import ToldByConfig
from famcli.models.int8 import embedding, linear, pattern, tied_logits
from famcli.models.layer import Layer
from famcli.models.masks import Mask, block_masks
from famcli.models.memories.base import Part
from famcli.models.state import LayerState, StreamState


class Decoder(ToldByConfig, nn.Module):
    """A decoder whose blocks hand on what ``config.memory`` says.

    A model reads a stream: ``start`` a state, ``read`` tokens in any chunking, turn the latents that are needed into
    ``logits``. Any chunking gives the same latents.

    Attributes:
        position_offset: added to every position. Rotary attention knows only differences of positions, so it changes
            nothing but rounding; the paper draws it at random in training (appendix B.2.2).
        skipped: where the tokens of a block stand, if not one after another; for training, see ``SkippedPositions``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = embedding(config)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = None if config.tie_embeddings else linear(config, config.width, config.vocab_size)
        for name, rows in config.memory.embeddings(config).items():
            self.register_parameter(name, nn.Parameter(torch.empty(rows, config.width)))
        self.position_offset = 0
        self.skipped: SkippedPositions | None = None
        self._beginning = Beginning()
        self._prepare()

    def reconfigure(self, config: ModelConfig) -> None:
        """Goes on under a config that differs in what the weights know nothing of, such as ``block_size``.

        States of the old one may no longer fit.
        """
        if config != self.config:
            self.config = config
            for layer in self._stack:
                layer.config = config
            self._prepare()

    @property
    def _stack(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))

    @property
    def chunk_size(self) -> int:
        """A block: what is read at once needs the least work."""
        return self.config.block_size

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def device(self) -> torch.device:
        """Where tokens go in and logits come out."""
        return self.embedding.weight.device

    @property
    def parameters_count(self) -> int:
        return sum(weight.numel() for weight in self.parameters())

    def state_bytes(self, tokens: int) -> int:
        """Bytes of one stream's state after so many tokens."""
        with torch.no_grad():
            start = self.start(1).nbytes
        return start + state_values_per_token(self.config) * tokens * pattern(self.embedding).dtype.itemsize

    def load_state(self, path: Path) -> tuple[StreamState, dict[str, str], dict[str, Tensor]]:
        """See ``StreamModel.load_state``."""
        state, metadata, extra = StreamState.load_with(path, self.device)
        with torch.no_grad():
            own = self.start(1)
        if self._shapes_of(state) != self._shapes_of(own):
            raise UserError(f"{path} is the state of a model of another shape, memory or dtype")
        return state, metadata, extra

    def _shapes_of(self, state: StreamState) -> list[dict[str, tuple[object, ...]]]:
        """What the tensors of a state are, whatever the number of streams, and of tokens where the state grows."""

        def shape(name: str, tensor: Tensor) -> tuple[object, ...]:
            grows = self.config.memory.whole and name.startswith("block_")
            return (tensor.shape[1::2] if grows else tensor.shape[1:], tensor.dtype)

        return [{name: shape(name, tensor) for name, tensor in layer.items()} for layer in state.layers]

    def layer(self, number: int) -> Layer:
        """The layer of this number, counted from 0."""
        return self._stack[number]

    def place(self, number: int) -> Geometry:
        """Where a layer's next block stands in a stream that has read nothing; for what a memory does at the start."""
        return self._geometry(0, 1, self._stack[number].local)

    def whole_block(self, number: int, blocks: int) -> Geometry:
        """Where a whole block stands in a layer after so many others; for a memory that is written without reading."""
        return self._geometry(blocks * self.config.block_size, self.config.block_size, self._stack[number].local)

    def embed_memory(self, name: str) -> Tensor:
        """The learned vectors ``name`` of the memory, as token embeddings enter the first layer: [1, rows, d]."""
        return self._scaled(self.get_parameter(name)[None])

    def _prepare(self) -> None:
        config = self.config
        reach = max(config.memory.reach(config), config.block_size)
        self._rotary = {
            local: RotaryTable(rope_frequencies(config, local), reach, config.block_size)
            for local in {layer.local for layer in self._stack}
        }
        self._masks: dict[bool, tuple[tuple[object, ...], list[Mask] | None]] = {}

    def initialise(self, seed: int) -> None:
        """Draws all weights.

        Embeddings, the FAM's among them, are normal with deviation 0.02; matrices keep the scale of what they read, and
        those into the residual stream are scaled down by depth. With ``qkv_bias`` all heads of the first layer but one
        begin as position heads, see ``_look_back``. A memory's weights in the layers begin as its module draws them.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if ".memory." in name:
                continue
            if name.endswith("norm.weight"):
                nn.init.ones_(weight)
            elif weight.dim() == 1:
                nn.init.zeros_(weight)
            elif "embedding" in name:
                nn.init.normal_(weight, std=0.02, generator=generator)
            else:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                depth = 2 * self.config.layers if into_residual else 1
                nn.init.normal_(weight, std=(weight.shape[1] * depth) ** -0.5, generator=generator)
        if self.config.qkv_bias:
            for head in range(self.config.kv_heads - 1):
                self._look_back(head, tokens=head + 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for number, layer in enumerate(self._stack):
                drawn = self.config.memory.layer_module(self.config, number)
                if drawn is not None and layer.memory is not None:
                    layer.memory.load_state_dict(drawn.state_dict())

    @torch.no_grad()
    def _look_back(self, head: int, tokens: int) -> None:
        """Makes a first-layer key/value head look ``tokens`` back, whatever stands there.

        Copying needs to know what came just before each token. From plain random weights such heads are slow to form;
        with them as a place to start from, copying is learned in some two hundred steps.
        """
        attention = self._stack[0].attention
        width, group = self.config.head_width, self.config.heads // self.config.kv_heads
        angles = -tokens * self._rotary[self._stack[0].local].frequencies
        towards, ahead = (
            torch.cat((angles.cos(), angles.sin())),
            torch.cat((torch.ones_like(angles), torch.zeros_like(angles))),
        )
        keys = slice(head * width, (head + 1) * width)
        queries = slice(head * group * width, (head + 1) * group * width)
        attention.k_proj.bias[keys] = 5 * ahead.to(attention.k_proj.weight.dtype)
        attention.q_proj.bias[queries] = 5 * towards.to(attention.q_proj.weight.dtype).repeat(group)
        attention.k_proj.weight[keys] *= 0.3
        attention.q_proj.weight[queries] *= 0.3

    def start(self, batch: int, carried: Sequence[Tensor] | None = None) -> StreamState:
        """A state that has read nothing.

        Args:
            batch: number of streams.
            carried: what the memory begins with instead of its learned beginning, see ``carry`` (random state passing,
                appendix B.2.3).
        """
        config, memory, like = self.config, self.config.memory, pattern(self.embedding)
        length = 0 if memory.whole else config.block_size
        layers: list[LayerState] = []
        for _ in range(config.layers):
            names = ("block_keys", "block_values", "echo_keys", "echo_values")[: 4 if memory.echoes else 2]
            own = {name: like.new_zeros(batch, config.kv_heads, length, config.head_width) for name in names}
            if memory.needs_inputs:
                own["block_inputs"] = like.new_zeros(batch, length, memory.noted_width(config))
            layers.append({**own, **memory.start(config, batch, like)})
        self._beginning.complete(self, layers, batch)
        state = StreamState(layers, 0)
        if carried is not None:
            self.carry(state, carried)
        return state

    def carried(self, state: StreamState) -> list[Tensor]:
        """What the memory holds of the texts: its ``carried`` tensors, layer after layer."""
        return [layer[name] for layer in state.layers for name in self.config.memory.carried]

    def carry(self, state: StreamState, tensors: Sequence[Tensor], rows: Tensor | None = None) -> None:
        """Puts ``tensors``, as ``carried`` gives them, in place in ``state``.

        Args:
            state: changed in place.
            tensors: for all rows.
            rows: [b] bool, rows to change; the others keep what they have. ``None``: all.
        """
        names = self.config.memory.carried
        at = self._geometries(0, 1)
        for number, layer in enumerate(self._stack):
            given = dict(zip(names, tensors[number * len(names) : (number + 1) * len(names)], strict=True))
            old = dict(state.layers[number])
            layer.restore(state.layers[number], given, at[layer.local])
            if rows is not None:
                for name, new in state.layers[number].items():
                    if new is not old[name]:
                        chosen = rows.to(new.device).view(-1, *[1] * (new.dim() - 1))
                        state.layers[number][name] = torch.where(chosen, new, old[name].to(new.device))

    def update_again(self, state: StreamState, stride: float = 1) -> None:
        """Writes the block just finished into every layer's memory once more, in ``state``.

        A layer's FAM depends on its last value and on that layer's keys and values of a block alone, so what a block of
        filler does to a memory can be repeated without reading it again. Only the last part of a block that was read
        in several leaves them in the state.

        Args:
            state: changed in place.
            stride: stand for so many updates at once, about, see ``Memory.write_again``.
        """
        at = self._geometries(0, self.config.block_size, blocks=1)
        for layer, layer_state in zip(self._stack, state.layers, strict=True):
            layer.write_again(layer_state, at[layer.local], stride)
        self.config.memory.complete(self, state.layers)

    def read(self, tokens: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Reads on.

        Args:
            tokens: [b, t] int64, t at least 1, crossing block boundaries as it may.
            state: where the streams stand; consumed (see ``StreamState``).

        Returns:
            The top latents [b, t, d], normed, and the state after the tokens.
        """
        latents = []
        for chunk in self._within_blocks(tokens, state):
            x, state = self._read_within_block(chunk, state, output=True)
            assert x is not None
            latents.append(x)
        return self.norm(torch.cat(latents, dim=1)), state

    def prefill(self, tokens: Tensor, state: StreamState) -> StreamState:
        """As ``read``, but computes only what the state needs.

        That spares the top layer's attention and feed-forward, and under BSWA without memory segments, which keeps
        nothing of a block that is over, all of a block that these tokens finish.
        """
        for chunk in self._within_blocks(tokens, state):
            _, state = self._read_within_block(chunk, state, output=False)
        return state

    def computes(self, start: int, count: int) -> int:
        """Of ``count`` tokens that ``prefill`` reads after ``start`` others, those that it computes.

        However they are cut in chunks, as long as a chunk that ends inside a block is the last one.
        """
        if self.config.memory.whole:
            return count
        size, stop = self.config.block_size, start + count
        bounds = [start, *range(start - start % size + size, stop, size), stop]
        return count - sum(high - low for low, high in pairwise(bounds) if self._forgets(low, high - low))

    def _forgets(self, tokens_read: int, count: int) -> bool:
        """Nothing that is computed of these tokens, all of one block, outlives them."""
        memory, (blocks, offset) = self.config.memory, divmod(tokens_read, self.config.block_size)
        return not memory.whole and offset + count == self.config.block_size and memory.forgets(self.config, blocks)

    def logits(self, latents: Tensor) -> Tensor:
        """[..., d] from ``read`` -> [..., vocabulary]; ask only for the positions that are needed."""
        return tied_logits(self.embedding, latents) if self.head is None else self.head(latents)

    def _within_blocks(self, tokens: Tensor, state: StreamState) -> Sequence[Tensor]:
        """``tokens`` cut where blocks end."""
        if self.config.memory.whole:
            return [tokens]
        first = self.config.block_size - state.tokens_read % self.config.block_size
        return [c for c in (tokens[:, :first], *tokens[:, first:].split(self.config.block_size, dim=1)) if c.shape[1]]

    def _read_within_block(self, tokens: Tensor, state: StreamState, output: bool) -> tuple[Tensor | None, StreamState]:
        read = state.tokens_read + tokens.shape[1]
        if not output and self._forgets(state.tokens_read, tokens.shape[1]):
            return None, replace(state, tokens_read=read)
        geometries = self._geometries(state.tokens_read, tokens.shape[1])
        at = next(iter(geometries.values()))
        memory = self.config.memory
        x = self._scaled(self.embedding(tokens))
        if at.completes and (extra := memory.extra(self.config)):
            learned = self.embed_memory(extra).expand(len(x), -1, -1)
            x = torch.cat((x, memory.extra_inputs(learned, state.layers).to(x.device)), dim=1)
        layers = [dict(layer) for layer in state.layers]
        for i, layer in enumerate(self._stack):
            x = layer(x, layers[i], geometries[layer.local], output or i + 1 < len(layers))
        if at.completes:
            memory.complete(self, layers)
            # A state that was saved or indexed lies in one piece, and products of the same numbers round as they lie.
            layers = [{name: tensor.contiguous() for name, tensor in layer.items()} for layer in layers]
        return (x[:, : at.count] if output else None), StreamState(layers, read)

    def _scaled(self, embeddings: Tensor) -> Tensor:
        scale = self.config.embedding_scale
        # Rounded to the weights' precision first, as the checkpoints that need it were trained.
        return embeddings if scale == 1 else embeddings * embeddings.new_tensor(scale)

    def _geometries(self, tokens_read: int, count: int, blocks: int | None = None) -> dict[bool, Geometry]:
        """Where the next ``count`` tokens stand, for layers that are local and those that are not."""
        return {local: self._geometry(tokens_read, count, local, blocks) for local in self._rotary}

    def _geometry(self, tokens_read: int, count: int, local: bool, blocks: int | None = None) -> Geometry:
        config, memory, like = self.config, self.config.memory, pattern(self.embedding)
        rotary, size = self._rotary[local], config.block_size
        offset = tokens_read if memory.whole else tokens_read % size
        if blocks is None:
            blocks = 0 if memory.whole else tokens_read // size
        completes = not memory.whole and offset + count == size
        name = memory.extra(config) if completes else None
        extra = memory.embeddings(config)[name] if name else 0
        tokens = rotary.at(self.position_offset + offset, count + extra, like)
        span = size
        if self.skipped and not memory.whole:
            span = self.skipped.span
            places = torch.cat((self.skipped.tokens[offset : offset + count], torch.arange(span, span + extra)))
            tokens = rotary.of(self.position_offset + places, like)
        echo = (Part(offset + count, first=0, echo=True),) if memory.echoes else ()
        parts = (*memory.parts(config, blocks), *echo)
        return Geometry(
            offset=offset,
            count=count,
            blocks=blocks,
            completes=completes,
            span=span,
            parts=parts,
            tokens=tokens,
            masks=self._block_masks(local, parts, offset, count + extra),
            origin=self.position_offset,
            rotary=rotary,
            skipped=None if memory.whole else self.skipped,
            like=like.new_empty(0),
        )

    def _block_masks(self, local: bool, parts: tuple[Part, ...], offset: int, count: int) -> list[Mask] | None:
        """The masks of whole blocks repeat from block to block, so the last ones are kept."""
        device = self.device
        if device.type == "meta":  # an outline, of whose states sizes alone are asked
            return None
        key = (parts, offset, count, device)
        if local not in self._masks or self._masks[local][0] != key:
            window = self.config.local_window if local else None
            self._masks[local] = (key, block_masks(parts, offset, count, window=window, device=device))
        return self._masks[local][1]
