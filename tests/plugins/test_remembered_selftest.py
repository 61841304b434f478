"""A passed self-test is remembered by everything that its figures depend on, and by nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from encyclo.errors import CaptureError
from encyclo.types import Prompt
from encyclo_capture import remembered_selftest
from encyclo_capture.model import TransformersModel
from encyclo_capture.remembered_selftest import MEASURED, SWITCH, Dependencies, check_once
from encyclo_capture.selftest import choose
from encyclo_capture.tokenization import tokenise

LAYERS = (1, 2, 3)
PROMPTS = [
    Prompt("a", "A river runs through the valley.", (2, 7), "one"),
    Prompt("a", "They saw a river there.", (11, 16), "two"),
]
OTHERS = [
    Prompt("b", "A mountain is seen from a town.", (2, 10), "one"),
    Prompt("b", "He knew a mountain too.", (10, 18), "two"),
]


@pytest.fixture
def model(tiny_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TransformersModel:
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(SWITCH, raising=False)
    return TransformersModel(str(tiny_gemma), "cpu", "float32")


def dependencies(model: TransformersModel) -> Dependencies:
    return Dependencies.of(model, tokenise(model, choose(PROMPTS), "span"), LAYERS, "span", 64)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the self-tests that are measured."""
    calls: list[int] = []
    check = remembered_selftest.check

    def counting(*given):
        calls.append(len(given[1]))
        return check(*given)

    monkeypatch.setattr(remembered_selftest, "check", counting)
    return calls


def test_a_second_run_remembers_and_says_when_it_was_measured(model, measured):
    first = check_once(model, PROMPTS, LAYERS, "span", 64)
    second = check_once(model, OTHERS, LAYERS, "span", 64)
    assert len(measured) == 1
    assert MEASURED not in first and second.pop(MEASURED) > 1.7e9
    assert second == first


@pytest.mark.parametrize(
    ("layers", "pooling", "batch", "prompts"),
    [
        ((1, 2), "span", 64, PROMPTS),
        (LAYERS, "mean", 64, PROMPTS),
        (LAYERS, "span", 65, PROMPTS),
        (LAYERS, "span", 64, [*PROMPTS, Prompt("c", "river " * 20, (0, 5), "long")]),
        (LAYERS, "span", 64, [*PROMPTS, Prompt("c", "river", (0, 5), "short")]),
        (LAYERS, "span", 64, [*PROMPTS, Prompt("a", "They see a river there.", (11, 16), "three")]),
    ],
)
def test_what_the_figures_depend_on_is_tested_again(model, measured, layers, pooling, batch, prompts):
    check_once(model, PROMPTS, LAYERS, "span", 64)
    check_once(model, prompts, layers, pooling, batch)
    assert len(measured) == 2


def test_every_dependency_has_a_file_of_its_own(model):
    known = dependencies(model)
    other = {str: "other", int: 99, bool: not known.fused, tuple: (9, 9)}
    changed = {replace(known, **{f.name: other[type(getattr(known, f.name))]}).file for f in fields(known)}
    assert len(changed | {known.file}) == len(fields(known)) + 1


def test_mentions_are_checked_in_every_run(model, measured):
    check_once(model, PROMPTS, LAYERS, "span", 64)
    wrong = [replace(PROMPTS[0], span=(5, 9)), PROMPTS[1]]  # "er r" is no mention of whole tokens
    try:
        found = check_once(model, wrong, LAYERS, "span", 64)
    except CaptureError as error:
        assert "'mentions'" in str(error)
    else:
        assert found["mentions"] == 0
    assert len(measured) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"measured": "yesterday"}', b"\xff"])
def test_a_damaged_memory_is_measured_again(model, measured, content: bytes):
    check_once(model, PROMPTS, LAYERS, "span", 64)
    dependencies(model).file.write_bytes(content)
    assert MEASURED not in check_once(model, PROMPTS, LAYERS, "span", 64)
    assert len(measured) == 2


def test_a_failed_self_test_is_not_remembered(model, monkeypatch):
    def failing(*given):
        raise CaptureError("no")

    with monkeypatch.context() as patch:
        patch.setattr(remembered_selftest, "check", failing)
        with pytest.raises(CaptureError):
            check_once(model, PROMPTS, LAYERS, "span", 64)
    assert MEASURED not in check_once(model, PROMPTS, LAYERS, "span", 64)


def test_lengths_are_counted_in_tokens(model, measured):
    """Texts of as many characters, but of more tokens, may take another way through the network."""
    check_once(model, [Prompt("a", "the river " * 20, (4, 9), "one")], LAYERS, "mean", 64)
    check_once(model, [Prompt("a", "zq" * 100, (0, 4), "one")], LAYERS, "mean", 64)
    assert len(measured) == 2


def test_a_self_test_that_fails_later_is_forgotten(model, measured, monkeypatch):
    check_once(model, PROMPTS, LAYERS, "span", 64)

    def failing(*given):
        raise CaptureError("no")

    with monkeypatch.context() as patch:
        patch.setattr(remembered_selftest, "check", failing)
        patch.setenv(SWITCH, "always")
        with pytest.raises(CaptureError):
            check_once(model, PROMPTS, LAYERS, "span", 64)
    assert MEASURED not in check_once(model, PROMPTS, LAYERS, "span", 64)


def test_without_a_cache_it_is_measured_every_time(model, measured, tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENCYCLO_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        check_once(model, PROMPTS, LAYERS, "span", 64)
    assert len(measured) == 2


def test_the_switch_measures_again(model, measured, monkeypatch):
    check_once(model, PROMPTS, LAYERS, "span", 64)
    monkeypatch.setenv(SWITCH, "always")
    assert MEASURED not in check_once(model, PROMPTS, LAYERS, "span", 64)
    assert len(measured) == 2
