"""Only regular files of limited size are read, and only JSON that can't exhaust the machine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from random import Random

import pytest

from encyclo.errors import DamagedError, UsageError
from encyclo.storage import safe_read
from encyclo.storage.safe_read import open_file, parse_json, read_bytes, read_json, read_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    (made / "good.json").write_text('{"a": [1, "é", null]}', encoding="utf-8")
    return made


def test_a_regular_file_is_read_as_bytes_text_and_json(folder: Path):
    path = folder / "good.json"
    assert read_bytes(path, at_most=100) == path.read_bytes()
    assert read_text(path, at_most=100) == path.read_text(encoding="utf-8")
    assert read_json(path, at_most=100, within=folder) == {"a": [1, "é", None]}
    with open_file(path, within=folder) as file:
        assert file.read() == path.read_bytes()


def test_a_link_may_lead_to_a_file_of_the_same_folder_only(folder: Path, tmp_path: Path):
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    (folder / "in.json").symlink_to("good.json")
    (folder / "out.json").symlink_to(outside)
    (folder / "sub").symlink_to(tmp_path)
    assert read_json(folder / "in.json", at_most=100, within=folder)
    assert read_json(folder / "out.json", at_most=100) == {}
    for path in (folder / "out.json", folder / "sub" / "outside.json", folder / ".." / "outside.json"):
        with pytest.raises(
            DamagedError, match=r"can't be read: it is a link that leads out of .*run; restore"
        ):
            read_json(path, at_most=100, within=folder)


def test_a_run_that_is_reached_through_a_link_is_read(folder: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(folder)
    assert read_json(tmp_path / "link" / "good.json", at_most=100, within=tmp_path / "link")


def test_what_is_no_regular_file_is_refused_at_once(folder: Path):
    os.mkfifo(folder / "fifo")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        for name, reason in {
            "fifo": "it is a named pipe, not a file",
            "zero": "it is a device, not a file",
            ".": "it is a folder, not a file",
            "loop": "Too many levels of symbolic links",
            "socket": "No such device or address",
            "none": "No such file or directory",
            "good.json/below": "Not a directory",
        }.items():
            with pytest.raises(DamagedError) as caught:
                read_bytes(folder / name, at_most=100)
            assert str(caught.value) == f"{folder / name} can't be read: {reason}; {safe_read.RESTORE}."


def test_the_caller_gives_advice_and_the_kind_of_error(folder: Path):
    with pytest.raises(UsageError, match=r"can't be read: No such file or directory; name another\.$"):
        read_text(folder / "none", at_most=1, advice="name another", error=UsageError)


def test_a_file_beyond_its_limit_is_refused_before_it_is_read(folder: Path):
    with (folder / "sparse").open("wb") as file:
        file.truncate(100 * 2**30)
    with pytest.raises(
        DamagedError, match="it has 107,374,182,400 bytes, more than the 16,777,216 that it may"
    ):
        read_bytes(folder / "sparse", at_most=safe_read.RUN_JSON)
    assert read_bytes(folder / "good.json", at_most=(folder / "good.json").stat().st_size)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[" * 1_000_000, "nested more than 100 levels deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested more than 100 levels deep"),
        (b"[" + b"1," * 8_000_000 + b"1]", "more than 8,000,000 values"),
        (b'{"a": 1', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\0" * 100, "not valid JSON"),
        (b'"\xed\xa0\x80"', "byte 1 is not in UTF-8"),
        (b'{"a": "\xff"}', "byte 7 is not in UTF-8"),
        (rb'{"a": ["\ud800"]}', r"it holds U\+D800, half of a character"),
        (rb'{"\uDFFF": 1}', r"it holds U\+DFFF, half of a character"),
        (b"[NaN]", r"not valid JSON \(NaN is no number in JSON\)"),
        (b"[" + b"9" * 5_000 + b"]", r"not valid JSON \(Exceeds the limit \(4300 digits\)"),
    ],
)
def test_json_that_is_refused(data: bytes, reason: str, folder: Path):
    with pytest.raises(ValueError, match=reason):
        parse_json(data)
    path = folder / "bad.json"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=reason):
        read_json(path, at_most=2**25, within=folder)


def test_brackets_and_quotes_inside_strings_are_no_structure():
    text = json.dumps({'[{"\\': ["[" * 1_000, '\\"]', "\\" * 7 + '"'], "ok": "😀"})
    assert parse_json(text.encode()) == json.loads(text)


def test_a_string_that_never_ends_takes_no_longer_than_its_length():
    for data in (b'"' + b'\\"' * 1_000_000, b'["' + b"\\" * 1_000_001, b'"a' * 1_000_001):
        with pytest.raises(ValueError):
            parse_json(data)


def test_json_is_refused_or_read_as_the_library_reads_it():
    """Bytes drawn at random from JSON's own characters: nothing but ValueError, and never another value."""
    random = Random(7)
    for _ in range(5_000):
        data = bytes(random.choices(b'[]{}",:\\u0d8e 1a', k=random.randrange(1, 14)))
        try:
            expected = json.loads(data)
            json.dumps(expected, ensure_ascii=False).encode()
        except ValueError:
            with pytest.raises(ValueError):
                parse_json(data)
        else:
            assert parse_json(data) == expected
