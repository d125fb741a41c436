"""Wires the verbs. A verb's module is imported only when it is called, so that ``famcli --help`` is instant."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from contextlib import suppress

import click

from famcli.cli.helping import Context, whole_words
from famcli.cli.interrupts import ignore
from famcli.cli.saying import Told, tell, tell_whole
from famcli.cli.verbs import EXIT_INTERRUPTED, EXIT_USER_ERROR, VERBS, interrupted
from famcli.errors import UserError, printable, unknown_name
from famcli.machine.free import is_out_of_memory
from famcli.version import __version__

LONGEST_MESSAGE = 4_000
"""Characters of a message: it may quote what has no end."""


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return whole_words(importlib.import_module(VERBS[cmd_name].module).command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise unknown_name("command", args[0], VERBS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="famcli", message="%(prog)s %(version)s")
def cli() -> None:
    """Does this model remember what it read long ago, and what did that cost?"""


def run(given: list[str]) -> int:
    """Runs the command line ``given`` and returns the exit code; see ``famcli.cli.main.main``."""
    _show_warnings()
    try:
        if any("\0" in word for word in given):  # no shell can give one, and no path can have one
            raise UserError("an argument has a null character in it")
        code = cli.main(given, prog_name="famcli", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _complain(error.message, error.hint)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USER_ERROR
    except click.ClickException as error:
        message = error.format_message().replace("a valid integer range", "a whole number")
        message = message.replace("a valid integer", "a whole number")
        return _complain(message[:1].lower() + message[1:].rstrip("."), _see(error))
    except (click.Abort, KeyboardInterrupt):
        ignore()  # it is being said
        click.echo(interrupted(given[0] if given else None), err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; Python must not complain when it flushes what nobody reads.
        _silence()
        return 0
    except OSError as error:
        _silence()
        return _complain(f"{error.filename or 'cannot write the output'}: {error.strerror or error}", None)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _complain(
            "there is not enough memory for this", "shorter texts, a smaller --batch-size or block_size take less"
        )


def _see(error: click.ClickException) -> str:
    """Where to look. What is no option of a command that runs tasks may be one of a task."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    see = f"see: {context.command_path if context else 'famcli'} --help"
    takes = any("-o" in param.opts for param in context.command.params) if context else False
    if takes and isinstance(error, click.NoSuchOption):
        return f"options of a task are typed so: -o lengths=1k,64k; for all others {see}"
    return see


def _show_warnings() -> None:
    """What the rooms below warn of goes the way of all lines."""
    logger = logging.getLogger("famcli")
    if not any(isinstance(handler, Told) for handler in logger.handlers):
        logger.addHandler(Told(logging.WARNING))


def _silence() -> None:
    """Standard output takes nothing more: Python must not complain when it flushes what could not be written."""
    with suppress(OSError, ValueError):  # it may have no file descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, hint: str | None) -> int:
    tell(f"error: {printable(message, LONGEST_MESSAGE)}")
    if hint:
        tell_whole(f"hint: {printable(hint, LONGEST_MESSAGE)}")
    return EXIT_USER_ERROR
