"""A profile written out: tables for readers, CSV, JSON, and the published figures beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from famcli.compare.cells import format_tokens
from famcli.compare.reference import Figure, load_reference
from famcli.display import csv_value, format_bytes, json_text
from famcli.metrics.power_law import fit_power_law
from famcli.profiling.record import FORMAT, LengthCost, ModelProfile, Profile, Spread
from famcli.reports.grid import Grid
from famcli.reports.numbers import NOTHING, csv_number, short

MEMORY_TABLE, TIME_TABLE = 13, 14
"""Of TransformerFAM's paper."""
UNSTEADY = 1.2
"""Times the lower quartile of a rate that its upper one has at most on a machine that does nothing else."""


def grids(profile: Profile) -> list[Grid]:
    """All tables, and what the paper prints."""
    return [*cost_grids(profile), _published()]


def cost_grids(profile: Profile) -> list[Grid]:
    """A table a model, how its cost grows, and training where it was measured."""
    found = [_lengths(model) for model in profile.models]
    found.append(_growth(profile.models))
    if any(model.training for model in profile.models):
        found.append(_training(profile.models))
    return found


def remarks(profile: Profile) -> list[str]:
    """The lines below the tables."""
    found = [f"{model.name}: {model.why}" for model in profile.models if model.status == "failed"]
    for model in profile.models:
        left = [cost for cost in model.lengths if cost.status != "measured"]
        # What broke off with the model has been said of the model.
        told = [cost for cost in left if cost.why and cost.why != model.why]
        found += [f"{model.name}, {format_tokens(cost.tokens)}: {cost.status}: {cost.why}" for cost in told]
        found += [f"{model.name}: no fit: {model.no_fit}"] if model.no_fit and model.measured else []
        found += _limits(model)
        found += [f"{model.name}, training over {t.blocks}: {t.why}" for t in model.training if t.why]
    if any(model.measured for model in profile.models):
        found += _meanings(profile)
    return found


def _limits(model: ModelProfile) -> Iterator[str]:
    rate = model.products_per_second
    if rate is not None and rate.high > UNSTEADY * rate.low:
        way = (
            "the share of products and the exponent go by processor time" if model.device == "cpu" else "try --repeat 5"
        )
        yield (
            f"{model.name}: matrix products ran at {rate.low / 1e9:,.1f} to {rate.high / 1e9:,.1f} GFLOP/s (quartiles):"
            f" this machine did something else as well, and seconds say less; {way}"
        )
    longest = model.longest_text
    if longest is not None and any(cost.tokens > longest for cost in model.measured):
        yield (
            f"{model.name}: it was trained on at most {longest:,} tokens; beyond them these are costs of answers that "
            "mean nothing"
        )
    if model.measured and all(cost.operations is None for cost in model.measured):
        yield f"{model.name}: its package does not say what its matrix products are, so shares of rates are not known"


def _meanings(profile: Profile) -> Iterator[str]:
    yield (
        f"read: {profile.text}; seconds until the next token can be predicted, median of {profile.repeat} "
        f"{'stream' if profile.repeat == 1 else 'streams'}; decode: one token more, median and quartiles"
    )
    programs = [model.program_bytes for model in profile.models if model.program_bytes]
    whose = f"program ({format_bytes(max(programs))} without a model) and weights included" if programs else "allocated"
    yield f"peak memory: of a process that did nothing else, {whose}; a state that does not grow is there twice"
    yield (
        "of products: of the rate at which this machine multiplies matrices of the model's shape; of bandwidth: "
        "weights, keys and values that decoding must move, of the rate at which it copies memory; caches exceed it"
    )
    yield (
        "growth: generalised least squares of log seconds (of processor time on a processor; the fastest "
        "stream, stretch by stretch) on log tokens; "
        "95 % interval by Student's t"
    )


def _lengths(model: ModelProfile) -> Grid:
    header = (
        *("tokens", "computed", "seconds", "tokens/s", "of products", "peak memory", "state", "decode ms"),
        "of bandwidth",
    )
    return Grid(_title(model), header, tuple(_line(cost) for cost in model.lengths), words=0)


def _title(model: ModelProfile) -> str:
    if model.device is None:
        return f"{model.name}: {model.status}"
    threads = f", {model.threads} {'thread' if model.threads == 1 else 'threads'}" if model.device == "cpu" else ""
    parts = [f"{model.memory}" if model.memory else "", f"{model.device} {model.dtype}{threads}"]
    if model.products_per_second:
        parts.append(f"products {model.products_per_second.median / 1e9:,.1f} GFLOP/s")
    if model.bytes_per_second:
        parts.append(f"copies {model.bytes_per_second.median / 1e9:,.1f} GB/s")
    return f"{model.name}: {'; '.join(filter(None, parts))}"


def _line(cost: LengthCost) -> tuple[str, ...]:
    length = format_tokens(cost.tokens)
    if cost.seconds is None or cost.decode is None:
        return (length, NOTHING, cost.status, *(NOTHING,) * 6)
    return (
        length,
        f"{cost.computed_tokens:,}",
        _seconds(cost),
        f"{cost.tokens_per_second:,.0f}",
        _share(cost.product_share),
        format_bytes(cost.peak_memory_bytes or 0),
        format_bytes(cost.state_bytes or 0),
        _milliseconds(cost.decode),
        _share(cost.bandwidth_share),
    )


def _seconds(cost: LengthCost) -> str:
    each = cost.seconds_each or []
    ends = f" [{short(min(each))}, {short(max(each))}]" if len(each) > 1 else ""
    return f"{short(cost.seconds or 0.0)}{ends}"


def _milliseconds(found: Spread) -> str:
    return f"{short(found.median * 1e3)} [{short(found.low * 1e3)}, {short(found.high * 1e3)}]"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"


def _growth(models: Sequence[ModelProfile]) -> Grid:
    header = ("growth", "from", "to", "peak memory", "state", "seconds as tokens to the", "interval", "fitted")
    return Grid("", header, tuple(_growing(model) for model in models), words=1)


def _growing(model: ModelProfile) -> tuple[str, ...]:
    settled, fit = model.settled, model.fit
    ends = (NOTHING,) * 4
    if settled:
        first, last = settled[0], settled[-1]
        peak = _from_to(first.peak_memory_bytes, last.peak_memory_bytes)
        state = _from_to(first.state_bytes, last.state_bytes)
        ends = (format_tokens(first.tokens), format_tokens(last.tokens), peak, state)
    if fit is None:
        return (model.name, *ends, NOTHING, NOTHING, NOTHING)
    fitted = f"{len(fit.points)} lengths, {format_tokens(fit.points[0])} to {format_tokens(fit.points[-1])}"
    return (model.name, *ends, f"{fit.exponent:.3f}", f"[{fit.low:.3f}, {fit.high:.3f}]", fitted)


def _from_to(first: int | None, last: int | None) -> str:
    return f"x {last / first:.3f}" if first and last is not None else NOTHING


def _training(models: Sequence[ModelProfile]) -> Grid:
    header = ("training: forward and backward over", "blocks", "peak memory")
    lines = [
        (
            model.name,
            str(cost.blocks),
            NOTHING if cost.peak_memory_bytes is None else format_bytes(cost.peak_memory_bytes),
        )
        for model in models
        for cost in model.training
    ]
    return Grid("", header, tuple(lines), words=1, once=1)


def published_figures() -> tuple[str, list[Figure]]:
    """Where they were published, and the figures of memory in GB and of time in seconds."""
    reference, _ = load_reference("paper")
    return reference.source, [f for f in reference.figures if f.table in (MEMORY_TABLE, TIME_TABLE)]


def _published() -> Grid:
    source, figures = published_figures()
    lengths = list(dict.fromkeys(figure.name for figure in figures))
    values = {(figure.table, figure.model, figure.name): figure.value for figure in figures}
    lines = []
    for table, what in ((MEMORY_TABLE, "memory, GB"), (TIME_TABLE, "seconds")):
        for model in dict.fromkeys(figure.model for figure in figures if figure.table == table):
            row = [values[table, model, name] for name in lengths]
            tokens = [float(name.partition("k")[0]) for name in lengths]
            law = fit_power_law(tokens, [0.0] * len(row), row)
            grows = f"{law.exponent:.3f} [{law.low:.3f}, {law.high:.3f}]" if law else NOTHING
            lines.append((f"Table {table}", f"{model}, {what}", *(f"{value:g}" for value in row), grows))
    header = ("published", "TPUv4, model size not stated", *lengths, "as tokens to the")
    return Grid(f"published figures, not comparable: {source}", header, tuple(lines), words=2, once=1)


def to_json(profile: Profile) -> dict[str, Any]:
    """One object: ``format``, the fields of ``famcli.profiling.record.Profile``, and ``published``."""
    source, figures = published_figures()
    published = {"source": source, "figures": [asdict(figure) for figure in figures]}
    return {"format": FORMAT, **asdict(profile), "published": published}


def to_json_text(profile: Profile) -> str:
    """``to_json`` for a file."""
    return json_text(to_json(profile), indent=1) + "\n"


def to_csv(profile: Profile) -> str:
    """A line a model and length, and a line a model and number of blocks of training; numbers as ``csv_number``."""
    lines = [line for model in profile.models for line in (*_length_lines(model), *_training_lines(model))]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_value(csv_number(value)) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _length_lines(model: ModelProfile) -> Iterator[dict[str, Any]]:
    for cost in model.lengths:
        values = asdict(cost)
        values.pop("seconds_each")
        decode = values.pop("decode") or {}
        yield {
            "model": model.name,
            "device": model.device,
            "dtype": model.dtype,
            **values,
            **{f"decode_seconds_{name}": decode.get(name) for name in ("median", "low", "high")},
        }


def _training_lines(model: ModelProfile) -> Iterator[dict[str, Any]]:
    for cost in model.training:
        status = "measured" if cost.peak_memory_bytes is not None else "not reached"
        yield {
            **{"model": model.name, "device": model.device, "dtype": model.dtype, "status": status, "why": cost.why},
            **{"training_blocks": cost.blocks, "peak_memory_bytes": cost.peak_memory_bytes},
        }
