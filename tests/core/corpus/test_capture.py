"""`encyclo capture` stores what the plain forward pass gives, token by token, and says what it can't do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encyclo
from encyclo import half_precision
from encyclo.cli import run_command
from encyclo.corpus import capture as capture_module
from encyclo.corpus.text_capture import TextCapture
from encyclo.errors import EncycloError
from encyclo.maintenance.verify import verify
from tests.commands import one_sentence
from tests.plain_forward import PlainModel, relative_error
from tests.tiny_models import build_tokenizer, write_model

SENTENCE = "the old river café is small and nobody in the city had ever seen such a dog near the water "
TEXTS = [SENTENCE * 4, "A dog.", "naïve café 犬 🐕 end", SENTENCE[:40], "<bos>the dog"]
LAYERS = (0, 2, -1)
FLAGS = ["--device", "cpu", "--layers", "0,2,-1", "-o", "transformers.dtype=float32"]


def write_texts(folder: Path, texts: list[str] = TEXTS) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def go(*arguments: str | Path) -> int:
    given = [*map(str, arguments)]
    flags = FLAGS if "--layers" not in given else [*FLAGS[:2], *FLAGS[4:]]
    return run_command(["capture", *given, *flags])


@pytest.fixture(scope="module", params=["gemma3", "gpt2", "qwen3", "bert"])
def model(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / request.param, request.param)


def expected(
    plain: PlainModel, text: str, context: int | None = None, stride: int | None = None
) -> tuple[list[int], list[tuple[int, int]], Any]:
    """A text's own tokens, their characters, and their states [tokens, L, H] by plain passes over its windows."""
    import torch

    ids, ranges = plain.encoded(text)
    own = [place for place, (start, end) in enumerate(ranges) if end > start]
    before, after = ids[: own[0]], ids[own[-1] + 1 :]
    tokens = [ids[place] for place in own]
    room = (context or 10_000) - len(before) - len(after)
    found: list[Any] = []
    for place in range(len(tokens)):
        start = 0
        while place >= start + room:  # the first window that holds the token
            start += stride or room
        window = [*before, *tokens[start : start + room], *after]
        with torch.no_grad():
            states = plain.network(torch.tensor([window]), output_hidden_states=True).hidden_states
        found.append(np.stack([states[layer][0, len(before) + place - start].double() for layer in LAYERS]))
    return tokens, [ranges[place] for place in own], np.stack(found)


@pytest.mark.parametrize(
    ("store", "windows"), [("hdf5", (None, None)), ("zarr", (24, 9)), ("hdf5", (16, None))]
)
def test_every_token_is_the_plain_pass_s(model: Path, tmp_path: Path, store: str, windows: Any):
    context, stride = windows
    flags = (
        ["--context", context, "--stride", stride] if stride else ["--context", context] if context else []
    )
    out = tmp_path / "out"
    assert go(write_texts(tmp_path), "--out", out, "--model", model, "--store", store, *flags) == 0
    plain = PlainModel(model)
    with encyclo.open(out) as capture:
        assert isinstance(capture, TextCapture) and capture.finished
        [part] = capture.parts()
        assert part.content == TEXTS and part.line.tolist() == [1, 2, 3, 4, 5]
        for number, text in enumerate(TEXTS):
            tokens, ranges, states = expected(plain, text, context, stride)
            mine = part.text == number
            assert part.token[mine].tolist() == tokens
            assert part.position[mine].tolist() == list(range(len(tokens)))
            assert part.span[mine].tolist() == [list(found) for found in ranges]
            # Half precision adds at most 2**-11 to what was computed.
            assert relative_error(part.values()[mine], states).max() < 1e-5 + 2**-11
    assert not verify(out).findings


def test_a_site_s_vectors_add_up_to_the_residual_stream(tmp_path: Path):
    model, values = write_model(tmp_path / "model"), {}
    for site, layers in (("resid", "1,2"), ("attn", "2"), ("mlp", "2")):
        out = tmp_path / site
        assert (
            go(write_texts(tmp_path), "--out", out, "--model", model, "--site", site, "--layers", layers) == 0
        )
        with encyclo.open(out) as capture:
            assert isinstance(capture, TextCapture)
            values[site] = np.concatenate([part.values() for part in capture.parts()])
        assert json.loads((out / "capture.json").read_text())["config"]["site"] == site
    before, after = values["resid"].transpose(1, 0, 2)
    # Three vectors were rounded to half precision.
    added = values["attn"][:, 0] + values["mlp"][:, 0]
    assert relative_error(before + added, after).max() < 3 * 2**-11
    assert relative_error(before, after).min() > 0.01


def test_what_is_computed_is_the_plain_pass_s_to_1e_5(model: Path, tmp_path: Path):
    """Before half precision: padded windows of all lengths, in batches, against one plain pass a window."""
    from encyclo.windows import TokenWindow
    from encyclo_capture.model import TransformersModel

    handle, plain = TransformersModel(str(model), "cpu", "float32"), PlainModel(model)
    windows, states = [], []
    for text in TEXTS:
        found = handle.split_text(text)
        ids = (*found.before, *found.ids.tolist(), *found.after)
        kept = tuple(range(len(found.before), len(ids) - len(found.after)))
        windows.append(TokenWindow(ids, kept))
        states.append(plain.states(text)[list(LAYERS)][:, list(kept)].transpose(1, 0, 2))
    wanted = np.concatenate(states)
    depth = handle.depth
    for size in (1, 64, 10_000):
        handle.batch_tokens = size
        ours = np.full(wanted.shape, np.nan)
        for batch in handle.read_windows(windows, [0, 2, depth]):
            assert np.isnan(ours[batch.positions]).all()
            ours[batch.positions] = batch.activations
        assert relative_error(ours, wanted).max() < 1e-5
    assert handle.check_windows(windows, [0, 2, depth])["windows"] < 1e-5


def test_the_stored_halves_are_those_of_the_computed_values(tiny_gemma: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert go(write_texts(tmp_path, TEXTS[:1]), "--out", out, "--model", tiny_gemma) == 0
    from encyclo.windows import TokenWindow
    from encyclo_capture.model import TransformersModel

    handle = TransformersModel(str(tiny_gemma), "cpu", "float32")
    found = handle.split_text(TEXTS[0])
    ids = (*found.before, *found.ids.tolist())
    [batch] = handle.read_windows([TokenWindow(ids, tuple(range(1, len(ids))))], [0, 2, handle.depth])
    halves, scale = half_precision.encode(batch.activations)
    with encyclo.open(out) as capture:
        [part] = capture.parts()
        assert np.array_equal(part.activations, halves) and np.array_equal(part.scale, scale)


@pytest.mark.parametrize("tokens", ["last", "3", "spans"])
def test_some_tokens_only(tiny_gemma: Path, tmp_path: Path, tokens: str):
    texts = TEXTS[:2]
    spans = [[[4, 13], [8, 9]], [[2, 5]]]
    path = tmp_path / "texts.jsonl"
    path.write_text(
        "".join(json.dumps({"text": t, "places": s}) + "\n" for t, s in zip(texts, spans, strict=True))
    )
    flags = ["--context", "30", "--stride", "10", "--tokens"]
    assert go(path, "--out", tmp_path / "all", "--model", tiny_gemma, *flags, "all") == 0
    assert (
        go(path, "--out", tmp_path / "some", "--model", tiny_gemma, *flags, tokens, "--spans-field", "places")
        == 0
    )
    with encyclo.open(tmp_path / "all") as whole, encyclo.open(tmp_path / "some") as some:
        [all_tokens], [part] = whole.parts(), some.parts()
        wanted = []
        for row, (text, position, span) in enumerate(
            zip(all_tokens.text, all_tokens.position, all_tokens.span.tolist(), strict=True)
        ):
            count = int((all_tokens.text == text).sum())
            chosen = {
                "last": position == count - 1,
                "3": position % 3 == 2,
                "spans": any(span[0] < end and span[1] > start for start, end in spans[text]),
            }
            if chosen[tokens]:
                wanted.append(row)
        assert 0 < len(wanted) < len(whole) == len(all_tokens)
        assert np.array_equal(part.token, all_tokens.token[wanted])
        assert np.array_equal(part.position, all_tokens.position[wanted])
        assert relative_error(part.values(), all_tokens.values()[wanted]).max() < 1e-3
        # Of a text, only the characters of windows with kept tokens.
        assert part.content[-1] == texts[-1] and part.content[0] in texts[0]
        start = part.start[0]
        assert part.content[0] == texts[0][start : start + len(part.content[0])]


def test_plan_estimates_and_writes_nothing(tiny_gemma: Path, tmp_path: Path, capsys):
    path, out = write_texts(tmp_path), tmp_path / "out"
    assert go(path, "--out", out, "--model", tiny_gemma, "--plan", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert go(path, "--out", out, "--model", tiny_gemma, "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert (planned["texts"], planned["kept"]) == (done["texts"], done["tokens"]) and not planned[
        "extrapolated"
    ]
    assert planned["seconds"] > 0
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert planned["disk_bytes"] < size < planned["disk_bytes"] + 40 * done["tokens"] + 30_000
    assert go(path, "--model", tiny_gemma, "--plan") == 0
    assert "Tokens    " in capsys.readouterr().out


def test_a_plan_subtracts_what_is_stored(
    capture_of_texts: Path, tiny_gemma: Path, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.setattr("encyclo.corpus.blocks.MOST_TOKENS", 60)
    out = shutil.copytree(capture_of_texts, tmp_path / "out")
    path = json.loads((out / "capture.json").read_text())["config"]["files"][0][0]
    flags = ["--model", tiny_gemma, "--context", "30", "--plan"]

    def planned(folder: Path) -> Any:
        assert go(path, "--out", folder, *flags, "--json") == 0
        return json.loads(capsys.readouterr().out)

    new, done = planned(tmp_path / "new"), planned(out)
    assert new["stored"] == 0 and new["seconds"] > 0
    same = ("texts", "tokens", "kept")
    assert [done[key] for key in same] == [new[key] for key in same]
    assert (done["stored"], done["seconds"], done["disk_bytes"]) == (new["kept"], 0, 0)
    assert go(path, "--out", out, *flags) == 0
    assert f"Stored    {new['kept']:,} tokens in {out}: all of them" in capsys.readouterr().out

    (out / "manifest.json").unlink()  # as if it had been killed
    first, *rest = sorted((out / "commits").iterdir())
    stored = json.loads(first.read_text())
    for commit in rest:
        commit.unlink()
    before = sorted(out.rglob("*"))
    half = planned(out)
    assert [half[key] for key in same] == [new[key] for key in same]
    assert half["stored"] == stored["rows"] < new["kept"]
    left = 1 - stored["tokens"] / new["tokens"]
    assert half["disk_bytes"] == pytest.approx(new["disk_bytes"] * left, abs=1)
    assert half["seconds"] == pytest.approx(new["tokens"] * left / half["tokens_per_second"])
    assert go(path, "--out", out, *flags) == 0
    assert (
        f"Stored    {stored['rows']:,} tokens in {out}; time and disk are those of the rest"
        in capsys.readouterr().out
    )
    assert sorted(out.rglob("*")) == before
    assert go(path, "--out", out, *flags, "--tokens", "last") == 2
    assert "holds a capture with another configuration" in one_sentence(capsys.readouterr().err)


def test_progress_counts_windows_and_tokens_to_the_end(tiny_gemma: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("encyclo.corpus.blocks.MOST_TOKENS", 60)  # two windows are a block
    path, out = write_texts(tmp_path, [SENTENCE * 20]), tmp_path / "out"
    assert go(path, "--out", out, "--model", tiny_gemma, "--context", "30") == 0
    lines = capsys.readouterr().err.splitlines()
    with encyclo.open(out) as capture:
        windows = -(-len(capture) // 29)
    assert windows > 4
    size = f"{path.stat().st_size:,}"
    assert sum(line.startswith(f"Capturing: {size} of {size} ") for line in lines) == 1
    assert re.fullmatch(rf"Capturing: {size} of {size} bytes, {windows} windows, [\d,]+ tokens/s", lines[-1])


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ('{"text": "a"}', ["--field", "body"], "it has no field 'body'"),
        ('{"text": "open}', [], "it is not a JSON object"),
        ('{"text": "a"}', ["--out", "TEXTS"], "holds other files and no capture.json"),
    ],
)
def test_what_needs_no_model_is_checked_before_it_is_looked_for(tmp_path: Path, capsys, text, flags, message):
    path = tmp_path / "texts.jsonl"
    path.write_text(text)
    flags = [str(tmp_path) if flag == "TEXTS" else flag for flag in flags]
    out = [] if "--out" in flags else ["--out", str(tmp_path / "out")]
    assert run_command(["capture", str(path), "--model", str(tmp_path / "no model"), *out, *flags]) == 2
    assert message in one_sentence(capsys.readouterr().err)


def test_a_folder_that_is_neither_a_run_nor_a_capture_can_t_be_opened(tmp_path: Path):
    with pytest.raises(EncycloError, match=r"it has no run\.json and no capture\.json; name the --out of an"):
        encyclo.open(tmp_path / "nope")


def test_a_plan_of_many_texts_is_in_proportion(tiny_gemma: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("encyclo.corpus.estimate.SECONDS", 0.05)
    path = write_texts(tmp_path, ["the dog is here and the cat " + str(i) for i in range(3000)])
    assert go(path, "--model", tiny_gemma, "--plan", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["extrapolated"] and planned["texts"] == pytest.approx(3000, rel=0.2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--context", "300"], "--context can't be 300: the model"),
        (
            ["--context", "20", "--stride", "20"],
            "--stride can't be 20: a window of 20 tokens holds 19 of the text",
        ),
        (["--context", "1"], "--context can't be 1"),
        (["--tokens", "some"], "--tokens can't be 'some': it is all, last, spans, or a whole number n"),
        (["--layers", "2,2"], "--layers"),
        (["--tokens", "spans", "NOTES"], "has no spans for --tokens spans; give JSON Lines or Parquet."),
        (["--layers", "77"], "Layer 77 is outside the model"),
        (["--store", "memory"], "memory"),
        (["-o", "templates.sense=1"], "sets an option of templates, which a capture of texts doesn't use"),
        (["FOLDER"], "is a folder; name the files in it, such as"),
        (["--out", "s3://bucket/capture"], "A capture of texts can't be on an object store"),
    ],
)
def test_flags_that_can_t_be_are_refused_in_a_sentence(
    tiny_gemma: Path, tmp_path: Path, capsys, flags, message
):
    out = [] if "--out" in flags else ["--out", str(tmp_path / "out")]
    (tmp_path / "notes.txt").write_text("a text")
    names = {"NOTES": str(tmp_path / "notes.txt"), "FOLDER": str(tmp_path)}
    flags = [names.get(flag, flag) for flag in flags]
    path = str(write_texts(tmp_path))
    assert run_command(["capture", path, "--model", str(tiny_gemma), *out, *flags]) == 2
    assert message in one_sentence(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_fault_in_the_last_line_is_found_before_anything_is_written(
    tiny_gemma: Path, tmp_path: Path, capsys
):
    path, out = write_texts(tmp_path, [*TEXTS, ""]), tmp_path / "out"
    assert go(path, "--out", out, "--model", tiny_gemma) == 2
    assert f"{path} line 6: its text is empty" in one_sentence(capsys.readouterr().err)
    assert not out.exists()
    assert go(path, "--out", out, "--model", tiny_gemma, "--skip-empty") == 0
    assert "tokens of 5 texts (1 empty ones skipped)" in capsys.readouterr().out


def test_another_configuration_is_refused_and_the_same_does_nothing(tiny_gemma: Path, tmp_path: Path, capsys):
    path, out = write_texts(tmp_path), tmp_path / "out"
    assert go(path, "--out", out, "--model", tiny_gemma) == 0
    before = {file: file.read_bytes() for file in out.rglob("*.json")}
    assert go(path, "--out", out, "--model", tiny_gemma) == 0
    assert before == {file: file.read_bytes() for file in out.rglob("*.json")}
    assert "Captured  0 tokens" in capsys.readouterr().out
    assert go(path, "--out", out, "--model", tiny_gemma, "--tokens", "last") == 2
    assert 'holds a capture with another configuration (tokens: "all" there, "last" now)' in one_sentence(
        capsys.readouterr().err
    )
    path.write_text(path.read_text() + '{"text": "more"}\n')
    assert go(path, "--out", out, "--model", tiny_gemma) == 2
    assert "use the same flags and files to continue it" in one_sentence(capsys.readouterr().err)


def test_the_files_order_belongs_to_the_configuration(tiny_gemma: Path, tmp_path: Path, capsys):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("the dog"), second.write_text("an old river")
    out = tmp_path / "out"
    assert go(first, second, "--out", out, "--model", tiny_gemma) == 0
    (out / "manifest.json").unlink()  # as if it had been interrupted
    assert go(second, first, "--out", out, "--model", tiny_gemma) == 2
    assert "another configuration (files: " in one_sentence(capsys.readouterr().err)


def test_a_capture_without_a_part_takes_another_configuration(tiny_gemma: Path, tmp_path: Path, capsys):
    path, out = write_texts(tmp_path), tmp_path / "out"
    assert go(path, "--out", out, "--model", tiny_gemma, "--tokens", "100000") == 2
    assert "check --tokens and the files" in one_sentence(capsys.readouterr().err)
    assert go(path, "--out", out, "--model", tiny_gemma, "--tokens", "last") == 0
    assert json.loads((out / "capture.json").read_text())["config"]["tokens"] == "last"
    assert json.loads((out / "capture.json").read_text())["provenance"]["model_source"]


def test_a_file_that_changes_meanwhile_is_found_out(tiny_gemma: Path, tmp_path: Path, capsys, monkeypatch):
    path, out = write_texts(tmp_path), tmp_path / "out"
    read_block = capture_module.read_block

    def and_append(*arguments: Any) -> Any:
        path.write_text(path.read_text() + '{"text": "more"}\n')
        return read_block(*arguments)

    monkeypatch.setattr(capture_module, "read_block", and_append)
    assert go(path, "--out", out, "--model", tiny_gemma) == 2
    assert f"{path} was changed while its texts were captured" in one_sentence(capsys.readouterr().err)
    assert not (out / "manifest.json").exists()


def test_a_damaged_record_is_captured_again_by_capture(
    capture_of_texts: Path, tiny_gemma: Path, tmp_path, capsys
):
    out = shutil.copytree(capture_of_texts, tmp_path / "out")
    (out / "manifest.json").unlink()
    sorted((out / "commits").iterdir())[1].write_text("{}")
    with pytest.raises(EncycloError, match="run the same `encyclo capture` command again"):
        encyclo.open(out)
    path = json.loads((out / "capture.json").read_text())["config"]["files"][0][0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encyclo.corpus.blocks.MOST_TOKENS", 60)
        assert go(path, "--out", out, "--model", tiny_gemma, "--context", "30") != 0
    assert "the same `encyclo capture` command" in one_sentence(capsys.readouterr().err)


def test_a_plan_stops_within_no_text(tiny_gemma: Path, tmp_path: Path, monkeypatch, capsys):
    """A small file and a large one: what was read counts with its bytes."""
    monkeypatch.setattr("encyclo.corpus.estimate.SECONDS", 0.0)
    small, large = tmp_path / "small.txt", tmp_path / "large.txt"
    small.write_text("the dog"), large.write_text("the old river " * 3000)
    for files in ((large, small), (small, large)):
        assert go(*files, "--model", tiny_gemma, "--plan", "--json") == 0
        planned = json.loads(capsys.readouterr().out)
        assert planned["extrapolated"] and planned["kept"] == pytest.approx(15_000, rel=0.6)


def test_the_self_test_names_the_figure_that_failed(tiny_gemma: Path, tmp_path: Path, capsys, monkeypatch):
    from encyclo_capture import windows

    monkeypatch.setattr(windows, "allowed_errors", lambda dtype, site: (1.0, 1e-9))
    monkeypatch.setattr(windows, "_within", lambda error, bound, mean_bound: False)
    assert go(write_texts(tmp_path), "--out", tmp_path / "out", "--model", tiny_gemma) == 1
    said = one_sentence(capsys.readouterr().err)
    assert (
        "a token's vector differs on average by" in said and "of its length from a plain forward pass" in said
    )


def test_windows_are_not_trusted_for_transformers_own_attentions_differing(
    tiny_gemma: Path, tmp_path: Path, capsys, monkeypatch
):
    """Its faster attention may be wrong on long texts; eager attention is the truth."""
    from encyclo_capture import windows

    plain_hidden = windows.plain_hidden

    def far_off(model: Any, network: Any, ids: Any, attention: str) -> Any:
        states = plain_hidden(model, network, ids, attention)
        return [1.5 * state for state in states] if attention == windows.EAGER else states

    monkeypatch.setattr(windows, "plain_hidden", far_off)
    assert go(write_texts(tmp_path), "--out", tmp_path / "out", "--model", tiny_gemma) == 1
    assert "The self-test of the windows failed" in one_sentence(capsys.readouterr().err)


def test_positions_that_begin_after_padding_leave_room_for_fewer_tokens(tmp_path: Path):
    import torch
    from transformers import RobertaConfig, RobertaModel

    tokenizer = build_tokenizer(ends=True)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 2, "eos_token_id": 1}
    model = RobertaModel(
        RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=130, **shape, **ids)
    ).eval()
    model(torch.full((1, 129), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 130), 5))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "roberta")
    path, out = write_texts(tmp_path, [SENTENCE * 20]), tmp_path / "out"
    flags = ["--device", "cpu", "--layers", "-1", "-o", "transformers.dtype=float32"]
    given = ["capture", path, "--out", out, "--model", tmp_path / "roberta", *flags]
    assert run_command([*map(str, given)]) == 0
    assert json.loads((out / "capture.json").read_text())["config"]["context"] == 129


@pytest.mark.parametrize(
    "arguments",
    [["show", "DIR", "dog"], ["report", "DIR"], ["read", "DIR", "a text"], ["evaluate", "DIR"], ["converge", "DIR"],
     ["export", "DIR", "--out", "OUT"], ["convert", "DIR", "--store", "zarr", "--out", "OUT"],
     ["run", "--out", "DIR"], ["plan", "--out", "DIR"]],
)  # fmt: skip
def test_other_commands_say_what_it_is(capture_of_texts: Path, tmp_path: Path, capsys, arguments: list[str]):
    named = [
        str(capture_of_texts) if a == "DIR" else str(tmp_path / "o") if a == "OUT" else a for a in arguments
    ]
    assert run_command(named) == 2
    message = one_sentence(capsys.readouterr().err)
    assert message.startswith(
        f"{capture_of_texts} is a capture of texts by `encyclo capture`, not an encyclopedia;"
    )


def test_a_run_is_no_place_for_a_capture(tiny_run: Path, tiny_gemma: Path, tmp_path: Path, capsys):
    assert go(write_texts(tmp_path), "--out", tiny_run, "--model", tiny_gemma) == 2
    assert "is the run of an encyclopedia; choose another --out" in one_sentence(capsys.readouterr().err)


@pytest.fixture(scope="module")
def capture_of_texts(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encyclo.corpus.blocks.MOST_TOKENS", 60)
        assert go(write_texts(folder), "--out", folder / "out", "--model", tiny_gemma, "--context", "30") == 0
    return folder / "out"


@pytest.mark.parametrize(
    "what", ["capture.json", "manifest.json", "commits", "parts", "activations", "gone", "extra"]
)
def test_verify_names_damage_and_how_to_recover(capture_of_texts: Path, tmp_path: Path, capsys, what: str):
    out = tmp_path / "out"
    shutil.copytree(capture_of_texts, out)
    commit = sorted((out / "commits").iterdir())[1]
    [part] = (out / "parts").glob(f"{commit.stem}*")
    damaged = {"commits": commit, "parts": part, "activations": part, "gone": part}.get(what, out / what)
    if what == "gone":
        part.unlink()
    elif what == "extra":
        (out / "parts" / "stranger.h5").write_bytes(b"")
    else:
        data = bytearray(damaged.read_bytes())
        record = json.loads(commit.read_text())["files"]
        place = next(iter(record.values()))["bulk"][0][0] + 5 if what == "activations" else 30
        data[place] ^= 1
        damaged.write_bytes(bytes(data))
    assert run_command(["verify", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    named = {"commits": f"commits/{commit.name}", "extra": "parts/stranger.h5"}
    assert lines[0].startswith(named.get(what, what if what.endswith("json") else f"part {commit.stem}"))
    if what in ("parts", "activations", "gone"):
        with pytest.raises(
            EncycloError, match=f"delete manifest.json and commits/{commit.stem}.json, and run the same"
        ):
            with encyclo.open(out) as capture:
                list(capture.parts())
        (out / "manifest.json").unlink()
        commit.unlink()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("encyclo.corpus.blocks.MOST_TOKENS", 60)
            config = json.loads((out / "capture.json").read_text())["config"]
            names = [name for name, _ in config["files"]]
            assert go(*names, "--out", out, "--model", config["model"], "--context", "30") == 0
        assert (out / "manifest.json").read_bytes() == (capture_of_texts / "manifest.json").read_bytes()
        assert not verify(out).findings
