"""One model, from opening it to the last figure, in a process that has done nothing else."""

from __future__ import annotations

import torch

from famcli.checkpoints.registry import find_model, pick_device, pick_dtype
from famcli.checkpoints.sources import LoadedModel
from famcli.machine.peak import PeakMemory, give_back, program
from famcli.machine.rates import copy_rates, product_rates, scaled_ones
from famcli.models.decoder import Decoder
from famcli.models.products import decoding_values, known, reading
from famcli.profiling.job import Job
from famcli.profiling.reading import Say, Stream, fitting, grows
from famcli.profiling.training import training_peak

RATES = 5
"""Before reading, and as many after it: the median of all counts."""
PRODUCT_WORK = {"cpu": 2 * 10**9, "cuda": 10**12, "mps": 10**10}
"""Operations at least in a measured product: the clock, and what starts a kernel, are no part of the rate."""
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
    config = model.stream.config if isinstance(model.stream, Decoder) else None
    with PeakMemory(device) as counting:
        rest = torch.cuda.memory_allocated(device) if device.type == "cuda" else counting.bytes
    say(
        {
            "kind": "opened",
            "device": _name(device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "parameters": model.stream.parameters_count,
            "memory": config.memory.describe(config) if config else None,
            "grows": grows(model),
            "window": config.window if config else None,
            "longest_text": model.stream.longest_text,
            "program": before if device.type != "cuda" else 0,
            "rest": rest,
        }
    )
    if job.training_blocks is not None:
        return say({"kind": "peak", "bytes": training_peak(model, job.training_blocks, job.seed)})
    lengths = fitting(model, job.lengths, say)
    if not lengths:
        return None
    if config:
        for tokens in lengths:
            counted = reading(config, tokens).operations if known(config) else None
            size = model.dtype.itemsize
            say(
                {
                    "kind": "work",
                    "tokens": tokens,
                    "operations": counted,
                    "decoding_bytes": decoding_values(config, tokens) * size,
                }
            )
    _rates(model, say)
    for repeat in range(job.repeat):
        Stream(model, job, repeat, say).run(lengths)
    _rates(model, say)
    return None


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _rates(model: LoadedModel, say: Say) -> None:
    """Of products as the feed-forward's of a block, where the model has such, and of bytes."""
    device, products = model.device, None
    if isinstance(model.stream, Decoder):
        config = model.stream.config
        left = scaled_ones(config.block_size, config.width, device, model.dtype)
        right = scaled_ones(config.ffn_width, config.width, device, model.dtype).T
        times = -(-PRODUCT_WORK[device.type] // (2 * config.block_size * config.width * config.ffn_width))
        product_rates(left, right, 1)  # the first call of a kernel loads it
        products = product_rates(left, right, RATES, times)
        del left, right
    moved = copy_rates(COPIED[device.type], device, RATES)
    say({"kind": "rates", "products": products, "bytes": moved})
    give_back()
