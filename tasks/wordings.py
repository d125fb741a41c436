"""The words of PassKey: the filler, and the ways of telling a key and asking for it."""

from __future__ import annotations

from dataclasses import dataclass

DESCRIPTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
KEY_LINE = "The pass key is {key}. Remember it. {key} is the pass key."
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
QUESTION = "What is the pass key? The pass key is"


@dataclass(frozen=True)
class Wording:
    """How a key is told and asked for; ``{key}`` stands for it, ``{name}`` for whose it is."""

    line: str
    question: str

    @property
    def names(self) -> bool:
        """Keys have names, so that one of several can be asked for."""
        return "{name}" in self.line


WORDINGS = {
    "classic": Wording(KEY_LINE, QUESTION),
    "named": Wording(
        "The pass key of {name} is {key}. Remember it. {key} is the pass key of {name}.",
        "What is the pass key of {name}? The pass key of {name} is",
    ),
    "locker": Wording("You will find the bag in locker {key}.", "In which locker is the bag? The bag is in locker"),
    "flight": Wording(
        "{name} flies home tomorrow. The booking number is {key}.",
        "What is the booking number of {name}'s flight? The booking number is",
    ),
    "lottery": Wording(
        "The winning lottery number was {key}, as the newspaper wrote.",
        "Which number won the lottery? The winning number was",
    ),
}
"""Ways of telling a key and asking for it. Recipes train on none of them but the classic one."""

NAMES = ("Agnes", "Bruno", "Carmen", "David", "Emil", "Fatima", "Gustav", "Helen", "Ivan", "Julia", "Karim", "Laura")
