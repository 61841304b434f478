"""`--chat`: the model gets each text as a message, and only the text's own tokens are read."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from encyclo.chat import Chat, joined, parse_conversation, pieces_around, placed
from encyclo.config import load_config
from encyclo.errors import RunDirectoryError, UsageError
from encyclo.pipeline.collect import self_test
from encyclo.pipeline.units import recipe
from encyclo.query.encyclopedia import open_run
from encyclo.query.text_reader import TextReader, check_trained_for
from encyclo.runs.directory import check_same, read_record, write_record
from encyclo.types import Prompt
from tests.commands import one_sentence
from tests.core.pipeline.test_run import assert_same_encyclopedia
from tests.core.test_echo import Recording, assert_read_as_captured, opened
from tests.plain_forward import PlainModel, relative_error

# As chat models have them: the BOS and the special tokens are in the template, and a text is stripped.
TEMPLATE = (
    "{{ '<bos>' }}{% for m in messages %}{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('No such role.') }}{% endif %}"
    "{{ '<unk>' + m['role'] + '\n' + m['content'] | trim + '<eos>\n' }}{% endfor %}"
)
SYSTEM = "You are an otter, a user and an assistant."
TEXT = "The otter drank water near the house."
OTTER = (TEXT.index("otter"), TEXT.index("otter") + 5)
PROMPTS = [
    Prompt("animal", TEXT, OTTER, "a"),
    Prompt("animal", "otter", (0, 5), "a"),  # the system prompt has the word too
    Prompt("animal", "user", (0, 4), "a"),  # and the template this one
    Prompt("animal", " It swims and eats fish \n", None, "b"),
]
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  What does an animal eat?"},
    {"role": "assistant", "content": "An animal eats food."},
]
LAYERS = (1, -2, -1)


@pytest.fixture(scope="module")
def chat_model(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(tiny_gemma, tmp_path_factory.mktemp("chat") / "model"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def flags(chat_model: Path) -> list[str]:
    return [
        "--sampler", "templates", "--limit", "30", "--model", str(chat_model), "--layers", "1,-2,-1", "--device", "cpu",
        "-o", "transformers.dtype=float32",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory, flags: list[str]) -> Path:
    """A finished run of 30 concepts with --chat; read it, don't change it."""
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("chat") / "run"
    assert run_command(["run", "--chat", "--chat-system", SYSTEM, "--out", str(out), *flags]) == 0
    return out


@pytest.fixture
def copied(chat_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(chat_run, tmp_path / "copied"))


def rendered(plain: PlainModel, messages: list[dict[str, str]]) -> str:
    return str(plain.tokenizer.apply_chat_template(messages, tokenize=False))


def in_chat(
    plain: PlainModel, text: str, span: tuple[int, int] | None, pooling: str, system: str | None = SYSTEM
):
    """The states of a text's own tokens in the whole conversation, by a plain pass over transformers' own tokens."""
    before = [] if system is None else [{"role": "system", "content": system}]
    messages = [*before, {"role": "user", "content": text}]
    conversation, start = (
        rendered(plain, messages),
        len((rendered(plain, before) if before else "<bos>") + "<unk>user\n"),
    )
    ids = plain.tokenizer(conversation, add_special_tokens=False, return_offsets_mapping=True)
    end = start + len(text.strip())
    assert conversation[start:end] == text.strip() and conversation[end:] == "<eos>\n"
    own = [i for i, (a, b) in enumerate(ids["offset_mapping"]) if max(a, start) < min(b, end)]
    if pooling == "last" or (span is None and pooling == "span"):
        own = own[-1:]
    elif pooling == "span":
        own = [
            i
            for i in own
            if set(range(*ids["offset_mapping"][i])) & set(range(start + span[0], start + span[1]))
        ]
    import torch

    with torch.no_grad():
        states = plain.network(torch.tensor([ids["input_ids"]]), output_hidden_states=True).hidden_states
    return np.stack([states[layer][0, own].double().mean(dim=0).numpy() for layer in LAYERS])


# --- capture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["span", "last", "mean"])
@pytest.mark.parametrize("system", [SYSTEM, None])
def test_a_prompt_is_captured_in_the_conversation_and_nothing_else_is_pooled(
    chat_run: Path, chat_model: Path, pooling: str, system: str | None
):
    run, plain = (
        opened(chat_run, pooling=pooling, chat_system=system, chat_frame=None),
        PlainModel(chat_model),
    )
    found = run.capture(PROMPTS).activations
    wanted = np.stack([in_chat(plain, p.text, p.span, pooling, system) for p in PROMPTS])
    assert relative_error(found, wanted).max() < 1e-5
    alone = np.stack([plain.read(p, LAYERS, pooling) for p in PROMPTS])
    assert relative_error(found, alone)[:, -1].min() > 1e-3
    assert max(self_test(run, PROMPTS[:3])[name] for name in ("layers", "batch", "padding")) < 1e-3


def test_the_conversation_has_one_bos_and_ends_with_the_text(chat_run: Path):
    model = opened(chat_run).session.model
    text, place = Chat("user", SYSTEM).given(model, TEXT)
    assert text.startswith("<bos><unk>system\nYou are") and text[place.start :] == TEXT
    spans = model.tokens(text)
    assert spans[0] == (0, 0) and spans.count((0, 0)) == 1
    assert len(model.forward([text], [1])[0]) == len(spans)


def test_stored_samples_are_the_runs_own_prompts_in_the_conversation(chat_run: Path, chat_model: Path):
    plain = PlainModel(chat_model)
    with open_run(chat_run) as book:
        part = book.samples("animal")
        for row, (text, span) in enumerate(zip(part.prompt, part.span.tolist(), strict=True)):
            assert "<" not in text and text[slice(*span)].lower().startswith("animal")
            assert relative_error(part.values()[row], in_chat(plain, text, tuple(span), "span")).max() < 2e-3


def test_with_echo_the_text_stands_twice_in_the_message(chat_run: Path):
    run = opened(chat_run, echo=True)
    (given, *_), pooling = (found := run.handed(PROMPTS[:1])).__enter__()
    assert given.text.endswith(f"user\n{TEXT}\n{TEXT}") and pooling == "span"
    assert given.text[slice(*given.span)] == "otter" and given.span[1] > len(given.text) - len(TEXT)
    found.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "changes the texts of messages"),
        ("{% for m in messages %}{{ m['content'] * 2 }}{% endfor %}", "does not write each message once"),
        ("nothing of it", "does not write each message once"),
        (
            "{{ raise_exception('Only the user may speak') }}",
            "refuses the messages: TemplateError: Only the user may speak",
        ),
        ("{% for %}", "refuses the messages"),
    ],
)
def test_a_template_in_which_the_text_cannot_be_found_is_refused(
    encyclo, chat_model: Path, flags: list[str], tmp_path: Path, template: str, message: str
):
    folder = Path(shutil.copytree(chat_model, tmp_path / "model"))
    (folder / "chat_template.jinja").write_text(template)
    result = encyclo("run", "--chat", "--out", tmp_path / "run", *flags, "--model", folder)
    assert message in one_sentence(result.stderr) and result.returncode == 2


# --- configuration -----------------------------------------------------------------------------------------------


def test_the_flags_of_chat(tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text('chat = true\nchat_role = "assistant"\n')
    assert load_config({}, file).as_messages == Chat("assistant", None)
    assert load_config({}).as_messages is None
    for flags, reason in (
        (
            {"chat": True, "pooling": "mean-all"},
            r"^--chat can't be True: the pooling mean-all averages the chat",
        ),
        ({"chat_role": "assistant"}, r"^--chat-role can't be 'assistant': it needs --chat\.$"),
        ({"chat_system": "Be brief."}, r"^--chat-system can't be 'Be brief\.': it needs --chat\.$"),
    ):
        with pytest.raises(UsageError, match=reason):
            load_config(flags)


def test_a_model_without_a_chat_template_is_refused_before_anything_is_written(
    encyclo, tiny_flags: list[str], tmp_path: Path
):
    for command in ("run", "plan"):
        result = encyclo(command, "--chat", "--limit", "20", "--out", tmp_path / "run", *tiny_flags)
        assert "has no chat template; use a chat model, or leave --chat out." in one_sentence(result.stderr)
    assert not (tmp_path / "run").exists()


def test_a_role_that_the_template_refuses_is_refused(encyclo, flags: list[str], tmp_path: Path):
    result = encyclo("run", "--chat", "--chat-role", "pirate", "--out", tmp_path / "run", *flags)
    assert "refuses the messages: TemplateError: No such role" in one_sentence(result.stderr)


def test_run_json_records_it_the_same_command_resumes_and_another_is_refused(
    encyclo, copied: Path, chat_run: Path, flags: list[str]
):
    config = json.loads((copied / "run.json").read_text())["config"]
    assert (config["chat"], config["chat_role"], config["chat_system"]) == (True, "user", SYSTEM)
    assert config["chat_frame"] == f"<bos><unk>system\n{SYSTEM}<eos>\n<unk>user\n"
    commit = sorted((copied / "commits").glob("*.json"))[0]
    commit.unlink()
    chat = ("--chat", "--chat-system", SYSTEM)
    for extra, named in (((), "chat: true there, false now"), (("--chat",), "chat_system: ")):
        assert named in one_sentence(encyclo("run", *extra, "--out", copied, *flags).stderr)
    result = encyclo("run", *chat, "--out", copied, *flags)
    assert result.returncode == 0, result.stderr
    assert "each text as a message of the role user (--chat)" in " ".join(result.stdout.split())
    assert_same_encyclopedia(copied, chat_run)


def test_a_run_without_chat_keeps_its_units_and_continues(
    encyclo, chat_run: Path, tmp_path: Path, flags: list[str]
):
    plain = {"chat": False, "chat_system": None}
    with_, without = (opened(chat_run, **changes).session for changes in ({}, plain))
    recipes = [recipe(session, session.stages[0], []) for session in (with_, without)]
    assert recipes[0] == {**recipes[1], "chat": with_.chat_frame} and "chat" not in recipes[1]


def test_a_run_that_records_no_chat_is_one_without(chat_run: Path, tmp_path: Path):
    session = opened(chat_run, chat=False, chat_system=None).session
    older = {key: value for key, value in session.resolved().items() if not key.startswith("chat")}
    write_record(tmp_path, {**read_record(chat_run), "config": older})
    check_same(tmp_path, session.resolved())
    with pytest.raises(RunDirectoryError, match="chat: false there, true now"):
        check_same(tmp_path, opened(chat_run).session.resolved())


def test_another_chat_template_is_refused(chat_run: Path, chat_model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(chat_model, tmp_path / "model"))
    assert opened(chat_run, model=str(folder)).session.config.chat
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("<unk>", "<pad>"))
    with pytest.raises(RunDirectoryError, match="was made with another chat template"):
        opened(chat_run, model=str(folder))
    with open_run(chat_run) as book, pytest.raises(RunDirectoryError, match="another chat template"):
        book.reader("cpu", str(folder))


def test_the_report_the_plan_and_the_export_say_it(encyclo, chat_run: Path, tmp_path: Path, flags: list[str]):
    says = "each text as a message of the role user (--chat)"
    assert f"span, {says}" in (chat_run / "report.html").read_text()
    assert f"tokens, {says})" in encyclo("plan", "--chat", *flags).stdout
    assert encyclo("export", chat_run, "--out", tmp_path / "out", "--no-parquet").returncode == 0
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["chat"].endswith("<unk>user\n")


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.fixture
def reader(chat_run: Path):
    with open_run(chat_run) as book:
        found = book.reader("cpu")
        yield dataclasses.replace(found, interpreter=Recording(found.interpreter))


def test_a_text_is_read_as_its_mentions_are_captured(reader: TextReader, chat_run: Path):
    text = "Please look at the animal again, said the user."
    assert_read_as_captured(reader, opened(chat_run), text, ("animal", "user"))


@pytest.mark.parametrize("text", [" ".join(["otter water the"] * 200), "ß" * 700, "\n The otter\n"])
def test_a_long_text_is_read_whole_in_messages_that_fit(reader: TextReader, text: str):
    found = list(reader.read(text))
    kept = "".join(dict((r.start, text[r.start : r.end]) for r in found).values())
    assert kept == "".join(text.split())


def test_a_conversation_is_read_in_its_place(reader: TextReader, chat_model: Path):
    found = list(reader.read_conversation(CONVERSATION))
    text = joined(CONVERSATION)
    assert "".join(r.token for r in found) == "".join(text.split())  # no role, no special token
    assert all(text[r.start : r.end] == r.token for r in found)
    plain = PlainModel(chat_model)
    conversation = rendered(plain, CONVERSATION)
    ids = plain.tokenizer(conversation, add_special_tokens=False, return_offsets_mapping=True)
    end = conversation.rindex("animal") + len("animal")
    own = [i for i, (a, b) in enumerate(ids["offset_mapping"]) if end - len(" animal") <= a and b <= end]
    import torch

    with torch.no_grad():
        states = plain.network(torch.tensor([ids["input_ids"]]), output_hidden_states=True).hidden_states
    wanted = np.stack([states[layer][0, own].double().mean(dim=0).numpy() for layer in LAYERS])
    last = next(i for i, r in enumerate(found) if r.end == text.rindex("animal") + len("animal"))
    seen = np.concatenate(reader.interpreter.seen)
    assert relative_error(seen[last], wanted).max() < 1e-5


def test_read_takes_a_conversation_as_text_and_as_a_file(encyclo, chat_run: Path, tmp_path: Path):
    file = tmp_path / "talk.json"
    file.write_text(json.dumps(CONVERSATION))
    given = (("read", chat_run, json.dumps(CONVERSATION)), ("read", chat_run, "--file", file))
    found = [json.loads(encyclo(*args, "--chat", "--json").stdout) for args in given]
    assert found[0] == found[1]
    text = joined(CONVERSATION)
    assert [text[m["start"] : m["end"]] for m in found[0]["messages"]] == [m["content"] for m in CONVERSATION]
    assert [m["role"] for m in found[0]["messages"]] == ["system", "user", "assistant"]
    assert (
        encyclo(
            "read", chat_run, json.dumps(CONVERSATION), "--chat", "--html", tmp_path / "a.html"
        ).returncode
        == 0
    )
    assert "animal" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hello", "this is not JSON"),
        ('{"role": "user", "content": "a"}', "is a list of messages"),
        ('[{"role": "user"}]', "is a list of messages"),
        ('[{"role": "user", "content": 7}]', "is a list of messages"),
        ('[{"role": "user", "content": " "}]', "the conversation has no words"),
        ("[]", "the conversation has no words"),
        ("[" * 100_000, "this is not JSON"),
        (json.dumps([{"role": "user", "content": "otter " * 400}]), "takes at most 256; shorten it."),
        ('[{"role": "pirate", "content": "Ahoy"}]', "refuses the messages: TemplateError: No such role"),
    ],
)
def test_what_is_no_conversation_is_refused(encyclo, chat_run: Path, text: str, message: str):
    assert message in one_sentence(encyclo("read", chat_run, text, "--chat").stderr)


def test_a_run_without_chat_reads_no_conversation(encyclo, tiny_run: Path):
    result = encyclo("read", tiny_run, json.dumps(CONVERSATION), "--chat")
    assert "was made without --chat" in one_sentence(result.stderr)


def test_an_interpreter_refuses_texts_given_in_another_way(chat_run: Path, tiny_run: Path):
    with open_run(chat_run) as book:
        about, model = book.book.attributes, book.reader("cpu").model
    given = (model, about.layers, about.pooling, False, about.weights_sha256)
    check_trained_for(chat_run, *given, Chat("user", SYSTEM))
    alone, chatting = r"alone \(without --chat\)", r"as messages of the role user \(--chat"
    with pytest.raises(UsageError, match=rf"for texts given {chatting}, .* and can't read {alone};"):
        check_trained_for(chat_run, *given)
    with pytest.raises(UsageError, match=rf"for texts given {alone} and can't read {chatting}\);"):
        check_trained_for(tiny_run, *given, Chat())
    with pytest.raises(UsageError, match=r"after the system prompt .* after the system prompt 'Another'\);"):
        check_trained_for(chat_run, *given, Chat("user", "Another"))


def test_evaluate_follows_the_run(encyclo, copied: Path):
    result = encyclo("evaluate", copied, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["accuracy"]["unseen"]


def test_places_are_those_of_whole_contents(chat_run: Path):
    model = opened(chat_run).session.model
    read = range(3)
    text, places = placed(model, CONVERSATION, read, pieces_around(model, CONVERSATION, read))
    for message, place in zip(CONVERSATION, places, strict=True):
        content = message["content"]
        assert text[place.start : place.end] == content.strip()
        assert place.of((len(content) - 3, len(content))) == (place.end - 3, place.end)
    assert parse_conversation(json.dumps(CONVERSATION)) == CONVERSATION
