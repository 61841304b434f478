"""A model is its weights, its configuration and its tokenizer: a run goes on, and is read, only with the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from encyclo.errors import ModelNotFoundError
from encyclo_capture.loading import weights
from encyclo_capture.loading.identity import model_identity
from encyclo_capture.loading.weights import find_weights
from tests import tiny_models
from tests.commands import one_sentence

RUN = ["run", "--sampler", "templates", "--limit", "12"]


def set_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def change_tokenizer(folder: Path) -> None:
    """Swap the ids of two special tokens: every prompt that begins with one is another."""
    for path in folder.glob("*token*.json"):
        path.unlink()
    specials = ("<pad>", "<bos>", "<eos>", "<unk>")
    tiny_models.build_tokenizer(True, False, specials=specials).save_pretrained(folder)


CHANGES: dict[str, Callable[[Path], None]] = {
    "tokenizer": change_tokenizer,
    "rms_norm_eps": set_config(rms_norm_eps=0.1),
    "activation": set_config(hidden_activation="relu"),
}


@pytest.fixture
def model(tiny_gemma: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_gemma, tmp_path / "model"))


def flags(model: Path, out: Path) -> list[str]:
    return [*RUN, "--model", str(model), "--layers", "1,-2,-1", "--device", "cpu", "--out", str(out)]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_half_finished_run_is_not_gone_on_with_by_a_changed_model(
    model: Path, tmp_path: Path, encyclo, monkeypatch, change: Callable[[Path], None]
):
    from encyclo.pipeline import refine

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(refine, "judge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert encyclo(*flags(model, out)).returncode == 130
    before = find_weights(str(model), None)
    change(model)
    after = find_weights(str(model), None)
    assert after.sha256 == before.sha256 and after.identity != before.identity
    result = encyclo(*flags(model, out))
    assert result.returncode == 2 and "another configuration or tokenizer" in one_sentence(result.stderr)
    result = encyclo("converge", out, "--older", "--device", "cpu")
    assert result.returncode == 2 and "another configuration or tokenizer" in one_sentence(result.stderr)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_finished_run_is_not_read_with_a_changed_model(
    tiny_run: Path, tiny_gemma: Path, model: Path, encyclo, change: Callable[[Path], None]
):
    """`--model` names another place of the run's model."""
    assert encyclo("read", tiny_run, "The animal", "--device", "cpu", "--model", model).returncode == 0
    change(model)
    result = encyclo("read", tiny_run, "The animal", "--device", "cpu", "--model", model)
    assert result.returncode == 2
    assert f"another configuration or tokenizer of the model {tiny_gemma}" in one_sentence(result.stderr)


def test_evaluate_refuses_a_changed_model_and_an_older_run_warns(
    model: Path, tmp_path: Path, encyclo, monkeypatch
):
    """A run of encyclo's first version recorded the weights alone: they must be the same, the rest can't be known."""
    from encyclo.runs.session import Session

    new, old = tmp_path / "new", tmp_path / "old"
    assert encyclo(*flags(model, new)).returncode == 0
    resolved = Session.resolved
    with monkeypatch.context() as patch:
        patch.setattr(
            Session, "resolved", lambda self: {k: v for k, v in resolved(self).items() if k != "model_sha256"}
        )
        assert encyclo(*flags(model, old)).returncode == 0
    set_config(rms_norm_eps=0.1)(model)
    result = encyclo("evaluate", new, "--limit", "5", "--device", "cpu")
    assert result.returncode == 2 and "another configuration or tokenizer" in one_sentence(result.stderr)
    for command in (
        ["evaluate", old, "--limit", "5", "--device", "cpu"],
        ["read", old, "The animal", "--device", "cpu"],
        flags(model, old),
    ):
        result = encyclo(*command)
        warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
        assert result.returncode == 0 and len(warnings) == 1, result.stderr
        assert "another tokenizer or configuration of its model would not be noticed" in warnings[0]
    shutil.copytree(tiny_models.write_model(tmp_path / "other", "llama"), model, dirs_exist_ok=True)
    assert encyclo("read", old, "The animal", "--device", "cpu").returncode == 2
    assert encyclo(*flags(model, old)).returncode == 2


@pytest.mark.parametrize(
    "change",
    [
        set_config(transformers_version="9.9", dtype="float32", _name_or_path="elsewhere"),
        lambda folder: (folder / "config.json").write_text(
            json.dumps(dict(reversed(json.loads((folder / "config.json").read_text()).items())), indent=8)
        ),
        lambda folder: (folder / "README.md").write_text("A model"),
        lambda folder: (folder / "generation_config.json").write_text('{"top_k": 1}'),
    ],
    ids=["notes", "layout", "card", "generation"],
)
def test_what_changes_no_hidden_state_is_no_other_model(model: Path, change: Callable[[Path], None]):
    before = model_identity(model, "weights")
    change(model)
    assert model_identity(model, "weights") == before != model_identity(model, "other weights")


@pytest.mark.parametrize(
    "name",
    ["added_tokens.json", "merges.txt", "vocab.json", "spiece.model", "tekken.json"],
)
def test_every_file_that_the_library_reads_counts(model: Path, name: str):
    before = model_identity(model, "weights")
    (model / name).write_text('{"r": 8}')
    assert model_identity(model, "weights") != before


def test_settings_that_are_no_object_count_by_their_bytes(model: Path):
    found = set()
    for text in ("[1]", "[2]", "{", "[" * 100_000):
        (model / "tokenizer_config.json").write_text(text)
        found.add(model_identity(model, "weights"))
    assert len(found) == 4


def test_a_prepared_model_is_the_gguf_file_and_stays_as_it_was_prepared(tiny_gemma, tmp_path, monkeypatch):
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_convert", lambda gguf, target: shutil.copytree(tiny_gemma, target))
    gguf = tmp_path / "tiny.gguf"
    gguf.write_bytes(b"GGUF and some weights")
    prepared = find_weights(str(gguf), None)
    assert find_weights(str(gguf), None).identity == prepared.identity
    set_config(rms_norm_eps=0.1)(prepared.folder)
    with pytest.raises(ModelNotFoundError, match=r"is damaged; delete this folder, and the same command"):
        find_weights(str(gguf), None)
    shutil.rmtree(prepared.folder)
    assert find_weights(str(gguf), None).identity == prepared.identity
