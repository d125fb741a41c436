"""Answers drawn by chance: by the right chances, the same in any batch, scored as means, and part of the run."""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked_samples import Asks, answers, story
from small_runs import loaded, small_model

from famcli.cli.eval import command as eval_command
from famcli.cli.main import main
from famcli.compare.pairing import facts
from famcli.errors import UserError
from famcli.evaluation.drawing import Drawer, Sampling, mean_scores
from famcli.evaluation.journal import read_entries
from famcli.evaluation.record import RunRecord
from famcli.evaluation.runner import evaluate
from famcli.reports.html.rerun import rerun_command
from famcli.reports.html.samples import clean, samples_data
from famcli.reports.html.task_runs import runs_by_task
from famcli.task import Choose, Generate, Generated, MetricSpec, Prompt, Sample, Weighted

SCORES = np.array([1.0, 3.0, 2.0, -4.0, 3.0, 0.0])


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8), (1.0, 0.5), (1.0, 0.01)])
def test_tokens_come_as_often_as_their_chances_say(temperature: float, top_p: float) -> None:
    """The nucleus is the smallest set with so much likelihood, found by trying all; of equals the lowest ids."""
    chances = np.exp(SCORES / temperature) / np.exp(SCORES / temperature).sum()
    sets = [chosen for size in range(1, 7) for chosen in itertools.combinations(range(6), size)]
    enough = [chosen for chosen in sets if chances[list(chosen)].sum() >= min(top_p, 1 - 1e-12)]
    size = min(map(len, enough))
    best = [chosen for chosen in enough if len(chosen) == size]
    nucleus = min(best, key=lambda one: (-round(chances[list(one)].sum(), 12), one))
    wanted = np.zeros(6)
    wanted[list(nucleus)] = chances[list(nucleus)] / chances[list(nucleus)].sum()
    drawer, trials = Drawer(Sampling(temperature, top_p), "seed"), 4000
    found = Counter(drawer.pick(SCORES) for _ in range(trials))
    assert set(found) <= set(nucleus)
    for token, chance in enumerate(wanted):
        spread = math.sqrt(chance * (1 - chance) / trials)
        assert abs(found[token] / trials - chance) <= 4 * spread + 1e-9, (token, chance)


def test_each_draw_has_its_own_chance() -> None:
    sampling = Sampling(1.0)

    def drawn(*seed: object) -> list[int]:
        drawer = Drawer(sampling, *seed)
        return [drawer.pick(SCORES) for _ in range(20)]

    words = [(0, "a", 0), (0, "a", 1), (1, "a", 0), (0, "b", 0), (0, "a 0", 0), (0, "a", "0")]
    assert len({tuple(drawn(*seed)) for seed in words}) == len(words)
    assert drawn(0, "a", 0) == drawn(0, "a", 0)


def letters(answer: Generated) -> dict[str, float]:
    return {"length": float(sum(answer.token_ids)), "even": float(sum(answer.token_ids) % 2)}


class Letters(Asks):
    """Questions about stories, and two that stand alone."""

    metrics = (MetricSpec("length"), MetricSpec("even"))

    def __init__(self, count: int = 8) -> None:
        super().__init__([self._one(number) for number in range(count)])

    @staticmethod
    def _one(number: int) -> Sample:
        text, shared = story(number // 3, 70), number < 6
        prompt = Prompt((text, f"\nwhy {number}?"), document=0)  # of one length: they share batches
        return Sample(str(number), {}, "", lambda: Generate(prompt, 5), letters, document=text[:9] if shared else None)


def run(results: Path, sampling: Sampling | None = None, **settings: Any) -> RunRecord:
    return evaluate(small_model(), Letters(), results=results, sampling=sampling, **settings)


def texts(record: RunRecord) -> dict[str, list[list[int]]]:
    return {
        name: [draw["token_ids"] for draw in line["answer"].get("draws", [line["answer"]])]
        for name, line in answers(record.path).items()
    }


def test_no_batch_changes_a_draw_and_fewer_are_the_first(tmp_path: Path) -> None:
    five = texts(run(tmp_path / "5", Sampling(1.5, draws=5)))
    assert len({tuple(ids) for drawn in five.values() for ids in drawn}) > 30
    for number, settings in enumerate(({"batch_size": 1}, {"batch_size": 3}, {"batch_size": 64})):
        assert texts(run(tmp_path / str(number), Sampling(1.5, draws=5), **settings)) == five
    two = texts(run(tmp_path / "2", Sampling(1.5, draws=2)))
    assert two == {name: drawn[:2] for name, drawn in five.items()}
    one = texts(run(tmp_path / "1", Sampling(1.5)))
    assert one == {name: drawn[:1] for name, drawn in five.items()}
    assert texts(run(tmp_path / "seed", Sampling(1.5, draws=5), seed=1)) != five


def test_the_colder_the_more_like_the_most_likely(tmp_path: Path) -> None:
    greedy = texts(run(tmp_path / "greedy"))
    assert texts(run(tmp_path / "cold", Sampling(1e-5, draws=2))) == {name: ids * 2 for name, ids in greedy.items()}
    assert texts(run(tmp_path / "narrow", Sampling(1.0, top_p=1e-9))) == greedy


def test_a_prompt_is_read_once_and_its_score_is_a_mean(tmp_path: Path) -> None:
    greedy, drawn = run(tmp_path / "greedy"), run(tmp_path / "drawn", Sampling(1.5, draws=7))
    for name in ("tokens_read", "tokens_computed", "tokens_read_alone"):
        assert drawn.cost[name] == greedy.cost[name]  # type: ignore[literal-required]
    lines = answers(drawn.path)
    means = []
    for line in lines.values():
        draws = line["answer"]["draws"]
        assert len(draws) == 7 and line["output"] == draws[0]["text"]
        for name in ("length", "even"):
            own = [letters(Generated(draw["text"], tuple(draw["token_ids"])))[name] for draw in draws]
            assert [draw["scores"][name] for draw in draws] == own
            assert line["scores"][name] == pytest.approx(statistics.fmean(own))
        means.append((line["document"] or line["id"], line["scores"]["length"]))
    generated = sum(len(draw["token_ids"]) for line in lines.values() for draw in line["answer"]["draws"])
    assert drawn.cost["tokens_generated"] == generated
    metric = drawn.metrics["length"]
    assert metric.n == 8 and metric.value == pytest.approx(statistics.fmean(score for _, score in means))
    assert metric.stderr == pytest.approx(clustered_error(means))


def test_the_report_has_every_draw_with_its_score(tmp_path: Path) -> None:
    record = run(tmp_path, Sampling(1.5, draws=3))
    table = samples_data(runs_by_task([record], lambda _: "m", ["m"]), ["m"])
    for sample in table["samples"]:
        draws = answers(record.path)[sample[3]]["answer"]["draws"]
        told = re.split(r"(?m)^\d\. \[(-?[\d,.]+)\] ", sample[6])
        assert [float(score.replace(",", "")) for score in told[1::2]] == [draw["scores"]["length"] for draw in draws]
        assert [text.strip() for text in told[2::2]] == [clean(draw["text"].strip()) for draw in draws]


def clustered_error(means: Sequence[tuple[str, float]]) -> float:
    """The sandwich error of a mean over clusters, by hand."""
    mean = statistics.fmean(score for _, score in means)
    sums: dict[str, float] = {}
    for cluster, score in means:
        sums[cluster] = sums.get(cluster, 0.0) + score - mean
    count = len(sums)
    return math.sqrt(count / (count - 1) * sum(one**2 for one in sums.values())) / len(means)


def test_weights_and_geometric_means_are_averaged() -> None:
    metrics = (MetricSpec("a"), MetricSpec("b", mean="geometric"), MetricSpec("c"))
    found = [({"a": 1.0, "b": 2.0, "c": 5.0}, {"c": 0.0}), ({"a": 4.0, "b": 8.0, "c": 7.0}, {"a": 0.5, "c": 0.0})]
    scores, weights = mean_scores(metrics, found)
    assert scores == {"a": pytest.approx(2.0), "b": pytest.approx(4.0), "c": 5.0}
    assert weights == {"a": 0.75, "c": 0.0}


def test_it_is_part_of_the_run(tmp_path: Path) -> None:
    greedy = run(tmp_path)
    kinds = [Sampling(1.0), Sampling(0.5), Sampling(1.0, 0.9), Sampling(1.0, draws=2)]
    records = [run(tmp_path, sampling) for sampling in kinds]
    assert len({record.run_id for record in (greedy, *records)}) == 5
    assert "sampling" not in greedy.context and "sampling" not in facts(greedy)
    assert records[2].context["sampling"] == {"temperature": 1.0, "top_p": 0.9, "draws": 1}
    assert run(tmp_path, Sampling(1)).run_id == records[0].run_id
    typed = eval_command.make_context("eval", shlex.split(rerun_command(records[3]))[2:]).params
    assert (typed["temperature"], typed["top_p"], typed["draws"]) == (1.0, 1.0, 2)


def test_a_broken_run_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = run(tmp_path, Sampling(1.5, draws=3))
    before, journal = texts(whole), whole.path / "samples.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:3]))
    assert texts(run(tmp_path, Sampling(1.5, draws=3))) == before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temperature": 0.0}, "the temperature must be above 0, not 0"),
        ({"temperature": math.nan}, "the temperature must be a number, not nan"),
        ({"temperature": True}, "the temperature must be a number, not True"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be above 0 and at most 1, not 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
        ({"temperature": 1.0, "draws": 0}, "draws must be a whole number from 1 to 1000, not 0"),
    ],
)
def test_values_that_do_not_fit_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Sampling(**values)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--draws", "3"], "--draws is given without a temperature"),
        (["--top-p", "0.9"], "--top-p is given without a temperature"),
        (["--temperature", "0"], "the temperature must be above 0"),
        (["--temperature", "1", "--task", "quality", "--data", "sample"], "task quality generates no answers"),
    ],
)
def test_the_command_ignores_nothing(tmp_path: Path, typed: list[str], words: str, capsys: Any) -> None:
    command = ["eval", "--task", "passkey", "-o", "lengths=300", "--model", "fam-tiny", "--output", str(tmp_path)]
    assert main([*command, *typed]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_weighed_samples_beside_generated_ones_are_as_ever(tmp_path: Path) -> None:
    class Both(Letters):
        def __init__(self) -> None:
            super().__init__(3)
            choose = Choose(Prompt(("who?",)), (" a", " b"))
            self.given.append(
                Sample("c", {}, "", lambda: choose, lambda answer: {"length": 1.0, "even": Weighted(0, 0)})
            )

    plain = evaluate(small_model(), Both(), results=tmp_path / "plain")
    drawn = evaluate(small_model(), Both(), results=tmp_path / "drawn", sampling=Sampling(1.0, draws=2))
    assert answers(plain.path)["c"]["answer"] == answers(drawn.path)["c"]["answer"]
    assert len(answers(drawn.path)["0"]["answer"]["draws"]) == 2


def test_all_draws_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(tmp_path, Sampling(1.5, draws=3))
    assert main(["show", record.run_id, "4", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for number, draw in enumerate(answers(record.path)["4"]["answer"]["draws"], 1):
        (line,) = [line for line in out.splitlines() if line.startswith(f"answer {number} ")]
        assert f"length {draw['scores']['length']:.3f}" in line


def test_answers_are_counted_and_not_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "narrativeqa", "--data", "sample", "--limit", "2", "--model", "bswa-tiny"]
    assert main([*command, "--temperature", "0.1", "--draws", "3", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "3 answers to each question, temperature 0.1, seed 0" in told.out
    (line,) = [line for line in told.out.splitlines() if line.startswith("cut at the budget")]
    counts = [int(word) for word in line.split() if word.isdigit()]
    assert counts[1] == 6 and counts[0] <= 6


def test_a_damaged_draw_is_named(tmp_path: Path) -> None:
    record = run(tmp_path, Sampling(1.5, draws=2))
    journal = record.path / "samples.jsonl"
    first, *rest = journal.read_text().splitlines(keepends=True)
    values = json.loads(first)
    del values["answer"]["draws"][1]["text"]
    journal.write_text(json.dumps(values) + "\n" + "".join(rest))
    with pytest.raises(UserError, match="draws"):
        read_entries(journal)


def test_a_model_elsewhere_is_refused(tmp_path: Path) -> None:
    from famcli.models.remote import Remote

    class Elsewhere(Remote):
        description = identity = property(lambda self: {"name": "x"})  # type: ignore[assignment]
        write = weigh = None  # type: ignore[assignment]

    with pytest.raises(UserError, match="answers elsewhere, to texts, and --temperature is not for it"):
        evaluate(loaded(Elsewhere("x", 257, None, 1)), Letters(), results=tmp_path, sampling=Sampling(1.0))
