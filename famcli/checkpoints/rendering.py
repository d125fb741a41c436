"""Renders chat templates, programs of others, in a process of their own: bounded in time, memory and what they write.

Jinja's sandbox keeps a template from files and from Python; it does not keep it from counting for ever, or from making
a text that no memory holds. ``python -m famcli.checkpoints.rendering`` is that process: it reads a job as JSON and
writes what came of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from famcli.errors import UserError, printable

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

TODAY = datetime(2024, 7, 26)
"""The date for templates that state one: a run must ask the same tomorrow. It is the default of Llama 3's own."""
CPU_SECONDS, SECONDS = 2, 120
"""Of the processor, and, on a machine that is busy, in all. Templates of models take milliseconds."""
MEMORY = 1 << 29
LONGEST = 1 << 20
"""Most characters that a template may write, or have."""
_TOO_LONG = f"it writes more than {LONGEST:,} characters"
_KILLED = f"it takes more than {CPU_SECONDS} seconds or more than {MEMORY >> 20} MiB"


def render(source: str, variables: Mapping[str, Any]) -> str:
    """What a template makes of its variables, which are values of JSON.

    Raises:
        UserError: it is no template, it fails, or it takes more than is allowed.
    """
    return str(_ask(source, json.dumps(dict(variables))))


def variables_of(source: str) -> set[str]:
    """The names that a template takes from outside.

    Raises:
        UserError: as ``render``.
    """
    return set(_ask(source, None))


_exceeding: set[str] = set()
"""Templates that took more than is allowed: they are not given the time once more."""


@lru_cache(maxsize=64)  # every question of a run stands between the same texts
def _ask(source: str, variables: str | None) -> Any:
    if source in _exceeding:
        raise _failed(_KILLED)
    if len(source) > LONGEST:
        raise _failed(f"it has {len(source):,} characters")
    job = json.dumps({"source": source, "variables": variables}).encode()
    try:
        command = [sys.executable, "-P", "-m", "famcli.checkpoints.rendering"]
        done = subprocess.run(command, input=job, capture_output=True, timeout=SECONDS)
        answer = json.loads(done.stdout) if done.returncode == 0 else {"failed": _KILLED}
    except (subprocess.TimeoutExpired, ValueError):
        answer = {"failed": _KILLED}
    if "failed" in answer:
        if answer["failed"] == _KILLED:
            _exceeding.add(source)
        raise _failed(str(answer["failed"]))
    return answer["made"]


def _failed(why: str) -> UserError:
    return UserError(f"the chat template cannot be rendered: {printable(why, 400)}", "leave out --chat-template")


def answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the process of its own says to a job: ``made``, or why it ``failed``."""
    import jinja2.meta

    source, variables = job["source"], job["variables"]
    try:
        environment = _environment()
        if variables is None:
            return {"made": sorted(jinja2.meta.find_undeclared_variables(environment.parse(source)))}
        made = 0
        parts = []
        for part in environment.from_string(source).generate(tools=None, documents=None, **json.loads(variables)):
            parts.append(part)
            made += len(part)
            if made > LONGEST:
                return {"failed": _TOO_LONG}
        return {"made": "".join(parts)}
    except MemoryError:
        return {"failed": _KILLED}
    except Exception as error:  # templates are programs of others: whatever one of them raises
        return {"failed": str(error)[:LONGEST] or type(error).__name__}


def _environment() -> SandboxedEnvironment:
    """As that of transformers: sandboxed, blocks trimmed, with the functions that templates expect."""
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks answers for training; here it marks nothing."""

        tags = {"generation"}  # noqa: RUF012 (so declared above)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)  # Jinja's own escapes HTML

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": TODAY.strftime}
    return environment


def _serve() -> None:
    import resource

    for limit, most in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # not every system has every limit, or lets it be set
            resource.setrlimit(limit, (most, most))
    sys.stdout.write(json.dumps(answer(json.load(sys.stdin))))


if __name__ == "__main__":
    _serve()
