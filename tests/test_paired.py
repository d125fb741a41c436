"""Intervals, tests and corrections, against scipy, against their definitions, and by what they promise of chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from famcli.metrics import flips, paired
from famcli.metrics.flips import flip
from famcli.metrics.paired import holm, interval, mcnemar, paired_difference, student_quantile

Floats = NDArray[np.float64]
DRAWS = 1000


@dataclass
class Draw:
    """Samples of two models as chance gave them."""

    left: Floats
    right: Floats
    weights: Floats
    clusters: list[str]


def sign_flip(sums: Floats, seed: int = 0) -> float:
    """The p-value of clusters that weigh the same."""
    return flip(np.asarray(sums), np.ones(len(sums)), seed, 0.05).p_value


def documents(rng: np.random.Generator, sizes: Sequence[int]) -> tuple[NDArray[np.int64], list[str]]:
    """The document of each sample, as a number and as a name."""
    number = np.repeat(np.arange(len(sizes)), sizes)
    return number, [str(i) for i in number]


def questions(rng: np.random.Generator, count: int, mean: float, spread: float) -> list[int]:
    """How many questions documents have: at least one, some many."""
    return [int(n) for n in np.clip(np.round(rng.lognormal(np.log(mean), spread, count)), 1, 12 * mean)]


def choices(rng: np.random.Generator) -> Draw:
    """Like QuALITY: 50 stories of some 18 questions, right or wrong; the models find the same stories hard."""
    sizes = [1 + int(n) for n in rng.poisson(17, 50)]
    number, names = documents(rng, sizes)
    hard, taste = rng.normal(0, 0.7, 50)[number], rng.normal(0, 0.4, 50)[number]
    left, right = (1 / (1 + np.exp(-(x + hard))) for x in (0.3 + taste, -0.1))
    u = rng.random((2, len(names)))
    return Draw((u[0] < left) * 1.0, (u[1] < right) * 1.0, np.ones(len(names)), names)


def answers(rng: np.random.Generator, count: int, mean: float, spread: float) -> Draw:
    """Like Qasper and NarrativeQA: F1, mostly low, often 0, with documents that are easier than others."""
    number, names = documents(rng, questions(rng, count, mean, spread))
    ease = rng.normal(0, 0.1, count)[number]

    def f1(level: float) -> Floats:
        found: Floats = np.clip(rng.beta(1, 3, len(names)) + level + ease, 0, 1) * (rng.random(len(names)) < 0.7)
        return found

    return Draw(f1(0.05 + 0.0), f1(0.0), np.ones(len(names)), names)


def papers(rng: np.random.Generator) -> Draw:
    return answers(rng, 100, 3.5, 0.6)


def stories(rng: np.random.Generator) -> Draw:
    return answers(rng, 20, 25, 0.4)


def books(rng: np.random.Generator) -> Draw:
    """Like PG-19: 50 books of very different lengths, each one sample that weighs its bytes."""
    bits = rng.normal(1.9, 0.25, 50)
    better = rng.normal(-0.03, 0.05, 50)
    return Draw(bits + better, bits, rng.lognormal(0, 0.75, 50), [str(i) for i in range(50)])


def summaries(rng: np.random.Generator) -> Draw:
    """Like a language of XL-Sum: 200 articles that stand alone."""
    common = rng.beta(2, 8, 200)
    scores = np.clip(common + rng.normal(0, 0.08, (2, 200)), 0, 1)
    return Draw(scores[0], scores[1], np.ones(200), [str(i) for i in range(200)])


def keys(rng: np.random.Generator) -> Draw:
    """Like a cell of PassKey: 50 trials, right or wrong."""
    u = rng.random(50)
    return Draw((u < 0.85) * 1.0, ((u > 0.1) & (u < 0.75)) * 1.0, np.ones(50), [str(i) for i in range(50)])


Make = Callable[[np.random.Generator], Draw]
MAKERS = [choices, papers, stories, books, summaries, keys]


def truth(make: Make) -> Floats:
    """The mean of the left model and its difference to the right, from many draws."""
    rng, totals = np.random.default_rng(12345), np.zeros(3)
    for _ in range(1500):
        draw = make(rng)
        totals += [draw.weights @ draw.left, draw.weights @ (draw.left - draw.right), draw.weights.sum()]
    return totals[:2] / totals[2]


def binary(draw: Draw) -> bool:
    return set(draw.left) | set(draw.right) <= {0.0, 1.0}


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bootstrap so quick that it can be repeated a thousand times."""
    monkeypatch.setattr(paired, "MOST_DRAWS", 500)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("make", MAKERS)
def test_intervals_hold_the_truth_as_often_as_they_say(make: Make) -> None:
    mean, difference = truth(make)
    rng, held = np.random.default_rng(2), np.zeros(2)
    for _ in range(DRAWS):
        d = make(rng)
        single = interval(d.left, d.weights, d.clusters, binary=binary(d))
        both = paired_difference(d.left, d.right, d.weights, d.clusters, binary=binary(d))
        assert single and both and both.low is not None and both.high is not None
        held += (single.low <= mean <= single.high, both.low <= difference <= both.high)
    assert 0.93 <= held[0] / DRAWS <= 0.97, "of a mean"
    assert 0.93 <= held[1] / DRAWS <= 0.97, "of a difference"


@pytest.mark.usefixtures("few_draws")
def test_intervals_that_take_questions_for_documents_hold_it_less_often() -> None:
    mean, rng, held = truth(choices)[0], np.random.default_rng(3), 0
    for _ in range(300):
        d = choices(rng)
        single = interval(d.left, d.weights, [str(i) for i in range(len(d.left))], binary=False)
        assert single
        held += single.low <= mean <= single.high
    assert held / 300 < 0.85


def nothing(rng: np.random.Generator, count: int) -> Draw:
    """Two models that are equally good at ``count`` documents of unequal sizes, and like the same documents."""
    number, names = documents(rng, questions(rng, count, 8, 0.6))
    taste = rng.normal(0, 0.5, count)[number]
    left, right = rng.normal(0, 1, (2, len(names))) + [[1.0], [1.0]] * (taste / 2)
    return Draw(left + taste, right, np.ones(len(names)), names)


@pytest.mark.parametrize("count", [12, 60])
def test_p_values_of_nothing_are_flat(count: int) -> None:
    """Twelve documents are enumerated, sixty drawn."""
    rng, found = np.random.default_rng(4), []
    for _ in range(DRAWS):
        d = nothing(rng, count)
        found.append(sign_flip(np.bincount([int(c) for c in d.clusters], d.left - d.right)))
    assert stats.kstest(found, "uniform").pvalue > 0.05
    histogram = np.histogram(found, bins=10, range=(0, 1))[0]
    assert stats.chisquare(histogram).pvalue > 0.05


def test_p_values_of_nothing_are_not_flat_where_documents_are_forgotten() -> None:
    rng = np.random.default_rng(5)
    draws = [nothing(rng, 30) for _ in range(300)]
    assert stats.kstest([sign_flip(d.left - d.right) for d in draws], "uniform").pvalue < 1e-6


def test_mcnemar_of_nothing_is_flat_once_its_steps_are_smoothed() -> None:
    """An exact test of counts has steps and is never too sure; a draw within each step makes it exactly uniform."""
    rng, exact, smoothed = np.random.default_rng(6), [], []
    for _ in range(DRAWS):
        changed = int(rng.binomial(60, 0.5))
        wins = int(rng.binomial(changed, 0.5))
        more, less = max(wins, changed - wins), min(wins, changed - wins)
        p = mcnemar(wins, changed - wins)
        beyond = mcnemar(more + 1, less - 1) if less else 0.0
        exact.append(p)
        smoothed.append(beyond + rng.random() * (p - beyond))
    assert stats.kstest(smoothed, "uniform").pvalue > 0.05
    for level in (0.01, 0.05, 0.1, 0.5):
        error = 3 * np.sqrt(level * (1 - level) / DRAWS)
        assert np.mean(np.array(exact) <= level) <= level + error


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test_of_the_samples_that_changed(wins: int, losses: int) -> None:
    oracle = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(oracle, rel=1e-9)


@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=2, max_size=10))
@settings(max_examples=50)
def test_sign_flips_are_all_tried(sums: list[float]) -> None:
    def total(sample: Floats, axis: int) -> Floats:
        result: Floats = np.sum(sample, axis=axis)
        return result

    oracle = stats.permutation_test(
        (sums,), total, permutation_type="samples", n_resamples=np.inf, vectorized=True
    ).pvalue
    assert sign_flip(np.array(sums)) == pytest.approx(oracle)


def test_random_signs_come_near_all_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(7).normal(0.25, 1, 16)
    all_signs = sign_flip(sums)
    monkeypatch.setattr(flips, "ENUMERATED_CLUSTERS", 5)
    assert sign_flip(sums) == pytest.approx(all_signs, abs=3 * np.sqrt(all_signs / flips.SIGN_DRAWS))
    assert sign_flip(np.full(50, 1.0)) == 1 / (flips.SIGN_DRAWS + 1), "never 0"


@pytest.mark.parametrize("size", [1.0, 0.1])
def test_mcnemar_is_the_sign_flip_of_single_samples(size: float) -> None:
    """Also of sums that are rounded: the signs that were found count as extreme as themselves."""
    for wins, losses in ((3, 9), (0, 7), (12, 1), (6, 6)):
        assert mcnemar(wins, losses) == pytest.approx(sign_flip(np.array([size] * wins + [-size] * losses)))


@given(st.floats(0.55, 0.9999), st.integers(1, 500))
def test_student_quantile_is_scipys(share: float, freedom: int) -> None:
    assert student_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-9)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_holm_rejects_what_its_steps_reject(p_values: list[float | None]) -> None:
    """Step down: the k-th smallest of m is rejected while it is at most level / (m - k + 1)."""
    corrected = holm(p_values)
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    assert [i for i, p in enumerate(corrected) if p is None] == [i for i, p in enumerate(p_values) if p is None]
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for k, (p, i) in enumerate(tested):
            if p * (len(tested) - k) > level:
                break
            rejected.add(i)
        assert rejected == {i for i, p in enumerate(corrected) if p is not None and p <= level}


def test_holm_never_corrects_a_larger_p_value_to_a_smaller() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])


@given(st.integers(1, 40), st.integers(1, 40))
def test_wilson_is_scipys(right: int, wrong: int) -> None:
    values, names = [1.0] * right + [0.0] * wrong, [str(i) for i in range(right + wrong)]
    found = interval(values, [1.0] * len(values), names, binary=True)
    oracle = stats.binomtest(right, right + wrong).proportion_ci(method="wilson")
    assert found and (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


samples = st.lists(
    st.tuples(
        st.floats(0.01, 1), st.floats(0.01, 1), st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.sampled_from("abcdefghi")
    ),
    min_size=3,
    max_size=20,
).filter(lambda rows: any(row[2] for row in rows))


@pytest.mark.usefixtures("few_draws")
@given(samples, st.booleans())
@settings(max_examples=50)
def test_sides_change_places(rows: list[tuple[float, float, float, str]], geometric: bool) -> None:
    left, right, weights, clusters = zip(*rows, strict=True)
    one = paired_difference(left, right, weights, clusters, binary=False, geometric=geometric)
    other = paired_difference(right, left, weights, clusters, binary=False, geometric=geometric)
    assert one and other
    assert one.value == pytest.approx(-other.value, abs=1e-12)
    assert (one.wins, one.losses, one.ties) == (other.losses, other.wins, other.ties)
    assert one.p_value == pytest.approx(other.p_value)
    if one.low is None or one.high is None or other.low is None:
        assert one.clusters < 6 or not one.value
        assert (one.p_value is None) == (one.clusters == 1)
    else:
        assert one.low == pytest.approx(-(other.high or 0), abs=1e-9)
        assert one.low <= one.value + 1e-9
        assert one.high >= one.value - 1e-9
    assert one.n == sum(weight > 0 for weight in weights)
    assert one.clusters == len({name for _, _, weight, name in rows if weight})


def test_lower_is_better_turns_wins_and_losses_not_the_difference() -> None:
    found = paired_difference([1, 2, 3], [2, 3, 3], [1] * 3, list("abc"), binary=False, higher_is_better=False)
    assert found and (found.wins, found.losses, found.ties) == (2, 0, 1)
    assert found.value == pytest.approx(-2 / 3)


def test_geometric_difference_is_that_of_the_means() -> None:
    found = paired_difference([2, 8, 4], [1, 4, 4], [1] * 3, list("abc"), binary=False, geometric=True)
    assert found and found.value == pytest.approx(4 - 16 ** (1 / 3))


def test_agreement_of_few_samples_is_no_certainty() -> None:
    """Where all samples agree a bootstrap would give a point: right or wrong has an interval all the same."""
    ones, names, documents = [1.0] * 12, list("abcdefghijkl"), list("aabbccddeeff")
    for clusters in (names, documents):
        single = interval(ones, [1.0] * 12, clusters, binary=True, bounds=(0, 1))
        both = paired_difference(ones, ones, [1.0] * 12, clusters, binary=True, bounds=(-1, 1))
        assert single and single.low < 0.8 and single.high == 1
        assert both and both.low is not None and both.low < -0.19
    by_name, by_document = (interval(ones, [1.0] * 12, c, binary=True, bounds=(0, 1)) for c in (names, documents))
    assert by_name and by_document and by_document.low < by_name.low, "six documents tell less than twelve samples"
    thirds = interval([1 / 3] * 8, [1.0] * 8, list("abcdefgh"), binary=False, bounds=(0, 1))
    assert thirds and thirds.low < 0.15 and thirds.high > 0.6, "nor is a score that all have"
    assert interval([7.0] * 8, [1.0] * 8, list("abcdefgh"), binary=False) is None, "nothing says how it varies"


def test_nothing_and_one_cluster() -> None:
    assert interval([1.0], [0.0], ["a"], binary=True) is None
    assert paired_difference([1.0], [0.0], [0.0], ["a"], binary=True) is None
    assert interval([1.0], [1.0], ["a"], binary=True) is None
    assert interval([0.2, 0.4], [1, 1], ["a", "a"], binary=False) is None
    alone = paired_difference([1.0], [0.0], [1.0], ["a"], binary=True)
    assert alone and (alone.value, alone.low, alone.p_value, alone.wins) == (1, None, None, 1)
    found = paired_difference([0.2, 0.4], [0.1, 0.5], [1, 1], ["a", "a"], binary=False)
    assert found and (found.low, found.high, found.p_value, found.method) == (None, None, None, "too few clusters")


def test_intervals_keep_within_bounds() -> None:
    values = [0.0, 1.0, 1.0, 1.0, 1.0, 0.9]
    found = interval(values, [1] * 6, list("abcdef"), binary=False, bounds=(0, 1))
    assert found and (found.low, found.high) == (found.low, 1.0)
    free = interval(values, [1] * 6, list("abcdef"), binary=False)
    assert free and free.high > 1
