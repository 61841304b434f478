"""Texts are read one after another; what is no text is refused with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encyclo.corpus import text_files
from encyclo.corpus.settings import CaptureSettings, parse_tokens
from encyclo.corpus.text_files import check_beginnings, check_text, read_texts
from encyclo.errors import EncycloError, UsageError


def read(path: Path, **more: Any) -> list[tuple[int, str]]:
    settings = CaptureSettings(files=(path,), **more)
    found = list(read_texts(path, settings))
    for source in found:
        check_text(source, settings.skip_empty)
    return [(source.line, source.text) for source in found]


def written(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_a_text_file_is_one_text_or_a_text_a_line(tmp_path: Path):
    path = written(tmp_path, "a.txt", "\ufeffone\n\n  two \r\nthree")
    assert read(path) == [(1, "one\n\n  two \r\nthree")]
    assert read(path, lines=True) == [(1, "one"), (3, "  two "), (4, "three")]


def test_json_lines_have_their_text_in_a_field(tmp_path: Path):
    path = written(tmp_path, "a.jsonl", '{"text": "one", "id": 3}\n\n{"text": "t\\u00fcwo"}\n')
    assert read(path) == [(1, "one"), (3, "tüwo")]
    other = written(tmp_path, "b.ndjson", '{"body": "one"}')
    assert read(other, field="body") == [(1, "one")]


def test_parquet_is_read_in_batches_of_rows(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    texts = [f"text {number}" for number in range(1000)]
    spans = [[[0, 4]] for _ in texts]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "spans": spans}), path, row_group_size=300)
    assert read(path) == list(enumerate(texts, 1))
    settings = CaptureSettings(files=(path,), tokens="spans")
    counted: list[int] = []
    assert [s.spans for s in read_texts(path, settings, counted.append)] == [((0, 4),)] * 1000
    assert sum(counted) == path.stat().st_size
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", None]}), path)
    with pytest.raises(UsageError, match=r"a\.parquet row 2: it has no field 'text'"):
        read(path)
    with pytest.raises(
        UsageError, match=r"has no column 'body'; its columns are text: name one with --field\.$"
    ):
        read(path, field="body")
    written(tmp_path, "a.parquet", path.read_bytes()[:60])
    with pytest.raises(UsageError, match="can't be read as Parquet"):
        read(path)


@pytest.mark.parametrize(
    ("name", "data", "more", "message"),
    [
        ("a.txt", " \n", {}, "a.txt line 1: its text is empty; remove it, or skip such texts with --skip-empty."),
        ("a.txt", b"one\ntw\xff", {}, "a.txt line 2: it is not in UTF-8; save the file as UTF-8."),
        ("a.txt", b"one\ntw\xff", {"lines": True}, "a.txt line 2: it is not in UTF-8; save the file as UTF-8."),
        ("a.txt", "a\0b", {}, "a.txt line 1: its text has the character U+0000, which can't be stored; remove it."),
        ("a.jsonl", '{"text": "a"}\n{"text": ""}', {}, "a.jsonl line 2: its text is empty; remove it, or skip"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"', {},
         "a.jsonl line 2: it is not a JSON object: Expecting ',' delimiter at character 13; correct this line."),
        ("a.jsonl", '{"text": "open}', {},
         "a.jsonl line 1: it is not a JSON object: Unterminated string starting at character 10; correct this line."),
        ("a.jsonl", "[1]", {}, 'a.jsonl line 1: it is not a JSON object, such as {"text": "a text"}.'),
        ("a.jsonl", "[" * 9_999, {}, "a.jsonl line 1: it is not a JSON object: "),
        ("a.jsonl", '{"a": "b"}', {}, "a.jsonl line 1: it has no field 'text'; name the text's field with --field."),
        ("a.jsonl", '{"text": 3}', {}, "a.jsonl line 1: it has a number in its field 'text'; name the text's field"),
        ("a.jsonl", '{"text": ["a"]}', {}, "a.jsonl line 1: it has a list in its field 'text'; name the text's field"),
        ("a.jsonl", '{"text": "a", "text": "b"}', {}, "a.jsonl line 1: it is not a JSON object: it has the key"),
        ("a.jsonl", b'{"text": "\xe9"}', {}, "a.jsonl line 1: it is not in UTF-8; save the file as UTF-8."),
        ("a.jsonl", '{"text": "\\ud800"}', {}, "a.jsonl line 1: its text has the character U+D800"),
        ("a.jsonl", '{"text": "a"}', {"tokens": "spans"}, "a.jsonl line 1: its field 'spans' is not a list of spans"),
        ("a.jsonl", '{"text": "ab", "spans": [[1, 3]]}', {"tokens": "spans"}, "a.jsonl line 1: its span [1, 3] is not"),
        ("a.jsonl", '{"text": "ab", "spans": [[1, true]]}', {"tokens": "spans"}, "a.jsonl line 1: its field 'spans'"),
        ("a.csv", "text\na", {}, "a.csv has none of the extensions .txt, .text, .md, .jsonl, .ndjson, .parquet"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, data: bytes | str, more: Any, message: str):
    with pytest.raises(EncycloError) as found:
        read(written(tmp_path, name, data), **more)
    assert str(found.value).startswith(f"{tmp_path}/{message}")
    assert str(found.value).endswith(".") and "\n" not in str(found.value)


def test_too_long_a_text_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("encyclo.corpus.text_files.LONGEST", 10)
    path = written(tmp_path, "a.txt", "0123456789\n0123")
    with pytest.raises(
        UsageError, match="has more than 10 bytes, too many for one text; cut it, or take each line"
    ):
        read(path)
    with pytest.raises(
        UsageError, match=r"a\.txt line 1: it has more than 10 bytes; cut it into several texts"
    ):
        read(path, lines=True)


def test_empty_texts_are_counted_where_they_are_skipped(tmp_path: Path):
    path = written(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": text}) for text in ("a", "", " ", "b")))
    settings = CaptureSettings(files=(path,), skip_empty=True)
    assert [check_text(source, True) for source in read_texts(path, settings)] == [True, False, False, True]


def test_a_fault_near_a_file_s_beginning_is_found_without_reading_it_all(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(text_files, "BEGINNING", 40)
    line = json.dumps({"text": "a"}) + "\n"
    near = written(tmp_path, "near.jsonl", line + '{"text": 3}\n')
    far = written(tmp_path, "far.jsonl", line * 5 + '{"text": 3}\n')
    check_beginnings(CaptureSettings(files=(far,)))
    with pytest.raises(UsageError, match=r"near\.jsonl line 2: it has a number in its field 'text'"):
        check_beginnings(CaptureSettings(files=(far, near)))


def test_the_kept_tokens_are_named_by_a_word_or_a_number():
    assert [parse_tokens(text) for text in ("all", "last", "spans", "7")] == ["all", "last", "spans", 7]
    for text in ("0", "-2", "every", "1.5", ""):
        with pytest.raises(UsageError, match="--tokens can't be"):
            parse_tokens(text)
