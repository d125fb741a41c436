"""Command lines over every verb, with inputs that ``fuzz_mutations`` has spoilt; each in a folder of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz_inputs import LORA, TASKS, recipe, sample_rows, scrolls_rows, tame, write_theories
from fuzz_mutations import TEXTS, any_value, dump_json, pack, spoil_bytes, spoil_file, spoil_value
from fuzz_runs import check, compare, listing, report, show
from fuzz_scene import NAMES, NUMBERS, OPTIONS, OVERRIDES, TASK_OPTIONS, Scene


def data_of(scene: Scene) -> tuple[str, str]:
    """A task and data for it, spoilt."""
    rng, task = scene.rng, scene.rng.choice(TASKS)
    if task == "isabelle" and rng.random() < 0.7:
        write_theories(scene.inputs / "thys")
        files = sorted(path for path in (scene.inputs / "thys").rglob("*") if path.is_file())
        for _ in range(rng.randrange(3)):
            file = rng.choice(files)
            if file.is_file() and not file.is_symlink():
                spoil_file(rng, file)
        return task, scene.given("thys")
    rows: Any = (
        scrolls_rows() if rng.random() < 0.25 else sample_rows(rng.choice(TASKS) if rng.random() < 0.05 else task)
    )
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        rows = spoil_value(rng, rows)
    rows = rows if isinstance(rows, list) else [rows]
    content = b"".join(dump_json(rng, row) + b"\n" for row in rows)
    if rng.random() < 0.2:
        content = spoil_bytes(rng, content)
    folder = scene.inputs / rng.choice(("d", "validation", task))
    folder.mkdir()
    names = (
        "rows.jsonl",
        "rows.jsonl",
        "test.jsonl",
        "qasper-dev-v0.3.json",
        "QuALITY.v1.0.1.htmlstripped.dev",
        "rows.csv",
    )
    path = pack(
        rng, folder / rng.choice((*names, "rows.parquet", "rows.txt", "[red].jsonl", "\x1b[31m.jsonl")), content
    )
    if rng.random() < 0.05:
        spoil_file(rng, path)
    which = rng.choice((folder, path, path))
    return task, scene.given(str(which.relative_to(scene.inputs)))


def eval_data(scene: Scene) -> list[str]:
    task, data = data_of(scene)
    scene.part("own")
    more = [f"-o{option}" for option in scene.some(TASK_OPTIONS, 0.2)]
    return [
        "eval",
        "--task",
        task,
        "--data",
        data,
        "--model",
        scene.given("own"),
        "--limit",
        "1",
        *more,
        *scene.options(0.1),
    ]


def data_check(scene: Scene) -> list[str]:
    task, data = data_of(scene)
    more = [f"-o{option}" for option in scene.some(TASK_OPTIONS, 0.2)]
    more += [part for value in scene.some(("own", "../in/own", *TEXTS[:20]), 0.1) for part in ("--model", value)]
    more += [part for value in scene.some(OPTIONS["--split"], 0.1) for part in ("--split", value)]
    return ["data", "check", task, "--data", data, *more, *scene.some(("--json",), 0.3)]


def eval_model(scene: Scene) -> list[str]:
    rng, name = scene.rng, scene.rng.choice(("own", "hub", "hub", "hub", "model.gguf", "adapter"))
    place = scene.part(name)
    if name == "adapter":
        scene.part("hub")
    file = rng.choice(sorted(place.iterdir())) if place.is_dir() else place
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        if file.is_file() and not file.is_symlink():
            spoil_file(rng, file)
    if name == "hub" and rng.random() < 0.3:
        _spoil_template(scene, place)
    spec = scene.given("hub,adapter=../in/adapter") if name == "adapter" else scene.given(name)
    scene.part("quality.jsonl")
    asked = rng.choice(
        (["passkey", "-o", "lengths=300", "-o", "trials=1"], ["quality", "--data", scene.given("quality.jsonl")])
    )
    return ["eval", "--task", *asked, "--limit", "1", "--model", scene.spec(spec, 0.1), *scene.options(0.1)]


TEMPLATES = (
    "{% for i in range(10**9) %}x{% endfor %}{{ messages[0].content }}",
    "{{ 'x' * 10**10 }}{{ messages[0].content }}",
    "{{ messages[0].content * 10**9 }}",
    "{% for a in 'x' * 9999 %}{% for b in 'x' * 9999 %}{% for c in 'x' * 9999 %}{% endfor %}{% endfor %}{% endfor %}",
    "{{ ''.__class__.__mro__ }}{{ messages[0].content }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set ns = namespace(x='a') %}{% for i in range(90) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{{ 9 ** 9 ** 9 }}{{ messages[0].content }}",
    "{{ '%0999999999d' % 1 }}{{ messages[0].content }}",
    "{{ '{:>9999999999}'.format(1) }}{{ messages[0].content }}",
    "{{ lipsum(n=10**7) }}{{ messages[0].content }}",
    "{{ messages[0].content }}\x1b[31m\u202e",
    "{{ messages[1].content }}",
    "{{ raise_exception('[red]\x1b[31m::error::no') }}",
    "{% include 'x' %}{% import 'os' as os %}",
    "{{ cycler.__init__.__globals__.os.system('touch /tmp/pwned') }}{{ messages[0].content }}",
    "{{ messages[0].content }}{{ strftime_now('%' * 10**6) }}",
    "{{ (range(10**5)|list|string) * 10**5 }}",
    "{{ 'a'|center(10**11) }}{{ messages[0].content }}",
    "{{ 'a'|indent(10**11, first=True) }}{{ messages[0].content }}",
    "{% raw %}",
    "{{",
    "",
)


def _spoil_template(scene: Scene, place: Path) -> None:
    file = place / "tokenizer_config.json"
    if file.is_file() and not file.is_symlink():
        about = {"bos_token": "<s>", "chat_template": scene.rng.choice(TEMPLATES)}
        file.write_text(json.dumps(about))


def chat_template(scene: Scene) -> list[str]:
    _spoil_template(scene, scene.part("hub"))
    data = str(scene.part("quality.jsonl"))
    return [
        "eval",
        "--task",
        "quality",
        "--data",
        data,
        "--limit",
        "1",
        "--model",
        scene.given("hub"),
        "--chat-template",
    ]


def eval_options(scene: Scene) -> list[str]:
    scene.part("own"), scene.part("adapter")
    rng = scene.rng
    task = rng.choice(("passkey", "passkey", "passkey", *TASKS, *NAMES))
    model = scene.given("own") if rng.random() < 0.8 else rng.choice(NAMES)
    more = [
        part for option in (*scene.some(TASK_OPTIONS, 0.9), *scene.some(TASK_OPTIONS, 0.4)) for part in ("-o", option)
    ]
    data = [part for source in scene.some(("sample", *TEXTS), 0.5) for part in ("--data", source)]
    short = ["-o", "lengths=300"] if "lengths" not in " ".join(more) and task == "passkey" else []
    return ["eval", "--task", task, "--model", scene.spec(model, 0.5), *short, *more, *data, *scene.options(0.5)]


def sweep(scene: Scene) -> list[str]:
    scene.part("own")
    vary = [part for one in (scene.rng.choice(OVERRIDES), *scene.some(OVERRIDES, 0.5)) for part in ("-v", one + ",64")]
    small = ["--task", "passkey", "-o", "lengths=300", "-o", "trials=1"]
    return ["sweep", *small, "--model", scene.spec(scene.given("own")), *vary, *scene.options()]


def train(scene: Scene) -> list[str]:
    rng = scene.rng
    made: Any = recipe()
    more = []
    if rng.random() < 0.4:
        made["phases"][0]["mixture"] = rng.choice(
            ({"qa": 1}, {"text": 1}, {"repeat": 1}, {"passkey_in_text": 1}, {"fact": 1})
        )
    if rng.random() < 0.3:
        made |= {"lora": dict(LORA)}
    if rng.random() < 0.3:
        more = ["--qa", scene.given("qa.jsonl")]
        spoil_file(rng, scene.part("qa.jsonl"))
    for _ in range(rng.choice((0, 1, 1, 2))):
        made = spoil_value(rng, made)
    path = scene.inputs / "recipe.yaml"
    path.write_bytes(dump_json(rng, tame(made)))
    if rng.random() < 0.1:
        spoil_file(rng, path)
    text = scene.part("text")
    if rng.random() < 0.2:
        spoil_file(rng, text / "a.txt")
    scene.part("own")
    common = [
        "--recipe",
        scene.given("recipe.yaml"),
        "--output",
        "out",
        "--device",
        "cpu",
        "--text",
        scene.given("text"),
    ]
    return [
        "train",
        *common,
        "--model",
        scene.spec(scene.given("own"), 0.1),
        *more,
        *scene.some(("--resume", "--threads=1"), 0.1),
    ]


def cloze(scene: Scene) -> list[str]:
    text = scene.part("text")
    spoil_file(scene.rng, text / "a.txt")
    numbers = [
        f"--{name}={scene.rng.choice(NUMBERS)}" for name in ("shortest", "limit", "seed") if scene.rng.random() < 0.2
    ]
    return ["data", "cloze", "--text", scene.given("text"), "--output", "made.jsonl", "--shortest=100", *numbers]


def profile(scene: Scene) -> list[str]:
    """Mostly what is wrong: each that is right starts a process of its own."""
    scene.part("own")
    pools = {
        "--lengths": ("300", "0", "1k,", "x", "300,300", str(10**30)),
        "--decode": ("1", *NUMBERS),
        "--repeat": ("1", *NUMBERS),
        "--threads": ("1", *NUMBERS),
        "--seconds": ("1", *NUMBERS),
        "--training-blocks": ("1", "0", "x", ",", "1,1"),
        "--output": ("made", "", "\x00", "../in/own/config.json"),
        "--against": (scene.given("own"), scene.given("own,memory_segments=1"), *NAMES),
    }
    more = [part for name, pool in pools.items() for value in scene.some(pool, 0.2) for part in (name, value)]
    short = ["--lengths", "300", "--decode", "1", "--seconds", "1"]
    model = scene.spec(scene.rng.choice((scene.given("own"), *NAMES)), 0.4)
    return ["profile", "--model", model, *short, *more, *scene.some(("--json",), 0.3)]


def suite(scene: Scene) -> list[str]:
    """A file of tasks, spoilt; what is right in it would run."""
    scene.part("own"), scene.part("quality.jsonl")
    made: Any = {
        "models": ["own"],
        "tasks": [
            {"task": "passkey", "options": {"lengths": [300, "320"], "trials": 1}, "limit": 1},
            {"task": "quality", "data": "quality.jsonl", "limit_documents": 1},
        ],
    }
    for _ in range(scene.rng.choice((0, 1, 1, 2, 3))):
        made = spoil_value(scene.rng, made)
    path = scene.inputs / "suite.yaml"
    path.write_bytes(dump_json(scene.rng, made))
    if scene.rng.random() < 0.2:
        spoil_file(scene.rng, path)
    return ["eval", "--suite", scene.given("suite.yaml"), *scene.some(("--dry-run",), 0.7), *scene.options(0.2)]


def schema(scene: Scene) -> list[str]:
    task = scene.rng.choice((*TASKS, "passkey", *TEXTS))
    return ["data", "schema", task, *(flag for flag in ("--example", "--json") if scene.rng.random() < 0.3)]


def words(scene: Scene) -> list[str]:
    """Whatever comes to mind."""
    pool = (
        "eval",
        "compare",
        "report",
        "check",
        "sweep",
        "list",
        "data",
        "train",
        "fetch",
        "schema",
        "show",
        "profile",
        "--model",
        "--task",
        "--help",
    )
    return [scene.rng.choice((*pool, *OPTIONS, *TEXTS, *NUMBERS)) for _ in range(scene.rng.randrange(6))]


def fetch(scene: Scene) -> list[str]:
    """Never of a task that has data on the hub: nothing here may reach for a network."""
    return [
        "data",
        "fetch",
        scene.rng.choice(("isabelle", "passkey", *TEXTS)),
        *scene.some(("--split=test", "--split="), 0.3),
    ]


MAKERS: dict[Callable[[Scene], list[str]], int] = {
    eval_data: 8,
    data_check: 8,
    eval_model: 10,
    chat_template: 2,
    eval_options: 6,
    sweep: 2,
    train: 8,
    cloze: 2,
    compare: 8,
    report: 4,
    check: 6,
    listing: 3,
    show: 6,
    suite: 4,
    schema: 1,
    profile: 1,
    words: 2,
    fetch: 1,
}
"""How often each is made."""


def make_case(rng: random.Random, kit: Path, folder: Path) -> list[str]:
    """Writes the inputs of a case below ``folder`` and gives its command line, to be run in ``folder/run``."""
    scene = Scene(rng, kit, folder / "in")
    scene.inputs.mkdir(parents=True)
    (folder / "run").mkdir()
    maker = rng.choices(list(MAKERS), list(MAKERS.values()))[0]
    args = maker(scene)
    if rng.random() < 0.02:
        args.insert(rng.randrange(len(args) + 1), str(any_value(rng))[:200])
    return [arg.encode("utf-8", "replace").decode() for arg in args]
