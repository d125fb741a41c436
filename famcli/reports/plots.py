"""Pictures of run records, drawn with matplotlib, the extra ``plots``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from famcli.compare.cells import format_tokens
from famcli.compare.comparison import Comparison, Row
from famcli.errors import UserError
from famcli.files import replacing
from famcli.reports.numbers import format_field

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart without colour vision, and in print by their markers.
_STYLES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v"), ("#56b4e9", "P"))


def plot_passkey(comparison: Comparison, file: Path) -> None:
    """Draws PassKey accuracy against length, a panel a position, a line a model, one standard error either side.

    The same comparison gives the same bytes.

    Args:
        comparison: what ``famcli.compare.side_by_side.compare`` made.
        file: ``.svg`` or ``.png``; replaced where it exists.

    Raises:
        UserError: the format is another, matplotlib is not installed, or there are no PassKey cells.
    """
    if file.suffix not in (".svg", ".png"):
        raise UserError(f"cannot draw to {file}", "give a file that ends in .svg or .png")
    rows = [row for row in comparison.rows if "length" in row.settings and row.task.startswith("passkey")]
    if not rows:
        raise UserError("no PassKey runs to draw", "make one with: famcli eval --task passkey --model fam-tiny")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("drawing needs matplotlib", "pip install 'famcli[plots]'") from None
    positions = list(dict.fromkeys(str(row.settings["position"]) for row in rows))
    with matplotlib.rc_context({"svg.hashsalt": "famcli", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(4.6 * len(positions) + 0.4, 3.9), layout="constrained")
        panels = figure.subplots(1, len(positions), squeeze=False, sharey=True)[0]
        for axes, position in zip(panels, positions, strict=True):
            _draw_panel(axes, comparison, [row for row in rows if row.settings["position"] == position], position)
        panels[0].set_ylabel("PassKey accuracy")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(positions), frameon=False)
        metadata = {"Date": None} if file.suffix == ".svg" else {"Software": None}
        try:
            with replacing(file) as temporary:
                figure.savefig(temporary, format=file.suffix[1:], dpi=200, metadata=metadata)
        except OSError as error:
            raise UserError(f"cannot write {file}: {error.strerror}", "give --plot another file") from error


def _draw_panel(axes: Axes, comparison: Comparison, rows: list[Row], position: str) -> None:
    lengths = sorted({int(row.settings["length"]) for row in rows})
    for i, column in enumerate(comparison.columns):
        colour, marker = _STYLES[i % len(_STYLES)]
        scores = {int(row.settings["length"]): row.scores[column.name] for row in rows if column.name in row.scores}
        shown = sorted(scores)
        axes.errorbar(
            shown,
            [scores[length].value for length in shown],
            yerr=[scores[length].stderr or 0.0 for length in shown],
            color=colour,
            marker=marker,
            markersize=4,
            capsize=2,
            label=f"{column.name} (receptive field: {format_field(column.receptive_field)})",
        )
        if column.receptive_field is not None:
            axes.axvline(column.receptive_field, color=colour, linestyle=":", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [format_tokens(length) for length in lengths])
    axes.minorticks_off()
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlabel("length of the text in tokens")
    axes.set_title(f"key at position: {position}", fontsize=10)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
