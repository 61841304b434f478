"""Units, commits, resume: what a unit's id depends on, and what a record says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encyclo import crc
from encyclo.errors import DamagedError, RunDirectoryError
from encyclo.pipeline.rounds import Plan
from encyclo.pipeline.units import SAMPLES_PER_UNIT, plan_units
from encyclo.schema import Part
from encyclo.storage import checksums, files
from encyclo.storage.ledger import Commit, Ledger, Unit, locked, read_committed, sums_of
from encyclo.types import Concept

RECIPE = {"model": "gemma", "layers": [1, 2], "sampler": "templates", "options": {"groups": []}, "seed": 0}
HOLD = """
import sys, pathlib
from encyclo.storage.ledger import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def concepts(count: int = 10) -> list[Concept]:
    return [Concept(f"c{i}", f"name {i}", f"definition {i}") for i in range(count)]


def plan(chosen, stage=1, per_concept=1000, done=0) -> Plan:
    chosen = tuple(chosen)
    return Plan(stage, 0, chosen, (per_concept,) * len(chosen), (done,) * len(chosen))


def ids(known: list[Concept], chosen=None, stage=1, per_concept=1000, recipe=RECIPE, done=0) -> list[str]:
    chosen = range(len(known)) if chosen is None else chosen
    return [unit.id for unit in plan_units(known, plan(chosen, stage, per_concept, done), recipe)]


def commit_of(unit: str, part: str = "part", rows: int = 1) -> Commit:
    return Commit(unit, 1, part, rows, "0" * 64, "attempt", 0.5, 10, 8)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path)
    made.create()
    return made


@pytest.mark.parametrize("per_concept", [1, 7, 100, 999, 100_000])
def test_slices_cover_every_chosen_concept_once_in_order(per_concept):
    chosen = [*range(0, 500, 3), *range(500, 520)]
    units = plan_units(concepts(600), plan(chosen, 1, per_concept), RECIPE)
    assert [index for unit in units for index in unit.concepts] == chosen
    assert len({unit.id for unit in units}) == len(units)
    for unit in units:
        assert len(unit.concepts) == 1 or len(unit.concepts) * per_concept <= SAMPLES_PER_UNIT


def test_no_chosen_concepts_give_no_units():
    assert plan_units(concepts(), plan([]), RECIPE) == []


def test_ids_are_the_same_for_the_same_content():
    assert ids(concepts()) == ids(concepts())
    assert ids(concepts(), recipe=dict(reversed(RECIPE.items()))) == ids(concepts())


def test_ids_do_not_depend_on_where_in_the_list_a_concept_stands():
    forwards, backwards = concepts(), concepts()[::-1]
    assert ids(forwards, chosen=[0, 1]) == ids(backwards, chosen=[9, 8])


@pytest.mark.parametrize("key", RECIPE)
def test_ids_change_with_everything_in_the_recipe(key):
    other = ids(concepts(), recipe={**RECIPE, key: "other"})
    assert not set(other) & set(ids(concepts()))


def test_ids_change_with_the_stage():
    assert not set(ids(concepts(), stage=2)) & set(ids(concepts(), stage=1))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Concept)])
def test_a_concepts_change_changes_its_own_unit_and_no_other(field):
    known = concepts()
    before = ids(known)
    value = {"aliases": ("x",), "examples": ("x",), "countable": True}.get(field, "other")
    known[5] = dataclasses.replace(known[5], **{field: value})
    differing = [i for i, (a, b) in enumerate(zip(before, ids(known), strict=True)) if a != b]
    assert differing == [2]  # two concepts a unit: the third unit holds concepts 4 and 5


def test_a_commit_is_read_back_as_written_and_the_first_wins(ledger):
    first, second = commit_of("u1", "part-a", rows=3), commit_of("u1", "part-b", rows=4)
    assert ledger.commit(first) is True
    assert ledger.commit(second) is False
    ledger.commit(commit_of("u2"))
    assert ledger.commits() == {"u1": first, "u2": commit_of("u2")}


def test_attempts_never_share_a_part(ledger):
    unit = Unit("u1", 1, (0, 1), (5, 5), (0, 0))
    attempts = [ledger.new_attempt(unit) for _ in range(50)]
    assert len(set(attempts)) == 50
    assert len({part for _, part in attempts}) == 50
    assert all(part.startswith("u1-") for _, part in attempts)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"unit": "u2"}', "null", '{"unit": 1, "more": 2}'])
def test_a_broken_record_is_named(ledger, content):
    ledger.commit(commit_of("u1"))
    broken = ledger.commits_folder / "u2.json"
    broken.write_text(content)
    with pytest.raises(DamagedError) as caught:
        ledger.commits()
    assert str(broken) in str(caught.value)
    assert "delete it" in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"owner": "me"},
        {"rows": "many"},
        {"rows": None},
        {"rows": 1.5},
        {"stage": [1]},
        {"seconds": "long"},
        {"part": "../part"},
        {"checksum": 3},
        {"files": ["part.h5"]},
        {"files": {"part.h5": "sha256"}},
    ],
)
def test_a_record_that_can_not_be_is_refused_although_its_checksum_is_right(ledger, changed):
    path = ledger.commits_folder / "a.json"
    content = {**dataclasses.asdict(commit_of("a")), **changed}
    path.write_text(json.dumps(checksums.sealed(content)))
    with pytest.raises(DamagedError) as refused:
        ledger.commits()
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_record_that_is_no_text_is_named(ledger):
    (ledger.commits_folder / "u2.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedError, match=r"u2\.json"):
        ledger.commits()


def test_half_written_records_are_no_commits(ledger):
    (ledger.commits_folder / f"{files.TEMPORARY}abc.json").write_text('{"unit"')
    assert ledger.commits() == {}


def test_sweep_removes_orphans_only(ledger):
    ledger.commit(commit_of("u1", part="u1-aaaa"))
    ledger.commit(commit_of("u2", part="u2-bbbb"))
    kept, folder_kept = ledger.parts_folder / "u1-aaaa.h5", ledger.parts_folder / "u2-bbbb.zarr"
    kept.write_text("kept")
    folder_kept.mkdir()
    (folder_kept / "chunk").write_text("kept")
    (ledger.parts_folder / "u1-cccc.h5").write_text("another attempt")
    (ledger.parts_folder / f"{files.TEMPORARY}u1.h5").write_text("half")
    orphan = ledger.parts_folder / "u3-dddd.zarr"
    orphan.mkdir()
    (orphan / "chunk").write_text("orphan")
    (ledger.commits_folder / f"{files.TEMPORARY}abc.json").write_text("half")
    ledger.sweep()
    assert sorted(ledger.parts_folder.iterdir()) == [kept, folder_kept]
    assert (folder_kept / "chunk").read_text() == "kept"
    assert sorted(p.name for p in ledger.commits_folder.iterdir()) == ["u1.json", "u2.json"]


def test_keep_removes_every_other_unit_whole(ledger):
    for unit in ("a", "b"):
        assert ledger.commit(commit_of(unit, f"{unit}-part"))
        (ledger.parts_folder / f"{unit}-part.h5").write_text("samples")
    ledger.keep(ledger.commits().values())
    assert ledger.commits().keys() == {"a", "b"}
    ledger.keep([commit_of("b")])
    assert ledger.commits().keys() == {"b"}
    assert [path.name for path in ledger.parts_folder.iterdir()] == ["b-part.h5"]


def test_sweep_removes_a_link_and_not_what_it_points_to(ledger, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("x")
    (ledger.parts_folder / "u9-link").symlink_to(precious)
    ledger.sweep()
    assert list(ledger.parts_folder.iterdir()) == []
    assert (precious / "data").read_text() == "x"


class OnePart:
    """A store with one part, which it gives for any name."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def read_part(self, name: str) -> Part:
        return self.part


def test_a_committed_part_is_checked_against_its_record():
    part = Part(
        np.ones((2, 1, 4), np.float16), np.ones((2, 1), np.float32), np.zeros(2, np.int32),
        np.ones(2, np.int8), ["f", "f"], ["a", "b"], np.zeros((2, 2), np.int32),
    )  # fmt: skip
    good = dataclasses.replace(commit_of("u1", "u1-aaaa", rows=2), checksum=part.checksum())
    assert read_committed(OnePart(part), good) is part
    other = dataclasses.replace(part, prompt=["a", "c"])
    for record, held in ((good, other), (dataclasses.replace(good, rows=3), part)):
        with pytest.raises(DamagedError) as caught:
            read_committed(OnePart(held), record)
        assert "u1-aaaa" in str(caught.value)
        assert "commits/u1.json" in str(caught.value)


@pytest.mark.parametrize(
    "changed",
    [{"bytes": 7}, {"sha256": "0" * 64}, {"bulk": [[0, 9]]}, {"bulk": [[4, 2], [3, 1]]}, {"bulk": 5}, {"bytes": "x"},
     {"bytes": float("inf")}],
)  # fmt: skip
def test_a_file_is_compared_but_for_its_bulk(ledger, changed):
    (ledger.parts_folder / "p.bin").write_bytes(b"headBULK")
    described = ledger.describe_part("p", {"p.bin": [(4, 4)]})
    assert described["p.bin"] == {
        "bytes": 8, "sha256": hashlib.sha256(b"head").hexdigest(), "bulk": [[4, 4]]
    }  # fmt: skip
    good = dataclasses.replace(commit_of("u1", "p"), files=described)
    ledger.check_files(good)
    (ledger.parts_folder / "p.bin").write_bytes(b"headbulk")
    ledger.check_files(good)
    with pytest.raises(DamagedError, match="not those that were committed"):
        ledger.check_files(dataclasses.replace(good, files={"p.bin": {**described["p.bin"], **changed}}))
    (ledger.parts_folder / "p.bin").write_bytes(b"HeadBULK")
    with pytest.raises(DamagedError, match="not those that were committed"):
        ledger.check_files(good)


def test_a_record_of_other_rows_than_its_checksums_is_refused():
    record = dataclasses.replace(commit_of("u1", rows=3), crc32=crc.pack(np.zeros((2, 4), np.uint32)))
    with pytest.raises(DamagedError, match="is invalid"):
        sums_of(record, 4)
    with pytest.raises(DamagedError, match="is invalid"):
        sums_of(dataclasses.replace(record, rows=2), 3)
    assert sums_of(dataclasses.replace(record, rows=2), 4).shape == (2, 4)


def test_a_second_process_is_refused_naming_the_first(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError, match=rf"in use by process {holder.pid}\b"), locked(tmp_path):
            pytest.fail("two processes hold the run")
        assert (tmp_path / ".lock.pid").read_text().strip() == str(holder.pid)
        holder.communicate("let go\n", timeout=30)
        with locked(tmp_path):
            assert (tmp_path / ".lock.pid").read_text().strip() == str(os.getpid())
    finally:
        if holder.poll() is None:
            holder.kill()
        holder.wait()


def test_a_killed_holder_does_not_keep_the_run(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with locked(tmp_path):
        assert (tmp_path / ".lock.pid").read_text().strip() == str(os.getpid())


def test_the_lock_is_let_go_after_an_error(tmp_path):
    with pytest.raises(ValueError), locked(tmp_path):
        raise ValueError
    assert not (tmp_path / ".lock.pid").exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock.pid").read_text()) == os.getpid()
