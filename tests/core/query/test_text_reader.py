"""`encyclo read`: token by token, in windows, with confidence, and what it refuses."""

from __future__ import annotations

import gc
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from encyclo.errors import UsageError
from encyclo.query import text_reader as reading
from encyclo.query.encyclopedia import open_run
from encyclo.query.text_reader import FRESH, TextReader, read_pieces, windows
from encyclo.storage import files
from encyclo.types import Prompt
from tests import tiny_models
from tests.commands import one_sentence
from tests.stored_runs import seal_as_it_is

TEXT = "The animal drank water. Nobody saw the otter near the house!"


@pytest.fixture(scope="module")
def reader(tiny_run: Path):
    with open_run(tiny_run) as book:
        yield book.reader("cpu")


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


def test_every_token_is_read_once_in_its_place(reader: TextReader):
    found = list(reader.read(TEXT))
    assert "".join(r.token for r in found) == TEXT.replace(" ", "")
    assert all(TEXT[r.start : r.end] == r.token for r in found)
    for r in found:
        assert len(r.concepts) == 3
        sure = [c.confidence for c in r.concepts]
        assert sure == sorted(sure, reverse=True) and 0 <= sum(sure) <= 1 + 1e-9
        assert (r.read is not None) == (sure[0] >= 0.5)


def test_the_reader_abstains_below_the_threshold(reader: TextReader):
    assert all(r.read is None for r in reader.read(TEXT, at_least=1.01))
    assert all(r.read == r.concepts[0].name for r in reader.read(TEXT, at_least=0.0))


def test_a_words_last_token_is_read_as_capture_reads_the_mention(reader: TextReader, tiny_run: Path):
    """Reading and capture give the same vector: same concepts, same order."""
    from encyclo_capture.capture import capture

    text = "Please look at the otter again."
    span = (text.index("otter"), text.index("otter") + 5)
    sample = next(capture(reader.model, [Prompt("x", text, span, "f")], reader.layer_index, "span", 4096))
    tokens = [r for r in reader.read(text) if r.end == span[1]]
    assert len(tokens) == 1 and tokens[0].start > span[0], "the word has several tokens"
    states = reader.model.forward([text], reader.layer_index)[0]
    spans = reader.model.tokens(text)
    place = next(i for i, (a, b) in enumerate(spans) if b == span[1])
    pooled = reading._pooled(states, spans, text, "span")[place]
    error = np.linalg.norm(pooled - sample.activations[0]) / np.linalg.norm(pooled)
    assert error < 0.03
    alone = np.linalg.norm(states[place] - sample.activations[0]) / np.linalg.norm(pooled)
    assert alone > 5 * error, "one token of the word is not its mean"


@pytest.mark.parametrize("pooling", ["last", "mean", "mean-all"])
def test_other_poolings_read_as_they_were_trained(reader: TextReader, pooling: str):
    from encyclo_capture.capture import capture

    text = "The otter drank water"
    states, spans = reader.model.forward([text], reader.layer_index)[0], reader.model.tokens(text)
    sample = next(capture(reader.model, [Prompt("x", text, None, "f")], reader.layer_index, pooling, 4096))
    found = reading._pooled(states, spans, text, pooling)[-1]
    assert np.linalg.norm(found - sample.activations[0]) / np.linalg.norm(found) < 0.03


def text_of(words: int) -> str:
    generator = np.random.default_rng(0)
    known = ["the", "animal", "saw", "water", "house,", "nobody", "otter.", "near"]
    return " ".join(generator.choice(known, words))


@pytest.mark.parametrize("text", [text_of(700), "x" * 3000, "one " * 400 + "\n" + "y" * 1500, "é" * 1200])
@pytest.mark.parametrize("size", [1, 77, 10_000])
def test_windows_hold_the_whole_text_once(text: str, size: int):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    found = list(windows(pieces))
    assert "".join(fresh for *_, fresh in found) == text
    for start, context, fresh in found:
        assert text[start : start + len(fresh)] == fresh
        assert text[:start].endswith(context)
        assert 0 < len(fresh) <= FRESH and len(context) <= reading.CONTEXT
    assert found == list(windows([text])), "windows don't depend on how the text arrives"


def test_a_text_longer_than_the_model_takes_is_read_whole(reader: TextReader):
    text = text_of(400)
    assert len(reader.model.tokens(text)) > reader.model.max_tokens
    found = list(reader.read(text))
    assert "".join(r.token for r in found) == text.replace(" ", "")
    assert all(text[r.start : r.end] == r.token for r in found)


def test_a_text_without_blanks_is_read_whole(reader: TextReader):
    text = "ß" * 900
    found = list(reader.read(text))
    assert "".join(dict((r.start, text[r.start : r.end]) for r in found).values()) == text


def test_a_file_reads_like_its_text_in_flat_memory(
    encyclo, tiny_run: Path, tmp_path: Path, reader: TextReader
):
    text = text_of(2500)
    path = tmp_path / "book.txt"
    path.write_text(text, encoding="utf-8-sig")
    result = encyclo("read", tiny_run, "--file", path, "--device", "cpu", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [t["token"] for t in found["tokens"]] == [r.token for r in reader.read(text)]
    assert found["calibrated"] is True and found["at_least"] == 0.5

    def peak(words: int) -> int:
        path.write_text(text_of(words))
        # A collection empties Python's lists of free objects: 0.2 MB to be allocated again. So each begins with one.
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in reader.read(read_pieces(path)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()

    small = peak(1500)
    assert peak(6000) < 1.25 * small


def test_a_person_sees_a_table(encyclo, tiny_run: Path):
    lines = encyclo("read", tiny_run, TEXT, "--device", "cpu").stdout.splitlines()
    assert lines[0].split() == ["Token", "Read", "as", "n", "Likeliest"]
    assert len(lines) > 10 and any("%" in line for line in lines)


def test_json_is_one_object(encyclo, tiny_run: Path):
    found = json.loads(encyclo("read", tiny_run, TEXT, "--top", "2", "--device", "cpu", "--json").stdout)
    first = found["tokens"][0]
    assert first.keys() == {"token", "start", "end", "concepts", "familiarity", "read"}
    assert len(first["concepts"]) == 2 and first["concepts"][0].keys() == {"id", "name", "confidence"}


def test_a_run_that_could_not_calibrate_abstains(encyclo, copied: Path):
    (copied / "calibration.json").unlink()
    seal_as_it_is(copied)
    found = json.loads(encyclo("read", copied, "The animal", "--device", "cpu", "--json").stdout)
    assert found["calibrated"] is False
    assert all(t["read"] is None and t["concepts"][0]["confidence"] is None for t in found["tokens"])
    assert "not measured" in encyclo("read", copied, "The animal", "--device", "cpu").stdout


def test_unfamiliar_activations_have_less_confidence_than_known_ones(reader: TextReader, tiny_run: Path):
    calibrator = reader.calibrator
    known_to = calibrator.distribution
    with open_run(tiny_run) as book:
        known = book.samples("animal").values()
    from encyclo.statistics.confidence import best_scores

    def sure(values: np.ndarray) -> float:
        top, _ = best_scores(reader.interpreter.read(values.astype(np.float32)))
        return float(np.median(calibrator.confidences(top, known_to.distance(values))[:, 0]))

    generator = np.random.default_rng(0)
    noise = known_to.mean + known_to.std * generator.standard_normal((200, *known_to.mean.shape))
    assert sure(known * 30) == 0
    assert sure(noise) < 0.5 * sure(known)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("layers", [0, 1], ("[0, 1]", "[1, -2, -1]")),
        ("pooling", "last", ("last", "span")),
        ("weights_sha256", "f" * 64, ("ffffffffffff", "model")),
    ],
)
def test_an_interpreter_for_something_else_refuses_saying_both(encyclo, copied: Path, key, value, says):
    config = copied / "interpreter" / "config.json"
    content = json.loads(config.read_text())
    content["trained_on"][key] = value
    config.write_text(json.dumps(content))
    sums = json.loads((copied / "interpreter" / "sha256.json").read_text())
    sums["config.json"] = files.sha256_of(config)
    (copied / "interpreter" / "sha256.json").write_text(json.dumps(sums))
    seal_as_it_is(copied)
    result = encyclo("read", copied, "The animal", "--device", "cpu")
    assert result.returncode == 2
    assert all(word in one_sentence(result.stderr) for word in says)


def test_another_model_is_refused(encyclo, tiny_run: Path, tmp_path: Path):
    other = tiny_models.write_model(tmp_path / "other", "llama")
    result = encyclo("read", tiny_run, "The animal", "--model", other, "--device", "cpu")
    assert result.returncode == 2 and str(other) in one_sentence(result.stderr)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_interpreter_is_refused(encyclo, copied: Path, name: str):
    path = copied / "interpreter" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    result = encyclo("read", copied, "The animal", "--device", "cpu")
    assert result.returncode == 1 and name in one_sentence(result.stderr)


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_text_is_refused(encyclo, tiny_run: Path, tmp_path: Path, text: str):
    for arguments in ([text], ["--file", tmp_path / "empty.txt"]):
        (tmp_path / "empty.txt").write_text(text)
        result = encyclo("read", tiny_run, *arguments, "--device", "cpu")
        assert result.returncode == 2 and "nothing to read" in one_sentence(result.stderr)


@pytest.mark.parametrize(
    ("data", "says"), [(b"\x7fELF\0\0\0", "NUL"), (b"caf\xe9 au lait", "UTF-8"), (b"ab\xc3", "UTF-8")]
)
def test_a_file_that_is_no_text_is_refused(encyclo, tiny_run: Path, tmp_path: Path, data: bytes, says: str):
    (tmp_path / "file").write_bytes(data)
    result = encyclo("read", tiny_run, "--file", tmp_path / "file", "--device", "cpu")
    assert result.returncode == 2 and says in one_sentence(result.stderr)


def test_a_file_that_is_not_there_and_two_texts_or_none(encyclo, tiny_run: Path, tmp_path: Path):
    missing = tmp_path / "missing.txt"
    assert str(missing) in one_sentence(
        encyclo("read", tiny_run, "--file", missing, "--device", "cpu").stderr
    )
    for arguments in (["The animal", "--file", missing], []):
        assert "one of the two" in one_sentence(encyclo("read", tiny_run, *arguments).stderr)


def test_pieces_join_characters_that_a_chunk_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "CHUNK", 3)
    (tmp_path / "t").write_text("aéßж漢𝒳 end", encoding="utf-8")
    assert "".join(read_pieces(tmp_path / "t")) == "aéßж漢𝒳 end"
    with pytest.raises(UsageError, match="can't be read"):
        list(read_pieces(tmp_path))
