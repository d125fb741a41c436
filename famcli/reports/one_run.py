"""The samples of a run for a terminal: a list of them, or one as the model saw it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from famcli.compare.cells import format_settings
from famcli.errors import UserError
from famcli.evaluation.journal import Entry
from famcli.evaluation.kept_prompts import KeptPrompt
from famcli.evaluation.record import RunRecord
from famcli.reports.grid import Grid
from famcli.reports.numbers import NOTHING, format_number

SHORT = 60
"""Characters of an answer in a list."""
PROMPT = 1_000
"""Characters of a prompt's beginning, and of its end, that are shown."""


@dataclass(frozen=True)
class OptionScore:
    """An option as a model weighed it.

    Attributes:
        text: of the option; ``option 2`` in a journal of an older version.
        log_likelihood: of all its tokens, in nats.
        tokens: how many they are.
        chosen: it is the most likely one.
        right: it is the reference.
    """

    text: str
    log_likelihood: float
    tokens: int
    chosen: bool
    right: bool

    @property
    def words(self) -> str:
        """``-12.345, -3.086 a token, chosen, right``."""
        each = f", {format_number(self.log_likelihood / self.tokens)} a token" if self.tokens else ""
        marks = [mark for mark, set_ in (("chosen", self.chosen), ("right", self.right)) if set_]
        return ", ".join([f"{format_number(self.log_likelihood)}{each}", *marks])


def options_of(entry: Entry) -> list[OptionScore]:
    """The options of a sample, in order; none where it was not to choose."""
    values = entry.answer.get("log_likelihoods") or []
    tokens = entry.answer.get("tokens") or [0] * len(values)
    best = values.index(max(values)) if values else None
    return [
        OptionScore(
            text=entry.options[i] if entry.options else f"option {i + 1}",
            log_likelihood=value,
            tokens=tokens[i] if i < len(tokens) else 0,
            chosen=i == best,
            right=bool(entry.options) and entry.options[i].strip() == entry.reference.strip(),
        )
        for i, value in enumerate(values)
    ]


def sorted_samples(record: RunRecord, entries: Sequence[Entry], wrong: bool = False) -> list[Entry]:
    """The samples, the worst first by the headline metric; those that do not count in it last.

    Args:
        record: the run.
        entries: its samples.
        wrong: only those that count and whose score is 0.

    Raises:
        UserError: the wrong ones are asked for, and less of the metric is better.
    """
    headline, metric = next(iter(record.task["metrics"].items()))
    if wrong and not metric["higher_is_better"]:
        raise UserError(f"{headline} has no wrong answers: less of it is better", "leave out --wrong")
    sign = 1 if metric["higher_is_better"] else -1

    def place(entry: Entry) -> tuple[bool, float]:
        return not _counts(entry, headline), sign * entry.scores[headline]

    found = sorted(entries, key=place)
    return [one for one in found if _counts(one, headline) and one.scores[headline] == 0] if wrong else found


def _counts(entry: Entry, metric: str) -> bool:
    return entry.weights.get(metric, 1.0) > 0


def samples_grid(record: RunRecord, entries: Sequence[Entry]) -> Grid:
    """A line a sample: its id, cell, the beginnings of answer and reference, and scores."""
    metrics = list(record.task["metrics"])
    lines = [
        (
            entry.id,
            format_settings(entry.cell),
            _short(entry.output),
            _short(entry.reference),
            *(_score(entry, name) for name in metrics),
        )
        for entry in entries
    ]
    return Grid("", ("sample", "cell", "answer", "reference", *metrics), tuple(lines), words=4)


def _score(entry: Entry, metric: str) -> str:
    return format_number(entry.scores[metric]) if _counts(entry, metric) else NOTHING


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def sample_lines(
    record: RunRecord, entry: Entry, prompt: tuple[KeptPrompt, str] | None, whole: bool = False
) -> Iterator[str]:
    """A sample as the model saw it and answered, in lines; whoever prints them makes each of them fit to be shown.

    Args:
        record: the run.
        entry: the sample.
        prompt: what ``prompt_of`` gave.
        whole: nothing of the prompt is left out.
    """
    settings = [*entry.cell.items(), *entry.details.items()]
    yield f"run        {record.run_id}"
    yield f"sample     {entry.id}"
    if settings:
        yield f"settings   {', '.join(f'{name} {value}' for name, value in settings)}"
    yield f"prompt     {_prompt_facts(entry)}"
    yield from _block(_kept(prompt, whole) if prompt else _tail(entry))
    if not prompt:
        yield "           its end alone was kept; famcli eval ... --keep-prompts --fresh keeps all of it"
    for i, option in enumerate(options_of(entry)):
        yield f"{'options' if i == 0 else '':<11}{option.words}"
        yield from _block(option.text)
    if "draws" in entry.answer:
        yield from _draws(entry)
    elif not options_of(entry):
        yield f"answer     {_answer_facts(entry.answer)}".rstrip()
        yield from _block(entry.output)
    yield "reference"
    yield from _block(entry.reference)
    scores = [f"{name} {_score(entry, name)}" for name in entry.scores]
    yield f"scores     {', '.join(scores)}"


def _prompt_facts(entry: Entry) -> str:
    facts = [f"{entry.prompt_tokens:,} tokens"]
    if entry.cut_tokens:
        where = f", {entry.truncate}" if entry.truncate else ""
        facts.append(f"{entry.cut_tokens:,} tokens of the document cut{where}")
    if entry.document:
        facts.append(f"document {entry.document}")
    if any(entry.around):
        facts.append("in the model's chat template")
    return ", ".join(facts)


def _draws(entry: Entry) -> Iterator[str]:
    """Several answers to one prompt, each with its own scores."""
    for number, draw in enumerate(entry.generated, 1):
        scores = [f"{name} {format_number(score)}" for name, score in draw["scores"].items() if _counts(entry, name)]
        yield f"answer {number:<3} {', '.join([_answer_facts(draw), *scores])}"
        yield from _block(draw["text"])


def _answer_facts(answer: Mapping[str, Any]) -> str:
    facts = []
    if "token_ids" in answer:
        facts.append(f"{len(answer['token_ids']):,} tokens")
    if answer.get("cut"):
        facts.append("cut at the budget")
    if thought := answer.get("thinking_tokens"):
        facts.append(f"after {thought:,} tokens of thoughts")
    if "by_position" in answer:
        facts.append("the text itself, predicted token by token")
    return ", ".join(facts)


def _kept(prompt: tuple[KeptPrompt, str], whole: bool) -> str:
    kept, document = prompt
    text = f"{kept.before}{document}{kept.after}"
    left_out = len(text) - 2 * PROMPT
    if whole or left_out <= 0:
        return text
    return f"{text[:PROMPT]}\n[... {left_out:,} characters are left out here; --full shows them ...]\n{text[-PROMPT:]}"


def _tail(entry: Entry) -> str:
    return f"...{entry.prompt_tail}" if entry.prompt_tail else ""


def _block(text: str) -> Iterator[str]:
    for line in text.split("\n") if text else ():
        yield f"  | {line}"
