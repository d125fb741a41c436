"""What a careless or hostile hand does to inputs: to values of JSON and YAML, to bytes, to files."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXTS = (
    "",
    " ",
    "\n",
    "\x00",
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "::error::stop",
    "a\n::warning file=x::b",
    "[red]x[/red]",
    "[link=file:///etc]x[/link]",
    "[/]",
    "<script>alert(1)</script>",
    "| a | b |",
    "`$(id)`",
    "=1+1",
    "-0.5",
    "@x",
    "\u202egnp.exe",
    "\u200bzero\ufeff",
    "\ud800",
    "\U0001f600" * 3,
    "../../up",
    "~nouser/x",
    "~",
    "/",
    ".",
    "%s%d{0}{x}",
    "{{ 7 * 7 }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "x" * 100_000,
    "nan",
    "1e999",
    "１２",
    "9" * 5000,
)
NUMBERS = (0, -1, 1, 2, 3, 7, 255, 10**9, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, 10**400, -(10**30))
DECIMALS = (0.0, -0.0, 0.5, -1.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
OTHERS = (None, True, False, [], {}, [None], [[]], {"": None}, {"a": {"b": {}}}, ["x"] * 3, [1, "a", None])


def any_value(rng: random.Random) -> Any:
    """A value that is most likely wrong where it is put."""
    pool = rng.choice((TEXTS, NUMBERS, DECIMALS, OTHERS))
    if rng.random() < 0.02:
        return nested(rng.choice((50, 101, 200)), rng.random() < 0.5)
    return copy.deepcopy(rng.choice(pool))


def nested(depth: int, lists: bool) -> Any:
    """Lists or mappings inside one another."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if lists else {"a": value}
    return value


def spoil_value(rng: random.Random, value: Any) -> Any:
    """``value`` with one place of it changed, taken out, doubled or added to."""
    places = list(_places(value))
    if not places:
        return any_value(rng)
    holder, key = rng.choice(places)
    what = rng.random()
    if what < 0.65:
        holder[key] = any_value(rng)
    elif what < 0.8:
        del holder[key]
    elif isinstance(holder, dict):
        holder[rng.choice((*TEXTS[:24], "unknown", key + "s"))] = any_value(rng)
    else:
        holder.append(copy.deepcopy(rng.choice((holder[0], any_value(rng)))))
    return value


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        pairs: Any = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    else:
        return
    for key, part in pairs:
        yield value, key
        yield from _places(part)


def dump_json(rng: random.Random, value: Any) -> bytes:
    """As JSON, which may name a field twice, hold NaN or half a character, or be too deep for ``json`` itself."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.01:
        text = rng.choice(('{"id": ', "")) + "[" * 5000 + "]" * 5000
    if rng.random() < 0.03 and text.startswith("{") and len(text) > 2:
        text = '{"id": 1, "id": 2, ' + text[1:]
    return text.encode("utf-8", "surrogatepass")


def spoil_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes cut, flipped, put in, or in another encoding."""
    at = rng.randrange(len(content) + 1)

    def flipped() -> bytes:
        spoilt = bytearray(content)
        for _ in range(rng.choice((1, 3, 20))):
            if spoilt:
                spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        return bytes(spoilt)

    ways: tuple[Callable[[], bytes], ...] = (
        flipped,
        flipped,
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + rng.randbytes(8) + content[at:],
        lambda: content[:at] + rng.choice((b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n\n", b'"', b"{")) + content[at:],
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
        lambda: b"",
        lambda: b"\n",
        lambda: rng.randbytes(50),
        lambda: content * 2,
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: content.rstrip(b"\n"),
    )
    return rng.choice(ways)()


def spoil_safetensors(rng: random.Random, content: bytes) -> bytes:
    """The header of a safetensors file changed as JSON, with the length that it then has."""
    size = int.from_bytes(content[:8], "little")
    header = spoil_value(rng, json.loads(content[8 : 8 + size]))
    new = dump_json(rng, header)
    return len(new).to_bytes(8, "little") + new + content[8 + size :]


def replace_file(rng: random.Random, path: Path) -> None:
    """Something else stands where a file is expected."""
    path.unlink()
    ways: tuple[Callable[[], object], ...] = (
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("nowhere"),
        lambda: path.symlink_to(path.name),
        lambda: path.write_bytes(b""),
        lambda: None,
        lambda: path.symlink_to(path.parent),
    )
    rng.choice(ways)()


def spoil_file(rng: random.Random, path: Path) -> None:
    """A file changed as what it is, as bytes, or replaced."""
    what, content = rng.random(), path.read_bytes()
    if what < 0.1:
        return replace_file(rng, path)
    if what < 0.75:
        try:
            if path.suffix == ".safetensors":
                path.write_bytes(spoil_safetensors(rng, content))
                return None
            if path.suffix == ".jsonl":
                lines = [json.loads(line) for line in content.splitlines()]
                path.write_bytes(b"".join(dump_json(rng, line) + b"\n" for line in spoil_value(rng, lines)))
                return None
            if path.suffix in (".json", ".yaml"):
                path.write_bytes(dump_json(rng, spoil_value(rng, json.loads(content))))
                return None
        except (ValueError, TypeError, RecursionError):
            pass
    path.write_bytes(spoil_bytes(rng, content))
    return None


def pack(rng: random.Random, path: Path, content: bytes) -> Path:
    """The content as it is, gzipped, or in a zip whose members may have evil names or sizes."""
    what = rng.random()
    if what < 0.7:
        path.write_bytes(content)
        return path
    if what < 0.8:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(content))
        if rng.random() < 0.3:
            packed.write_bytes(spoil_bytes(rng, packed.read_bytes()))
        return packed
    packed = path.with_suffix(".zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(rng.choice((path.name, f"../../{path.name}", f"/{path.name}", f"a/b/{path.name}")), content)
        if rng.random() < 0.2:
            archive.writestr("bomb.jsonl", b"\x00" * (1 << 26))
        if rng.random() < 0.2:
            archive.writestr(
                rng.choice(("__MACOSX/x.jsonl", "x.thy", "inner.zip", "notes.txt", "\x1b[31m.jsonl")), content
            )
    if rng.random() < 0.3:
        packed.write_bytes(spoil_bytes(rng, packed.read_bytes()))
    return packed
