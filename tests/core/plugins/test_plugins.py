"""Finding, loading and calling plugins, with real distributions written to a folder on the path."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from encyclo.config import RunConfig
from encyclo.errors import EncycloError, MissingDependencyError, PluginError, UnknownPluginError, UsageError
from encyclo.plugins.answers import check_prompt, check_samples
from encyclo.plugins.manager import Plugins, find_installed
from encyclo.plugins.traits import Traits
from encyclo.plugins.values import WrongAnswer
from encyclo.runs.concept_lists import load_concepts
from encyclo.types import Concept, Prompt, Samples
from tests import third_party

HEAD = """
import pluggy
from pydantic import BaseModel
from encyclo import hookimpl
from encyclo.types import Concept
"""
CONCEPTS = """
@hookimpl
def load_concepts(options):
    yield Concept("dog", "dog")
"""
WRAPPER = """
@hookimpl(wrapper=True)
def load_concepts():
    concepts = list((yield))
    return [*concepts, Concept("wrapped", "wrapped")]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Write a distribution with one plugin, as pip would leave it, and put it on the path."""
    with third_party.open_site(tmp_path / "site-packages", monkeypatch) as site:
        yield lambda name, code, **more: site.install(name, HEAD + textwrap.dedent(code), **more)


def assert_refused(kind: type[EncycloError], act: Callable[[], object], *named: str) -> str:
    """Return the message of the error that `act` raises: exactly `kind`, one line, naming `named`."""
    with pytest.raises(EncycloError) as caught:
        act()
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    for text in named:
        assert text in message
    return message


def concepts_of(plugins: Plugins, name: str) -> list[str]:
    found = plugins.call("load_concepts", name, options=None)
    return [concept.id for concept in plugins.iterate(name, found)]


def test_an_installed_plugin_is_found_and_called(install):
    install("mine", CONCEPTS)
    plugins = Plugins()
    (found,) = plugins.installed["mine"]
    assert (found.package, found.version) == ("mine-package", "1.0")
    assert plugins.hooks_of("mine") == []
    assert list(plugins.call("load_concepts", "mine", options=None)) == [Concept("dog", "dog")]
    assert plugins.hooks_of("mine") == ["load_concepts"]


def test_the_built_in_plugins_are_found_in_the_same_way():
    built_in = {name for name, found in find_installed().items() if found[0].package == "encyclo"}
    expected = {"core", "raw", "templates", "transformers", "hdf5", "transformer", "centroid", "calibrated"}
    assert expected <= built_in


def test_finding_imports_nothing(install):
    install("loud", "raise SystemExit('imported')")
    assert "loud" in find_installed()
    assert "loud_package_loud" not in sys.modules
    assert Plugins().load("raw").name == "raw"
    assert "loud_package_loud" not in sys.modules


def test_an_unknown_name_lists_the_installed_ones(install):
    install("mine", CONCEPTS)
    message = assert_refused(UnknownPluginError, lambda: Plugins().load("mien"), "'mien'")
    listed = message.split("did you mean mine? Installed are: ")[1].rstrip(".").split(", ")
    assert listed == sorted(find_installed())
    assert_refused(UnknownPluginError, lambda: Plugins().load("xyz"), "named 'xyz'; installed are: ")


def test_an_unknown_name_for_a_hook_suggests_plugins_with_that_hook(install):
    install("template_list", CONCEPTS)
    install("broken", "raise SystemExit")
    assert_refused(
        UnknownPluginError,
        lambda: Plugins().require("sample_prompts", "template"),
        "did you mean templates? Installed with the hook sample_prompts are: "
        "adversarial, diverse, raw, sentences, templates.",
    )


def test_a_plugin_without_the_hook_says_what_it_has(install):
    install("mine", CONCEPTS)
    assert_refused(
        UnknownPluginError,
        lambda: Plugins().require("sample_prompts", "mine"),
        "'mine'", "mine-package 1.0", "no hook sample_prompts", "load_concepts",
    )  # fmt: skip


def test_a_name_that_two_packages_claim_is_refused_naming_both(install):
    install("mine", CONCEPTS, package="first-package")
    install("mine", CONCEPTS, package="second-package")
    plugins = Plugins()
    assert_refused(
        UsageError, lambda: plugins.load("mine"), "'mine'", "first-package 1.0", "second-package 1.0"
    )
    rows = [row for row in plugins.describe() if row.name == "mine"]
    assert {row.package for row in rows} == {"first-package", "second-package"}
    assert all("first-package" in row.error and "second-package" in row.error for row in rows)
    assert plugins.load("raw").package == "encyclo"


@pytest.mark.parametrize("folder", ["Mine_Package-1.0.dist-info", "~ine_package-1.0.dist-info"])
def test_a_package_that_is_on_the_path_twice_is_one_plugin(install, tmp_path, monkeypatch, folder):
    site = install("mine", CONCEPTS)
    copy = tmp_path / "copy" / folder  # a second install, or what pip leaves where it can't uninstall
    copy.mkdir(parents=True)
    for file in (site / "mine_package-1.0.dist-info").iterdir():
        (copy / file.name).write_text(file.read_text())
    monkeypatch.syspath_prepend(str(copy.parent))
    assert concepts_of(Plugins(), "mine") == ["dog"]


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("1 / 0", "could not be imported: ZeroDivisionError"),
        ("def broken(:", "could not be imported: SyntaxError"),
        ("raise SystemExit(3)", "could not be imported: SystemExit"),
        (
            "@hookimpl\ndef load_concpets(options): ...",
            "load_concpets, which is not a hook; rename it to load_concepts",
        ),
        ("@hookimpl\ndef weather(): ...", "weather, which is not a hook; the hooks are capture_layers, "),
        (
            "@hookimpl\ndef load_concepts(options, weather): ...",
            "asks for the argument 'weather' in load_concepts",
        ),
        ("@hookimpl\ndef load_concepts(options=3): ...", "gives options a default in load_concepts"),
        ("@hookimpl\ndef load_concepts(*options): ...", "takes *options in load_concepts"),
        ("@hookimpl(specname='load_concepts')\ndef load(): ...", "marks load with specname"),
        ("@hookimpl(wrapper=True)\ndef load_concepts(): return 3", "not a generator function"),
    ],
)
def test_a_plugin_that_will_not_load_breaks_nothing_but_itself(install, code, named):
    install("broken", CONCEPTS + code)
    install("mine", CONCEPTS)
    plugins = Plugins()
    for _ in range(2):  # rolled back: the second try says the same
        assert_refused(PluginError, lambda: plugins.load("broken"), "'broken'", "broken-package 1.0", named)
        assert plugins.hooks_of("broken") == []
    assert concepts_of(plugins, "mine") == ["dog"]
    rows = {row.name: row for row in plugins.describe()}
    assert named in rows["broken"].error
    assert rows["broken"].hooks == []
    assert (rows["mine"].hooks, rows["mine"].error) == (["load_concepts"], None)
    assert [row.name for row in rows.values() if row.error] == ["broken"]


@pytest.mark.parametrize("target", ["gone_module", "gone_module:plugin", "gone_package.module:plugin"])
def test_an_entry_point_to_nothing_is_that_packages_fault(install, target):
    install("broken", "", target=target)
    assert_refused(PluginError, lambda: Plugins().load("broken"), "'broken'", "broken-package 1.0", "gone_")


def test_an_entry_point_to_a_missing_attribute_is_that_packages_fault(install):
    install("broken", "", target="broken_package_broken:plugin")
    assert_refused(PluginError, lambda: Plugins().load("broken"), "'broken'", "broken-package 1.0", "plugin")


def test_a_missing_dependency_answers_with_the_pip_line(install):
    install("needy", "import surely_not_installed.deep" + CONCEPTS)
    message = assert_refused(
        MissingDependencyError, lambda: Plugins().load("needy"), "'needy'", "needy-package 1.0"
    )
    assert message.endswith("pip install surely_not_installed")


def test_returning_nothing_is_an_error(install):
    install("lazy", "@hookimpl\ndef load_concepts(options): return None")
    assert_refused(
        PluginError,
        lambda: Plugins().call("load_concepts", "lazy", options=None),
        "'lazy'", "lazy-package 1.0", "returned None from load_concepts, but must return an iterable",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("@hookimpl\ndef load_concepts(options): raise KeyError('colour')", "KeyError"),
        (
            "@hookimpl\ndef load_concepts(options):\n    yield Concept('dog', 'dog')\n    1 / 0",
            "ZeroDivisionError",
        ),
        (
            "@hookimpl\ndef load_concepts(options): return 5",
            "returned an int from load_concepts, but must return an iterable of Concepts",
        ),
        ("@hookimpl\ndef load_concepts(options): raise ValueError('two\\nlines.')", "ValueError: two lines."),
        ("@hookimpl\ndef load_concepts(options): raise ValueError", "failed with ValueError."),
        ("@hookimpl\ndef load_concepts(options): raise StopIteration('early')", "StopIteration"),
    ],
)
def test_an_error_in_a_hook_or_while_iterating_names_the_plugin(install, code, named):
    install("failing", code)
    install("mine", CONCEPTS)
    plugins = Plugins()
    assert_refused(
        PluginError, lambda: concepts_of(plugins, "failing"), "'failing'", "failing-package 1.0", named
    )
    assert concepts_of(plugins, "mine") == ["dog"]


@pytest.mark.parametrize(
    ("fields", "character"),
    [
        ("'a\\0', 'dog'", "U+0000"),
        ("'dog', 'dog \\ud800'", "U+D800"),
        ("'dog', 'dog', 'An animal.\\0'", "U+0000"),
        ("'dog', 'dog', category='\\udfff'", "U+DFFF"),
        ("'dog', 'dog', aliases=('hound', 'ca\\0nine')", "U+0000"),
    ],
)
def test_a_concept_with_a_text_that_can_not_be_stored_is_refused(install, fields, character):
    install(
        "mine", f"@hookimpl\ndef load_concepts(options): return [Concept('cat', 'cat'), Concept({fields})]"
    )
    config = RunConfig(concepts="mine")
    named = (
        "'mine'",
        "mine-package 1.0",
        "gave the concept '",
        f"with a text that has the character {character}, which can't be stored",
    )
    assert_refused(PluginError, lambda: load_concepts(config, Plugins(), {}), *named)


@pytest.mark.parametrize(("text", "family"), [("A dog.\0", "plain"), ("A dog.", "odd \udc80")])
def test_a_prompt_with_a_text_that_no_store_holds_is_refused(text, family):
    with pytest.raises(WrongAnswer) as refused:
        check_prompt(Prompt("dog", text, (2, 5), family))
    assert "\0" not in str(refused.value)
    character = "U+0000" if family == "plain" else "U+DC80"
    assert str(refused.value).endswith(f"has the character {character}, which can't be stored; remove it")


def test_what_was_yielded_before_an_error_is_kept(install):
    install("failing", CONCEPTS + "    raise ValueError('no more')")
    plugins = Plugins()
    items = plugins.iterate("failing", plugins.call("load_concepts", "failing", options=None))
    assert next(items).id == "dog"
    assert_refused(PluginError, lambda: next(items), "no more")


def test_an_encyclo_error_from_a_plugin_stays_what_it_is(install):
    code = "from encyclo.errors import UsageError\n@hookimpl\ndef load_concepts(options): raise UsageError('Say which.')"
    install("mine", code)
    assert assert_refused(UsageError, lambda: concepts_of(Plugins(), "mine")) == "Say which."


OPTIONS = CONCEPTS + "class Options(BaseModel):\n    size: int = 3\n    kind: str = 'big'\n"


def test_options_are_filled(install):
    install("mine", OPTIONS)
    plugins = Plugins()
    assert plugins.options("mine", {}).model_dump() == {"size": 3, "kind": "big"}
    assert plugins.options("mine", {"size": 5}).size == 5


def test_unknown_options_are_refused_listing_the_valid_ones(install):
    install("mine", OPTIONS)
    assert_refused(
        UsageError, lambda: Plugins().options("mine", {"sise": 5}), "'mine'", "'sise'", "kind, size"
    )


def test_an_options_bad_value_is_refused_naming_it(install):
    install("mine", OPTIONS)
    assert_refused(
        UsageError, lambda: Plugins().options("mine", {"size": "many"}), "mine.size can't be 'many'"
    )


def test_a_plugin_without_options_takes_none(install):
    install("mine", CONCEPTS)
    assert Plugins().options("mine", {}) is None
    assert_refused(
        UsageError, lambda: Plugins().options("mine", {"a": 1}), "'mine'", "mine-package 1.0", "'a'"
    )


def test_options_that_are_no_model_are_the_plugins_fault(install):
    install("mine", CONCEPTS + "Options = {'size': 3}\n")
    assert_refused(PluginError, lambda: Plugins().options("mine", {"size": 5}), "'mine'", "mine-package 1.0")


def test_a_samplers_stage(install):
    install("unnamed", CONCEPTS)
    install("third", "STAGE = 3")
    install("wrong", "STAGE = 'three'")
    plugins = Plugins()
    assert [plugins.traits(name).stage for name in ("raw", "unnamed", "third")] == [0, 1, 3]
    assert_refused(PluginError, lambda: plugins.traits("wrong"), "'wrong'", "wrong-package 1.0", "'three'")


@pytest.mark.parametrize(
    ("trait", "named"),
    [
        ("STAGE = 'three'", "STAGE must be an int from 0 to 127, not 'three'"),
        ("STAGE = -1", "STAGE must be an int from 0 to 127, not -1"),
        ("STAGE = 128", "STAGE must be an int from 0 to 127, not 128"),
        ("STAGE = 1.0", "STAGE must be an int from 0 to 127, not 1.0"),
        ("STAGE = None", "STAGE must be an int from 0 to 127, not None"),
        ("FINGERPRINT = 3", "FINGERPRINT must be a str without NUL or lone surrogates, not 3"),
        ("FINGERPRINT = None", "FINGERPRINT must be a str without NUL or lone surrogates, not None"),
        ("LICENCE = ['MIT']", "LICENCE must be a str without NUL or lone surrogates, not ['MIT']"),
        ("PARTIAL = 1", "PARTIAL must be True or False, not 1"),
        ("MOST_CONCEPTS = 0", "MOST_CONCEPTS must be an int of at least 1, not 0"),
        ("MOST_CONCEPTS = 'many'", "MOST_CONCEPTS must be an int of at least 1, not 'many'"),
        ("MOST_CONCEPTS = 2.5", "MOST_CONCEPTS must be an int of at least 1, not 2.5"),
        ("Options = {'size': 3}", "Options must be a pydantic model (a class)"),
        ("class Size(BaseModel): ...\nOptions = Size()", "Options must be a pydantic model (a class)"),
    ],
)
def test_a_trait_that_can_not_be_is_refused_naming_plugin_and_package(install, trait, named):
    install("wrong", CONCEPTS + trait)
    assert_refused(PluginError, lambda: Plugins().traits("wrong"), "'wrong'", "wrong-package 1.0", named)


def test_traits_are_read_in_one_place_and_none_is_needed(install):
    install("plain", CONCEPTS)
    install("speaking", CONCEPTS + "STAGE, FINGERPRINT, LICENCE, MOST_CONCEPTS = 127, 'ab', 'MIT', 1")
    plugins = Plugins()
    assert plugins.traits("plain") == Traits(None, 1, False, None, "", None)
    assert plugins.traits("speaking") == Traits(None, 127, False, 1, "ab", "MIT")


def test_a_wrapper_runs_only_where_it_is_opted_in(install):
    install("mine", CONCEPTS)
    install("wrapping", WRAPPER)
    plain = Plugins()
    plain.load("wrapping")  # loaded, as by `encyclo plugins`, but not asked for
    assert concepts_of(plain, "mine") == ["dog"]
    wrapped = Plugins()
    wrapped.opt_in(["wrapping"])
    assert concepts_of(wrapped, "mine") == ["dog", "wrapped"]


FAULTY_WRAPPERS = {
    "before": "1 / 0\n    return (yield)",
    "after": "concepts = yield\n    return [*concepts, 1 / 0]",
    "instead of the error": "try:\n        return (yield)\n    except ValueError as e:\n        raise ZeroDivisionError('division by zero') from e",
    "while iterating": "concepts = yield\n    return (1 / 0 for c in concepts)",
    "deep": "concepts = yield\n    return map(broken, concepts)",
}


@pytest.mark.parametrize("code", FAULTY_WRAPPERS.values(), ids=FAULTY_WRAPPERS)
def test_a_wrappers_error_is_the_wrappers(install, code):
    concepts = (
        CONCEPTS if "except" not in code else "@hookimpl\ndef load_concepts(): raise ValueError('mine')"
    )
    install("mine", concepts)
    install("bystander", WRAPPER)
    helper = "def broken(concept): return concept / 0\n\n@hookimpl(wrapper=True)\ndef load_concepts():\n    "
    install("wrapping", helper + code)
    plugins = Plugins()
    plugins.opt_in(["wrapping", "bystander"])
    message = assert_refused(
        PluginError, lambda: concepts_of(plugins, "mine"), "'wrapping'", "wrapping-package 1.0"
    )
    assert "ZeroDivisionError" in message or "TypeError: unsupported operand" in message
    assert "'mine'" not in message and "bystander" not in message


@pytest.mark.parametrize(
    "code", ["raise KeyError('colour')", "yield Concept('dog', 'dog')\n    raise KeyError('colour')"]
)
def test_the_chosen_plugins_error_stays_its_own_behind_wrappers(install, code):
    install("mine", "@hookimpl\ndef load_concepts():\n    " + code)
    install("wrapping", WRAPPER)
    install("passing", "@hookimpl(wrapper=True)\ndef load_concepts():\n    return (c for c in (yield))")
    for wrappers in (["passing"], ["wrapping", "passing"]):
        plugins = Plugins()
        plugins.opt_in(wrappers)
        assert_refused(
            PluginError, partial(concepts_of, plugins, "mine"), "'mine'", "mine-package", "KeyError"
        )


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("yield\n    return 5", "returned an int from load_concepts"),
        ("yield", "returned None from load_concepts, but must return an iterable"),
        ("if False:\n        yield", "did not yield"),
        ("yield\n    yield", "second yield"),
    ],
)
def test_a_wrapper_that_spoils_the_result_is_to_blame(install, code, named):
    install("mine", CONCEPTS)
    install("wrapping", "@hookimpl(wrapper=True)\ndef load_concepts():\n    " + code)
    plugins = Plugins()
    plugins.opt_in(["wrapping"])
    message = assert_refused(
        PluginError, lambda: concepts_of(plugins, "mine"), "'wrapping'", "wrapping-package 1.0", named
    )
    assert "'mine'" not in message
    install("second", "@hookimpl(wrapper=True)\ndef load_concepts():\n    return (yield)")
    both = Plugins()
    both.opt_in(["second", "wrapping"])
    assert_refused(PluginError, lambda: concepts_of(both, "mine"), "'wrapping'", named)


def test_a_wrong_result_is_the_chosen_plugins_whatever_wraps_it(install):
    install("mine", "@hookimpl\ndef load_concepts(): return 5")
    install("wrapping", "@hookimpl(wrapper=True)\ndef load_concepts():\n    return (yield)")
    plugins = Plugins()
    plugins.opt_in(["wrapping"])
    message = assert_refused(PluginError, lambda: concepts_of(plugins, "mine"), "'mine'", "returned an int")
    assert "wrapping" not in message


def test_a_plugin_that_wraps_nothing_is_not_opted_in(install):
    install("mine", CONCEPTS)
    assert_refused(
        UsageError, lambda: Plugins().opt_in(["mine"]), "'mine'", "mine-package 1.0", "wraps no hook"
    )


def test_an_opted_in_wrapper_that_does_not_exist_is_refused():
    assert_refused(UnknownPluginError, lambda: Plugins().opt_in(["nowhere"]), "'nowhere'")


def test_only_the_chosen_one_of_several_plugins_is_called(install):
    install("first", CONCEPTS.replace("dog", "first"))
    install("second", CONCEPTS.replace("dog", "second"))
    plugins = Plugins()
    plugins.load("first")
    plugins.load("second")
    assert concepts_of(plugins, "first") == ["first"]
    assert concepts_of(plugins, "second") == ["second"]


def test_an_implementation_may_take_fewer_arguments(install):
    install("short", "@hookimpl\ndef load_concepts(): return [Concept('a', 'a')]")
    assert concepts_of(Plugins(), "short") == ["a"]


RESULTS = {
    "load_model": ("5", "returned an int from load_model, which is not a model: it has no name"),
    "store_activations": (
        "[]",
        "returned a list from store_activations, which is not a store: it has no write_part",
    ),
    "train_interpreter": ("'x'", "returned a str from train_interpreter, which is not an interpreter"),
    "load_interpreter": ("int", "returned a type from load_interpreter, which is not an interpreter"),
    "sample_prompts": (
        "'a dog'",
        "returned a str from sample_prompts, but must return an iterable of Prompts",
    ),
    "capture_layers": ("{}", "returned a dict from capture_layers, but must return an iterable of Samples"),
    "check_capture": ("5", "returned an int from check_capture"),
    "score_confidence": ("{}", "returned a dict from score_confidence, but must return Scores"),
}


@pytest.mark.parametrize("hook", RESULTS)
def test_a_wrong_type_from_a_hook_names_the_plugin_and_the_right_type(install, hook):
    value, named = RESULTS[hook]
    install("wrong", f"@hookimpl\ndef {hook}(): return {value}")
    arguments = dict.fromkeys(Plugins()._manager.hook.__dict__[hook].spec.argnames)
    arguments["interpreter"] = SimpleNamespace(concepts=["dog"])
    assert_refused(
        PluginError, lambda: Plugins().call(hook, "wrong", **arguments), "'wrong'", "wrong-package 1.0", named
    )


def test_scores_of_another_length_are_refused(install):
    code = """
    import numpy as np
    from encyclo.types import Scores

    @hookimpl
    def score_confidence():
        return Scores(np.ones(2), np.ones(2), np.ones(3), {})
    """
    install("wrong", textwrap.dedent(code))
    arguments = {"interpreter": SimpleNamespace(concepts=["dog", "cat"]), "samples": None, "context": None}
    assert_refused(
        PluginError,
        lambda: Plugins().call("score_confidence", "wrong", **arguments),
        "high has the shape (3,), but must have (2,)",
    )


@pytest.mark.parametrize(
    ("needs", "refused"),
    [
        ("encyclo>=99", True),
        ("Encyclo (<0.1)", True),
        ("encyclo!=0.1.0; python_version >= '3'", True),
        ("encyclo>=0.0.1", False),
        ("encyclo", False),
        ("encyclo>=99; extra == 'new'", False),
        ("encyclo>=99; python_version < '3'", False),
        ("encyclopaedia>=99", False),
        ("not a requirement at all", False),
    ],
)
def test_a_plugin_for_another_encyclo_is_refused_with_the_pip_line(install, needs, refused):
    install("other", CONCEPTS, needs=needs)
    install("mine", CONCEPTS)
    plugins = Plugins()
    if refused:
        message = assert_refused(
            PluginError,
            lambda: plugins.load("other"),
            "'other'",
            "other-package 1.0",
            "needs encyclo",
            "0.1.0",
        )
        assert "pip install --upgrade other-package 'encyclo" in message
        assert "other_package_other" not in sys.modules, "it is not even imported"
    assert concepts_of(plugins, "mine") == ["dog"]
    (row,) = [row for row in plugins.describe() if row.name == "other"]
    assert (row.state, bool(row.error), bool(row.hooks)) == (
        ("broken", True, False) if refused else ("ready", False, True)
    )


def test_a_hook_without_its_marker_is_pointed_out(install):
    install("unmarked", "def load_concepts(): return [Concept('a', 'a')]")
    assert_refused(
        PluginError,
        lambda: Plugins().load("unmarked"),
        "'unmarked'",
        "load_concepts",
        "@encyclo.hookimpl above it",
    )


def test_a_class_is_made_anew_for_every_run(install):
    code = """
    class Counting:
        calls = 0

        @hookimpl
        def load_concepts(self):
            self.calls += 1
            return [Concept(str(self.calls), "a")]
    """
    site = install("counting", code, target="counting_package_counting:Counting")
    assert site
    first, second = Plugins(), Plugins()
    assert [concepts_of(p, "counting") for p in (first, first, second)] == [["1"], ["2"], ["1"]]


def test_an_object_without_a_hash_is_refused(install):
    code = """
    class Listed(list):
        @hookimpl
        def load_concepts(self): return self
    """
    install("listed", code, target="listed_package_listed:Listed")
    assert_refused(
        PluginError, lambda: Plugins().load("listed"), "'listed'", "no hash", "a module or a class"
    )


def test_leaving_the_process_from_a_hook_is_the_plugins_fault(install):
    install("leaving", "@hookimpl\ndef load_concepts(): raise SystemExit(3)")
    assert_refused(PluginError, lambda: concepts_of(Plugins(), "leaving"), "'leaving'", "SystemExit: 3")


def test_the_list_of_plugins_says_which_are_broken_and_why(install, encyclo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    install("broken", "1 / 0")
    install("mine", CONCEPTS)
    rows = {row["name"]: row for row in json.loads(encyclo("plugins", "--json").stdout)["plugins"]}
    assert (rows["mine"]["state"], rows["broken"]["state"]) == ("ready", "broken")
    assert set(rows["mine"]) == {"name", "hooks", "package", "version", "state", "error"}
    lines = {line.split()[0]: line for line in encyclo("plugins").stdout.splitlines()}
    assert lines["Name"].split() == ["Name", "Hooks", "Package", "State"]
    assert lines["mine"].split() == ["mine", "load_concepts", "mine-package", "1.0", "ready"]
    assert "broken-package 1.0" in lines["broken"] and "ZeroDivisionError" in lines["broken"]


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        ([1, 2], "gave a list, but must give Samples"),
        (
            Samples(np.array([0]), np.zeros((1, 2, 4), np.float32), 1, 1),
            "shape (1, 2, 4), but must have (1, 2, 3)",
        ),
        (Samples(np.array([5]), np.zeros((1, 2, 3), np.float32), 1, 1), "indices of its prompts, 0 to 4"),
        (Samples(np.array([-1]), np.zeros((1, 2, 3), np.float32), 1, 1), "indices of its prompts, 0 to 4"),
        (
            Samples(np.array([0.5]), np.zeros((1, 2, 3), np.float32), 1, 1),
            "must give int from 0 to 4 in one dimension",
        ),
        (Samples(np.array([0]), [[[0.0] * 3] * 2], 1, 1), "activations is a list, but must be a numpy array"),
        (Samples(np.array([4, 0]), np.zeros((2, 2, 3), np.float32), 1, 1), None),
        (Samples([4, 0], np.zeros((2, 2, 3)), np.int64(1), 1), None),
    ],
)
def test_a_batch_that_can_not_be_is_refused(batch, named):
    model = SimpleNamespace(hidden_size=3, dtype="float32")
    asked = {"prompts": ["a"] * 5, "layers": (0, 1), "context": SimpleNamespace(model=model)}
    if named is None:
        given = check_samples(asked, batch)
        assert given.activations.dtype == np.float32 and type(given.tokens) is int
        return
    with pytest.raises(WrongAnswer) as refused:
        check_samples(asked, batch)
    assert named in str(refused.value)


BROKEN_IN_EVERY_WAY = {
    "imports": "1 / 0",
    "leaves": "raise SystemExit(3)",
    "misspelt": "@hookimpl\ndef load_concpets(): ...",
    "asks": "@hookimpl\ndef load_concepts(weather): ...",
    "unmarked": "def load_concepts(): ...",
    "needy": "import surely_not_installed",
}


def test_commands_that_do_not_use_broken_plugins_work(install, encyclo, tmp_path):
    for name, code in BROKEN_IN_EVERY_WAY.items():
        install(name, code)
    install("future", CONCEPTS, needs="encyclo>=99")
    install("core", CONCEPTS.replace("dog", "usurper"), package="second-core")  # shares a built-in's name
    broken = {*BROKEN_IN_EVERY_WAY, "future", "core"}
    listed = encyclo("plugins", "--json")
    assert listed.returncode == 0
    rows = json.loads(listed.stdout)["plugins"]
    assert {row["name"] for row in rows if row["state"] == "broken"} == broken
    for row in rows:
        if row["error"]:  # one sentence each, which names the package
            assert row["error"].count("\n") == 0 and row["package"] in row["error"], row
    assert encyclo("--version").returncode == encyclo("run", "--help").returncode == 0
    assert encyclo("new-plugin", "fresh", "--hook", "load_concepts", "--out", tmp_path).returncode == 0
    refused = encyclo("run", "--out", tmp_path / "run")
    assert refused.returncode == 2 and "'core' is claimed by" in refused.stderr
    assert not (tmp_path / "run").exists()
