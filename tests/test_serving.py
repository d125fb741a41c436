"""The report that is served while runs go on, to this machine alone; and what ``famcli eval --open`` opens."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import passkey_run
from report_pages import HOSTILE
from test_checkpoint import save_small

from famcli.cli.main import main
from famcli.cli.serving import open_report
from famcli.errors import UserError
from famcli.evaluation.record import RunRecord, load_record
from famcli.reports.html.asked import Asked
from famcli.reports.html.live import Made, Remade, live_page
from famcli.reports.html.server import PageServer

PAGE = "<p>a page — of ours</p>"
CELLS: Any = {(1024, "start"): [1, 0]}


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(lambda: PAGE, 0) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.shutdown()


def answer(
    server: PageServer, method: str, path: str, host: str | None, known: str | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host.format(server.server_port))
    if known is not None:
        connection.putheader("If-None-Match", known)
    connection.endheaders()
    return connection.getresponse()


def test_the_page_is_given_by_get_and_without_it_by_head(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    for host in ("127.0.0.1:{}", "localhost:{}"):
        found = answer(server, "GET", "/?a=b", host)
        assert (found.status, found.read().decode()) == (200, PAGE)
        assert (found.headers["Refresh"], found.headers["Cache-Control"]) == (None, "no-store")
    found = answer(server, "HEAD", "/", "127.0.0.1:{}")
    assert (found.status, found.read()) == (200, b"")
    assert found.headers["Content-Length"] == str(len(PAGE.encode()))


def test_who_has_the_page_is_told_that_nothing_is_new(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    host = "127.0.0.1:{}"
    tag = answer(server, "GET", "/", host).headers["ETag"]
    found = answer(server, "GET", "/", host, tag)
    assert (found.status, found.read(), found.headers["ETag"]) == (304, b"", tag)
    assert answer(server, "GET", "/", host, '"another"').status == 200
    monkeypatch.setattr(server, "_page", lambda: PAGE + "!")
    found = answer(server, "GET", "/", host, tag)
    assert (found.status, found.read().decode()) == (200, PAGE + "!") and found.headers["ETag"] != tag


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        *((method, "/", "127.0.0.1:{}", 405) for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS")),
        ("BREW", "/", "127.0.0.1:{}", 501),
        *(
            ("GET", path, "127.0.0.1:{}", 404)
            for path in ("/x", "/../run.json", "/index.html", "/%2e%2e/", "http://x/")
        ),
        *(("GET", "/", host, 403) for host in ("evil.example:{}", "127.0.0.1", "127.0.0.1:1", "", None)),
    ],
)
def test_nothing_else_is_answered(method: str, path: str, host: str | None, status: int, server: PageServer) -> None:
    found = answer(server, method, path, host)
    assert found.status == status
    assert PAGE not in found.read().decode()


def test_a_port_that_is_taken_is_said(server: PageServer) -> None:
    with pytest.raises(UserError, match=f"cannot listen on port {server.server_port}: "):
        PageServer(lambda: PAGE, server.server_port)


def unfinished(results: Path, name: str = "fam-late", planned: int | None = 5) -> RunRecord:
    run = passkey_run(results, name, CELLS, "2031-01-01")
    broken = replace(run, status="running", finished=None, metrics={}, cells=[], planned=planned)
    broken.save()
    return broken


def files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_under_way_is_shown_with_its_progress_and_counts_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(tmp_path)
    before = files(tmp_path)
    page, moves = live_page(Asked((), tmp_path))
    assert "no finished runs in" in page and "2 of 5" in page and "interrupted, begun 2030-01-01" in page
    assert moves, "there may soon be a report"
    passkey_run(tmp_path, "fam-tiny", CELLS)
    page, moves = live_page(Asked((), tmp_path))
    assert "2 of 5" in page and "accuracy 0.500" in page and not moves
    assert "fam-late" not in page.partition('id="summary"')[2], "it counts in nothing"
    assert "2 of 5" not in live_page(Asked(("fam-tiny",), tmp_path)).page
    monkeypatch.setattr("famcli.evaluation.record.is_claimed", lambda path: True)
    page, moves = live_page(Asked((), tmp_path))
    assert "running, begun" in page and moves
    assert {name: text for name, text in files(tmp_path).items() if name in before} == before
    for file in tmp_path.glob("*fam-late*/samples.jsonl"):
        file.write_text("{}\n")
    assert "lacks" in live_page(Asked((), tmp_path)).page, "a damaged journal is named, and the rest is shown"


def test_words_of_others_stay_words(tmp_path: Path) -> None:
    run = unfinished(tmp_path)
    run.model["name"] = HOSTILE
    run.save()
    for finished in (False, True):
        if finished:
            passkey_run(tmp_path, "fam-tiny", CELLS)
        page = live_page(Asked((), tmp_path)).page
        assert "<img" not in page and "<script>document" not in page and "&lt;img" in page


def test_a_record_says_how_many_samples_are_planned_until_it_is_finished(tmp_path: Path) -> None:
    run = unfinished(tmp_path)
    assert load_record(run.path).planned == 5
    assert "planned" not in json.loads((passkey_run(tmp_path, "fam-tiny", CELLS).path / "run.json").read_text())


def test_a_page_is_made_again_only_where_a_run_has_moved_on(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Made:
        made.append(1)
        return Made(str(len(made)), False)

    page = Remade(make, [tmp_path, tmp_path / "nowhere"])
    assert [page() for _ in range(3)] == ["1"] * 3
    run = passkey_run(tmp_path, "fam-tiny", CELLS)
    assert [page() for _ in range(2)] == ["2"] * 2
    with open(run.path / "samples.jsonl", "a") as journal:
        journal.write("x")
    assert page() == "3"


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    passkey_run(tmp_path, "fam-tiny", CELLS)
    before = files(tmp_path)
    code = "import sys; from famcli.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "report", "--serve", "--port", "0", "--output", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        assert "fam-tiny" in connection.getresponse().read().decode()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (0, "", "ended")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--serve", "--to", "x.html"], "--to is given, and --serve writes no file"),
        (["--serve", "--plots", "x"], "--plots is given, and --serve writes no file"),
        (["--port", "1"], "--port is given, and it is of --serve\nhint: add --serve"),
    ],
)
def test_options_that_have_no_use_are_refused(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *args]) == 2
    assert message in capsys.readouterr().err


class Browser(webbrowser.BackgroundBrowser):
    """Notes what it is to open."""

    def __init__(self, opens: bool = True) -> None:
        super().__init__("browser")
        self.opened: list[str] = []
        self.opens = opens

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.opened.append(url)
        return self.opens


class Text(webbrowser.GenericBrowser):
    """Would take the terminal."""

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        raise AssertionError("a browser of text was opened")


def test_after_a_run_the_report_is_opened_or_its_path_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BROWSER", raising=False)
    save_small(Path("fam"), "fam", block_size=32)
    browser = Browser()
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    command = ["eval", "--task", "passkey", "-o", "lengths=350", "-o", "trials=1", "--model", "fam"]
    assert main([*command, "--open", "--json"]) == 0
    out, err = capsys.readouterr()
    (run,) = json.loads(out)["runs"]
    page = tmp_path / "results" / "report.html"
    assert browser.opened == [page.as_uri()] and "report: results/report.html" in err
    assert run["run_id"] in page.read_text()
    assert main([*command, "--open", "--dry-run"]) == 2
    assert "there is nothing to --open" in capsys.readouterr().err

    def none() -> None:
        raise webbrowser.Error("no browser")

    for found in (none, lambda: Browser(opens=False), lambda: Text("links")):
        monkeypatch.setattr(webbrowser, "get", found)
        open_report(Path("results"))
        assert capsys.readouterr().err == "report, and no browser to open it here: results/report.html\n"
    (Path("results") / run["run_id"] / "samples.jsonl").write_text("{}\n")
    open_report(Path("results"))
    assert "the runs are finished, but there is no report of them" in capsys.readouterr().err
