"""How many multiplications the matrix products of reading take, by arithmetic from a config.

All that the decoder multiplies is counted, hidden keys among them, as PyTorch's own counter does it; norms, rotations
and other work by elements are not.
"""

from __future__ import annotations

from collections.abc import Iterator

from famcli.models.config import ModelConfig
from famcli.models.masks import QUERY_RUN
from famcli.models.memories.base import Memory, Products

_OWN_WORK = ("write", "mix", "beside", "before", "echo", "noted", "along", "attend", "complete")


def known(config: ModelConfig) -> bool:
    """Whether the memory says what its own work takes; one of another package may not."""
    order = type(config.memory).__mro__
    told = next(i for i, kind in enumerate(order) if "write_products" in vars(kind))
    return all(told <= next(i for i, kind in enumerate(order) if name in vars(kind)) for name in _OWN_WORK)


def reading(config: ModelConfig, tokens: int) -> Products:
    """Of reading ``tokens`` tokens, at least 1, in one stream until the next token can be predicted.

    All but the last are prefilled, a block each, the last block's in one piece; the last token is read, and has logits.
    """
    before, last = whole_chunks(tokens, config.block_size)
    total = chunk(config, tokens - 1, 1, output=True) + Products(config.width * config.vocab_size)
    if last > 1:
        total += chunk(config, before, last - 1, output=False)
    for start, times in _alike(config, before):
        total += chunk(config, start, config.block_size, output=False) * times
    return total


def whole_chunks(tokens: int, size: int) -> tuple[int, int]:
    """Tokens in whole chunks before the last chunk, and those of the last one, from 1 to ``size``."""
    before = (tokens - 1) // size * size
    return before, tokens - before


def _alike(config: ModelConfig, tokens: int) -> Iterator[tuple[int, int]]:
    """Where blocks start, and how many take as much as that one: once a memory is full, all the others."""
    steady = _steady(config.memory, config)
    blocks = tokens // config.block_size
    for block in range(blocks if steady is None else min(blocks, steady)):
        yield block * config.block_size, 1
    if steady is not None and blocks > steady:
        yield steady * config.block_size, blocks - steady


def _steady(memory: Memory, config: ModelConfig) -> int | None:
    """The first block from which on all of them are alike; ``None`` where they never are."""
    if memory.whole:
        return None
    last = memory.parts(config, 1 << 30)
    for block in range(1 << 16):
        # Whatever a memory does with its first block, it does it once.
        if block and memory.parts(config, block) == last:
            return block
    return None


def chunk(config: ModelConfig, start: int, count: int, output: bool) -> Products:
    """Of a chunk within one block, logits left out.

    Args:
        config: of the decoder.
        start: tokens that were read before.
        count: tokens of the chunk.
        output: latents of the chunk are wanted; otherwise only what the state needs is computed.
    """
    memory = config.memory
    blocks, offset = (0, start) if memory.whole else divmod(start, config.block_size)
    completes = not memory.whole and offset + count == config.block_size
    if completes and not output and memory.forgets(config, blocks):
        return Products()
    name = memory.extra(config) if completes else None
    extra = memory.embeddings(config)[name] if name else 0
    rows, layers = count + extra, config.layers
    keys, heads_in_and_out, feed_forward = _dense(config)
    through = layers if output or extra else layers - 1
    attending = layers if memory.notes_attended else through
    echoed = count if memory.echoes else 0
    before = sum(part.count for part in memory.parts(config, blocks)) + offset
    if memory.echoes:
        before += offset + count
    seen = sum(run * (before + last) for run, last in _runs(rows))
    heads = config.heads * config.head_width
    dense = (rows + echoed) * layers * keys + rows * (attending * heads_in_and_out + through * feed_forward)
    total = Products(dense, attending * 2 * heads * seen)
    total += memory.before_products(config) * (rows * layers) + memory.mix_products(config) * (rows * through)
    total += memory.along_products(config, count, output=True) * through
    total += memory.along_products(config, count, output=False) * (layers - through)
    if completes:
        total += memory.write_products(config, blocks) * layers + memory.complete_products(config, blocks)
    return total


def _runs(rows: int) -> Iterator[tuple[int, int]]:
    """Queries that attend together, and how many rows there are up to the last of them."""
    for first in range(0, rows, QUERY_RUN):
        last = min(first + QUERY_RUN, rows)
        yield last - first, last


def _dense(config: ModelConfig) -> tuple[int, int, int]:
    """Weights of a layer that a token meets for its keys and values, for its queries and what they find, and after."""
    heads, keys = config.heads * config.head_width, config.kv_heads * config.head_width
    return 2 * config.width * keys, 2 * config.width * heads, 3 * config.width * config.ffn_width


def decoding_bytes(config: ModelConfig, tokens: int, itemsize: int) -> int:
    """Bytes that must come from memory to read one more token after ``tokens`` others and to predict the next one.

    Each weight that it meets, and each key and value that it sees, once, of ``itemsize`` bytes where it is not rounded.
    What a memory reads beside them is counted as what it multiplies; the scales of rounded rows are left out.
    """
    memory = config.memory
    blocks, offset = (0, tokens) if memory.whole else divmod(tokens, config.block_size)
    seen = sum(part.count for part in memory.parts(config, blocks)) + offset * (1 + memory.echoes)
    weights = config.layers * sum(_dense(config)) + config.width * config.vocab_size
    own = memory.before_products(config) + memory.mix_products(config) + memory.along_products(config, 1, output=True)
    a_layer = 2 * config.kv_heads * config.head_width * seen + own.operations // 2
    return weights * (1 if config.weights == "int8" else itemsize) + config.layers * a_layer * itemsize
