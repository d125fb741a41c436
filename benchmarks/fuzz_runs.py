"""Command lines of the verbs that read runs, which are spoilt."""

from __future__ import annotations

from fuzz_mutations import TEXTS, spoil_file
from fuzz_scene import HELD, Scene


def _spoilt_runs(scene: Scene) -> str:
    rng, results = scene.rng, scene.part("results")
    for _ in range(rng.choice((0, 1, 1, 2))):
        file = rng.choice(sorted(path for path in results.rglob("*.json*") if path.is_file()))
        if not file.is_symlink():
            spoil_file(rng, file)
    return scene.given("results")


def _shown(scene: Scene) -> list[str]:
    """Options that compare and report have in common; the profile is spoilt."""
    held = [part for value in scene.some(HELD, 0.2) for part in ("--held", value)]
    if scene.rng.random() > 0.2:
        return held
    profile = scene.part("profile")
    spoil_file(scene.rng, profile / "profile.json")
    return [*held, "--profile", scene.given("profile")]


def show(scene: Scene) -> list[str]:
    rng, results = scene.rng, _spoilt_runs(scene)
    runs = sorted(path.name for path in (scene.kit / "results").iterdir() if path.is_dir())
    run = rng.choice((*runs, *runs, *(f"{results}/{name}" for name in runs), "own", "passkey", *TEXTS[:20]))
    sample = scene.some(("300/start/000", "300/start/000", "320/start/001", *TEXTS[:20]), 0.6)
    flags = [flag for flag in ("--wrong", "--full", "--json") if rng.random() < 0.3]
    return ["show", run, *sample, *flags, "--output", results]


def compare(scene: Scene) -> list[str]:
    rng, results = scene.rng, _spoilt_runs(scene)
    names = ("passkey", "quality", "own", scene.given("own"), scene.given("own,memory_segments=1"), *TEXTS[:12])
    baseline = [part for name in scene.some((*names, *("own",) * 20), 0.5) for part in ("--baseline", name)]
    form = rng.choice(("table", "markdown", "csv", "latex", "json", "html"))
    flags = [flag for flag in ("--per-sample", "--force") if rng.random() < 0.3]
    by = [part for name in scene.some(("length", "document", "language", "x"), 0.2) for part in ("--by", name)]
    more = [part for name in scene.some(("paper", "x", "../x"), 0.1) for part in ("--reference", name)]
    plot = ["--plot", rng.choice(("a.svg", "a.png", "b/a.svg", "", "\x00.svg"))] if rng.random() < 0.1 else []
    return [
        "compare",
        "--output",
        results,
        "--format",
        form,
        *baseline,
        *flags,
        *by,
        *more,
        *plot,
        *_shown(scene),
        *scene.some(names, 0.1),
    ]


def report(scene: Scene) -> list[str]:
    results = _spoilt_runs(scene)
    plots = [part for name in scene.some(("plots", "", "\x00"), 0.3) for part in ("--plots", name)]
    baseline = [part for name in scene.some(("own", *TEXTS[:20]), 0.3) for part in ("--baseline", name)]
    return [
        "report",
        "--output",
        results,
        "--to",
        scene.rng.choice(("r.html", "a/b/r.html", "", ".")),
        *plots,
        *baseline,
        *_shown(scene),
    ]


def check(scene: Scene) -> list[str]:
    rng, results, baseline = scene.rng, _spoilt_runs(scene), scene.part("baseline.json")
    for _ in range(rng.choice((0, 1, 1, 2))):
        if baseline.is_file() and not baseline.is_symlink():
            spoil_file(rng, baseline)
    runs = sorted(path.name for path in (scene.kit / "results").iterdir() if path.is_dir())
    run = rng.choice((*runs, *runs, *TEXTS[:20]))
    more = rng.choice(
        ([], [], ["--junit", "j.xml"], ["--markdown", "m.md"], ["--json"], ["--update"], ["--update", "--cost"])
    )
    if "--update" in more:
        made = "new.json" if rng.random() < 0.5 else "copy.json"
        if made == "copy.json" and baseline.is_file():
            (scene.inputs.parent / "run" / made).write_bytes(baseline.read_bytes())
        return ["check", "--run", run, "--output", results, "--baseline", made, *more]
    return ["check", "--run", run, "--output", results, "--baseline", scene.given("baseline.json"), *more]


def listing(scene: Scene) -> list[str]:
    what = scene.rng.choice(("runs", "runs", "runs", "runs", "models", "tasks", "memories", "x"))
    more = ["--output", _spoilt_runs(scene)] if what == "runs" else []
    return ["list", what, *more, *scene.some(("--json",), 0.4)]
