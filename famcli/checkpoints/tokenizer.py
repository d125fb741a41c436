"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from famcli.checkpoints.chat import ChatTemplate


class Tokenizer(Protocol):
    """What every room above needs of a tokenizer."""

    name: str
    """Identifies the vocabulary; recorded in run records and part of a prompt's identity."""
    vocab_size: int
    end_of_text: int | None
    """The token that ends a text, where there is one."""
    text_start: int | None
    """The token that stands before a text that is predicted from its first token on, where there is one."""
    prompt_start: tuple[int, ...]
    """Tokens that stand before every prompt: the beginning of a text, where the model was trained to see it."""
    chat_template: ChatTemplate | None
    """Of models that answer in chats."""
    seams: bool
    """Whether a joined text may have other tokens than its parts."""

    @property
    def answer_ends(self) -> frozenset[int]:
        """The tokens that end an answer: ``end_of_text``, and whatever else ends a turn of a chat."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; bytes that are not valid UTF-8 become U+FFFD, special tokens become nothing."""
        ...


class ByteTokenizer:
    """One token per UTF-8 byte, so every text in every language has one encoding and nothing is out of vocabulary.

    Ids 0 to 255 are the bytes, 256 ends a text.
    """

    name = "bytes"
    vocab_size = 257
    end_of_text: int | None = 256
    answer_ends = frozenset({256})
    text_start: int | None = 256
    prompt_start: tuple[int, ...] = ()
    chat_template: ChatTemplate | None = None
    seams = False

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")
