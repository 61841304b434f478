"""A run whose every string is hostile, and plugins that print: nothing of it reaches the terminal raw.

The strings come from a third party's plugins, as a run's always do. Then the run's files are rewritten with right
checksums, as somebody who passes the run on can do.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress
from rich.table import Table

from encyclo.storage import checksums, files
from encyclo.terminal import SafeConsole, own_output, say
from encyclo.text import one_line
from tests.third_party import ENGINE, Site

EVIL = "\x1b]8;;x\x07\x1b[2J\r\b\x9b1A\x85\u202ecba\u2066\u2028\x7f[bold red]m[/bold red] :smile:"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
FILE = EVIL.replace("/", "")
NAME = f"word0 {EVIL}"
SAID = "said by a plugin"

HOSTILE = (
    ENGINE.replace("SEEN = []", f"EVIL = {EVIL!r}\nLICENCE = EVIL\nprint({SAID!r}, EVIL)\nSEEN = []")
    .replace(
        'Concept(f"c{i}", f"word{i}", f"definition {i}", "category")',
        'Concept(f"c{i} {EVIL}", f"word{i} {EVIL}", f"definition {i} {EVIL}\\\\n{EVIL}", f"category {EVIL}")',
    )
    .replace('f"family {number % 8}"', 'f"family {number % 8} {EVIL}"')
    .replace('"engine", "numbers from a hash"', '"engine" + EVIL, "numbers from a hash" + EVIL')
    .replace('"chip" if', '"chip" + EVIL if')
    .replace('"first"', '("first" + EVIL)')
    .replace("half + np.float32(0.1), {})", "half + np.float32(0.1), {'note ' + EVIL: EVIL})")
)
PRINTING = """
import os
import threading
import warnings
from encyclo import hookimpl

def shout():
    print("SAID in a thread", flush=True)

@hookimpl(wrapper=True)
def capture_layers():
    print("SAID in a hook", flush=True)
    os.system("echo SAID by a process")
    os.write(1, b"SAID on descriptor 1\\n")
    thread = threading.Thread(target=shout)
    thread.start()
    thread.join()
    return (yield)

@hookimpl
def end_run(metrics):
    return "remark " + EVIL
""".replace("SAID", SAID).replace("EVIL", repr(EVIL))
RAISING = """
from encyclo import hookimpl

@hookimpl
def sample_prompts(concepts):
    raise ValueError(EVIL)
""".replace("EVIL", repr(EVIL))

COMMANDS: dict[str, list[str]] = {
    "show": ["show", "{run}", NAME],
    "read": ["read", "{run}", f"a {EVIL} word", "--device", "cpu"],
    "evaluate": ["evaluate", "{run}"],
    "converge": ["converge", "{run}"],
    "verify": ["verify", "{run}"],
    "convert": ["convert", "{run}", "--store", "zarr", "--out", "{run}-converted"],
    "report": ["report", "{run}"],
    "export": ["export", "{run}", "--no-parquet", "--out", "{run}-exported"],
}


@pytest.fixture
def hostile(site: Site) -> Site:
    """The site, with an engine whose every string is hostile."""
    site.install("engine", HOSTILE)
    site.install("printing", PRINTING)
    return site


@pytest.fixture
def call(encyclo: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command in this process and check that nothing raw is in its output."""

    def checked(*arguments: object, code: int | None = 0) -> Any:
        done = encyclo(*arguments)
        if code is not None:
            assert done.returncode == code, (arguments, done)
        own = "\n".join(line for line in done.stderr.split("\n") if SAID not in line)
        for text in (done.stdout, own):
            assert not RAW.search(text), (arguments, RAW.search(text), text)
        return done

    return checked


def test_hostile_strings_of_plugins_are_printed_escaped(
    call: Callable[..., Any], hostile: Site, flags: Callable[..., list[str]], tmp_path: Path
):
    run = tmp_path / f"run {FILE}"
    chosen = [*flags(**{"with": ["printing"], "baselines": ["centroid"]}), "--out", run]
    planned = json.loads(call("plan", *chosen, "--json").stdout)
    assert planned["concepts"] == 6
    done = call("run", *chosen)
    assert one_line(EVIL) in done.stdout and "remark" in done.stdout
    assert json.loads(call("run", *chosen, "--json").stdout)["run"]["config"]["model"] == "engine"
    assert "already finished" in call("run", *chosen).stdout
    call("plugins")
    for command, arguments in COMMANDS.items():
        filled = [argument.replace("{run}", f"{run}") for argument in arguments]
        printed = call(*filled)
        if command in ("show", "read"):
            assert one_line(NAME) in printed.stdout.replace("\n", ""), printed.stdout
        if "--out" in filled:
            filled[-1] += "-again"
        assert isinstance(json.loads(call(*filled, "--json").stdout), dict)
    call("show", run, f"no {EVIL}", code=2)
    call("show", f"{run} {EVIL}", NAME, code=2)
    call("run", *chosen, f"--no{EVIL}", code=2)


def test_a_plugins_message_is_escaped(
    call: Callable[..., Any], hostile: Site, flags: Callable[..., list[str]], tmp_path: Path
):
    hostile.install("raising", RAISING)
    hostile.install("broken", f"raise RuntimeError({EVIL!r})")
    chosen = [*flags(sampler=["raising"]), "--out", tmp_path / "run"]
    assert one_line(" ".join(EVIL.split())) in call("run", *chosen, code=1).stderr
    assert one_line(EVIL) in call("run", *chosen, "--debug", code=1).stderr
    assert "broken" in call("plugins").stdout
    json.loads(call("plugins", "--json").stdout)


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a sealed JSON file and seal it again."""
    content = json.loads(path.read_text(encoding="utf-8"))
    files.write_json(path, checksums.sealed(change({k: v for k, v in content.items() if k != "sha256"})))


def of_config(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda record: {**record, "config": {**record["config"], **changed}}


def of_metrics(run: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    content = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    files.write_json(run / "metrics.json", {**content, **change(content)})


FIGURES = {"top1": 0.5, "top10": 0.5, "top100": 0.5, "median_rank": 1.0, "candidates": 6, "n": 6}
FORGERIES: dict[str, Callable[[Path], object]] = {
    "a layer": lambda run: rewrite(run / "run.json", of_config(layers=[EVIL])),
    "a model": lambda run: rewrite(run / "run.json", of_config(model=EVIL)),
    "weights": lambda run: rewrite(run / "run.json", of_config(weights_sha256=EVIL)),
    "plugins": lambda run: rewrite(run / "run.json", of_config(interpreter=EVIL, concepts=EVIL)),
    "a store": lambda run: rewrite(run / "run.json", of_config(store=EVIL)),
    "a key of run.json": lambda run: rewrite(run / "run.json", of_config(**{EVIL: EVIL})),
    "an option": lambda run: rewrite(run / "run.json", of_config(options={"engine": {EVIL: EVIL}})),
    "a sealed file": lambda run: rewrite(run / "seal.json", lambda seal: {**seal, "files": {EVIL: {}}}),
    "the encyclopedia's name": lambda run: rewrite(run / "seal.json", lambda seal: {**seal, "path": EVIL}),
    "a commit": lambda run: (run / "commits" / f"{FILE}.json").write_text(f'{{"{one_line(EVIL)}": 1'),
    "a part": lambda run: next((run / "parts").iterdir()).rename(run / "parts" / FILE),
    "a file of the interpreter": lambda run: (run / "interpreter" / "sha256.json").write_text(
        json.dumps({EVIL: EVIL})
    ),
    "a reader": lambda run: of_metrics(run, lambda m: {"accuracy": {"heldout_prompts": {EVIL: FIGURES}}}),
    "a figure": lambda run: of_metrics(
        run, lambda m: {EVIL: 1, "capture": {**m["capture"], "device": EVIL, "dtype": EVIL}}
    ),
    "a stage": lambda run: of_metrics(run, lambda m: {"stages": [{**m["stages"][0], "sampler": EVIL}] * 2}),
    "a wrong figure": lambda run: of_metrics(run, lambda m: {"stages": EVIL}),
}


def test_hostile_strings_of_a_forged_run_are_printed_escaped(
    call: Callable[..., Any], hostile: Site, flags: Callable[..., list[str]], tmp_path: Path
):
    good = tmp_path / "good"
    chosen = flags()
    call("run", *chosen, "--out", good)
    for what, forge in FORGERIES.items():
        run = tmp_path / what
        shutil.copytree(good, run)
        forge(run)
        for arguments in [*COMMANDS.values(), ["run", *chosen, "--out", "{run}"]]:
            filled = [argument.replace("{run}", f"{run}") for argument in arguments]
            done = call(*filled, code=None)
            assert "unexpected" not in done.stderr, (what, arguments, done.stderr)
        shutil.rmtree(run)


def test_a_plugin_that_prints_does_not_break_json(
    hostile: Site, flags: Callable[..., list[str]], tmp_path: Path
):
    """In a process of its own: what threads, processes and C code print goes to stderr, too."""
    chosen = [*flags(**{"with": ["printing"]}), "--out", str(tmp_path / "run")]
    code = "import sys; sys.path.insert(0, sys.argv[1]); from encyclo.cli import run_command; "
    code += "code = run_command(sys.argv[2:]); print('after'); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(hostile.path), "run", *chosen, "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    output, after = done.stdout.splitlines()
    assert json.loads(output)["metrics"] and after == "after", "stdout is given back"
    for place in ("in a hook", "in a thread", "by a process", "on descriptor 1"):
        assert f"{SAID} {place}" in done.stderr


def test_a_commands_own_output_passes_while_others_are_kept_away(capsys: pytest.CaptureFixture[str]):
    with own_output():
        print("a plugin's")
        say("own")
        with own_output():
            say("own, too")
        say("still own")
    print("after")
    printed = capsys.readouterr()
    assert printed.out == "own\nown, too\nstill own\nafter\n" and printed.err == "a plugin's\n"


def test_a_terminal_gets_riches_own_styling_and_nothing_else():
    """Tables, titles, texts, bars: no hostile character, no markup; a style is a style."""
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=300)
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    console.print(table, EVIL)
    console.print(EVIL, style="bold")
    with Progress(console=console) as progress:
        progress.add_task(EVIL, total=1)
    assert isinstance(console.file, io.StringIO)
    printed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue()).replace("\r", "")
    assert not RAW.search(printed)
    assert "[bold red]m[/bold red] :smile:" in printed
