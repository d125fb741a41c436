"""A comparison written out: for the terminal, as markdown, LaTeX, HTML, CSV and JSON, with the same numbers."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from famcli.compare.comparison import Comparison
from famcli.compare.row import Row
from famcli.display import csv_value, in_markdown, json_text, visible
from famcli.metrics.paired import LEVEL
from famcli.reports.answer import answer_figures, answer_lines, answer_values
from famcli.reports.grid import Grid
from famcli.reports.layout import grids, remarks
from famcli.reports.numbers import NOTHING, csv_number
from famcli.reports.remembered import answer_grids

if TYPE_CHECKING:
    from rich.table import Table


_PROFILED = ("seconds", "computed_tokens", "tokens_per_second", "peak_memory_bytes", "state_bytes")
_STYLES = {"better": "green", "worse": "red", NOTHING: "dim"}


def to_rich(grid: Grid) -> Table:
    """A table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title=Text(visible(grid.title)) if grid.title else None,
        title_justify="left",
        title_style="bold",
    )
    for i, title in enumerate(grid.header):
        table.add_column(Text(visible(title)), justify="left" if i < grid.words else "right", overflow="fold")
    for line in grid.lines:
        table.add_row(*(Text(visible(text), style=_STYLES.get(text, "")) for text in line))
    return table


def to_markdown(comparison: Comparison) -> str:
    """The answer as tables and a list, pipe tables, and the remarks below them."""
    answer = "".join(f"- {in_markdown(line)}\n" for line in answer_lines(comparison))
    parts = [*map(_markdown_table, answer_grids(comparison)), *([answer] if answer else [])]
    parts += map(_markdown_table, grids(comparison))
    return "\n".join([*parts, *(f"{in_markdown(remark)}\n" for remark in remarks(comparison))])


def _markdown_table(grid: Grid) -> str:
    rule = ["---" if i < grid.words else "---:" for i in range(len(grid.header))]
    lines = [[in_markdown(text) for text in line] for line in (grid.header, *grid.lines)]
    title = f"**{in_markdown(grid.title)}**\n\n" if grid.title else ""
    return title + "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "…": r"\dots{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def to_latex(comparison: Comparison) -> str:
    """The answer, tables of the package ``booktabs``, and the remarks; beyond Latin letters it takes LuaLaTeX."""
    parts = ["% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs}\n"]
    parts += map(_latex_table, answer_grids(comparison))
    parts += [f"{_latex(line)}\\par\n" for line in answer_lines(comparison)]
    parts += map(_latex_table, grids(comparison))
    return "\n".join([*parts, *(f"\\par {_latex(remark)}\n" for remark in remarks(comparison))])


def _latex_table(grid: Grid) -> str:
    columns = "".join("l" if i < grid.words else "r" for i in range(len(grid.header)))
    header, *lines = [" & ".join(_latex(text) for text in line) for line in (grid.header, *grid.lines)]
    title = f"\\textbf{{{_latex(grid.title)}}}\\par\n" if grid.title else ""
    body = "".join(f"{line} \\\\\n" for line in lines)
    return (
        f"{title}\\begin{{tabular}}{{{columns}}}\n\\toprule\n{header} \\\\\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n"
    )


def _latex(text: str) -> str:
    """As plain text; a bracket that begins a line would be taken for an option of the line before."""
    escaped = "".join(_LATEX.get(character, character) for character in visible(text))
    return f"{{}}{escaped}" if escaped[:1] in ("[", "*") else escaped


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>famcli compare</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: bold; }}
th, td {{ padding: .2em .8em; text-align: right; white-space: nowrap; }}
th {{ border-bottom: 1px solid; vertical-align: bottom; }}
.word {{ text-align: left; }}
</style>
</head>
<body>
{body}</body>
</html>
"""


def to_html(comparison: Comparison) -> str:
    """A page that needs nothing else."""
    return _PAGE.format(body=html_tables(comparison))


def html_tables(comparison: Comparison) -> str:
    """What stands in the page: the answer, and tables with the remarks below them."""
    parts = [*map(_html_table, answer_grids(comparison))]
    parts += [f"<p>{_html(line)}</p>\n" for line in answer_lines(comparison)]
    parts += map(_html_table, grids(comparison))
    return "".join([*parts, *(f"<p>{_html(remark)}</p>\n" for remark in remarks(comparison))])


def _html_table(grid: Grid) -> str:
    caption = f"<caption>{_html(grid.title)}</caption>\n" if grid.title else ""
    header = _cells("th", grid.header, grid.words)
    body = "".join(f"<tr>{_cells('td', line, grid.words)}</tr>\n" for line in grid.lines)
    return f"<div><table>\n{caption}<thead><tr>{header}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"


def _cells(tag: str, line: Iterable[str], words: int) -> str:
    return "".join(
        f'<{tag} class="word">{_html(text)}</{tag}>' if i < words else f"<{tag}>{_html(text)}</{tag}>"
        for i, text in enumerate(line)
    )


def _html(text: str) -> str:
    return html.escape(visible(text))


def to_csv(comparison: Comparison) -> str:
    """The samples that changed sides, where these were asked for, else the answer, the rows and what they cost.

    Text is as ``famcli.display.csv_value`` has it, numbers as ``csv_number``. The answer is lines of the metrics
    ``answer.remembers_to``, ``answer.longest_measured`` (both in tokens) and ``answer.held``, by kind of text.

    Without a baseline a line is a row, with five columns a model: its name, then ``NAME stderr``, ``NAME low``,
    ``NAME high`` and ``NAME n``, and published figures in columns ``MODEL (Table N)``. With one, a line is a row and a
    model, and published figures are lines of the model ``MODEL (Table N)``. Then come lines of the cost of each run,
    whose id is in the column ``run``: the metric is ``cost.NAME``. Lines of the task ``reading`` have what a profile
    measured, by ``length``.
    """
    lines = [
        {csv_value(name): csv_value(csv_number(value)) for name, value in line.items()}
        for line in _csv_lines(comparison)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def has_defused(text: str) -> bool:
    """Whether CSV of ``to_csv`` has a cell with an apostrophe in front."""
    return any(cell.startswith("'") for line in csv.reader(io.StringIO(text)) for cell in line)


def _csv_lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    if comparison.changes is not None:
        for change in comparison.changes:
            values = asdict(change)
            yield {"task": change.task, "metric": change.metric, **values.pop("settings"), **values}
        return
    names = {name: None for row in comparison.rows for name in row.settings}
    yield from _csv_answer(comparison, names)
    for row in comparison.rows:
        start = {"task": row.task, "metric": row.metric, **names, **row.settings}
        if comparison.baseline is None:
            line = dict(start)
            for column in comparison.columns:
                values = _score(row, column.name)
                line[column.name] = values.pop("value")
                line |= {f"{column.name} {name}": value for name, value in values.items()}
            for figure in comparison.reference.figures if comparison.reference else ():
                published = (figure.task, figure.metric) == (row.task, row.metric) and not row.settings
                line[f"{figure.model} (Table {figure.table})"] = figure.value if published else None
            yield line | ({"differs": "; ".join(row.differs)} if comparison.differs else {})
        else:
            for column in comparison.columns:
                if column.name in row.scores:
                    yield {**start, "model": column.name, **_score(row, column.name), **_difference(row, column.name)}
    yield from _csv_costs(comparison, names)
    yield from _csv_profile(comparison, names)
    if comparison.reference and comparison.baseline is not None:
        for figure in comparison.reference.figures:
            model = f"{figure.model} (Table {figure.table})"
            yield {"task": figure.task, "metric": figure.metric, "model": model, "value": figure.value}


def _csv_answer(comparison: Comparison, names: Mapping[str, None]) -> Iterator[dict[str, Any]]:
    """A line a kind of text and figure, and with a baseline a line a model besides."""
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for recall in comparison.answer.recalls if comparison.answer else ():
        for figure, value in answer_figures(recall).items():
            start = {"task": recall.task, "metric": figure, **names, **recall.settings}
            if comparison.baseline is None:
                kinds.setdefault((recall.kind, figure), start)[recall.column] = value
            else:
                kinds[recall.kind, f"{recall.column} {figure}"] = {**start, "model": recall.column, "value": value}
    yield from kinds.values()


def _csv_costs(comparison: Comparison, names: Mapping[str, None]) -> Iterator[dict[str, Any]]:
    """A line a run and figure."""
    for cost in comparison.costs:
        for figure, value in {**cost.values, "seconds_per_sample": cost.seconds_per_sample}.items():
            line = {"task": cost.task, "metric": f"cost.{figure}", **names, **cost.settings, "run": cost.run_id}
            yield line | ({cost.model: value} if comparison.baseline is None else {"model": cost.model, "value": value})


def _csv_profile(comparison: Comparison, names: Mapping[str, None]) -> Iterator[dict[str, Any]]:
    """A line a model, length and figure of a profile."""
    for model in comparison.profile.models if comparison.profile else ():
        for cost in model.measured:
            figures = {name: getattr(cost, name) for name in _PROFILED}
            for figure, value in {**figures, "decode_seconds": cost.decode.median if cost.decode else None}.items():
                line = {"task": "reading", "metric": f"cost.{figure}", **names, "length": cost.tokens}
                column = {model.name: value} if comparison.baseline is None else {"model": model.name, "value": value}
                yield line | column


def _score(row: Row, column: str) -> dict[str, Any]:
    """What is known of a score, ``None`` for what is not."""
    score, interval = row.scores.get(column), row.intervals.get(column)
    return {
        "value": score.value if score else None,
        "stderr": score.stderr if score else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "n": score.n if score else None,
    }


def _difference(row: Row, column: str) -> dict[str, Any]:
    """What is known of a difference, ``None`` for what is not."""
    found = row.differences.get(column)
    paired = found.paired if found else None
    return {
        "difference": paired.value if paired else None,
        "difference low": paired.low if paired else None,
        "difference high": paired.high if paired else None,
        "p": paired.p_value if paired else None,
        "p corrected": found.p_corrected if found else None,
        "won": paired.wins if paired else None,
        "lost": paired.losses if paired else None,
        "tied": paired.ties if paired else None,
        "shared": paired.n if paired else None,
        "documents": paired.clusters if paired else None,
        "method": paired.method if paired else None,
        "verdict": found.verdict if found else None,
        "differs": "; ".join(row.differs),
    }


def to_json(comparison: Comparison) -> str:
    """One object; numbers in full, ``null`` for what is not known.

    ``answer`` (see ``answer_values``); ``models`` with ``name`` and ``receptive_field``; ``baseline``; ``level`` of the
    intervals; ``rows`` with ``task``, ``metric``, ``settings``, ``higher_is_better``, ``differs``, ``scores`` by model
    (``value``, ``stderr``, ``low``, ``high``, ``n``) and ``differences`` by model (see ``PairedDifference`` and
    ``Difference``); ``costs`` of the runs; ``notes``; ``changes``, ``profile`` (see ``famcli.profiling.record``) and
    ``reference`` where these were asked for.
    """
    rows = [
        {
            "task": row.task,
            "metric": row.metric,
            "settings": row.settings,
            "higher_is_better": row.higher_is_better,
            "differs": row.differs,
            "scores": {column: _score(row, column) for column in row.scores},
            "differences": {
                column: {**asdict(found.paired), "p_corrected": found.p_corrected, "verdict": found.verdict}
                for column, found in row.differences.items()
            },
        }
        for row in comparison.rows
    ]
    values = {
        "answer": answer_values(comparison),
        "models": [asdict(column) for column in comparison.columns],
        "baseline": comparison.baseline,
        "level": LEVEL,
        "rows": rows,
        "costs": [{**asdict(cost), "seconds_per_sample": cost.seconds_per_sample} for cost in comparison.costs],
        "notes": remarks(comparison),
        "changes": None if comparison.changes is None else [asdict(change) for change in comparison.changes],
        "profile": asdict(comparison.profile) if comparison.profile else None,
        "reference": asdict(comparison.reference) if comparison.reference else None,
    }
    return json_text(values) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
    "json": to_json,
    "html": to_html,
}
"""Renderers to text by the name of the format."""
