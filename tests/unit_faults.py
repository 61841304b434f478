"""A run whose units cost nothing and can be made to fail, die or wait, in whatever process does them.

`install(folder)` writes the metadata of a package with the plugins `faulty` (all but the interpreter; see
`tests.fast_plugin`), `looking` (a sampler whose prompts depend on all that the rounds before found) and `twice` (an
executor that makes two attempts at every unit). UNIT_FAULTS names a folder: a file there named after a concept says
what happens when its unit is captured.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
import time
from pathlib import Path
from queue import SimpleQueue

from pydantic import BaseModel

from encyclo import hookimpl
from encyclo.errors import CaptureError
from encyclo.plugins.manager import Plugins
from encyclo.report import run as report
from encyclo.types import Prompt
from tests import fast_plugin
from tests.patience import SECONDS

FLAGS = (
    "run", "--config", str(fast_plugin.CONFIG), "--concepts", "faulty", "--sampler", "faulty", "--sampler", "looking", "--capture", "faulty",
    "--interpreter", "centroid", "--model", "fast", "--layers", "0,1", "--per-concept", "2000",
    "--targets", "1,1,1,1", "--out",
)  # fmt: skip
SENTENCE = "The unit can't be captured, as the test wants it."


def install(folder: Path) -> None:
    info = folder / "encyclo_faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: encyclo-faulty\nVersion: 1.0\n")
    points = {
        "faulty": "tests.unit_faults",
        "looking": "tests.unit_faults:Looking",
        "twice": "tests.unit_faults:Twice",
    }
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[encyclo]", *lines, ""]))


@hookimpl
def load_concepts():
    report.write_report = fast_plugin.write_plainly
    return fast_plugin.load_concepts()


@hookimpl
def sample_prompts(concepts):
    return fast_plugin.sample_prompts(concepts)


@hookimpl
def load_model(name, context):
    return fast_plugin.FastModel()


@hookimpl
def capture_layers(prompts, layers, context):
    _meddle(prompts[0].concept)
    yield from fast_plugin.capture_layers(prompts, layers, context)


def _meddle(concept: str) -> None:
    fault = Path(os.environ.get("UNIT_FAULTS", "")) / concept
    what = fault.read_text() if fault.is_file() else ""
    if what == "die":
        fault.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "fail":
        raise CaptureError(SENTENCE)
    elif what == "wait":
        time.sleep(1)
    elif what == "hold":
        fault.with_name("holding").write_text(str(os.getpid()))
        fault.with_name("holding").rename(fault.with_name("held"))  # whole when it is seen
        time.sleep(3 * SECONDS)  # a command that waits for it counts as hung


class Looking:
    STAGE = 3
    NEEDS_INTERPRETER = True

    @hookimpl
    def sample_prompts(self, concepts, context):
        for concept in concepts:
            place = context.interpreter.concepts.index(concept.id)
            seen = (
                float(context.signatures.mean[place].sum()),
                float(context.scores.confidence[place]),
                context.interpreter.read(context.signatures.mean[place : place + 1]).round(3).tolist(),
            )
            for family in range(3):
                text = f"{family}{json.dumps(seen)}: {concept.name}"
                yield Prompt(
                    concept.id, text, (len(text) - len(concept.name), len(text)), f"looking {family}"
                )


class Twice:
    """Two executors of the same kind that do all tasks at the same time; the first receipt of each unit counts."""

    class Options(BaseModel):
        kind: str = "local"

    @hookimpl
    def run_units(self, workplace, context):
        pickle.dumps(workplace)  # before the threads, which would each ask for a token
        plugins = Plugins()
        options = {
            "local": {"workers": 2},
            "ray": {"workers": 1, "cpus": 1},
            "slurm": {"workers": 1, "cluster": "local"},
        }[context.options.kind]
        if context.options.kind == "ray":  # once for both
            import ray

            ray.init(os.environ["RAY_CLUSTER"], log_to_driver=False)
        given = {**vars(context), "options": plugins.options(context.options.kind, options)}
        both = [
            plugins.call(
                "run_units", context.options.kind, workplace=workplace, context=type(context)(**given)
            )
            for _ in range(2)
        ]
        return _Both(both)


class _Both:
    def __init__(self, executors):
        self.executors = executors

    def run(self, tasks, report):
        receipts = SimpleQueue()

        def work(executor):
            try:
                for receipt in executor.run(tasks, lambda said: None):
                    receipts.put(receipt)
            except BaseException as error:
                receipts.put(error)

        for executor in self.executors:
            threading.Thread(target=work, args=(executor,), daemon=True).start()
        seen = set()
        for _ in range(2 * len(tasks)):  # also the late attempts
            receipt = receipts.get()
            if isinstance(receipt, BaseException):
                raise receipt
            if receipt.unit not in seen:
                seen.add(receipt.unit)
                yield receipt

    def close(self):
        for executor in self.executors:
            executor.close()
