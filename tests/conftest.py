"""Fixtures of several test files."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are folded to no terminal, whatever the one is that the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection can be made, and no data has been fetched."""

    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("FAMCLI_DATA", str(tmp_path / "store"))


@pytest.fixture
def made_memories(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The memories of ``made_memories.py`` are installed."""
    from made_memories import MADE, install

    from famcli.models.memories import memory_entry_points

    install(monkeypatch, *MADE)
    yield
    memory_entry_points.cache_clear()
