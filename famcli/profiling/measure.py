"""One model, from opening it to the last figure, in a process that has done nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from famcli.checkpoints.registry import find_model, pick_device, pick_dtype
from famcli.checkpoints.sources import LoadedModel
from famcli.machine.peak import PeakMemory, give_back, program
from famcli.machine.rates import copy_rates, product_rates, scaled_ones
from famcli.models.config import ModelConfig
from famcli.models.decoder import Decoder
from famcli.models.products import decoding_bytes, known, reading
from famcli.profiling.clock import work_clock
from famcli.profiling.job import Job
from famcli.profiling.reading import Say, Stream, fitting, grows
from famcli.profiling.training import training_peak

RATES = 5
"""Before reading, and as many after it: the median of all counts."""
PRODUCT_WORK = {"cpu": 2 * 10**9, "cuda": 10**12, "mps": 10**10}
"""Operations at least in a measured product: the clock, and what starts a kernel, are no part of the rate."""
MOST_PRODUCTS = 2000
"""In a measured rate: very small products take as long as it takes to ask for them."""
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30, "mps": 1 << 28}
"""Bytes that are copied: more than caches hold."""


def measure(job: Job, say: Say) -> None:
    """Opens the model, measures, and says what it finds, see ``Job`` and ``Message``.

    Raises:
        UserError: there is no such model or device.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    before = program()
    device = pick_device(job.device)
    source = find_model(job.model)
    model = source.load(device, pick_dtype(job.dtype, device, source))
    say({"kind": "opened", **_facts(model), **_at_rest(device, before)})
    if job.training_blocks is not None:
        return say({"kind": "peak", "bytes": training_peak(model, job.training_blocks, job.seed)})
    lengths = fitting(model, job.lengths, say)
    if lengths:
        _work(model, lengths, say)
        _rates(model, say)
        for repeat in range(job.repeat):
            Stream(model, job, repeat, say).run(lengths)
        _rates(model, say)
    return None


def _facts(model: LoadedModel) -> dict[str, Any]:
    config = _config(model)
    return {
        "device": _name(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "parameters": model.stream.parameters_count,
        "memory": config.memory.describe(config) if config else None,
        "grows": grows(model),
        "window": config.window if config else None,
        "longest_text": model.stream.longest_text,
    }


def _at_rest(device: torch.device, before: int) -> dict[str, int]:
    """Bytes without the model, and with it."""
    if device.type == "cuda":
        give_back()
        return {"program": 0, "rest": torch.cuda.memory_allocated(device)}
    with PeakMemory(device) as counting:
        return {"program": before, "rest": counting.bytes}


def _config(model: LoadedModel) -> ModelConfig | None:
    """Of a decoder of ours."""
    return model.stream.config if isinstance(model.stream, Decoder) else None


def _work(model: LoadedModel, lengths: Sequence[int], say: Say) -> None:
    """What there is to multiply and to move, where the config says it."""
    config = _config(model)
    if config is None:
        return
    for tokens in lengths:
        operations = reading(config, tokens).operations if known(config) else None
        moved = decoding_bytes(config, tokens, model.dtype.itemsize)
        say({"kind": "work", "tokens": tokens, "operations": operations, "decoding_bytes": moved})


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _rates(model: LoadedModel, say: Say) -> None:
    """Of products as the feed-forward's of a block, where the model has such, and of bytes."""
    device, config = model.device, _config(model)
    products = working = None
    if config:
        left = scaled_ones(config.block_size, config.width, device, model.dtype)
        right = scaled_ones(config.ffn_width, config.width, device, model.dtype).T
        times = -(-PRODUCT_WORK[device.type] // (2 * config.block_size * config.width * config.ffn_width))
        times = min(times, MOST_PRODUCTS)
        product_rates(left, right, 1)  # the first call of a kernel loads it
        products = product_rates(left, right, RATES, times)
        working = product_rates(left, right, RATES, times, work_clock(device))
        del left, right
    moved = copy_rates(COPIED[device.type], device, RATES)
    say({"kind": "rates", "products": products, "products_work": working, "bytes": moved})
    give_back()
