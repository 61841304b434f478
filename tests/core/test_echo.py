"""`--echo`: the model gets each text twice, and every state is read in the second copy."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from encyclo.config import load_config
from encyclo.echo import doubled, doubled_prompts, second_copy
from encyclo.errors import CaptureError, UsageError
from encyclo.evaluation.converge import converge
from encyclo.pipeline.collect import ask_sampler, self_test
from encyclo.pipeline.natural_sentences import capture_rung
from encyclo.pipeline.units import recipe
from encyclo.query.encyclopedia import open_run
from encyclo.query.text_reader import FRESH, TextReader, check_trained_for, windows
from encyclo.runs.directory import read_record, write_record
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import reopen_run
from encyclo.runs.session import Stage
from encyclo.terminal import ConsoleProgress
from encyclo.types import Prompt
from tests.commands import one_sentence
from tests.core.pipeline.test_run import assert_same_encyclopedia
from tests.plain_forward import PlainModel, relative_error
from tests.third_party import open_site
from tests.tiny_models import CAUSAL

TEXT = "The otter drank water near the house."
OTTER = (TEXT.index("otter"), TEXT.index("otter") + 5)
PROMPTS = [
    Prompt("animal", TEXT, OTTER, "a"),
    Prompt("animal", "Otters", (0, 6), "a"),
    Prompt("animal", "It swims and eats fish", None, "b"),
]
QUIET = ConsoleProgress(quiet=True)


@pytest.fixture(scope="module")
def flags(tiny_flags: list[str]) -> list[str]:
    return ["--sampler", "templates", "--limit", "40", *tiny_flags, "-o", "transformers.dtype=float32"]


@pytest.fixture(scope="module")
def echo_run(tmp_path_factory: pytest.TempPathFactory, flags: list[str]) -> Path:
    """A finished run of 40 concepts with --echo; read it, don't change it."""
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("echo") / "run"
    assert run_command(["run", "--echo", "--out", str(out), *flags]) == 0
    return out


@pytest.fixture
def copied(echo_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(echo_run, tmp_path / "copied"))


def opened(path: Path, **changes: object) -> OpenRun:
    """The run in `path`, open, with another configuration."""
    record = read_record(path)
    return reopen_run(path, {**record, "config": {**record["config"], **changes}}, QUIET, "cpu")


def plain_echo(model: PlainModel, prompt: Prompt, layers: tuple[int, ...], pooling: str) -> np.ndarray:
    """The states of the doubled text by a plain forward pass, pooled over the second copy."""
    (moved,), pooling = doubled_prompts([prompt], pooling)
    return model.read(moved, layers, pooling)


# --- capture -----------------------------------------------------------------------------------------------------


def test_a_span_is_moved_to_the_second_copy():
    (moved, *_, unnamed), pooling = doubled_prompts(PROMPTS, "span")
    assert pooling == "span" and moved.text == f"{TEXT}\n{TEXT}" == doubled(TEXT)
    assert moved.span == (OTTER[0] + len(TEXT) + 1, OTTER[1] + len(TEXT) + 1)
    assert unnamed.span is None


@pytest.mark.parametrize("text", [TEXT, " a blank first", "blanks last  ", "“Straße”, said 日本", "1 2 3"])
@pytest.mark.parametrize("family", CAUSAL)
def test_the_second_copy_has_the_tokens_of_the_text(tiny_family, family: str, text: str):
    model, _ = tiny_family(family)
    alone = [span for span in model.tokens(text) if span != (0, 0)]
    spans = model.tokens(doubled(text))
    found, states = second_copy(text, spans, np.arange(len(spans), dtype=np.float32)[:, None, None])
    assert found == alone
    assert states.ravel().tolist() == list(range(len(spans) - len(alone), len(spans)))


@pytest.mark.parametrize("pooling", ["span", "last", "mean"])
def test_a_prompt_is_captured_as_its_doubled_text(echo_run: Path, tiny_gemma: Path, pooling: str):
    run = opened(echo_run, pooling=pooling)
    found, plain = run.capture(PROMPTS).activations, PlainModel(tiny_gemma)
    wanted = np.stack([plain_echo(plain, prompt, (1, -2, -1), pooling) for prompt in PROMPTS])
    assert relative_error(found, wanted).max() < 1e-5
    once = np.stack([plain.read(prompt, (1, -2, -1), pooling) for prompt in PROMPTS])
    assert relative_error(found, once)[:, -1].min() > 1e-3
    assert max(self_test(run, PROMPTS)[name] for name in ("layers", "batch", "padding")) < 1e-3


def test_the_mean_is_over_the_second_copy_alone(echo_run: Path, tiny_gemma: Path):
    plain, run = PlainModel(tiny_gemma), opened(echo_run, pooling="mean")
    tokens = len(plain.ids(TEXT)) - 1  # without <bos>
    wanted = plain.states(doubled(TEXT))[[1, -2, -1], -tokens:].mean(axis=1)
    assert relative_error(run.capture(PROMPTS[:1]).activations[0], wanted).max() < 1e-5


def test_stored_samples_are_the_runs_own_prompts_in_the_second_copy(echo_run: Path, tiny_gemma: Path):
    plain = PlainModel(tiny_gemma)
    with open_run(echo_run) as book:
        part = book.samples("animal")
        for row, (text, span) in enumerate(zip(part.prompt, part.span.tolist(), strict=True)):
            assert "\n" not in text and text[slice(*span)].lower().startswith("animal")
            wanted = plain_echo(plain, Prompt("animal", text, tuple(span), "f"), (1, -2, -1), "span")
            assert relative_error(part.values()[row], wanted).max() < 2e-3  # half precision


def test_a_rung_is_captured_twice_too(echo_run: Path, tiny_gemma: Path):
    found = capture_rung(opened(echo_run), PROMPTS, "sentences").read(np.arange(len(PROMPTS)))
    plain = PlainModel(tiny_gemma)
    wanted = np.stack([plain_echo(plain, prompt, (1, -2, -1), "span") for prompt in PROMPTS])
    assert relative_error(found, wanted).max() < 2e-3


def test_a_sampler_captures_as_the_run_does(echo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = """
    import numpy as np
    from encyclo import hookimpl
    from encyclo.types import Prompt

    STAGE = 2

    @hookimpl
    def sample_prompts(concepts, context):
        context.folder.mkdir(parents=True)
        prompt = Prompt(concepts[0].id, "An animal sleeps.", (3, 9), "f")
        np.save(context.folder / "seen.npy", context.capture([prompt]))
        assert context.echo
        yield prompt
    """
    with open_site(tmp_path / "site", monkeypatch) as site:
        site.install("peeking", code)
        run = opened(echo_run, sampler=["templates", "peeking"])
        run = dataclasses.replace(run, directory=dataclasses.replace(run.directory, path=tmp_path / "run"))
        prompts = list(ask_sampler(run, run.session.trainable[:1], Stage(2, "peeking", usual=10)))
        seen = np.load(tmp_path / "run" / "plugins" / "peeking" / "seen.npy")
        assert np.array_equal(seen, run.capture(prompts).activations)


def test_a_text_that_is_too_long_twice_is_refused_saying_so(echo_run: Path):
    run = opened(echo_run)
    text = " ".join(["water"] * (run.session.model.max_tokens * 2 // 3))
    once = opened(echo_run, echo=False)
    assert once.capture([Prompt("animal", text, None, "f")]).activations.shape == (1, 3, 32)
    with pytest.raises(
        CaptureError, match=r"takes at most 256; shorten it; with --echo .* each text twice\.$"
    ):
        run.capture([Prompt("animal", text, None, "f")])


# --- the configuration -------------------------------------------------------------------------------------------


def test_the_configuration_refuses_what_reads_the_first_copy(tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text("echo = true\n")
    assert load_config({}, file).echo and load_config({"echo": True, "pooling": "mean"}).echo
    assert not load_config({}).echo
    with pytest.raises(
        UsageError, match=r"^--echo can't be True: the pooling mean-all averages the first copy"
    ):
        load_config({"pooling": "mean-all"}, file)


def test_units_with_and_without_echo_differ_and_those_without_keep_their_ids(echo_run: Path):
    with_, without = (opened(echo_run, echo=echo).session for echo in (True, False))
    recipes = [recipe(session, session.stages[0], ()) for session in (with_, without)]
    assert recipes[0] == {**recipes[1], "echo": True} and "echo" not in recipes[1]


def test_the_same_command_resumes_and_one_without_echo_is_refused(
    encyclo, copied: Path, echo_run: Path, flags: list[str]
):
    shutil.rmtree(copied / "rounds")
    for name in ("metrics.json", "encyclopedia.h5", "seal.json"):
        (copied / name).unlink()
    for path in (copied / "commits").glob("*.json"):
        path.unlink()
    for extra in ((), ("--echo", "--pooling", "last")):
        refused = encyclo("run", *extra, "--out", copied, *flags)
        assert refused.returncode == 2
        named = "pooling:" if extra else "echo: true there, false now"
        assert named in one_sentence(refused.stderr)
    result = encyclo("run", "--echo", "--out", copied, *flags)
    assert result.returncode == 0, result.stderr
    assert "each text twice (--echo)" in result.stdout
    assert_same_encyclopedia(copied, echo_run)


def test_an_older_run_that_records_no_echo_goes_on_without(
    encyclo, tiny_run: Path, tmp_path: Path, tiny_flags
):
    out = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (out / "metrics.json").unlink()
    (out / "seal.json").unlink()
    record = read_record(out)
    del record["config"]["echo"]
    write_record(out, record)
    flags = ["--sampler", "templates", "--limit", "40", "--out", out, *tiny_flags]
    assert "echo: false there, true now" in one_sentence(encyclo("run", "--echo", *flags).stderr)
    assert encyclo("run", *flags).returncode == 0


def test_plan_says_that_texts_are_given_twice(encyclo, flags: list[str]):
    once, twice = (
        json.loads(encyclo("plan", "--json", *extra, *flags).stdout) for extra in ((), ("--echo",))
    )
    assert twice["prompts"] == once["prompts"] and 1.9 < twice["tokens"] / once["tokens"] < 2.2
    assert "tokens, each text twice (--echo))" in encyclo("plan", "--echo", *flags).stdout


def test_the_report_and_the_export_say_it(encyclo, echo_run: Path, tmp_path: Path):
    assert "span, each text twice (--echo)" in (echo_run / "report.html").read_text()
    assert encyclo("export", echo_run, "--out", tmp_path / "out", "--no-parquet").returncode == 0
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["echo"] is True


# --- reading -----------------------------------------------------------------------------------------------------


class Recording:
    """The run's interpreter; keeps what it reads."""

    def __init__(self, inner) -> None:
        self.inner, self.concepts, self.seen = inner, inner.concepts, []

    def read(self, activations: np.ndarray) -> np.ndarray:
        self.seen.append(activations)
        return self.inner.read(activations)


class Counting:
    """The run's model; keeps the number of tokens of each text that it computes."""

    def __init__(self, inner) -> None:
        self.inner, self.max_tokens, self.counts = inner, inner.max_tokens, []
        self.tokens = inner.tokens

    def forward(self, texts, layers):
        self.counts += [len(self.tokens(text)) for text in texts]
        return self.inner.forward(texts, layers)


@pytest.fixture
def reader(echo_run: Path):
    with open_run(echo_run) as book:
        found = book.reader("cpu")
        yield dataclasses.replace(found, interpreter=Recording(found.interpreter))


def test_a_word_is_read_as_its_mention_is_captured_with_echo(reader: TextReader, echo_run: Path):
    text = "Please look at the animal again, said the otter."
    assert_read_as_captured(reader, opened(echo_run), text, ("animal", "otter"))


def assert_read_as_captured(reader: TextReader, run: OpenRun, text: str, words: tuple[str, ...]) -> None:
    """Check that the reader, which records, reads each token once, and words as mentions are captured."""
    found = list(reader.read(text))
    assert "".join(r.token for r in found) == text.replace(" ", "")
    assert all(text[r.start : r.end] == r.token for r in found)
    for word in words:
        span = (text.index(word), text.index(word) + len(word))
        place = next(i for i, r in enumerate(found) if r.end == span[1])
        sample = run.capture([Prompt("animal", text, span, "f")]).activations[0]
        assert relative_error(reader.interpreter.seen[0][place], sample).max() < 1e-5


def test_a_state_has_seen_what_follows(reader: TextReader):
    for text in ("The otter drank water", "The otter sold houses"):
        list(reader.read(text))
    first, second = (seen[: -len("s")] for seen in reader.interpreter.seen)
    assert relative_error(first[0], second[0]).max() > 1e-3


@pytest.mark.parametrize(
    "text", ["\nThe otter drank\n\nwater.\n", " ".join(["otter water the"] * 200), "ß" * 700]
)
def test_a_long_text_is_read_whole_in_windows_that_fit_twice(reader: TextReader, text: str):
    model = Counting(reader.model)
    found = list(dataclasses.replace(reader, model=model).read(text))
    assert max(model.counts) <= model.max_tokens and (len(model.counts) > 3 or len(text) < 30)
    kept = "".join(dict((r.start, text[r.start : r.end]) for r in found).values())
    assert kept == "".join(text.split())
    assert all(text[r.start : r.end] == r.token for r in found)


def test_windows_end_with_sentences():
    text = "".join(f"The animal {number} drank water (it was cold.) " for number in range(100))
    found = list(windows([text[:700], text[700:]], sentences=True))
    assert "".join(fresh for *_, fresh in found) == text and len(found) > 4
    assert all(fresh.endswith("cold.) ") and len(fresh) <= FRESH for *_, fresh in found)
    assert list(windows(["x" * 3000], sentences=True)) == list(windows(["x" * 3000]))


def test_other_poolings_read_the_second_copy(reader: TextReader, echo_run: Path):
    text = "The otter drank water"
    for pooling in ("last", "mean"):
        list(dataclasses.replace(reader, pooling=pooling).read(text))
        sample = opened(echo_run, pooling=pooling).capture([Prompt("animal", text, None, "f")]).activations[0]
        assert relative_error(reader.interpreter.seen[-1][-1], sample).max() < 1e-5


def test_an_interpreter_refuses_texts_given_in_another_way(echo_run: Path, tiny_run: Path):
    with open_run(echo_run) as book:
        about, model = book.book.attributes, book.reader("cpu").model
        trained = json.loads((echo_run / "interpreter" / "config.json").read_text())["trained_on"]
        assert book.echo and trained["echo"] is True
    given = (about.layers, about.pooling)
    check_trained_for(echo_run, model, *given, True, about.weights_sha256)
    with pytest.raises(UsageError, match=r"trained for texts given twice \(--echo\) and can't read once"):
        check_trained_for(echo_run, model, *given, False, about.weights_sha256)
    with pytest.raises(UsageError, match=r"trained for texts given once and can't read twice \(--echo\)"):
        check_trained_for(tiny_run, model, *given, True, about.weights_sha256)


# --- figures -----------------------------------------------------------------------------------------------------


def test_evaluate_measures_a_run_with_echo(encyclo, copied: Path):
    result = encyclo("evaluate", copied, "--json")
    assert result.returncode == 0, result.stderr
    rungs = json.loads((copied / "metrics.json").read_text())["accuracy"]
    assert rungs["heldout_prompts"]["transformer"]["top1"] > 0.5 and rungs["unseen"] and rungs["described"]


def test_the_older_protocol_gives_each_text_once(echo_run: Path, tmp_path: Path, encyclo, flags: list[str]):
    once = tmp_path / "once"
    assert encyclo("run", "--out", once, *flags).returncode == 0
    both = [
        converge(path, QUIET, "cpu", older=True).older
        for path in (shutil.copytree(echo_run, tmp_path / "a"), once)
    ]
    assert both[0] and both[1] and both[0].figures == both[1].figures
    assert both[0].here != both[1].here
