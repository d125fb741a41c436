"""Names given on the command line: each is of one model."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.checkpoints.sources import Source
    from famcli.evaluation.record import RunRecord


def with_name(models: tuple[str, ...], name: str | None) -> tuple[str, ...]:
    """The models with ``--as``, which belongs to one.

    Raises:
        UserError: there are several models, or the name cannot be one.
    """
    from famcli.checkpoints.naming import check_name

    if name is None:
        return models
    check_name(name)
    if len(models) > 1:
        own = [name, *(f"NAME{number}" for number in range(2, len(models) + 1))]
        named = (f"--model {model},name={one}" for model, one in zip(models, own, strict=True))
        raise UserError(f"--as names one model, and there are {len(models)}", f"name each: {' '.join(named)}")
    return (f"{models[0]},name={name}",)


def check_names(sources: Sequence[Source], results: Path | None = None) -> None:
    """Makes sure that no name is of two models, neither of this command nor among the runs in ``results``.

    Raises:
        UserError: names both.
    """
    from famcli.evaluation.record import same_spec

    owners: dict[str, str] = {}
    for source in sources:
        if not same_spec(other := owners.setdefault(source.name, source.spec), source.spec):
            raise UserError(
                f"two models are called {source.name}: {other} and {source.spec}",
                f"give each a name of its own: --model {other},name=NAME1 --model {source.spec},name=NAME2",
            )
    for name, spec in owners.items():
        for record in _runs_of(name, results) if results else ():
            if record.model["name"] == name and not same_spec(record.spec, spec):
                raise UserError(
                    f"{results} has runs of another model called {name}: {record.run_id} is of {record.spec}, this is "
                    f"{spec}",
                    "give another name with --as, or another --output",
                )


def _runs_of(name: str, results: Path) -> Iterator[RunRecord]:
    """The runs whose directory may be named after a model; damaged ones are left to those who need them."""
    from famcli.evaluation.record import load_record

    readable = re.sub("[^A-Za-z0-9_.]+", "-", name)
    for directory in sorted(results.glob(f"*-{glob.escape(readable)}-*")):
        if not re.search(r"\.old-[0-9]+$", directory.name):
            try:
                yield load_record(directory)
            except UserError:
                continue
