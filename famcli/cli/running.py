"""What the verbs that run tasks on models have in common: their options, and the checks before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from famcli.cli.options import Function, Tokens, bundled, output, parse_options
from famcli.cli.saying import tell
from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.checkpoints.sources import LoadedModel, Source
    from famcli.evaluation.asking import OnError
    from famcli.evaluation.choice import ChosenTask
    from famcli.evaluation.prompts import Side
    from famcli.evaluation.record import RunRecord
    from famcli.evaluation.settings import Settings
    from famcli.evaluation.workers.crew import Crew
    from famcli.task import Task


THINKING_TOKENS = 2048
"""Of ``--strip-thinking`` without a number."""


@dataclass(frozen=True)
class RunSettings:
    """What all runs of one command share; see the options of ``run_options``."""

    device: str
    dtype: str
    batch_size: int | None
    max_context: int | None
    truncate: Side | None
    chat_template: bool
    chat_template_args: tuple[str, ...]
    system_prompt: str | None
    temperature: float | None
    top_p: float | None
    draws: int | None
    strip_thinking: int | None
    device_map: str | None
    seed: int
    on_error: OnError
    keep_prompts: bool
    fresh: bool
    output: Path
    shard: tuple[int, int] | None = None

    @property
    def chat_arguments(self) -> dict[str, Any]:
        """The variables of the chat template: JSON where a value is some, else text."""
        found = {}
        for name, text in parse_options(self.chat_template_args).items():
            try:
                found[name] = json.loads(text)
            except ValueError:
                found[name] = text
        return found

    @property
    def of_runs(self) -> Settings:
        """What they say of each run; what bounds one task is added by ``Settings.of``."""
        from famcli.evaluation.drawing import sampling_of
        from famcli.evaluation.settings import Settings
        from famcli.evaluation.shards import Shard

        return Settings(
            results=self.output,
            seed=self.seed,
            max_context=self.max_context,
            truncate=self.truncate,
            chat_template=self.chat_template,
            chat_arguments=self.chat_arguments,
            system_prompt=self.system_prompt,
            sampling=sampling_of(self.temperature, self.top_p, self.draws),
            thinking=self.strip_thinking,
            batch_size=self.batch_size,
            fresh=self.fresh,
            on_error=self.on_error,
            keep_prompts=self.keep_prompts,
            shard=Shard(*self.shard) if self.shard else None,
        )


def _system_prompt(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The text; that of a file, without the line ends behind it, where a name stands after ``@``."""
    if value is None or not value.startswith("@") or ctx.resilient_parsing:
        return value
    if value.startswith("@@"):
        return value[1:]
    from famcli.files import user_path
    from famcli.inputs import read_text

    return read_text(user_path(value[1:])).rstrip("\n")


def run_options(function: Function) -> Function:
    """``--device`` to ``--output``, given to the command as ``settings``, a ``RunSettings``."""
    return bundled(
        function,
        "settings",
        RunSettings,
        click.option(
            "--device",
            type=click.Choice(["auto", "cuda", "mps", "cpu"]),
            default="auto",
            show_default=True,
            help="Where to compute; auto: on a GPU where there is one.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16"]),
            default="auto",
            show_default=True,
            help="auto: bfloat16 on CUDA for weights stored in 16 bits, float32 otherwise.",
        ),
        click.option(
            "--device-map",
            type=click.Choice(["auto"]),
            help="Spread the layers over all GPUs and the processor (needs accelerate).",
        ),
        click.option("--batch-size", type=click.IntRange(min=1), help="Samples read together; it changes no answer."),
        click.option("--max-context", type=Tokens(), help="Most tokens of a prompt with its answer, such as 8k."),
        click.option(
            "--truncate",
            type=click.Choice(["left", "right", "middle"]),
            help="Part of a document beyond --max-context to cut.",
        ),
        click.option(
            "--chat-template", is_flag=True, help="Ask every question as one user turn of the model's chat template."
        ),
        click.option(
            "--chat-template-arg",
            "chat_template_args",
            multiple=True,
            metavar="NAME=VALUE",
            help="A variable of the chat template, e.g. enable_thinking=false.",
        ),
        click.option(
            "--system-prompt",
            callback=_system_prompt,
            metavar="TEXT|@FILE",
            help="A system prompt before every question, in the chat template; @@ for a text that begins with @.",
        ),
        click.option(
            "--strip-thinking",
            type=Tokens(),
            is_flag=False,
            flag_value=THINKING_TOKENS,
            metavar="[TOKENS]",
            help=f"What stands in <think>...</think> is no part of an answer; at most {THINKING_TOKENS} tokens.",
        ),
        click.option(
            "--temperature", type=float, help="Draw answers by chance; without it each token is the most likely one."
        ),
        click.option("--top-p", type=float, help="Draw from the likeliest tokens that together have this likelihood."),
        click.option("--draws", type=int, help="Answers drawn to each question, whose mean score is its score."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn by chance."),
        click.option(
            "--on-error",
            type=click.Choice(["stop", "skip"]),
            default="stop",
            show_default=True,
            help="What to do when a task fails on a sample. Skipped ones are named beside the scores.",
        ),
        click.option(
            "--keep-prompts", is_flag=True, help="Keep every prompt as it was read, for famcli show; changes no answer."
        ),
        click.option("--fresh", is_flag=True, help="Start over where there is such a run already."),
        output,
    )


class Checked(NamedTuple):
    """A model, and what it can be asked.

    Attributes:
        source: the model.
        tasks: those that fit it.
        left_out: names of tasks of which nothing fits, with the reason.
    """

    source: Source
    tasks: list[ChosenTask]
    left_out: list[tuple[str, str]]


def check_model(spec: str, tasks: Sequence[ChosenTask], settings: RunSettings) -> Checked:
    """Finds a model, and makes sure that every task has samples for it that fit.

    Raises:
        UserError: the device is not there, there is no such model, it cannot be computed there in this dtype, or a task
            does not fit it and is not to be left out.
    """
    from famcli.checkpoints.registry import find_model, pick_place, pick_precision
    from famcli.evaluation.fitting import check_tasks
    from famcli.machine.peak import importing_torch, program

    place = pick_place(settings.device)
    program()  # however many models follow
    with importing_torch():
        source = find_model(spec)
        pick_precision(settings.dtype, place, source)
    fitting, left_out = check_tasks(tasks, source.tokenizer, source.longest_text, settings.of_runs)
    if not fitting:
        name, why = left_out[0]
        raise UserError(f"nothing of the suite fits the model {spec}: task {name}: {why}")
    return Checked(source, fitting, left_out)


def load(source: Source, settings: RunSettings) -> LoadedModel:
    """The model in memory; warns of a memory that has learned nothing. A model before it should have been let go."""
    _warn_of_memory(source)
    return _read(source, settings)


def _warn_of_memory(source: Source) -> None:
    if source.untrained_memory:
        tell(
            f"warning: {source.name}: {source.untrained_memory}: nobody has trained its memory, whose weights are "
            "random; train it before judging its memory"
        )


def _read(source: Source, settings: RunSettings) -> LoadedModel:
    from famcli.checkpoints.registry import pick_device, pick_dtype
    from famcli.machine.peak import held_beside, importing_torch

    with importing_torch():
        import famcli.evaluation.runner  # noqa: F401
    device = pick_device(settings.device)
    beside = held_beside()
    model = source.load(device, pick_dtype(settings.dtype, device, source), bool(settings.device_map))
    return replace(model, beside=beside)


def outline(source: Source, settings: RunSettings) -> LoadedModel:
    """The model without its weights, for a command whose workers have them.

    Raises:
        UserError: there is none of such a model.
    """
    import torch

    from famcli.checkpoints.registry import pick_device, pick_dtype

    # A driver on a machine without a GPU may well send work to one that has some.
    device = torch.device("cuda") if settings.device == "cuda" else pick_device(settings.device)
    found = source.outline(device, pick_dtype(settings.dtype, device, source))
    if found is None:
        raise UserError(
            f"the model {source.name} comes from a package that says nothing of it before it is loaded",
            "leave --workers out",
        )
    return found


def run_all(
    source: Source, tasks: Sequence[ChosenTask], settings: RunSettings, crew: Crew | None = None
) -> Iterator[RunRecord]:
    """The runs of one model, one after the other. It is read when one of them needs it; finished ones do not."""
    if crew is None:
        _warn_of_memory(source)
    model: LoadedModel | None = None
    for chosen in tasks:
        record = None if crew else _shown_again(source, chosen, settings)
        if record is None:
            model = model or (outline(source, settings) if crew else _read(source, settings))
            record = run(model, chosen, settings, crew=crew)
        yield record


def _shown_again(source: Source, chosen: ChosenTask, settings: RunSettings) -> RunRecord | None:
    """A finished run, where that is known without the model; what is said of it is what ``run`` says."""
    from famcli.checkpoints.registry import pick_place, pick_precision
    from famcli.cli.interrupts import leave_in_order
    from famcli.evaluation.finished import may_be_finished, shown_again

    if settings.device_map or settings.fresh or not may_be_finished(chosen.task.name, source.name, settings.output):
        return None
    place = pick_place(settings.device)
    model = source.known(place, pick_precision(settings.dtype, place, source))
    if model is None:
        return None
    leave_in_order()
    of_run, title = settings.of_runs.of(chosen), f"{source.name} on {chosen.task.name}"
    record = shown_again(of_run.record(model, chosen.task), of_run, lambda why: tell(f"warning: {title}: {why}"))
    if record:
        _tell_of(record, title, chosen.task, settings, again=True)
    return record


def run(
    model: LoadedModel, chosen: ChosenTask, settings: RunSettings, fresh: bool = False, crew: Crew | None = None
) -> RunRecord:
    """One run, shown on standard error as it advances; ``fresh`` starts over whatever the settings say."""
    from famcli.cli.interrupts import leave_in_order
    from famcli.cli.progress import make_progress
    from famcli.evaluation.identity import now
    from famcli.evaluation.runner import evaluate
    from famcli.machine.peak import taken

    leave_in_order()
    task, begun, title = chosen.task, now(), f"{model.name} on {chosen.task.name}"
    of_run = settings.of_runs.of(chosen)
    record = evaluate(
        model,
        task,
        **vars(replace(of_run, fresh=fresh or of_run.fresh)),
        crew=crew,
        progress=make_progress(title, lambda: taken(model.device)),
    )
    _tell_of(record, title, task, settings, again=bool(record.finished and record.finished < begun))
    return record


def _tell_of(record: RunRecord, title: str, task: Task, settings: RunSettings, again: bool) -> None:
    """That a run is shown ``again``, and what may be wrong with it."""
    from famcli.evaluation.record import skipped_words

    if again:
        tell(f"{title}: finished at {record.finished}, shown again; --fresh runs it anew")
    if record.skipped:
        tell(f"warning: {title}: {skipped_words(record)}")
    for warning in _answer_warnings(record, task, settings):
        tell(f"warning: {title}: {warning}")


def _answer_warnings(record: RunRecord, task: Task, settings: RunSettings) -> Iterator[str]:
    """What may be wrong with many answers for one reason, which is no lack of memory."""
    empty, cut = record.cost.get("answers_empty", 0), record.cost.get("answers_cut", 0)
    thinks = [] if settings.strip_thinking else ["--strip-thinking"]
    if settings.chat_template:
        thinks.append("--chat-template-arg enable_thinking=false")
    ways = [f"{' or '.join(thinks)} if the model thinks first"] if thinks else []
    if empty:
        can_skip = any(help.name == "skip_blank_lines" for help in task.option_help())
        if can_skip and not task.options.skip_blank_lines and not settings.strip_thinking:
            ways.insert(0, "-o skip_blank_lines=true if the model begins with a line break")
        yield f"{empty} of {record.answers} answers are empty; {', '.join(ways) or 'see samples.jsonl'}"
    elif cut and 2 * cut >= record.answers:
        way = ways[0] if ways else "see samples.jsonl"
        yield f"{cut} of {record.answers} answers were cut at the budget of tokens; {way}"
