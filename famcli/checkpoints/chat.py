"""Chat templates: what instruct models were trained to see around a question."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from famcli.checkpoints.rendering import render, variables_of
from famcli.errors import UserError, printable

_PLACEHOLDER = "famcli-prompt-7f3a"
_OURS = {"messages", "add_generation_prompt", "tools", "documents", "raise_exception", "strftime_now"}


@dataclass(frozen=True)
class ChatTemplate:
    """A template in Jinja, as tokenizers carry it.

    Attributes:
        source: the template.
        special_tokens: by the names it calls them, such as ``bos_token``.
    """

    source: str
    special_tokens: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Hex digest of ``source``."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def around(self, arguments: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """What stands before and after the text of one user turn that waits for its answer.

        The text itself never passes through the template: a long document is not copied, and is read once for all
        questions. A template that trims its text therefore trims nothing here.

        Args:
            arguments: variables of the template by name, such as ``enable_thinking``.

        Raises:
            UserError: the template cannot be rendered, does not hold the text exactly once, or has no such variable.
        """
        given = dict(arguments or {})
        if unknown := [name for name in given if name in _OURS or name not in self.variables()]:
            known = ", ".join(sorted(self.variables() - self.special_tokens.keys() - _OURS))
            raise UserError(
                f"the chat template has no variable '{printable(unknown[0])}'",
                f"--chat-template-arg takes one of: {printable(known)}" if known else "leave out --chat-template-arg",
            )
        turn = {"role": "user", "content": _PLACEHOLDER}
        variables = {"messages": [turn], "add_generation_prompt": True, **self.special_tokens, **given}
        rendered = render(self.source, variables)
        before, *after = rendered.split(_PLACEHOLDER)
        if len(after) != 1:
            raise UserError(f"the chat template holds the user's text {len(after)} times", "leave out --chat-template")
        return before, after[0]

    def after_answer(self) -> str | None:
        """What stands between an answer and the text of the user's next turn.

        ``None`` where the template takes no such chat, or shows its texts otherwise than once, as they are.
        """
        texts = [f"{_PLACEHOLDER}-{i}" for i in range(3)]
        roles = ("user", "assistant", "user")
        turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        for messages in (turns, turns[:2]):  # one that asks for a single question may still show its answer
            try:
                variables = {"messages": messages, "add_generation_prompt": False, **self.special_tokens}
                rendered = render(self.source, variables)
            except UserError:
                continue
            _, answered, after = rendered.partition(texts[1])
            if answered and texts[1] not in after:
                return after.partition(texts[2])[0]
        return None

    def variables(self) -> set[str]:
        """The names that the template takes from outside.

        Raises:
            UserError: it is no template.
        """
        return variables_of(self.source)
