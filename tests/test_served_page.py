"""The served report in a real browser: what is new comes in, and what the reader set, opened and looks at stays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from browser import PROGRAM, Browser
from made_records import BSWA, FAM
from made_runs import Answer, document_run, passkey_run
from report_pages import reading_run
from test_serving import CELLS, unfinished

from famcli.evaluation.record import RunRecord
from famcli.reports.html import live
from famcli.reports.html.asked import Asked
from famcli.reports.html.server import PageServer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt-get install chromium")

COUNT = "document.getElementById('count').textContent"
OPEN = "[...document.querySelectorAll('details[open]')].map(e => e.id)"
CHOSEN = (
    "['task', 'model', 'cell', 'score'].map(n => document.getElementById('by-' + n).selectedOptions[0].textContent)"
)
TOP = "document.getElementById({!r}).getBoundingClientRect().top"
ANSWERS = [Answer(f"q{i}", {"accuracy": i % 2}, {"kind": "ab"[i % 3 // 2]}, "d", output=f"yes {i}") for i in range(70)]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser.start(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(started: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """A browser at the served report of two models; it asks for news five times a second."""
    monkeypatch.setattr(live, "EVERY", 0.2)
    passkey_run(tmp_path / "results", "fam-tiny", FAM)
    document_run(tmp_path / "results", "fam-tiny", ANSWERS)
    started.errors.clear()
    with PageServer(
        live.Remade(partial(live.live_page, Asked((), tmp_path / "results")), [tmp_path / "results"]), 0
    ) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.open(server.address)
        yield started
        errors = list(started.errors)
        started.open("about:blank")
        server.shutdown()
    assert errors == []


def come(tmp_path: Path, make: Callable[..., RunRecord], *of_it: Any) -> None:
    """A run appears whole, as those of famcli do: the record comes after the samples."""
    run = make(tmp_path / "made", *of_it)
    run.path.rename(tmp_path / "results" / run.path.name)


def shown(browser: Browser, words: str) -> None:
    browser.wait(lambda: bool(browser.run(f"document.querySelector('main').textContent.includes({words!r})")))


def scrolled(browser: Browser, element: str) -> float:
    """Scrolls until an element is a hand below the window's top; gives where it is once it rests."""
    tops = [0.0]

    def rests() -> bool:
        browser.run(f"scrollBy({{top: {TOP.format(element)} - 37, behavior: 'instant'}})")
        browser.run("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(1))))")
        tops.append(browser.run(TOP.format(element)))
        return tops[-1] == tops[-2]

    browser.wait(rests)
    return tops[-1]


def test_what_the_reader_set_stays_when_runs_come(browser: Browser, tmp_path: Path) -> None:
    browser.choose("#by-task", "quality")
    browser.choose("#by-model", "fam-tiny")
    browser.choose("#by-score", "right (1)")
    browser.click("#next")
    browser.click("#runs summary")
    was = [browser.run(what) for what in (COUNT, CHOSEN, OPEN)]
    assert was[0] == "35 of 79 answers" and len(was[2]) == 1
    browser.type("#by-text", "yes")
    browser.wait(lambda: browser.run("document.getElementById('by-text').value") == "yes")
    come(tmp_path, unfinished)
    shown(browser, "2 of 5")
    come(tmp_path, document_run, "a-model", [replace(answer, output=f"no {answer.id}") for answer in ANSWERS])
    come(tmp_path, passkey_run, "a-model", BSWA)
    shown(browser, "a-model")
    browser.wait(lambda: "of 158 answers" in browser.run(COUNT))
    assert [browser.run(CHOSEN), browser.run(OPEN)] == was[1:], "a new model stands before the one that was chosen"
    assert browser.run(COUNT) == "35 of 158 answers"
    assert browser.run("document.activeElement.id") == "by-text", "words can be typed on"


@pytest.mark.parametrize("element", ["cost", "runs"])
def test_what_the_reader_looks_at_stays_in_its_place(browser: Browser, tmp_path: Path, element: str) -> None:
    top = scrolled(browser, element)
    come(tmp_path, unfinished)
    shown(browser, "2 of 5")
    come(tmp_path, reading_run, "fam-tiny", {"a": [4, 3, 2, 1]})
    shown(browser, "Reading on")
    assert browser.run("scrollY") > 0
    assert browser.run(TOP.format(element)) == pytest.approx(top, abs=1)


def test_the_sample_that_is_read_stays_in_its_place(browser: Browser, tmp_path: Path) -> None:
    browser.choose("#by-task", "quality")
    browser.click("#next")
    element = "sample quality q30 fam-tiny"
    top = scrolled(browser, element)
    come(tmp_path, document_run, "bswa-tiny", ANSWERS)
    browser.wait(lambda: "of 149 answers" in browser.run(COUNT))
    assert browser.run(TOP.format(element)) == pytest.approx(top, abs=1)


def test_at_its_head_the_page_stays_at_its_head(browser: Browser, tmp_path: Path) -> None:
    come(tmp_path, unfinished)
    shown(browser, "2 of 5")
    assert browser.run("scrollY") == 0
    assert browser.run("document.querySelector('main > section').id") == "under-way"


def test_selected_words_stay_until_they_are_let_go(browser: Browser, tmp_path: Path) -> None:
    browser.run("getSelection().selectAllChildren(document.querySelector('.command'))")
    words = browser.run("String(getSelection())")
    assert words.startswith("famcli eval")
    come(tmp_path, passkey_run, "bswa-tiny", CELLS)
    browser.wait(lambda: "bswa-tiny" in browser.run("document.getElementById('tasks').textContent"))
    assert browser.run("String(getSelection())") == words
    browser.run("getSelection().removeAllRanges()")
    browser.wait(lambda: "bswa-tiny" in browser.run("document.getElementById('runs').textContent"))


def test_a_reload_and_a_link_bring_back_what_was_set(browser: Browser) -> None:
    browser.choose("#by-task", "quality")
    browser.click("#next")
    browser.click("#runs summary")
    browser.wait(lambda: "open=" in browser.run("location.hash"))
    was = [browser.run(what) for what in (CHOSEN, OPEN, "document.getElementById('page').textContent")]
    address = browser.run("location.href")
    for page in (address.partition("#")[0], address):
        browser.open("about:blank")
        browser.open(page)
        found = [browser.run(what) for what in (CHOSEN, OPEN, "document.getElementById('page').textContent")]
        assert (found == was) == ("#" in page)
    browser.click("header nav a[href='#cost']")
    browser.wait(lambda: "task=quality" in browser.run("location.hash"))
    browser.click("button[type=reset]")
    browser.wait(lambda: "task=" not in browser.run("location.hash"))


def test_what_is_not_new_is_not_touched_and_not_sent(browser: Browser, tmp_path: Path) -> None:
    browser.run("document.querySelectorAll('main > section').forEach(e => { e.seen = true; })")
    answers = "performance.getEntriesByType('resource').map(e => e.responseStatus)"
    browser.wait(lambda: browser.run(answers)[:3] == [200, 304, 304])
    come(tmp_path, unfinished)
    shown(browser, "2 of 5")
    seen = "[...document.querySelectorAll('main > section')].filter(e => e.seen).map(e => e.id)"
    assert browser.run(seen) == ["summary", "recall", "tasks", "cost", "samples", "runs"]


def test_a_server_that_is_gone_is_said_and_one_that_is_back_too(
    started: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY", 0.2)
    hidden = "document.getElementById('gone').hidden"
    (tmp_path / "results").mkdir()
    page = partial(live.live_page, Asked((), tmp_path / "results"))
    with PageServer(live.Remade(page, [tmp_path / "results"]), 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.open(server.address)
        assert started.run("document.querySelector('h1').textContent") == "No report yet" and started.run(hidden)
        server.shutdown()
    started.wait(lambda: not started.run(hidden))
    come(tmp_path, passkey_run, "fam-tiny", CELLS)
    with PageServer(live.Remade(page, [tmp_path / "results"]), server.server_port) as again:
        threading.Thread(target=again.serve_forever, args=(0.01,), daemon=True).start()
        started.wait(lambda: started.run("document.readyState === 'complete' && !!document.getElementById('summary')"))
        assert started.run(hidden)
        started.open("about:blank")
        again.shutdown()
    started.errors.clear()  # of a connection that nobody took
