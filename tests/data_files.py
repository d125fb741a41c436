"""Rows to test with, and how to write and read them."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

from famcli.tasks.hub import HubDataset
from famcli.tasks.sources import Dataset, open_data
from hypothesis import strategies as st

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
REAL = {
    "narrativeqa": "narrativeqa/narrativeqa_full_text.jsonl.gz",
    "pg19": "pg19/pg19_test_subset.jsonl.gz",
    "qasper": "qasper/qasper_hf_schema.jsonl.gz",
    "quality": "quality/quality_original_schema.jsonl.gz",
}
ROWS = [{"id": "a", "text": 'one, "two"\r\nthree'}, {"id": "b", "text": "vier – 五\u2028six"}, {"id": "c", "text": "7"}]
HUB = HubDataset("owner/stories", "refs/convert/parquet", ("data/{split}-*.parquet",), "CC BY 4.0", "Author 2020")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_all(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """The rows as JSONL, JSONL.gz, and in a zip."""
    content = json_lines(rows)
    (folder / "a.jsonl").write_bytes(content)
    with gzip.open(folder / "b.jsonl.gz", "wb") as stream:
        stream.write(content)
    with zipfile.ZipFile(folder / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.md", "no data")
        archive.writestr("__MACOSX/inner.jsonl", "no data")
        archive.writestr("folder/inner.jsonl", content)
    return [folder / "a.jsonl", folder / "b.jsonl.gz", folder / "c.zip"]


def open_path(path: Path, texts: tuple[str, ...] = ()) -> Dataset:
    return open_data("stories", str(path), HUB, texts)


def rows_of(dataset: Dataset) -> list[Any]:
    return [row.fields for row in dataset.rows]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
