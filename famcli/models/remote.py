"""Models that answer texts themselves, somewhere else: they show no latents, and famcli keeps no state of theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from famcli.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Written(NamedTuple):
    """A text that was generated; ``cut``: the budget ended it."""

    text: str
    cut: bool


class Likelihoods(NamedTuple):
    """What a model says of each token of a text, as the model itself cuts it.

    Attributes:
        tokens: their texts, which spell the whole.
        log_likelihoods: of each given all before it, in nats; ``None`` of the first, where nothing stands before it.
        hits: whether it was the most likely one.
    """

    tokens: tuple[str, ...]
    log_likelihoods: tuple[float | None, ...]
    hits: tuple[bool, ...]


class Remote(ABC):
    """A ``StreamModel`` in what is said of it; what it is asked goes to the two methods below.

    Attributes:
        name: what errors call it.
        at_once: questions that are worth asking at one time.
    """

    chunk_size = 1024
    receptive_field: int | None = None
    parameters_count = 0

    def __init__(self, name: str, vocab_size: int, longest_text: int | None, at_once: int) -> None:
        import torch

        self.name, self.vocab_size, self.longest_text, self.at_once = name, vocab_size, longest_text, at_once
        self.device: torch.device = torch.device("cpu")

    @property
    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """See ``StreamModel``."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """See ``StreamModel``."""

    @abstractmethod
    def write(self, prompt: str, max_new_tokens: int, stop: Sequence[str]) -> Written:
        """Continues a text with the most likely tokens, until the budget, a stop string or the end of a text.

        Raises:
            UserError: it cannot be reached, or refuses.
        """

    @abstractmethod
    def weigh(self, text: str) -> Likelihoods:
        """The likelihood of each token of a text.

        Raises:
            UserError: it cannot be reached, refuses, or does not tell.
        """

    def state_bytes(self, tokens: int) -> int:
        """Nothing is kept here; one, as others divide by it."""
        return 1

    def start(self, batch: int) -> NoReturn:
        """Raises ``UserError``: there is no stream to read."""
        raise UserError(
            f"{self.name} answers elsewhere and shows no latents",
            "famcli eval, sweep and check alone can ask it",
        )

    def read(self, tokens: Tensor, state: Any) -> NoReturn:
        """See ``start``."""
        self.start(len(tokens))

    def prefill(self, tokens: Tensor, state: Any) -> NoReturn:
        """See ``start``."""
        self.start(len(tokens))

    def logits(self, latents: Tensor) -> NoReturn:
        """See ``start``."""
        self.start(1)

    def load_state(self, path: Path) -> NoReturn:
        """See ``start``."""
        self.start(1)
