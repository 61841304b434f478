"""The sampler `sentences`: a user's sentences become prompts; a line that can't be used is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encyclo.errors import UsageError
from encyclo.types import Concept, Context, Prompt
from encyclo_samplers import sentences
from tests.commands import one_sentence

CONCEPTS = [
    Concept("dog", "dog", aliases=("hound",)),
    Concept("slope", "bank (slope)"),
    Concept("lender", "bank"),
]


def write(folder: Path, text: str, name: str = "own.csv") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def sample(file: Path | None, concepts=CONCEPTS[:1], wanted: int = 10, seed: int = 0) -> list[Prompt]:
    context = Context(
        seed, "cpu", sentences.Options(path=file), Path(), prompts_wanted=wanted, all_concepts=CONCEPTS
    )
    return list(sentences.sample_prompts(concepts, 2, context))


def refused(file: Path | None, **more) -> str:
    with pytest.raises(UsageError) as error:
        sample(file, **more)
    return one_sentence(f"encyclo: {error.value}")


def test_mentions_are_found_or_given(tmp_path: Path):
    file = write(
        tmp_path,
        "concept,sentence,start,end,source\n"
        "dog,Two dogs ran.,,,novel\n"
        "hound,The hound slept.,,,novel\n"
        'dog,"It barked, the beast.",15,20,letters\n',
    )
    found = sample(file)
    assert [(p.text[slice(*p.span)], p.family) for p in found if p.span] == [
        ("dogs", "sentences.novel"), ("beast", "sentences.letters"), ("hound", "sentences.novel"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own.tsv", "concept\tsentence\ndog\tA dog sat.\n"),
        ("own.jsonl", json.dumps({"concept": "dog", "sentence": "A dog sat."}) + "\n"),
    ],
)
def test_other_formats(tmp_path: Path, name: str, text: str):
    assert sample(write(tmp_path, text, name)) == [Prompt("dog", "A dog sat.", (2, 5), "sentences.0")]


def test_as_many_as_wanted_by_the_seed(tmp_path: Path):
    file = write(tmp_path, "concept,sentence\n" + "".join(f"dog,Dog number {i}.\n" for i in range(40)) * 2)
    some = sample(file, wanted=5)
    assert len({p.text for p in some}) == 5 and some == sample(file, wanted=5) != sample(
        file, wanted=5, seed=1
    )
    everything = sample(file, wanted=99)
    assert len(everything) == 40  # a sentence that stands twice counts once
    assert {p.family for p in everything} == {f"sentences.{i}" for i in range(10)}


def test_an_id_chooses_among_equal_names(tmp_path: Path):
    file = write(tmp_path, "concept,sentence\nslope,The bank was steep.\nlender,The bank was closed.\n")
    assert [p.text for p in sample(file, CONCEPTS[1:])] == ["The bank was steep.", "The bank was closed."]
    ambiguous = write(tmp_path, "concept,sentence\nbank,The bank was steep.\n", "other.csv")
    assert "line 2" in (said := refused(ambiguous, concepts=CONCEPTS[1:])) and "lender, slope" in said


def test_an_id_is_no_other_concepts_alias(tmp_path: Path):
    """In a list without ids a concept's id is its name, which may be an alias of another concept."""
    lender, slope = Concept("bank", "bank"), Concept("slope", "slope", aliases=("bank",))
    file = write(tmp_path, "concept,sentence\nbank,The bank was closed.\nslope,The slope was steep.\n")
    context = Context(0, "cpu", sentences.Options(path=file), Path(), all_concepts=[lender, slope])
    found = list(sentences.sample_prompts([lender, slope], 2, context))
    assert [(p.concept, p.text) for p in found] == [
        ("bank", "The bank was closed."),
        ("slope", "The slope was steep."),
    ]


def test_concepts_without_a_sentence_and_background_are_left_out(tmp_path: Path):
    file = write(tmp_path, "concept,sentence,start,end\ndog,A dog sat.,,\n,A cat sat.,2,5\n")
    assert [p.concept for p in sample(file, [CONCEPTS[2], CONCEPTS[0]])] == ["dog"]


def test_a_changed_file_is_read_again(tmp_path: Path):
    first = sample(write(tmp_path, "concept,sentence\ndog,A dog sat.\n"))
    assert sample(write(tmp_path, "concept,sentence\ndog,A dog ran.\n")) != first


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dog,A cat sat.,,", "doesn't mention 'dog'"),
        ("dog,,,", "column sentence is empty"),
        (",,2,5", "column sentence is empty"),
        ("dog,A dog sat.,two,5", "not two whole numbers"),
        ("dog,A dog sat.,2,", "not two whole numbers"),
        ("dog,A dog sat.,5,2", "no mention"),
        ("dog,A dog sat.,2,99", "no mention"),
        ("dog,A dog sat.,1,2", "no mention"),
    ],
)
def test_a_line_that_can_not_be_used_is_named(tmp_path: Path, line: str, said: str):
    message = refused(write(tmp_path, f"concept,sentence,start,end\n{line}\n"))
    assert "own.csv line 2" in message and said in message


def test_a_file_that_can_not_be_used_is_named(tmp_path: Path):
    assert "sentences.path" in refused(None)
    assert "own.txt" in refused(write(tmp_path, "dog\n", "own.txt"))
    with pytest.raises(ValueError, match=r"nowhere\.csv"):
        sentences.Options(path=tmp_path / "nowhere.csv")


def test_a_run_goes_on_only_with_the_same_sentences(tmp_path: Path, encyclo, tiny_flags):
    names = ["animal", "dog", "organ", "tree", "river", "stone"]
    lines = [f"{name},The {name} of number {i} was there." for name in names for i in range(12)]
    concepts = write(tmp_path, "name\n" + "\n".join(names) + "\n", "list.csv")
    file = write(tmp_path, "concept,sentence\n" + "\n".join(lines) + "\n")
    flags = ["run", "--concepts", "file", "-o", f"file.path={concepts}", "--sampler", "sentences"]
    flags += ["-o", f"sentences.path={file}", *tiny_flags, "--out", str(tmp_path / "run")]
    result = encyclo(*flags)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["stages"][0]["sampler"] == "sentences" and record["stages"][0]["samples"] == 60
    file.write_text(file.read_text().replace("was there", "was here"))
    result = encyclo(*flags)
    assert result.returncode == 2 and "sha256" in one_sentence(result.stderr)


def test_a_sentence_with_a_held_out_alias_is_left_out(tmp_path: Path):
    lines = "dog,The dog slept.\ndog,The hounds slept.\nhound,A hound ran.\n"
    file = write(tmp_path, f"concept,sentence\n{lines}")
    concept = Concept("dog", "dog", held_out_aliases=("hound",))
    assert [prompt.text for prompt in sample(file, [concept])] == ["The dog slept."]
    assert len(sample(file)) == 3
