"""The plugin contract: a task turns its samples into requests and scores the answers; it never sees a model.

``finding.py`` finds tasks, famcli's own and those of other packages.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeAlias, TypeVar

from famcli.errors import UserError, printable, unknown_name
from famcli.task.schema import DataSchema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DataError(UserError):
    """A row of a task's data, or a file of rows, is not what it must be; the message names file, line and field.

    Attributes:
        others: further ones, where several were found.
    """

    def __init__(self, message: str, hint: str | None = None, others: Sequence[DataError] = ()) -> None:
        super().__init__(message, hint)
        self.others = tuple(others)


class DataRow(Protocol):
    """A row of a data set."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """As they stand."""
        ...


class Data(Protocol):
    """What a task reads, as ``famcli data check`` shows it."""

    @property
    def rows(self) -> Iterator[DataRow]:
        """All of them, one in memory at a time; raises ``DataError`` where one cannot be read."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """``source``, ``name``, ``revision``, ``sha256`` and the number of ``rows``."""
        ...


Segment: TypeAlias = "str | NDArray[np.int64]"
"""Text, or token ids [t] of the tokenizer that ``Task.samples`` was given."""

T = TypeVar("T")


class Encoder(Protocol):
    """All a task needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without special tokens."""
        ...


class Message(NamedTuple):
    """A message of a chat.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        segment: which segment of the prompt is its text.
    """

    role: str
    segment: int


@dataclass(frozen=True)
class Prompt:
    """What the model reads: segments, the document first; texts beside each other are tokenised as one.

    Attributes:
        segments: texts or token ids.
        document: which segment is the document; ``None`` where none is. Only the document may be cut where the user
            asks for truncation, and only a document that comes first can be read once for many samples.
        messages: of a chat. In the model's chat template their texts are its turns, and the other segments are left
            out; without one all segments are read, which so spell the chat. A chat has no document.
        same_start: what stands before the document is the same in all prompts about it: it is read once with it.
    """

    segments: tuple[Segment, ...]
    document: int | None = None
    messages: tuple[Message, ...] = ()
    same_start: bool = False


@dataclass(frozen=True)
class Generate:
    """A request to continue ``prompt``, with the most likely token each time unless the user has answers drawn.

    Attributes:
        prompt: what is read first.
        max_new_tokens: the generation budget in tokens, at least 1.
        stop: strings that end the answer; it is cut before the first of them.
        skip_blank_lines: white space before the answer does not count: no stop string ends it there.
    """

    prompt: Prompt
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    skip_blank_lines: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):  # else each of its characters would end the answer
            raise TypeError(f"stop must be strings, not one: stop=({self.stop!r},)")


@dataclass(frozen=True)
class Choose:
    """A request for the log-likelihood of each of ``options`` as what follows ``prompt``; options are not empty.

    Attributes:
        prompt: what is read first.
        options: what is weighed.
        given: a text for each option, between it and the prompt, that is not weighed; none where nothing stands there.
        greedy: whether each option is what would be generated is asked as well.
    """

    prompt: Prompt
    options: tuple[str, ...]
    given: tuple[str, ...] = ()
    greedy: bool = False


@dataclass(frozen=True)
class Read:
    """A request to predict every token of ``text`` from those before it."""

    text: str


Request: TypeAlias = Generate | Choose | Read


@dataclass(frozen=True)
class Generated:
    """The answer to ``Generate``: its text, and the token ids it was decoded from (end of text left out).

    ``cut``: the budget ended it, where a stop string was to. ``thinking_tokens``: those of thoughts before it.
    """

    text: str
    token_ids: tuple[int, ...]
    cut: bool = False
    thinking_tokens: int = 0


@dataclass(frozen=True)
class Chosen:
    """The answer to ``Choose``.

    Attributes:
        log_likelihoods: of each option, summed over its tokens, in nats.
        tokens: number of tokens of each option.
        greedy: whether each of its tokens is the most likely one; empty where that was not asked.
    """

    log_likelihoods: tuple[float, ...]
    tokens: tuple[int, ...]
    greedy: tuple[bool, ...] = ()

    @property
    def best(self) -> int:
        """The most likely option, of equals the first."""
        return self.log_likelihoods.index(max(self.log_likelihoods))


@dataclass(frozen=True)
class Predicted:
    """The answer to ``Read``: every token of the text, once each, in order.

    Attributes:
        text: what was read; shorter than the request's where the user asked for truncation.
        log_likelihoods: [t] float32, of each token given all before it, in nats.
        hits: [t] bool, whether the token was the most likely one.
    """

    text: str
    log_likelihoods: NDArray[np.float32]
    hits: NDArray[np.bool_]


class Weighted(NamedTuple):
    """A score that counts ``weight`` times in a mean; with weight 0 it does not count."""

    value: float
    weight: float


Scores: TypeAlias = Mapping[str, "float | Weighted"]


@dataclass(frozen=True)
class MetricSpec:
    """A score that every sample of a task has.

    Attributes:
        name: what tables call it.
        paper: whether it is what the TransformerFAM paper reports of this task.
        higher_is_better: direction.
        mean: how samples are averaged, by their weights: ``arithmetic``, or ``geometric`` for perplexities, whose
            weights are the numbers of what they are perplexities of: then the mean is that of everything together.
        complete: there is no mean where a sample has weight 0: it would not be what its name says.
    """

    name: str
    paper: bool = False
    higher_is_better: bool = True
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    complete: bool = False


@dataclass(frozen=True)
class Sample:
    """One question and its scoring.

    Attributes:
        id: unique in the task, readable, the same for the same options and seed.
        cell: the settings whose samples are averaged together, e.g. ``{"length": 1024, "position": "start"}``.
        reference: the right answer, as a reader of the record should see it.
        request: builds the request when its turn comes, so that a long prompt exists only while it is read.
        score: an answer's value for each of the task's metrics; the answer is of the request's kind.
        prompt_tokens: tokens of the prompt, with what stands around it (``famcli.seams.special_of``), where they are
            known without building it; only for a request to generate that shares neither document nor header.
        document: names the document the sample is about: samples with one name have the same document, and count as one
            cluster where standard errors are estimated. ``None``: the sample stands by itself.
        header: names what prompts begin with alike, such as examples: what all prompts of one name have in common is
            read once. It is no document: it is never cut, and its samples are no cluster. Not beside a document.
        details: further facts about the sample that reports may need. ``distance`` is the tokens between what is asked
            for and the question: reports use it to say what a model recalls from within its receptive field.
    """

    id: str
    cell: Mapping[str, int | str | float]
    reference: str
    request: Callable[[], Request]
    score: Callable[[Any], Scores]
    prompt_tokens: int | None = None
    document: str | None = None
    details: Mapping[str, int | str | float] = field(default_factory=dict)
    header: str | None = None


def option(default: str, help: str, parse: Callable[[str], T], *, added: bool = False) -> T:
    """A field of a task's ``Options``.

    Args:
        default: the value used where none is given, written as a user would.
        help: one line for ``famcli list tasks``.
        parse: turns text into the value; raises ``ValueError`` saying what the option must be.
        added: it came to a task that had runs. At its default a record does not have it: the runs stay what they were.
    """
    metadata = {"help": help, "default": default, "parse": parse, "added": added}
    value: Any = field(default=parse(default), metadata=metadata)
    return value  # type: ignore[no-any-return]  # a dataclass takes the field for its default


class OptionHelp(NamedTuple):
    """What a listing shows of an option, the default as a user would write it."""

    name: str
    default: str
    help: str


@dataclass(frozen=True)
class NoOptions:
    """The ``Options`` of a task that has none."""


class Task(ABC):
    """A benchmark.

    Attributes:
        name: what the user types.
        version: raised whenever the same options would give other prompts or scores; part of a run's identity.
        summary: one line for listings.
        metrics: the scores every sample has, the headline first.
        template: the words around the data in every prompt; its hash is part of a run's identity.
        training_words: parts of ``template`` by name, for those who train a model on prompts like the task's; empty
            where the task offers none.
        Options: a frozen dataclass whose fields are made by ``option``; may be left out.
        hub: where its data lies on the hub, for listings; ``None`` where none is there.
        schema: the smallest rows that it reads, for ``famcli data schema``; ``None`` where it does not say.
        options: this task's options.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    summary: ClassVar[str]
    metrics: ClassVar[tuple[MetricSpec, ...]]
    template: ClassVar[str] = ""
    training_words: ClassVar[Mapping[str, str]] = {}
    Options: ClassVar[type[Any]] = NoOptions
    hub: ClassVar[Any] = None
    schema: ClassVar[DataSchema | None] = None

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def from_options(cls, given: Mapping[str, str]) -> Self:
        """The task with options as typed on a command line, defaults for the rest.

        Raises:
            UserError: an option does not exist or cannot have that value.
        """
        fields = {f.name: f for f in dataclasses.fields(cls.Options)}
        values = {}
        for name, text in given.items():
            if name not in fields:
                raise unknown_name(f"option of task {cls.name}:", name, fields)
            try:
                values[name] = fields[name].metadata["parse"](text)
            except ValueError as error:
                raise UserError(
                    f"task {cls.name}: option '{name}' must be {error}, not '{printable(text)}'",
                    f"for example -o {name}={fields[name].metadata['default']}",
                ) from None
        return cls(cls.Options(**values))

    def recorded_options(self) -> dict[str, Any]:
        """The options as a run record has them, see ``option``."""
        left_out = {f.name for f in dataclasses.fields(self.options) if f.metadata.get("added")}
        values = dataclasses.asdict(self.options)
        defaults = {f.name: f.default for f in dataclasses.fields(self.options)}
        return {name: v for name, v in values.items() if name not in left_out or v != defaults[name]}

    @classmethod
    def option_help(cls) -> list[OptionHelp]:
        """The options as a listing shows them."""
        return [OptionHelp(f.name, f.metadata["default"], f.metadata["help"]) for f in dataclasses.fields(cls.Options)]

    @abstractmethod
    def samples(self, tokenizer: Encoder, seed: int, limit: int | None) -> list[Sample]:
        """The task's samples, the same for the same arguments.

        Args:
            tokenizer: the evaluated model's.
            seed: where anything is drawn, it is drawn from this.
            limit: most samples; ``None`` is all.

        Raises:
            UserError: the options do not fit this tokenizer, or the data cannot be read.
        """

    def provenance(self) -> Mapping[str, Any] | None:
        """Where the task's data comes from, for the run record; ``None`` for a task without data.

        ``sha256`` in it identifies the content: it takes the place of the option ``data`` in a run's identity, so that
        the same data elsewhere makes the same run. So it does for every option whose name is a key here: such an option
        is the path of a further part of the data.
        """
        return None

    def data(self) -> Data | None:
        """What the task reads, for ``famcli data check``; ``None`` for a task that does not say.

        Raises:
            UserError: the data cannot be read.
        """
        return None

    def misfits(self) -> Sequence[DataError]:
        """Every row that does not fit, for ``famcli data check``, which has met one; none where a task does not say."""
        return ()

    def check_split(self) -> None:  # noqa: B027  # a task that does not say lets it pass
        """For ``--split``, which has chosen one among several.

        Raises:
            UserError: the data does not say that it has any.
        """

    def fetch(self, split: str | None) -> Mapping[str, Any]:
        """Stores the task's data on this machine, for ``famcli data fetch``; ``split`` is another than its own.

        Returns:
            ``repo``, ``split``, ``revision``, ``licence``, ``directory``, ``rows``, ``bytes``, and ``files`` by name.

        Raises:
            UserError: there is none to fetch, or it cannot be had.
        """
        raise UserError(f"task {self.name} has no data on the hub", f"famcli eval --task {self.name} --data PATH")
