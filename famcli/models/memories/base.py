"""The protocol of a memory: what joins a block's attention, and what is written when a block is over.

A memory is a frozen dataclass of its own config fields; it holds no tensors. What it carries lies in the state of each
layer, a dictionary of named tensors with the batch first. Between two writes every read sees that state alone, and a
block that is not complete writes nothing: so any chunking of a text gives the same latents.

This file does not import PyTorch: listings read the arithmetic of a memory without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn

    from famcli.models.memories.network import DecoderView, KeysValues, LayerView, Place, Shape, State


def setting(default: Any, help: str) -> Any:
    """A config field of a memory with its help text."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Part:
    """Keys that stand before those of a block's own tokens in one softmax.

    Attributes:
        count: how many.
        first: position of the first of them, counted from the block's beginning and so below 0, where they are tokens
            of the text; layers with a ``local_window`` hide those that are too far back. ``None``: never hidden.
        seen_from: the first so many tokens of the block do not see them.
        echo: one for each token of the block so far, which that token sees and those after it.
    """

    count: int
    first: int | None = None
    seen_from: int = 0
    echo: bool = False


@dataclass(frozen=True)
class Block:
    """A block that is complete, as ``Memory.write`` gets it.

    Its tensors may be buffers that the next block overwrites: what is to stay is copied.

    Attributes:
        keys, values: [b, g, B, k] of its tokens, the keys turned to positions 0 .. B-1.
        inputs: [b, B, w] what ``Memory.noted`` made of its tokens, where the memory ``needs_inputs``.
        extra: [b, m, d] the layer's outputs at the memory's extra positions, where it has any.
        extra_keys: [b, g, m, k] the keys at these positions, turned to B .. B+m-1.
    """

    keys: Tensor
    values: Tensor
    inputs: Tensor | None = None
    extra: Tensor | None = None
    extra_keys: Tensor | None = None


@dataclass(frozen=True)
class Products:
    """Multiplications of matrix products, each with its addition: two operations.

    Attributes:
        dense: with weights.
        attention: of queries with keys, and of what comes of it with values.
    """

    dense: int = 0
    attention: int = 0

    def __add__(self, other: Products) -> Products:
        return Products(self.dense + other.dense, self.attention + other.attention)

    def __mul__(self, times: int) -> Products:
        return Products(self.dense * times, self.attention * times)

    @property
    def operations(self) -> int:
        """Floating point operations, as PyTorch counts them."""
        return 2 * (self.dense + self.attention)


@dataclass(frozen=True)
class Memory:
    """What passes from block to block. Extend it with a frozen dataclass whose fields have defaults.

    Attributes:
        name: what ``attention=`` calls it.
        summary: one line for listings.
        whole: the text has no blocks; keys and values of all of it stay, and the state grows.
        needs_inputs: ``write`` is given the block's normed inputs, or what ``noted`` makes of them.
        mixes: ``mix`` is called; the queries before their rotation are kept for it.
        attends: ``attend`` is called in place of one softmax over all keys.
        chooses: its weights choose what is kept, so that the loss of a text has no gradient for them.
        untrained: what stands beside every score where nobody has trained the memory's weights.
        carried: names of the state's tensors that hold what was read. Training hands them from step to step.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    whole: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    attends: ClassVar[bool] = False
    chooses: ClassVar[bool] = False
    untrained: ClassVar[str] = "untrained memory"
    carried: ClassVar[tuple[str, ...]] = ()

    # What is known from the config alone.

    @property
    def echoes(self) -> bool:
        """``echo`` is called: each token of a block has a second key and value in its softmax."""
        return False

    @property
    def notes_attended(self) -> bool:
        """``noted`` is given attention's output, and not the normed inputs."""
        return False

    def check(self, config: Shape) -> None:
        """Raises ``UserError`` where a field has a value that does not fit."""

    def describe(self, config: Shape) -> str:
        """Name and size in a few characters, for listings."""
        return f"{self.name}, B {config.block_size}"

    def window(self, config: Shape) -> int | None:
        """Most tokens of the text that one layer sees at once; ``None`` where there is no bound."""
        return None if self.whole else config.block_size

    def receptive_field(self, config: Shape) -> int | None:
        """Tokens that can influence an output; ``None`` where there is no bound."""
        return None

    def state_values(self, config: Shape) -> int:
        """Numbers that one layer carries for one stream, the buffer of the open block left out."""
        return 0

    def noted_width(self, config: Shape) -> int:
        """``w``: numbers that ``noted`` gives of a token."""
        return config.width

    def reach(self, config: Shape) -> int:
        """The farthest position before a block that a key of the memory takes."""
        return 0

    def embeddings(self, config: Shape) -> Mapping[str, int]:
        """Learned vectors of the model's width, beside the token embeddings: the weight's name and its rows."""
        return {}

    def layer_module(self, config: Shape, number: int) -> nn.Module | None:
        """Weights of the memory in one layer, ``Layer.memory``; ``None`` where it has none."""
        return None

    def layer_shapes(self, config: Shape, number: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of these weights, in the module's order.

        A class that overrides ``layer_module`` and not this has shapes that are known once the module is made, with
        PyTorch, which takes a second to import.
        """
        return {}

    def extra(self, config: Shape) -> str | None:
        """The one of ``embeddings`` that is read after the last token of each block, for ``write`` alone."""
        return None

    def extra_inputs(self, learned: Tensor, states: Sequence[State]) -> Tensor:
        """What enters the first layer at these extra positions, [b, m, d]: the ``learned`` vectors [b, m, d], or what
        ``states`` hold in their place."""
        return learned

    def write_products(self, config: Shape, blocks: int) -> Products:
        """The products of ``write`` in one layer, for the block that ``blocks`` others came before.

        A class that overrides ``write``, ``mix``, ``beside``, ``before``, ``echo``, ``noted``, ``along``,
        ``attend`` or ``complete`` and not this has products that are not known.
        """
        return Products()

    def before_products(self, config: Shape) -> Products:
        """The products of ``before``, ``echo`` and ``noted`` in one layer, for one token or extra position."""
        return Products()

    def mix_products(self, config: Shape) -> Products:
        """The products of ``mix`` and ``beside`` in one layer, for one token or extra position, and of ``attend`` those
        beside its own two with ``keys`` and ``values``."""
        return Products()

    def along_products(self, config: Shape, tokens: int, output: bool) -> Products:
        """The products of ``along`` in one layer, for a chunk of so many tokens."""
        return Products()

    def complete_products(self, config: Shape, blocks: int) -> Products:
        """The products of ``complete``, in all layers together; see ``write_products``."""
        return Products()

    # What happens to a stream. ``state`` is that of one layer.

    def start(self, config: Shape, batch: int, like: Tensor) -> State:
        """The state of one layer that has read nothing, in the device and dtype of ``like``."""
        return {}

    def begin(self, decoder: DecoderView, states: Sequence[State]) -> None:
        """Completes what ``start`` gave to all layers, in place, where that needs the network."""

    def parts(self, config: Shape, blocks: int) -> tuple[Part, ...]:
        """What ``slots`` gives to a block that ``blocks`` others came before."""
        return ()

    def slots(self, state: State, parts: Sequence[Part]) -> list[KeysValues]:
        """Keys and values [b, g, n, k] that join the softmax of a block's tokens, a pair for each of ``parts``."""
        return []

    def learned_slots(self, layer: LayerView, batch: int, at: Place) -> list[KeysValues]:
        """Keys and values [b, g, n, k] that are weights of the layer; a pair for each of the last ``parts``."""
        return []

    def visible(self, state: State, parts: Sequence[Part]) -> Tensor | None:
        """[b, n] which of the keys of ``parts`` a row's tokens see, those of ``echo`` last; ``None``: all."""
        return None

    def before(self, x: Tensor, state: State, layer: LayerView) -> Tensor:
        """The layer's input [b, t, d] with what the memory adds to it."""
        return x

    def echo(self, inputs: Tensor, state: State, layer: LayerView) -> Tensor:
        """What stands a second time where each token stands, made of normed ``inputs`` [b, t, d]: same shape.

        It has keys and values as the inputs have, which its token sees and those after it in the block. Only called
        where the memory ``echoes``.
        """
        return inputs

    def noted(self, inputs: Tensor, layer: LayerView) -> Tensor:
        """What is kept of normed ``inputs`` [b, t, d] until their block is complete, [b, t, w] of the same dtype.

        Of attention's output where the memory ``notes_attended``. Only called where it ``needs_inputs``.
        """
        return inputs

    def mix(self, attended: Tensor, queries: Tensor, state: State, layer: LayerView) -> Tensor:
        """Attention's output [b, h, t, k], before its projection, with what the memory mixes in.

        ``queries`` [b, h, t, k] are not turned to their positions. Only called where the memory ``mixes``.
        """
        return attended

    def attend(self, queries: Tensor, own: KeysValues, seen: Tensor | None, state: State, layer: LayerView) -> Tensor:
        """Attention's output [b, h, t, k] for ``queries`` [b, h, t, k], which are turned to their positions.

        Args:
            queries: of tokens, and of extra positions.
            own: keys and values [b, g, n, k] of the ``slots`` and of the block so far.
            seen: [t, n] which of them each query sees; ``None``: all.
            state: of the layer.
            layer: with the attention.

        Only called where the memory ``attends``, which then has no ``visible``.
        """
        raise NotImplementedError

    def beside(self, attended: Tensor, inputs: Tensor, state: State, layer: LayerView) -> Tensor:
        """Attention's output [b, t, d], after its projection, with what the memory makes of the same normed ``inputs``
        [b, t, d] added."""
        return attended

    def along(self, inputs: Tensor, state: State, layer: LayerView, output: bool) -> tuple[Tensor | None, State]:
        """For a memory that each token writes: what normed ``inputs`` [b, t, d] find on their way.

        It is called for every chunk, and what it gives may not depend on how a text is cut.

        Returns:
            What is added to attention's output, [b, t, d], where there is any and ``output`` is wanted; and the tensors
            of ``state`` that change, ``state`` itself being left alone.
        """
        return None, {}

    def forgets(self, config: Shape, blocks: int) -> bool:
        """Nothing of the block that ``blocks`` others came before outlives it, so it need not be computed."""
        return False

    def write(self, block: Block, state: State, layer: LayerView, at: Place) -> State:
        """The tensors of ``state`` that change when a block is complete; ``state`` itself is left alone."""
        return {}

    def complete(self, decoder: DecoderView, states: Sequence[State]) -> None:
        """Changes the states, in place, when all layers have written a block, where that needs more than one layer."""

    def write_again(self, block: Block, state: State, layer: LayerView, at: Place, stride: float = 1) -> State:
        """What the same block would change in the ``carried`` tensors if it came again.

        ``stride`` stands for so many updates at once, about; a memory that cannot do this ignores it.
        """
        return {}

    def longest_stride(self) -> float:
        """The largest ``stride`` that ``write_again`` can take and still come near so many single updates."""
        return 1

    def restore(self, state: State, carried: State, layer: LayerView, at: Place) -> State:
        """The tensors of ``state`` that change when ``carried`` are put in place; they hold what was read."""
        return carried


def first_seen(config: Shape, place: int, memory_length: int | None) -> int:
    """The first token, below 0 in earlier blocks, that can influence the output at ``place`` of block 0.

    Args:
        config: with the layers, some of which may see a ``local_window`` alone.
        place: of the token.
        memory_length: tokens before its block that a token sees; ``None``: all.
    """
    for number in reversed(range(config.layers)):
        own_block = place // config.block_size * config.block_size
        reach = [] if memory_length is None else [own_block - memory_length]
        if config.is_local(number) and config.local_window is not None:
            reach.append(place - config.local_window + 1)
        place = max(reach)
    return place
