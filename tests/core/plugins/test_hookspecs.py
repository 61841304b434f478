"""Every hook is firstresult and explains itself with an example that fits its signature."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pluggy
import pytest

from encyclo import hookspecs
from encyclo.plugins.manager import GROUP

MANAGER = pluggy.PluginManager(GROUP)
MANAGER.add_hookspecs(hookspecs)
SPECS = {
    name: function
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
    if hasattr(function, f"{GROUP}_spec")
}
DESIGNED = {
    "load_concepts",
    "sample_prompts",
    "capture_layers",
    "store_activations",
    "train_interpreter",
    "score_confidence",
    "run_units",
}


def example_of(name: str) -> ast.FunctionDef:
    """Return the example in a hook's docstring, parsed."""
    lines = inspect.getdoc(SPECS[name]).splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == "@hookimpl")
    (function,) = ast.parse(textwrap.dedent("\n".join(lines[start:]))).body
    assert isinstance(function, ast.FunctionDef)
    return function


def test_the_designed_hooks_are_there():
    assert SPECS.keys() >= DESIGNED


def test_no_function_of_the_module_lacks_the_marker():
    own = {
        name
        for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
        if function.__module__ == hookspecs.__name__
    }
    assert own == SPECS.keys()


@pytest.mark.parametrize("name", SPECS)
def test_the_hook_is_firstresult(name):
    assert getattr(MANAGER.hook, name).spec.opts["firstresult"] is True


@pytest.mark.parametrize("name", SPECS)
def test_the_docstring_says_what_to_do_in_a_sentence_first(name):
    first = inspect.getdoc(SPECS[name]).splitlines()[0]
    assert first[0].isupper()
    assert first.endswith(".")


@pytest.mark.parametrize("name", SPECS)
def test_the_example_implements_the_hook(name):
    example = example_of(name)
    assert example.name == name
    offered = getattr(MANAGER.hook, name).spec.argnames
    taken = [argument.arg for argument in example.args.args]
    assert taken == [argument for argument in offered if argument in taken], "offered, in the same order"
    assert not example.args.defaults, "pluggy never fills an argument that has a default"
    assert any(isinstance(node, (ast.Return, ast.Yield)) for node in ast.walk(example))


@pytest.mark.parametrize("name", SPECS)
def test_every_argument_and_the_result_are_annotated_and_may_be_none(name):
    signature = inspect.signature(SPECS[name])
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())
    assert str(signature.return_annotation).endswith("| None"), "a hook that declines returns None"
