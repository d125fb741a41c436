"""The tables of docs/memories.md, in Markdown: what was measured, and what others published beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from zoo_models import ASKED, state_values
from zoo_records import BySeed, Cell, Scores, Spread

COLUMNS = [Cell(task, pairs) for task, options in ASKED.items() for pairs in options["pairs"]]
FAR = Cell("remember", 16)
"""The texts whose pairs are told apart by their distance."""
BINS = (
    *(("0, the last", (0,)), ("1", (1,)), ("2 to 3", range(2, 4)), ("4 to 7", range(4, 8))),
    *(("8 to 14", range(8, 15)), ("15, the first", (15,))),
)
DRAWN = "*a value of the text, drawn*"


@dataclass(frozen=True)
class Claim:
    """What was published, where, and what of the records stands beside it: ``memories`` in ``cells``."""

    words: str
    source: str
    cells: tuple[Cell, ...]
    memories: tuple[str, ...]


CLAIMS = (
    Claim(
        "Infini-attention finds no needle of an earlier segment, and each of its own; after longer unrolling, some",
        "[Hugging Face](https://huggingface.co/blog/infini-attention), 200M weights, gates with a rate of their own",
        (Cell("remember", 1), Cell("remember", 8)),
        ("infini", "none"),
    ),
    Claim(
        "PassKey at a million tokens, keys at the start and in the middle: the delta rule has 100 and 100 %, the sum "
        "96 and 94 %",
        "arXiv 2404.07143, table 3",
        (Cell("remember", 8),),
        ("infini-delta", "infini"),
    ),
    Claim(
        "RMT recalls less than a window of one segment, and FAM more",
        "arXiv 2404.09173, figure 7 (PassKey; a picture without figures)",
        (Cell("remember", 2), Cell("remember", 8)),
        ("rmt", "window", "fam"),
    ),
    Claim(
        "Summaries that pile up serve better than RMT's: perplexity 5.93 against 6.01",
        "arXiv 2305.14788, table 1",
        (Cell("remember", 4),),
        ("rmt-last-4", "rmt"),
    ),
    Claim(
        "ARMT: 79.9 % of single facts at 50 million tokens, the best of three runs; their mean is 49.6 ± 40.4",
        "arXiv 2407.04841",
        (Cell("remember", 4),),
        ("armt", "rmt"),
    ),
    Claim(
        "A network of two layers serves better than a matrix: long-context accuracy 92.7 against 85.3",
        "Titans, arXiv 2501.00663, table 5",
        (Cell("remember", 8),),
        ("titans-network", "titans"),
    ),
    Claim(
        "Words among 16k tokens: as context 95.2 %, as a layer 90.4 %, beside attention 88.2 %",
        "Titans, arXiv 2501.00663, table 2",
        (Cell("remember", 8),),
        ("titans-mac", "titans-mal", "titans"),
    ),
)


def experiment(found: Mapping[str, Scores]) -> str:
    """Means over the seeds, with the least and the most; last, what answers drawn from a text's values would have."""
    names = [f"{cell.task} {cell.pairs}" for cell in COLUMNS]
    rows = [["memory", "values a layer", "seeds", *names]]
    for name, scores in found.items():
        cells = [scores.by_pairs.get(cell, {}) for cell in COLUMNS]
        values = state_values(name)
        held = "grows" if values is None else f"{values:,}"
        rows.append([name, held, f"{max(map(len, cells))}", *map(_spread, cells)])
    drawn = [_drawn(found, cell) for cell in COLUMNS]
    return _markdown([*rows, [DRAWN, "", "", *(f"{fmean(d.values()):.2f}" if d else "" for d in drawn)]])


def distances(found: Mapping[str, Scores]) -> str:
    """Exact match by how far back a pair stands, means over the seeds with the least and the most."""
    rows = [["memory", *(words for words, _ in BINS), "says a value of the text"]]
    for name, scores in found.items():
        by_distance, said = scores.by_distance.get(FAR, {}), scores.from_text.get(FAR, {})
        rows.append([name, *(_spread(_mean_of(by_distance, blocks)) for _, blocks in BINS), _spread(said)])
    drawn = _drawn(found, FAR)
    figures = [f"{fmean(drawn[block] for block in blocks):.2f}" if drawn else "" for _, blocks in BINS]
    return _markdown([*rows, [DRAWN, *figures, "1.00" if drawn else ""]])


def _mean_of(by_distance: Mapping[int, BySeed], blocks: Sequence[int]) -> BySeed:
    """Of questions on pairs with so many blocks behind their own, of which each number has as many."""
    seeds = {seed for block in blocks for seed in by_distance.get(block, {})}
    return {seed: fmean(by_distance[block][seed] for block in blocks) for seed in seeds}


def _drawn(found: Mapping[str, Scores], cell: Cell) -> Mapping[int, float]:
    return next((scores.drawn[cell] for scores in found.values() if cell in scores.drawn), {})


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    header, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([header, "|---" * len(rows[0]) + "|", *others])


def claims(found: Mapping[str, Scores]) -> str:
    """What was published beside what is here, seed by seed."""
    rows = [["claim", "source", "here"]]
    for claim in CLAIMS:
        here = (f"{cell.task} {cell.pairs}: {_by_seed(found, claim.memories, cell)}" for cell in claim.cells)
        rows.append([claim.words, claim.source, "<br>".join(here)])
    return _markdown(rows)


def renewed(page: str, tables: Sequence[str]) -> str:
    """The page with each table in the place of that with the same header; raises ``ValueError`` where it has none."""
    for table in tables:
        header = table.splitlines()[0]
        old = re.findall(rf"^{re.escape(header)}\n(?:\|.*\n)+", page, re.MULTILINE)
        if len(old) != 1:
            raise ValueError(f"the page has {len(old)} tables with the header {header}")
        page = page.replace(old[0], f"{table}\n")
    return page


def _by_seed(found: Mapping[str, Scores], memories: tuple[str, ...], cell: Cell) -> str:
    scores = {name: found[name].by_pairs.get(cell, {}) if name in found else {} for name in memories}
    return "; ".join(f"{name} {_seeds(seeds)}" for name, seeds in scores.items())


def _seeds(scores: BySeed) -> str:
    return ", ".join(f"{scores[seed]:.2f}" for seed in sorted(scores)) or "not run"


def _spread(scores: BySeed) -> str:
    if not scores:
        return "not run"
    found = Spread.of(scores)
    return f"{found.mean:.2f}" + ("" if len(scores) == 1 else f" ({found.least:.2f} to {found.most:.2f})")
