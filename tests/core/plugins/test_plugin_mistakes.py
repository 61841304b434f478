"""Plugins' mistakes beyond `test_evil_plugins`: lists that never end, wrappers, what fails as it is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands import one_sentence
from tests.core.plugins.test_plugin_boundary import ENDLESS
from tests.third_party import ENGINE, Site

ATTACKS = """
import itertools
from encyclo import hookimpl
from encyclo.types import Prompt

STAGE = 3
NEEDS_INTERPRETER = True

@hookimpl
def sample_prompts(concepts, context):
    def prompt(concept, number):
        text = f"{number} {concept.name}"
        return Prompt(concept.id, text, (len(text) - len(concept.name), len(text)), f"attack {number % 8}")

    CODE
"""


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (
            "return (prompt(concepts[0], n) for n in itertools.count())",
            "gave more than 1,016 prompts for the",
        ),
        ("context.capture(['a dog'])", "gave a str, but must give a Prompt"),
        ("context.capture([Prompt('c0', 'a dog', ('a', 'b'), 'f')])", "with a span of which a place is 'a'"),
    ],
)
def test_a_mistake_of_a_sampler_of_attacks_is_its_own(
    encyclo, site: Site, flags, tmp_path: Path, code: str, named: str
):
    """Attacks are no samples, and none is asked for by number; what it has captured is checked first."""
    site.install("attacking", ATTACKS.replace("CODE", code))
    targets = ["--targets", "0.9,0.9,0.9,0.9"]
    result = encyclo("run", *flags(sampler=["engine", "attacking"]), *targets, "--out", tmp_path / "run")
    assert result.returncode == 1
    message = one_sentence(result.stderr)
    assert "Plugin 'attacking' (package attacking-package 1.0) " in message and named in message


def test_a_sampler_that_never_comes_to_the_next_concept_is_refused(
    encyclo, site: Site, flags, tmp_path: Path
):
    site.install("giving", ENDLESS.replace("concepts[-1]", "concepts[0]"))
    result = encyclo("run", *flags(sampler=["giving"]), "--per-concept", "4", "--out", tmp_path / "run")
    assert result.returncode == 1
    message = one_sentence(result.stderr)
    assert "'giving'" in message
    assert "gave more than 1,004 prompts for the concept 'c0', of which 4 were asked for" in message


COUNTING = """
import itertools
from encyclo import hookimpl
from encyclo.types import Concept

given = 0

@hookimpl
def load_concepts():
    global given
    for given in itertools.count(1):
        yield Concept(f"c{given}", f"word{given}", definition="long " * 100)
"""


def test_a_list_that_never_ends_is_read_as_far_as_it_is_wanted(encyclo, site: Site, flags, tmp_path: Path):
    site.install("counting", COUNTING)
    assert encyclo("run", *flags(concepts="counting"), "--out", tmp_path / "run").returncode == 0
    assert site.module("counting").given == 6


@pytest.mark.parametrize(
    ("constant", "limit", "named"),
    [
        ("MOST_CONCEPTS", None, "gave more than 1,000 concepts; give the number wanted with --limit"),
        ("MOST_CHARACTERS", None, "gave concepts with more than 1,000 characters"),
        ("MOST_CHARACTERS", 10_000, "gave concepts with more than 1,000 characters"),
    ],
)
def test_a_list_that_never_ends_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch, constant: str, limit: int | None, named: str
):
    from encyclo.config import RunConfig
    from encyclo.errors import PluginError
    from encyclo.plugins.manager import Plugins
    from encyclo.runs import concept_lists

    site.install("counting", COUNTING)
    monkeypatch.setattr(concept_lists, constant, 1_000)
    with pytest.raises(PluginError, match=named) as refused:
        concept_lists.load_concepts(RunConfig(concepts="counting", limit=limit), Plugins(), {})
    assert "'counting'" in str(refused.value)
    assert site.module("counting").given <= 1_001


@pytest.mark.slow
def test_a_million_concepts_can_be_had(site: Site):
    from encyclo.config import RunConfig
    from encyclo.plugins.manager import Plugins
    from encyclo.runs.concept_lists import load_concepts

    site.install("counting", COUNTING.replace("itertools.count(1)", "range(1, 1_000_001)"))
    assert len(load_concepts(RunConfig(concepts="counting"), Plugins(), {})) == 1_000_000


CLOSING = """
from encyclo import hookimpl
from encyclo.types import Concept

@hookimpl
def load_concepts():
    try:
        while True:
            yield Concept("c", "word")
    finally:
        CODE
"""


@pytest.mark.parametrize("code", ["raise ValueError('not yet')", "raise SystemExit(0)", "yield 5"])
def test_an_error_of_a_list_that_is_closed_early_is_the_plugins(
    encyclo, site: Site, flags, tmp_path: Path, code: str
):
    site.install("closing", CLOSING.replace("CODE", code))
    result = encyclo("run", *flags(concepts="closing", limit=1), "--out", tmp_path / "run")
    assert result.returncode == 1 and "'closing'" in one_sentence(result.stderr)


WRAPPING = """
import dataclasses
from encyclo import hookimpl

@hookimpl(wrapper=True)
def HOOK():
    answer = yield
    CODE

@hookimpl
def end_run():
    return REMARK
"""


@pytest.mark.parametrize(
    ("hook", "code", "remark"),
    [
        ("load_concepts", "return ['dog']", "''"),
        ("sample_prompts", "return (dataclasses.replace(p, span=('a', 'b')) for p in answer)", "''"),
        ("capture_layers", "return (dataclasses.replace(b, tokens='many') for b in answer)", "''"),
        ("train_interpreter", "return 5", "''"),
        ("score_confidence", "return dataclasses.replace(answer, low=answer.high * 9)", "''"),
        ("store_activations", "raise GeneratorExit", "''"),
        ("load_concepts", "return answer", "5"),
        ("load_concepts", "return answer", "b'done'"),
        ("load_concepts", "return answer", "exit(3)"),
    ],
)
def test_what_a_wrapper_makes_of_an_answer_is_checked_as_its_own(
    encyclo, site: Site, flags, tmp_path: Path, hook: str, code: str, remark: str
):
    site.install("spoiling", WRAPPING.replace("HOOK", hook).replace("CODE", code).replace("REMARK", remark))
    result = encyclo("run", *flags(), "--with", "spoiling", "--out", tmp_path / "run")
    assert result.returncode == 1
    assert "Plugin 'spoiling' (package spoiling-package 1.0) " in one_sentence(result.stderr)


@pytest.mark.parametrize(
    "code",
    [
        "class Rude(BaseException): pass\nraise Rude",
        "raise GeneratorExit",
        "class Plugin:\n    def __init__(self): raise GeneratorExit\nplugin = Plugin",
        """
class Plugin:
    @property
    def LICENCE(self): raise SystemExit(0)

    @encyclo.hookimpl
    def load_concepts(self): return [encyclo.Concept("dog", "dog")]

plugin = Plugin()
""",
        "from pydantic import BaseModel\nclass Options(BaseModel):\n    a: int = 1 / 0",
    ],
)
def test_a_plugin_that_fails_as_it_is_loaded_is_named(encyclo, site: Site, flags, tmp_path: Path, code: str):
    target = "failing_package_failing" + (":plugin" if "plugin =" in code else "")
    site.install("failing", f"import encyclo\n{code}", target=target)
    result = encyclo("run", *flags(concepts="failing"), "--out", tmp_path / "run")
    assert result.returncode == 1 and "'failing' (package failing-package 1.0)" in one_sentence(result.stderr)
    assert encyclo("plugins").returncode == 0


OPTIONS = """
from pydantic import BaseModel, field_validator
from encyclo import hookimpl
from encyclo.types import Concept


class Options(BaseModel):
    size: float = 1.0

    @field_validator("size")
    def check(cls, size):
        if size == 0:
            raise SystemExit(3)
        return size


@hookimpl
def load_concepts():
    return [Concept("dog", "dog")]
"""


def test_options_that_can_not_be_checked_or_recorded_are_named(encyclo, site: Site, flags, tmp_path: Path):
    site.install("sized", OPTIONS)
    arguments = ["run", *flags(concepts="sized"), "--out", tmp_path / "run", "-o"]
    failed = encyclo(*arguments, "sized.size=0")
    assert failed.returncode == 1 and "Plugin 'sized' (package" in one_sentence(failed.stderr)
    refused = encyclo(*arguments, "sized.size=NaN")
    assert refused.returncode == 2 and "Option sized.size can't be nan" in one_sentence(refused.stderr)


def test_a_plugin_gets_its_own_objects_as_it_made_them(encyclo, site: Site, flags, tmp_path: Path):
    """Others get them with checks around; a copy, or another process, gets the object."""
    import copy

    from encyclo.plugins.handles import InterpreterHandle, Owner
    from encyclo.plugins.manager import Plugins

    made = ENGINE.replace('    note("capture_layers", context)', "    assert type(context.model) is Model")
    made = made.replace(
        '    note("score_confidence", context)', "    assert type(interpreter) is type(context.interpreter) is Interpreter"
    )  # fmt: skip
    site.install("engine", made)
    assert encyclo("run", *flags(), "--out", tmp_path / "run").returncode == 0
    inside = site.module("engine").Interpreter([], np.empty((0, 1, 2), np.float32), 1.0)
    plugins = Plugins()
    handle = InterpreterHandle(inside, Owner("engine", plugins.blame, plugins.blame), "train_interpreter")
    assert type(copy.deepcopy(handle)) is type(inside) and handle.given_to("other") is handle
    assert handle.sharpness == 1.0
