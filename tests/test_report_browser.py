"""The report in a real browser: it opens, complains of nothing, asks for nothing, and its filters work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import PROGRAM, Browser
from made_records import BSWA, FAM
from made_runs import Answer, document_run, entry, passkey_run
from report_pages import HOSTILE, reading_run, report

from famcli.evaluation.journal import JOURNAL_NAME
from famcli.reports.plots.palette import DARK, LIGHT

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt-get install chromium")

PHONE = 360
MANY, LARGEST, SLOWEST = 10_000, 20_000_000, 2.0
"""A report of so many samples stays below so many bytes and opens in so many seconds."""

COUNT = "document.getElementById('count').textContent"
IDS = "[...document.querySelectorAll('.sample b')].map(e => e.textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser.start(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Path]:
    """A page with every section, made of hostile words where models and data have any; it must cause no error."""
    right = [Answer(f"q{i}", {"accuracy": 1.0}, {"kind": "ab"[i % 2]}, "d", output=f"yes {i}") for i in range(30)]
    wrong = [replace(answer, scores={"accuracy": float(answer.id != "q7")}, output=HOSTILE) for answer in right]
    runs = [
        passkey_run(tmp_path, "fam-tiny", FAM),
        passkey_run(tmp_path, "bswa-tiny", BSWA),
        document_run(tmp_path, "fam-tiny", right),
        document_run(tmp_path, "bswa-tiny", wrong),
        *(
            reading_run(tmp_path, name, {HOSTILE: [4, 3, 2, 1], "b": [1, 2, 3, 4]})
            for name in ("fam-tiny", "bswa-tiny")
        ),
    ]
    file = tmp_path / "report.html"
    file.write_text(report(*runs, baseline="bswa-tiny").page, encoding="utf-8")
    browser.errors.clear()
    browser.requests.clear()
    browser.open(file)
    yield file
    assert browser.errors == []
    assert browser.requests == [file.as_uri()]


def test_it_opens_with_all_its_sections(browser: Browser, page: Path) -> None:
    sections = browser.run("[...document.querySelectorAll('main > section')].map(e => e.id)")
    assert sections == ["summary", "recall", "tasks", "reading", "cost", "samples", "runs"]
    assert browser.run("document.title") == "famcli report: bswa-tiny, fam-tiny"
    assert browser.run(COUNT) == "82 of 82 answers"
    assert browser.run("[...document.querySelectorAll('main svg')].every(e => e.getBoundingClientRect().width > 0)")


def test_filters_leave_what_they_say(browser: Browser, page: Path) -> None:
    browser.choose("#by-task", "quality")
    assert browser.run(COUNT) == "60 of 82 answers"
    browser.choose("#by-model", "bswa-tiny")
    browser.choose("#by-score", "wrong (0)")
    assert browser.run(COUNT) == "1 of 82 answers" and browser.run(IDS) == ["q7"]
    browser.choose("#by-model", "all")
    browser.choose("#by-score", "models differ")
    assert browser.run(IDS) == ["q7", "q7"]
    browser.choose("#by-score", "any")
    browser.choose("#by-cell", "a")
    assert browser.run(COUNT) == "30 of 82 answers"
    browser.type("#by-text", "YES 4")
    browser.wait(lambda: browser.run(COUNT) == "1 of 82 answers")
    assert browser.run(IDS) == ["q4"]
    browser.click("button[type=reset]")
    browser.wait(lambda: browser.run(COUNT) == "82 of 82 answers")


def test_pages_turn(browser: Browser, page: Path) -> None:
    first = browser.run(IDS)
    assert len(first) == 25 and browser.run("document.getElementById('previous').disabled")
    seen = list(first)
    for _ in range(3):
        browser.click("#next")
        seen += browser.run(IDS)
    assert len(seen) == 82 and browser.run("document.getElementById('next').disabled")
    browser.click("#previous")
    assert browser.run(IDS) == seen[50:75]


def test_what_a_model_wrote_is_text(browser: Browser, page: Path) -> None:
    browser.type("#by-text", "onerror")
    browser.wait(lambda: browser.run(COUNT) == "32 of 82 answers")
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert "onerror=alert(1)>" in browser.run("document.getElementById('list').textContent")
    assert "taken" not in browser.run("document.title")


@pytest.mark.parametrize(("scheme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_it_follows_the_colour_scheme(browser: Browser, page: Path, scheme: str, colours: dict[str, str]) -> None:
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    paper = tuple(int(colours["paper"][i : i + 2], 16) for i in (1, 3, 5))
    assert browser.run("getComputedStyle(document.body).backgroundColor") == f"rgb{paper}"


def test_pictures_use_the_width_of_the_page(browser: Browser, page: Path) -> None:
    browser.ask("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    try:
        whole = browser.run("document.querySelector('main > section').getBoundingClientRect().right")
        ends = browser.run(
            "[...document.querySelectorAll('figure:not(.one)')].map(e => Math.max(0, ..."
            "[...e.querySelectorAll('svg:not([style])')].map(d => d.getBoundingClientRect().right)))"
        )
        assert max(ends) > 0 and all(end == 0 or end >= 0.97 * whole for end in ends), "to the right edge"
    finally:
        browser.ask("Emulation.clearDeviceMetricsOverride")


def test_it_fits_a_phone(browser: Browser, page: Path) -> None:
    browser.ask("Emulation.setDeviceMetricsOverride", width=PHONE, height=740, deviceScaleFactor=2, mobile=True)
    try:
        assert browser.run("document.documentElement.scrollWidth") <= PHONE
        assert browser.run("document.querySelector('.sample').getBoundingClientRect().right") <= PHONE
    finally:
        browser.ask("Emulation.clearDeviceMetricsOverride")


def test_the_table_of_many_models_scrolls_by_itself_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    runs = [passkey_run(tmp_path, f"fam-of-a-long-name-{number}", FAM) for number in range(5)]
    file = tmp_path / "many.html"
    file.write_text(report(*runs).page, encoding="utf-8")
    browser.ask("Emulation.setDeviceMetricsOverride", width=PHONE, height=740, deviceScaleFactor=2, mobile=True)
    try:
        browser.open(file)
        table = "document.querySelector('#summary .wide')"
        assert browser.run(f"{table}.querySelectorAll('tbody tr').length") == len(runs)
        assert browser.run(f"{table}.scrollWidth > {table}.clientWidth"), "the test is of a table that is too wide"
        assert browser.run("document.documentElement.scrollWidth") <= PHONE
    finally:
        browser.ask("Emulation.clearDeviceMetricsOverride")


def test_many_samples_open_at_once(browser: Browser, tmp_path: Path) -> None:
    words = "The grass is green. The sky is blue. The sun is yellow. Here we go. "
    told = [
        Answer(f"q{i}", {"accuracy": i % 2}, document=f"d{i % 100}", output=f"{i} {words * 5}") for i in range(MANY)
    ]
    run = document_run(tmp_path, "fam-tiny", told)
    with open(run.path / JOURNAL_NAME, "wb") as file:
        for i, answer in enumerate(told):
            file.write(replace(entry(answer), prompt_tail=f"{words * 3} {i}"[-200:]).to_line())
    page = tmp_path / "many.html"
    page.write_text(report(run).page, encoding="utf-8")
    took = min(browser.open(page) for _ in range(3))  # others may have the processor meanwhile
    size = page.stat().st_size
    print(f"{MANY} samples: {size / 1e6:.1f} MB, open in {took:.2f} s")
    assert browser.run(COUNT) == "10,000 of 10,000 answers"
    assert size < LARGEST and took < SLOWEST
    browser.type("#by-text", "q9999")
    browser.wait(lambda: browser.run(COUNT) == "1 of 10,000 answers")
