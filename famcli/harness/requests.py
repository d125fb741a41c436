"""Requests of the harness as requests of famcli, and the answers back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from famcli.errors import UserError
from famcli.harness.headers import common
from famcli.task import Choose, Chosen, Generate, Generated, Predicted, Prompt, Read, Request

LONGEST_ANSWER = 256
"""Tokens of an answer where a task does not say, as in the harness."""


def asked(instances: Sequence[Any], where: str) -> Request:
    """One request for what the harness asks about one document.

    Raises:
        UserError: it asks for what no request of famcli is.
    """
    kinds = {instance.request_type for instance in instances}
    if kinds == {"loglikelihood"}:
        return _choose([instance.args for instance in instances], where)
    if len(instances) > 1:
        raise UserError(
            f"{where} asks for {' and '.join(sorted(kinds))} about one row: famcli asks one thing a sample",
            "leave this task out",
        )
    arguments = instances[0].args
    if kinds == {"loglikelihood_rolling"}:
        return Read(arguments[0])
    if kinds == {"generate_until"}:
        return _generate(arguments[0], arguments[1], where)
    raise UserError(f"{where} asks for {', '.join(sorted(kinds))}, which famcli does not", "leave this task out")


def answered(request: Request, answer: Any) -> list[Any]:
    """The harness's answers, one for each of its requests."""
    if isinstance(request, Read):
        assert isinstance(answer, Predicted)
        return [float(answer.log_likelihoods.sum(dtype="float64"))]
    if isinstance(request, Generate):
        assert isinstance(answer, Generated)
        return [answer.text]
    assert isinstance(answer, Chosen)
    return list(zip(answer.log_likelihoods, answer.greedy, strict=True))


def _choose(pairs: Sequence[tuple[str, str]], where: str) -> Choose:
    """White space at the end of a context belongs to what follows, as in the harness."""
    contexts = [context.rstrip() for context, _ in pairs]
    options = tuple(pair[0][len(context) :] + pair[1] for pair, context in zip(pairs, contexts, strict=True))
    if not all(contexts):
        raise UserError(f"{where} asks how likely a text is that nothing stands before", "leave this task out")
    if len(set(contexts)) == 1:
        return Choose(Prompt((contexts[0],)), options, greedy=True)
    first, last = min(contexts), max(contexts)  # what these two begin with, all do
    alike = first[: common(first, last)]
    shared = alike[: max(alike.rfind(" "), alike.rfind("\n"), 0)]
    if not shared:
        raise UserError(f"{where} asks about texts that begin otherwise", "leave this task out")
    return Choose(Prompt((shared,)), options, tuple(context[len(shared) :] for context in contexts), greedy=True)


def _generate(context: str, settings: dict[str, Any], where: str) -> Generate:
    if settings.get("do_sample") or settings.get("temperature"):
        raise UserError(f"{where} asks for answers drawn by chance (do_sample); famcli takes the most likely token")
    until = settings.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    budget = int(settings.get("max_gen_toks") or LONGEST_ANSWER)
    return Generate(Prompt((context,)), budget, tuple(stop for stop in stops if stop))
