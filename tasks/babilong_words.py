"""The words of BABILong: its prompts and labels, as github.com/booydar/babilong (Apache-2.0) has them."""

from __future__ import annotations

from dataclasses import dataclass

LOCATIONS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")


@dataclass(frozen=True)
class Kind:
    """One of bAbI's tasks.

    Attributes:
        labels: what can be the answer.
        instruction, examples, form: what stands before the text, in this order; ``form`` says how to answer.
    """

    labels: tuple[str, ...]
    instruction: str
    examples: tuple[str, ...]
    form: str

    @property
    def beginning(self) -> str:
        """All that stands before the text."""
        shown = "\n".join(f"<example>\n{example}\n</example>" for example in self.examples)
        return f"{self.instruction}\n\n{shown}\n\n{self.form}\n\n"


_FACTS_ALONE = "You need to answer the question based only on the information from the facts."
_CARRIED = (
    f"{_FACTS_ALONE}\n"
    "If a person got an item in the first location and travelled to the second location "
    "the item is also in the second location. "
    "If a person dropped an item in the first location and moved to the second location "
    "the item remains in the first location."
)
_ITEMS = "I give you context with the facts about locations and actions of different persons hidden in some random text"
_NOTHING_ELSE = "Do not write anything else after that."

KINDS = {
    "qa1": Kind(
        LOCATIONS,
        "I will give you context with the facts about positions of different persons hidden in some random text and a "
        f"question. {_FACTS_ALONE} "
        "If a person was in different locations, use the latest location to answer the question.",
        (
            "Charlie went to the hallway. Judith come back to the kitchen. Charlie travelled to balcony. "
            "Where is Charlie?\nAnswer: The most recent location of Charlie is balcony.",
            "Alan moved to the garage. Charlie went to the beach. Alan went to the shop. Rouse travelled to balcony. "
            "Where is Alan?\nAnswer: The most recent location of Alan is shop.",
        ),
        "Always return your answer in the following format: The most recent location of ’person’ is ’location’. "
        f"{_NOTHING_ELSE}",
    ),
    "qa2": Kind(
        LOCATIONS,
        f"{_ITEMS} and a question.{_CARRIED}",
        (
            "Charlie went to the kitchen. Charlie got a bottle. Charlie moved to the balcony. Where is the bottle?\n"
            "Answer: The bottle is in the balcony.",
            "Alan moved to the garage. Alan got a screw driver. Alan moved to the kitchen. Where is the screw driver?\n"
            "Answer: The screw driver is in the kitchen.",
        ),
        f"Always return your answer in the following format: The ’item’ is in ’location’. {_NOTHING_ELSE}",
    ),
    "qa3": Kind(
        LOCATIONS,
        f"{_ITEMS} and a question. {_CARRIED}",
        (
            "John journeyed to the bedroom. Mary grabbed the apple. Mary went back to the bathroom. "
            "Daniel journeyed to the bedroom. Daniel moved to the garden. Mary travelled to the kitchen. "
            "Where was the apple before the kitchen?\nAnswer: Before the kitchen the apple was in the bathroom.",
            "John went back to the bedroom. John went back to the garden. John went back to the kitchen. "
            "Sandra took the football. Sandra travelled to the garden. Sandra journeyed to the bedroom. "
            "Where was the football before the bedroom?\nAnswer: Before the bedroom the football was in the garden.",
        ),
        "Always return your answer in the following format: Before the $location_1$ the $item$ was in the "
        f"$location_2$. {_NOTHING_ELSE}",
    ),
    "qa4": Kind(
        LOCATIONS,
        "I will give you context with the facts about different people, their location and actions, hidden in some "
        f"random text and a question. {_FACTS_ALONE}",
        (
            "The hallway is south of the kitchen. The bedroom is north of the kitchen. "
            "What is the kitchen south of?\nAnswer: bedroom",
            "The garden is west of the bedroom. The bedroom is west of the kitchen. What is west of the bedroom?\n"
            "Answer: garden",
        ),
        f"Your answer should contain only one word - location. {_NOTHING_ELSE}",
    ),
    "qa5": Kind(
        ("Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"),
        "I will give you context with the facts about locations and their relations hidden in some random text and a "
        f"question. {_FACTS_ALONE}",
        (
            "Mary picked up the apple there. Mary gave the apple to Fred. Mary moved to the bedroom. "
            "Bill took the milk there. Who did Mary give the apple to?\nAnswer: Fred",
            "Jeff took the football there. Jeff passed the football to Fred. Jeff got the milk there. "
            "Bill travelled to the bedroom. Who gave the football?\nAnswer: Jeff",
            "Fred picked up the apple there. Fred handed the apple to Bill. Bill journeyed to the bedroom. "
            "Jeff went back to the garden. What did Fred give to Bill?\nAnswer: apple",
        ),
        f"Your answer should contain only one word. {_NOTHING_ELSE} Do not explain your answer.",
    ),
}


def is_right(kind: str, question: str, target: str, answer: str) -> bool:
    """Whether the answer says the target, and of the other labels none that the question does not name.

    Its first sentence counts, in lower case, up to where the model begins a new text of the prompt's form.
    """
    said = answer.lower().split(".")[0].split("<context>")[0].split("<example>")[0]
    asked = question.lower()
    labels = {label.lower() for label in KINDS[kind].labels}
    return {label for label in labels if label in said and label not in asked} == {target.lower()}
