"""Keys of training sources: where they stand, what they are made of and how they are told."""

from __future__ import annotations

import numpy as np
import pytest

from famcli.checkpoints.tokenizer import ByteTokenizer
from famcli.training.material import PasskeySources
from famcli.training.recipe import KeyPlaces

TOKENIZER = ByteTokenizer()


def test_keys_stand_where_the_phase_wants_them() -> None:
    def share(places: KeyPlaces) -> list[float]:
        sources = PasskeySources(TOKENIZER)
        rng = np.random.default_rng(0)
        waits = [
            source.key_at - len(source.head)
            for source in (sources.draw(rng, places, 100, 32, None) for _ in range(300))
        ]
        return [sum(w == 0 for w in waits) / 300, sum(0 < w < 300 for w in waits) / 300, max(waits) / 100]

    assert share(KeyPlaces(at_once=1.0, soon=0.0, later=0.0)) == [1.0, 0.0, 0.0]
    at_once, soon, longest = share(KeyPlaces(at_once=1, soon=3, later=0))
    assert (at_once, soon) == (pytest.approx(0.25, abs=0.08), pytest.approx(0.75, abs=0.08)) and longest < 3
    assert share(KeyPlaces(at_once=0, soon=0, later=1))[2] > 28


def test_keys_may_have_few_digits() -> None:
    def share(few_digits: float) -> float:
        sources, rng = PasskeySources(TOKENIZER), np.random.default_rng(0)
        drawn = [sources.draw(rng, KeyPlaces(), 200, 32, None, few_digits=few_digits) for _ in range(300)]
        return sum(len(set(TOKENIZER.decode(source.question.answer).strip())) <= 3 for source in drawn) / 300

    assert share(0.0) < 0.25 < 0.5 < share(0.5) < 0.7 and share(1.0) == 1.0


def test_keys_may_be_told_once() -> None:
    def told(share: float) -> list[str]:
        sources, rng = PasskeySources(TOKENIZER), np.random.default_rng(0)
        drawn = [sources.draw(rng, KeyPlaces(), 200, 32, None, told_once=share) for _ in range(300)]
        keys = [TOKENIZER.decode(source.question.answer).strip() for source in drawn]
        lines = [TOKENIZER.decode(source.key_line).strip() for source in drawn]
        return [line.replace(key, "KEY") for line, key in zip(lines, keys, strict=True)]

    once = ["KEY is the pass key.", "The pass key is KEY."]
    assert sorted(set(told(1.0))) == once
    assert 0.3 < sum(line in once for line in told(0.4)) / 300 < 0.5
    assert set(told(0.0)) == {"The pass key is KEY. Remember it. KEY is the pass key."}


def test_keys_may_stand_across_the_end_of_a_block() -> None:
    sources, rng = PasskeySources(TOKENIZER), np.random.default_rng(0)
    across = KeyPlaces(at_once=0, soon=0, later=0, across=1)
    drawn = [sources.draw(rng, across, 200, 32, None) for _ in range(300)]
    line = len(TOKENIZER.encode("The pass key is 12345. Remember it. 12345 is the pass key."))
    begins = {source.key_at + 1 for source in drawn if not len(source.head)}
    assert min(begins) == 200 - line + 1 and max(begins) == 199


def test_keys_may_be_told_on_either_side_of_the_end_of_a_block() -> None:
    sources, rng = PasskeySources(TOKENIZER), np.random.default_rng(0)
    between = KeyPlaces(at_once=0, soon=0, later=0, between=1)
    for told_once, ends in ((0.0, range(21, 37)), (1.0, range(5, 23))):
        drawn = [sources.draw(rng, between, 200, 32, None, told_once=told_once) for _ in range(600)]
        cut = [(source, 200 - source.key_at) for source in drawn if not len(source.head)]
        keys = [TOKENIZER.decode(source.question.answer).strip() for source, _ in cut]
        before = [TOKENIZER.decode(source.key_line[:end]) for source, end in cut]
        after = [TOKENIZER.decode(source.key_line[end:]) for source, end in cut]
        assert all(key in told for key, told in zip(keys, before, strict=True))
        assert told_once or all(key in told for key, told in zip(keys, after, strict=True))
        assert {len(told.strip("\n")) for told in before} <= set(ends)
        assert min(map(len, before)) == ends[0] + 1 and max(map(len, before)) == ends[-1] + 1
