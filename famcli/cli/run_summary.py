"""What ``famcli eval`` says of its runs: the scores and the cost of each, and a line a run where there are several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from famcli.cli.saying import say, say_heading, say_pairs, say_table
from famcli.compare.cells import Setting, format_settings, shown_scores
from famcli.compare.measure import scored
from famcli.compare.notes import score_notes
from famcli.evaluation.record import RunRecord, left_out_words, skipped_words
from famcli.evaluation.recorded_model import context_of
from famcli.reports.cost import speed_words
from famcli.reports.numbers import format_field, format_score


def print_runs(records: Sequence[RunRecord]) -> None:
    """Every run by itself; of several a table besides."""
    for record in records:
        _print_record(record)
    if len(records) > 1:
        _print_overview(records)


def _print_record(record: RunRecord) -> None:
    """One run: its scores, and the headline metric as a grid of lengths where its cells have one."""
    untrained = f" ({fam})" if (fam := record.model.get("fam")) else ""
    say()
    say_heading(f"{record.model['name']}{untrained} on {record.task['name']}")
    say_pairs(
        [
            ("receptive field:", format_field(record.model["receptive_field"], context_of(record))),
            *_drawn(record),
            *_scores(record),
            *_costs(record),
            ("run record", str(record.path / "run.json")),
        ]
    )


def _drawn(record: RunRecord) -> Iterator[tuple[str, str]]:
    """How answers were drawn, where tokens are not the most likely ones."""
    if sampling := record.context.get("sampling"):
        answers = f"{sampling['draws']} answer{'s' * (sampling['draws'] > 1)} to each question"
        nucleus = f", top-p {sampling['top_p']:g}" if sampling["top_p"] < 1 else ""
        yield "drawn", f"{answers}, temperature {sampling['temperature']:g}{nucleus}, seed {record.seed}"


def _scores(record: RunRecord) -> Iterator[tuple[str, str]]:
    """The scores of a run, and how their intervals were made."""
    scores = [(name, dict[str, Setting](), metric) for name, metric in record.metrics.items()]
    if len(record.cells) > 1:
        scores += [found for found in shown_scores(record) if found[1]]
    told = scored(record, scores)
    for one in told:
        name = ", ".join(filter(None, (one.metric, format_settings(one.settings))))
        yield name, f"{format_score(one.score, one.interval, one.too_few)} (n={one.score.n})"
    for words in score_notes(told):
        yield "interval", words


def _costs(record: RunRecord) -> Iterator[tuple[str, str]]:
    """What a run cost, and what of it was cut, empty or skipped."""
    cost = record.cost
    yield "speed", speed_words(record)
    if cost["tokens_read_alone"] > cost["tokens_read"]:
        times = cost["tokens_read_alone"] / cost["tokens_read"]
        yield "asked one by one", f"{cost['tokens_read_alone']:,} tokens would be read, {times:.1f} times as many"
    if cost["tokens_cut"]:
        yield "cut", f"{cost['tokens_cut']:,} tokens of documents, {record.context['truncate']}"
    for name, what in (("answers_empty", "empty answers"), ("answers_cut", "cut at the budget")):
        if count := cost.get(name):
            yield what, f"{count} of {record.answers} answers"
    if record.skipped:
        yield "skipped", skipped_words(record)
    if record.left_out:
        yield "left out", left_out_words(record.left_out)
    yield "peak memory", f"{cost['peak_memory_bytes'] / 2**20:,.0f} MiB"


def _print_overview(records: Sequence[RunRecord]) -> None:
    """A line a run: its headline metric, and what it is called."""
    rows = []
    for record in records:
        headline = next(iter(record.metrics.items()), None)
        score = ""
        if headline:
            one = scored(record, [(headline[0], dict[str, Setting](), headline[1])])[0]
            score = f"{one.metric} {format_score(one.score, one.interval, one.too_few)} (n={one.score.n})"
        rows.append((record.model["name"], record.task["name"], score, record.run_id))
    say()
    say_table(("model", "task", "score", "run"), rows, words=2)
