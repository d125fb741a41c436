"""Chat templates: what instruct models were trained to see around a question."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from famcli.checkpoints.rendering import render, variables_of
from famcli.errors import UserError, printable

_PLACEHOLDER = "famcli-prompt-7f3a"
_SYSTEM = "famcli-system-7f3a"
_LEAVE_OUT = "leave out --system-prompt"
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

    def around(self, arguments: Mapping[str, Any] | None = None, system: str | None = None) -> tuple[str, str]:
        """What stands before and after the text of one user turn that waits for its answer; see ``turns``."""
        before, after = self.turns(("user",), arguments, system)
        return before, after

    def turns(
        self, roles: Sequence[str], arguments: Mapping[str, Any] | None = None, system: str | None = None
    ) -> tuple[str, ...]:
        """What stands before, between and after the texts of messages, of which the last waits for its answer.

        The texts never pass through the template: a long document is not copied, and is read once for all questions. A
        template that trims its texts therefore trims nothing here.

        Args:
            roles: of the messages.
            arguments: variables of the template by name, such as ``enable_thinking``.
            system: the text of a message of the system before them; it passes through the template.

        Raises:
            UserError: the template cannot be rendered, does not hold each text exactly once and in order, has no such
                variable, or shows no message of the system; or the messages have one of their own.
        """
        given = dict(arguments or {})
        if unknown := [name for name in given if name in _OURS or name not in self.variables()]:
            known = ", ".join(sorted(self.variables() - self.special_tokens.keys() - _OURS))
            raise UserError(
                f"the chat template has no variable '{printable(unknown[0])}'",
                f"--chat-template-arg takes one of: {printable(known)}" if known else "leave out --chat-template-arg",
            )
        texts = [f"{_PLACEHOLDER}-{number}-" for number in range(len(roles))]
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        variables = {"messages": messages, "add_generation_prompt": True, **self.special_tokens, **given}
        if system is not None:
            self._check_system(variables, roles)
            variables["messages"] = [{"role": "system", "content": system}, *messages]
        return _between(render(self.source, variables), texts, roles)

    def _check_system(self, variables: Mapping[str, Any], roles: Sequence[str]) -> None:
        """Raises ``UserError`` where a system prompt would be refused, lost or the second one."""
        if "system" in roles:
            raise UserError("a chat has a system prompt of its own, and --system-prompt is given", _LEAVE_OUT)
        messages = [{"role": "system", "content": _SYSTEM}, *variables["messages"]]
        try:
            shown = render(self.source, {**variables, "messages": messages})
        except UserError as error:
            raise UserError(f"with a system prompt, {error.message}", _LEAVE_OUT) from error
        if _SYSTEM not in shown:
            raise UserError("the model's chat template shows no system prompt", _LEAVE_OUT)

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


def _between(rendered: str, texts: Sequence[str], roles: Sequence[str]) -> tuple[str, ...]:
    """A chat without its texts, see ``ChatTemplate.turns``."""
    parts, rest = [], rendered
    for number, (text, role) in enumerate(zip(texts, roles, strict=True), 1):
        if (count := rendered.count(text)) != 1 or text not in rest:
            whose = "the user's text" if len(texts) == 1 else f"the text of message {number} ({role})"
            where = f"{count} times" if count != 1 else "before that of the message before it"
            raise UserError(f"the chat template holds {whose} {where}", "leave out --chat-template")
        part, _, rest = rest.partition(text)
        parts.append(part)
    return (*parts, rest)
