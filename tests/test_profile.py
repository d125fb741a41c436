"""What is measured of a model: one stream gives at each length what a reading to that length would."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from small_models import KINDS, small_config, small_decoder
from small_runs import loaded

from famcli.models.decoder import Decoder
from famcli.profiling import measure, reading
from famcli.profiling.gathering import Gathering
from famcli.profiling.job import Job
from famcli.profiling.reading import Stream, fitting, points_between
from famcli.profiling.record import ModelProfile
from famcli.profiling.tokens import Tokens
from famcli.profiling.training import training_peak

LENGTHS = (3, 8, 21)
MIB = 2**20


def profiled(decoder: Decoder, lengths: tuple[int, ...] = LENGTHS, **options: Any) -> ModelProfile:
    """What is gathered of a decoder, in this process."""
    job = Job("small", lengths, decode=3, **options)
    gathering, model = Gathering(job), loaded(decoder)
    for repeat in range(job.repeat):
        Stream(model, job, repeat, gathering.hear).run(lengths)
    gathering.hear({"kind": "done"})
    return gathering.profile()


@pytest.mark.parametrize("kind", KINDS)
def test_one_stream_predicts_what_a_reading_to_each_length_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And reads no more than the largest length, and less than a block for each point on the way."""
    decoder = small_decoder(KINDS[kind])
    monkeypatch.setattr(reading, "LEAST_POINT", 3)
    points = points_between(LENGTHS, decoder.chunk_size)
    tokens = Tokens(decoder, 0).at(0, max(LENGTHS))
    seen, read = [], 0
    stream = Stream(loaded(decoder), Job("small", LENGTHS, decode=1), 0, lambda message: None)
    monkeypatch.setattr(stream, "_warm_up", lambda: None)
    monkeypatch.setattr(stream, "_decode", lambda state: [1.0])
    logits, within = decoder.logits, decoder._read_within_block

    def heard(latents: torch.Tensor) -> torch.Tensor:
        seen.append(logits(latents))
        return seen[-1]

    def count(text: torch.Tensor, state: Any, output: bool) -> Any:
        nonlocal read
        read += text.shape[1]
        return within(text, state, output=output)

    monkeypatch.setattr(decoder, "logits", heard)
    monkeypatch.setattr(decoder, "_read_within_block", count)
    stream.run(LENGTHS)
    assert read <= max(LENGTHS) + len(points) * decoder.chunk_size
    assert len(seen) == len(points)
    for point, found in zip(points, seen, strict=True):
        latents, _ = decoder.read(tokens[:, :point], decoder.start(1))
        torch.testing.assert_close(found, logits(latents[:, -1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "bswa-M0", "bswa-M1-N3", "fam-M3"])
def test_only_a_growing_state_grows(kind: str) -> None:
    decoder = small_decoder(KINDS[kind])
    states = [cost.state_bytes for cost in profiled(decoder).lengths]
    assert states == [decoder.state_bytes(tokens) for tokens in LENGTHS]
    assert (len(set(states)) == 1) == (kind != "full")


def test_tokens_that_reach_no_answer_are_not_computed() -> None:
    computed = [cost.computed_tokens for cost in profiled(small_decoder(KINDS["bswa-M0"])).lengths]
    assert computed == [3, 4, 1], "of the last block alone"
    found = profiled(small_decoder(KINDS["fam-M0"]))
    assert [cost.computed_tokens for cost in found.lengths] == list(LENGTHS)
    assert all(c.seconds and c.tokens_per_second == pytest.approx(c.tokens / c.seconds) for c in found.lengths)


def test_figures_are_medians_of_streams() -> None:
    found = profiled(small_decoder(KINDS["fam-M1"]), repeat=3)
    for cost in found.lengths:
        assert cost.seconds_each is not None and len(cost.seconds_each) == 3
        assert cost.decode is not None and cost.decode.count == 9
        assert cost.decode.low <= cost.decode.median <= cost.decode.high
    assert found.status == "finished" and found.fit is not None and found.fit.low < found.fit.high


def test_the_fit_goes_by_the_fastest_passage_of_each_stretch() -> None:
    """Something else runs during one stretch or another of every stream, and never of all of them."""
    gathering = Gathering(Job("small", (8, 16, 32, 64), repeat=3))
    for repeat in range(3):
        along, before = 0.0, 0
        for place, tokens in enumerate((8, 16, 32, 64)):
            along += (tokens - before) * (9.0 if place % 3 == repeat else 1.0)
            work = {"along_work": along, "own_work": 0.0}
            gathering.hear({"kind": "point", "repeat": repeat, "tokens": tokens, "along": 1.0, "own": 0.0, **work})
            before = tokens
    fit = gathering.profile().fit
    assert fit is not None and fit.seconds == [8, 16, 32, 64]
    assert (fit.scale, fit.exponent) == pytest.approx((1, 1), rel=1e-6)


def test_a_stream_that_takes_too_long_stops_and_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(reading.Clock, "running", property(lambda self: next(clock)))
    found = profiled(small_decoder(KINDS["fam-M1"]), (8, 4096), seconds=20)
    assert [cost.status for cost in found.lengths] == ["measured", "not reached"]
    assert found.lengths[1].why == "its stream had been read for 20 seconds"


@pytest.mark.parametrize(("free", "kept"), [(10**9, [4, 4096]), (10**6, [4]), (0, []), (None, [4, 4096])])
def test_lengths_whose_state_does_not_fit_are_refused(
    free: int | None, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "free_bytes", lambda device: free)
    heard: list[Any] = []
    model = loaded(small_decoder(KINDS["full"]))
    assert fitting(model, [4, 4096], heard.append) == kept
    assert [message["tokens"] for message in heard] == [n for n in (4, 4096) if n not in kept]
    gathering = Gathering(Job("small", (4, 4096)))
    for message in heard:
        gathering.hear(message)
    assert [cost.status == "refused" for cost in gathering.profile().lengths] == [n not in kept for n in (4, 4096)]


def test_points_end_with_blocks_and_hold_all_lengths() -> None:
    found = points_between((1000, 1 << 20), 512)
    assert found[0] == 1000 and found[-1] == 1 << 20
    assert all(point % 512 == 0 for point in found[1:])
    assert len(found) >= 20 and all(1 < b / a < 2.1 for a, b in pairwise(found))
    assert points_between((1,), 1) == [1]


def test_tokens_are_the_same_in_any_chunks() -> None:
    decoder = small_decoder(KINDS["fam-M1"])
    tokens, far = Tokens(decoder, 3), (1 << 16) - 5
    pieces = [tokens.at(far, 4), tokens.at(far + 4, 1), tokens.at(far + 5, 15)]
    assert torch.equal(torch.cat(pieces, dim=1), tokens.at(far, 20))
    assert not torch.equal(tokens.at(0, 64), Tokens(decoder, 4).at(0, 64))
    assert int(tokens.at(0, 1 << 16).max()) == decoder.vocab_size - 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(measure, "PRODUCT_WORK", {"cpu": 10**6})
    monkeypatch.setattr(measure, "COPIED", {"cpu": 1 << 22})
    yield


@pytest.mark.usefixtures("quick")
def test_a_profile_has_all_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    gathering = Gathering(job := Job("fam-tiny", (256, 1024), decode=3))
    measure.measure(job, gathering.hear)
    gathering.hear({"kind": "done"})
    found = gathering.profile()
    assert (found.status, found.window, found.state_grows, found.parameters) == ("finished", 4096, False, 692992)
    for cost in found.lengths:
        assert all(value is not None for name, value in vars(cost).items() if name != "why"), cost
        assert found.program_bytes and found.rest_bytes and cost.peak_memory_bytes
        assert found.program_bytes < found.rest_bytes < cost.peak_memory_bytes
    first = found.lengths[0]
    assert first.seconds and first.work_seconds and first.product_share
    assert first.work_seconds == pytest.approx(first.seconds, rel=0.1) or first.work_seconds < first.seconds
    assert 0.05 < first.product_share < 2, "of matrices of its own shape"


def test_what_training_takes_grows_with_blocks() -> None:
    """By about the same for every block more: gradients flow back through all of them.

    The most of three: where the system does not count the peak, samples of the resident set miss some of it.
    """
    config = small_config("fam", block_size=64, fam_length=4, width=64, ffn_width=512, vocab_size=4096)
    decoder = small_decoder(config, torch.float32)
    peaks = [max(training_peak(loaded(decoder), blocks, 0) for _ in range(3)) / MIB for blocks in (1, 9, 17)]
    steps = [peaks[1] - peaks[0], peaks[2] - peaks[1]]
    assert steps[0] > 5 and 0.5 < steps[1] / steps[0] < 2
