"""The tokenizer of a prepared folder is transformers' own, loaded in a third of its time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from encyclo_capture.loading.tokenizers import PREPARED_RECORD, load_tokenizer
from encyclo_capture.loading.weights import PACKAGED, find_weights

TEXTS = [
    "A river runs.", "  two  blanks\n\nand <bos> in a text", "日本語のテキスト", "naïve café 🙂", "", "a\ttab", "▁under __init__",
    *(Path(__file__).parents[2] / "README.md").read_text().splitlines(),
]  # fmt: skip


def same(ours, theirs) -> None:
    given = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    assert dict(ours(TEXTS, **given)) == dict(theirs(TEXTS, **given))
    ids = ours(TEXTS)["input_ids"]
    for skip in (False, True):
        options = {"skip_special_tokens": skip}
        assert [ours.decode(i, **options) for i in ids] == [theirs.decode(i, **options) for i in ids]
    every = list(range(len(theirs)))
    assert ours.convert_ids_to_tokens(every) == theirs.convert_ids_to_tokens(every)
    for name in ("all_special_ids", "eos_token_id", "unk_token_id", "is_fast"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_a_prepared_folder_has_the_same_tokenizer(tiny_gemma: Path, tmp_path: Path):
    folder = tmp_path / "prepared"
    shutil.copytree(tiny_gemma, folder)
    (folder / PREPARED_RECORD).write_text("{}")
    theirs = AutoTokenizer.from_pretrained(folder)
    theirs.save_pretrained(folder)  # as encyclo prepares it
    same(load_tokenizer(folder), theirs)


def test_a_chat_template_is_still_read(tiny_gemma: Path, tmp_path: Path):
    folder = tmp_path / "prepared"
    shutil.copytree(tiny_gemma, folder)
    (folder / PREPARED_RECORD).write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load_tokenizer(folder).chat_template == "{{ messages[0].content }}"


@pytest.mark.real
def test_the_packaged_model_has_the_same_tokenizer(monkeypatch: pytest.MonkeyPatch):
    folder = find_weights(PACKAGED, None).folder
    theirs = AutoTokenizer.from_pretrained(folder)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", None)  # ours doesn't take transformers' way
    ours = load_tokenizer(folder)
    assert isinstance(ours, PreTrainedTokenizerFast)
    same(ours, theirs)
