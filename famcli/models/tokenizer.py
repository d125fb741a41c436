"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """What every room above needs of a tokenizer."""

    name: str
    """Identifies the vocabulary; recorded in run records and part of a prompt's identity."""
    vocab_size: int
    end_of_text: int | None
    """The token that ends an answer, where there is one."""
    text_start: int | None
    """The token that stands before a text that is predicted from its first token on, where there is one."""

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
    text_start: int | None = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")
