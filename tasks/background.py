"""Texts that facts and needles are hidden in, which the user gives: their sentences and their words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from famcli.errors import UserError

from .sources import SAMPLE, open_data

FEWEST_CHARACTERS = 20
"""Shorter sentences are left out: headings, and what stands behind the full stop of an abbreviation."""
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)\]]))\s+(?=[\"'“‘(\[]?[A-Z0-9])")


def parse_background(text: str) -> str:
    """What ``Background`` takes; empty for none."""
    return text.strip()


class Background:
    """Texts at a path, or several with commas between, or ``sample``.

    Args:
        source: plain ``.txt`` files, or rows with a field ``text``, such as those of PG-19.
    """

    def __init__(self, source: str) -> None:
        # The built-in texts are those of pg19, whose readers take the same files.
        self.dataset = open_data("pg19", source, None, ("*.txt",), texts_instead=True)
        self.source = source

    @property
    def sha256(self) -> str:
        """Of the content."""
        return self.dataset.provenance.sha256

    @property
    def name(self) -> str:
        """What the record calls it."""
        return SAMPLE if self.source == SAMPLE else self.dataset.provenance.name

    @cached_property
    def sentences(self) -> list[str]:
        """All sentences of all texts, white space made single spaces.

        Raises:
            UserError: there are none.
        """
        texts = (re.sub(r"\s+", " ", row.text("text")) for row in self.dataset.rows)
        found = [part.strip() for text in texts for part in _END.split(text)]
        long = [sentence for sentence in found if len(sentence) >= FEWEST_CHARACTERS]
        if not long:
            raise UserError(f"the background {self.name} has no sentences of {FEWEST_CHARACTERS} characters")
        return long


def background_sha256(data: Mapping[str, Any] | None, background: Background | None) -> dict[str, Any]:
    """What a task says of its data, with the name of its background and its content in the hash."""
    facts = dict(data or {})
    if background:
        both = f"{facts.get('sha256', '')}\n{background.sha256}"
        facts |= {"background": background.name, "sha256": hashlib.sha256(both.encode()).hexdigest()}
    return facts
