"""What a run is asked for: which source wins, and one sentence for each thing that can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from encyclo.config import RunConfig, default_layers, load_config, parse_layers
from encyclo.errors import UsageError

BAD_FLAGS = {
    "sampler": ((), "--sampler"),
    "limit": (0, "--limit"),
    "per_concept": (0, "--per-concept"),
    "layers": ((1, 2, 1), "--layers"),
    "pooling": ("median", "--pooling"),
    "seed": (-1, "--seed"),
    "converged_below": (0.0, "The configuration key converged_below"),
    "store": (5, "--store"),
    "with": (7, "--with"),
}


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(*args, **kwargs) -> str:
    """Return the message with which load_config refuses; it must be one sentence on one line."""
    with pytest.raises(UsageError) as caught:
        load_config(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert not message.endswith("..")
    assert "pydantic" not in message
    assert caught.value.exit_code == 2
    return message


def test_nothing_given_gives_the_defaults():
    assert load_config({}) == RunConfig()
    assert load_config({"seed": None, "store": None}) == RunConfig()


def test_flags_win_over_the_file(tmp_path):
    path = toml(tmp_path, 'seed = 1\nper-concept = 5\nmodel = "there"\nlayers = [-1, -2]\n')
    config = load_config({"seed": 2, "model": None}, path)
    assert (config.seed, config.per_concept, config.model) == (2, 5, "there")
    assert config.layers == (-1, -2)


def test_options_of_the_command_line_win_over_the_files_tables(tmp_path):
    path = toml(tmp_path, "[templates]\ngroups = ['quoted']\nkept = 1\n[transformer]\nepochs = 3\n")
    config = load_config({}, path, ["transformer.epochs=5", 'templates.groups=["object"]'])
    assert config.options == {
        "templates": {"groups": ["object"], "kept": 1},
        "transformer": {"epochs": 5},
    }


def test_the_last_of_two_equal_options_wins():
    config = load_config({}, None, ["transformer.epochs=5", "transformer.epochs=6"])
    assert config.options == {"transformer": {"epochs": 6}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ('["a", "b"]', ["a", "b"]),
        ("plain words", "plain words"),
        ("a=b", "a=b"),
        ("", ""),
        ('"5"', "5"),
    ],
)
def test_an_options_value_is_json_or_else_text(text, value):
    assert load_config({}, None, [f"raw.key={text}"]).options == {"raw": {"key": value}}


def test_a_single_sampler_in_the_file_needs_no_list(tmp_path):
    assert load_config({}, toml(tmp_path, 'sampler = "raw"')).sampler == ("raw",)


def test_wrappers_are_called_with(tmp_path):
    assert load_config({}, toml(tmp_path, 'with = ["timer"]')).wrappers == ("timer",)
    assert load_config({"with": ("timer",)}).plugin_names()[-1] == "timer"


def test_plugin_names_have_no_repeats():
    flags = {"sampler": ("raw", "templates"), "interpreter": "centroid"}
    config = load_config(flags)
    names = config.plugin_names()
    assert len(names) == len(set(names))
    assert {
        "core",
        "raw",
        "templates",
        "transformers",
        "hdf5",
        "centroid",
        "logistic",
        "calibrated",
        "local",
    } == set(names)


@pytest.mark.parametrize("key", BAD_FLAGS)
def test_a_bad_value_is_refused_naming_flag_and_value(key):
    value, flag = BAD_FLAGS[key]
    message = refusal({key: value})
    assert message.startswith(f"{flag} can't be {value!r}: ")


@pytest.mark.parametrize("key", ["seed", "per_concept", "limit"])
@pytest.mark.parametrize("value", ["many", 2**70, 1.5, [1]])
def test_whole_numbers_are_asked_for(key, value):
    if key == "limit" and value == 2**70:
        value = -(2**70)
    assert f"--{key.replace('_', '-')} can't be" in refusal({key: value})


@pytest.mark.parametrize("value", ["inf", "nan", "-0.1"])
def test_the_convergence_threshold_is_a_positive_number(tmp_path, value):
    assert "The configuration key converged_below can't be" in refusal(
        {}, toml(tmp_path, f"converged-below = {value}")
    )


def test_one_bad_layer_is_named_rather_than_the_whole_list(tmp_path):
    message = refusal({}, toml(tmp_path, 'layers = [-1, "top"]'))
    assert message.startswith("--layers can't be 'top': ")


@pytest.mark.parametrize("key", ["sampler_", "wrappers", "out", "options", "Seed"])
def test_an_unknown_key_is_refused_listing_the_valid_ones(tmp_path, key):
    message = refusal({}, toml(tmp_path, f"{key} = 1\n[raw]\na = 1\n"))
    assert f"no key {key!r}" in message
    listed = message.split("its keys are: ")[1].rstrip(".").split(", ")
    assert "with" in listed
    assert "per_concept" in listed
    assert "wrappers" not in listed
    assert "options" not in listed


def test_every_key_that_a_refusal_lists_is_taken(tmp_path):
    listed = refusal({"nonsense": 1}).split("its keys are: ")[1].rstrip(".").split(", ")
    defaults = RunConfig().model_dump(by_alias=True)
    for key in listed:
        if defaults[key] is not None:
            assert load_config({key: defaults[key]}) == RunConfig()


@pytest.mark.parametrize("name", ["tepmlates", "options"])
def test_options_for_a_plugin_that_the_run_does_not_use_are_refused(tmp_path, name):
    for message in (
        refusal({}, None, [f"{name}.key=1"]),
        refusal({}, toml(tmp_path, f"[{name}]\nkey = 1\n")),
    ):
        assert repr(name) in message
        assert "templates" in message
        assert "hdf5" in message


@pytest.mark.parametrize(
    "text", ["templates", "templates=5", "templates.=5", ".key=5", "templates.key", "=", ""]
)
def test_a_malformed_option_is_refused_with_an_example(text):
    message = refusal({}, None, [text])
    assert "NAME.key=value" in message
    assert repr(text) in message


def test_the_example_in_that_refusal_is_itself_right():
    example = refusal({}, None, [""]).split("such as -o '")[1].split("'")[0]
    assert load_config({}, None, [example]).options == {"templates": {"groups": ["quoted"]}}


@pytest.mark.parametrize("text", ["seed = ", "seed = 1\nseed = 2", "[a\n", "\x00"])
def test_a_file_that_is_no_toml_is_named_with_the_place(tmp_path, text):
    path = toml(tmp_path, text)
    message = refusal({}, path)
    assert str(path) in message
    assert "(at " in message  # the line, or the end of the document


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "none.toml" in refusal({}, tmp_path / "none.toml")
    assert str(tmp_path) in refusal({}, tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    assert "bytes.toml" in refusal({}, tmp_path / "bytes.toml")


def test_layers_are_read_from_text():
    assert parse_layers("-12,-9, 0,3") == (-12, -9, 0, 3)


@pytest.mark.parametrize("text", ["", "1,,2", "a", "1;2", "1.5", "-1,"])
def test_text_that_names_no_layers_is_refused(text):
    with pytest.raises(UsageError, match="--layers takes whole numbers") as caught:
        parse_layers(text)
    assert repr(text) in str(caught.value)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError):
        load_config({}).seed = 3


def test_half_a_character_in_a_flag_is_refused():
    """A file's name on Linux may be no UTF-8; run.json could not hold it."""
    for flags, options in (({"model": "m\udcff"}, []), ({}, ["file.path=list\udcff.csv"])):
        assert "The flags hold the character U+DCFF, which is no text" in refusal(flags, None, options)


def test_a_nested_option_is_a_text():
    text = "[" * 100_000
    assert load_config({}, None, [f"raw.key={text}"]).options == {"raw": {"key": text}}


def test_a_nested_file_is_refused(tmp_path: Path):
    assert "not valid TOML" in refusal({}, toml(tmp_path, f"layers = {'[' * 100_000}"))


def test_concepts_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("birds.csv", "birds", "core"):
        (tmp_path / name).write_text("name\nowl\n")
    config = load_config({"concepts": "birds.csv"}, None, ["file.delimiter=;"])
    assert (config.concepts, config.options) == ("file", {"file": {"path": "birds.csv", "delimiter": ";"}})
    assert load_config({}, toml(tmp_path, 'concepts = "birds"')).options == {"file": {"path": "birds"}}
    assert load_config({"concepts": "core"}).options == {}  # a plugin's name comes first
    with_option = {"concepts": str(tmp_path / "birds")}
    assert "already has the file 'x.csv'" in refusal(with_option, None, ["file.path=x.csv"])


def test_several_concept_lists(tmp_path: Path):
    (tmp_path / "birds.csv").write_text("name\nowl\n")
    file = str(tmp_path / "birds.csv")
    config = load_config({"concepts": ["core", file]}, None, ["core.categories=animals"])
    assert config.concepts == config.concept_lists == ("core", "file")
    assert config.options == {"core": {"categories": "animals"}, "file": {"path": file}}
    assert config.plugin_names()[:2] == ["core", "file"]
    single = load_config({}, toml(tmp_path, 'concepts = ["core"]'))
    assert (single.concepts, single.concept_lists) == ("core", ("core",))
    (tmp_path / "more.csv").write_text("name\nwren\n")
    assert "name one file" in refusal({"concepts": [file, str(tmp_path / "more.csv")]})
    for lists in (["core", "core"], [], [3]):
        assert "--concepts can't be" in refusal({"concepts": lists})


@pytest.mark.parametrize(
    ("named", "what"),
    [("brids.csv", "does not exist"), ("lists/birds", "does not exist"), ("folder.d", "is a folder")],
)
def test_a_file_of_concepts_that_is_not_there_is_named(tmp_path: Path, monkeypatch, named: str, what: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.d").mkdir()
    assert what in refusal({"concepts": named}) and named in refusal({"concepts": named})
    assert load_config({"concepts": "brids"}).concepts == "brids"  # no file's name: the plugins are searched


@pytest.mark.parametrize(
    ("depth", "layers"),
    [
        (18, (-12, -9, -6, -3, -1)),
        (30, (-20, -15, -10, -5, -1)),
        (12, (-8, -6, -4, -2, -1)),
        (6, (-4, -3, -2, -1)),
        (2, (-1,)),
        (1, (-1,)),
    ],
)
def test_the_default_layers_are_shares_of_the_depth(depth: int, layers: tuple[int, ...]):
    assert default_layers(depth) == layers


def test_default_layers_fit_every_depth():
    for depth in range(1, 200):
        layers = default_layers(depth)
        assert layers[-1] == -1 and list(layers) == sorted(set(layers)) and -layers[0] <= depth
