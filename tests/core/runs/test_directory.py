"""A run's directory: which are usable, what counts as the same run, what run.json says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from encyclo.errors import DamagedError, RunDirectoryError
from encyclo.runs import directory as rundir
from encyclo.runs.session import plugin_folder
from encyclo.storage import checksums
from encyclo.storage.ledger import Commit, locked
from encyclo.version import __version__

CONFIG = {
    "targets": [0.4, 0.7, 0.85, 0.95],
    "budget": None,
    "seed": 0,
    "layers": (-2, -1),
    "store": "hdf5",
    "limit": None,
    "options": {"templates": {"groups": []}, "raw": {}},
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def begin(out: Path, config=CONFIG) -> None:
    with rundir.claimed(out, config, {"model_source": "here"}):
        pass


def test_a_new_or_empty_directory_is_usable_and_nothing_is_written(tmp_path):
    rundir.check_usable(tmp_path)
    rundir.check_usable(tmp_path / "new")
    rundir.check_usable(tmp_path / "new" / "deeper" / "still")
    assert list(tmp_path.iterdir()) == []


def test_what_an_early_death_leaves_does_not_block(tmp_path):
    for name in (".lock", ".lock.pid", ".tmp-abc.json"):
        (tmp_path / name).write_text("")
    rundir.check_usable(tmp_path)
    begin(tmp_path)
    assert (tmp_path / "run.json").exists()


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirectoryError, match=r"holds other files and no run\.json"):
        rundir.check_usable(tmp_path)
    with pytest.raises(RunDirectoryError):
        begin(tmp_path)
    assert content(tmp_path) == {"thesis.tex": b"precious"}


def test_a_file_is_refused_in_the_path_or_as_its_end(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunDirectoryError, match="is a file"):
        rundir.check_usable(file)
    with pytest.raises(RunDirectoryError, match=r"file can't be written"):
        rundir.check_usable(file / "run")


def test_a_dangling_link_is_refused_in_one_sentence(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(RunDirectoryError, match="can't be made"):
        begin(link)


def test_claiming_writes_configuration_provenance_and_versions(tmp_path):
    out = tmp_path / "deep" / "run"
    with rundir.claimed(out, CONFIG, {"model_source": "here"}) as directory:
        record = json.loads((out / "run.json").read_text())
        assert directory.path == out
        assert (out / "parts").is_dir()
        assert (out / "commits").is_dir()
        assert not plugin_folder(directory.path, "raw").exists()
    assert record["config"] == json.loads(json.dumps(CONFIG))
    assert record["provenance"] == {"model_source": "here"}
    assert record["versions"]["encyclo"] == __version__
    assert {"run_id", "created", "command", "platform"} <= record.keys()


def test_an_option_that_a_plugin_has_since_got_is_at_its_default_in_an_older_run(tmp_path):
    begin(tmp_path / "run")
    now = {**CONFIG, "options": {**CONFIG["options"], "templates": {"groups": [], "new": 1}}}
    with rundir.claimed(tmp_path / "run", now, {}, {"templates": {"groups": None, "new": 1}}):
        pass
    with pytest.raises(RunDirectoryError, match=r"templates\.new: 2 there, 1 now"):
        rundir.check_same(tmp_path / "run", now, {"templates": {"new": 2}})


def test_the_directory_is_held_while_claimed_and_let_go_after(tmp_path):
    out = tmp_path / "run"
    with rundir.claimed(out, CONFIG, {}):
        with pytest.raises(RunDirectoryError, match="in use by process"), rundir.claimed(out, CONFIG, {}):
            pytest.fail("claimed twice")
    with locked(out):
        assert (out / "run.json").exists()


def test_the_same_configuration_goes_on_with_the_same_record(tmp_path):
    begin(tmp_path)
    before = content(tmp_path)
    with rundir.claimed(tmp_path, CONFIG, {"model_source": "moved"}) as directory:
        assert checksums.sealed(directory.record) == json.loads(before["run.json"])
    assert content(tmp_path) == before


def test_two_runs_of_one_configuration_have_different_ids(tmp_path):
    begin(tmp_path / "a")
    begin(tmp_path / "b")
    first, second = (rundir.read_record(tmp_path / name)["run_id"] for name in "ab")
    assert first != second
    assert first.split("-")[0] == second.split("-")[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"layers": (-1,)}, "layers: [-2, -1] there, [-1] now"),
        ({"limit": 5}, "limit: not set there, 5 now"),
        (
            {"options": {"templates": {"groups": ["quoted"]}, "raw": {}}},
            'options.templates.groups: [] there, ["quoted"] now',
        ),
        ({"device": "cuda"}, 'device: not set there, "cuda" now'),
    ],
)
def test_another_configuration_is_refused_naming_the_difference(tmp_path, change, named):
    begin(tmp_path)
    before = content(tmp_path)
    for attempt in (rundir.check_same, begin):
        with pytest.raises(RunDirectoryError) as caught:
            attempt(tmp_path, {**CONFIG, **change})
        assert named in str(caught.value)
        assert "same flags" in str(caught.value)
        assert "; use the same" in str(caught.value)
    assert content(tmp_path) == before


def test_every_difference_is_named_up_to_six(tmp_path):
    begin(tmp_path, CONFIG | {name: 0 for name in "abcdefgh"})
    with pytest.raises(RunDirectoryError) as caught:
        rundir.check_same(tmp_path, {name: int(name != "b") for name in "abcdefgh"})
    message = str(caught.value)
    assert [name for name in "abcdefgh" if f"{name}: 0 there, 1 now" in message] == list("acdefg")


def test_tuples_and_lists_are_the_same_configuration(tmp_path):
    begin(tmp_path)
    rundir.check_same(tmp_path, {**CONFIG, "layers": [-2, -1]})
    rundir.check_same(tmp_path / "unused", CONFIG)
    assert not (tmp_path / "unused").exists()


def test_a_directory_that_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(RunDirectoryError, match="is not a run of encyclo"):
        rundir.read_record(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": "a"}', '{"config": 3}'])
def test_a_broken_run_json_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DamagedError, match=r"run\.json can't be read"):
        rundir.read_record(tmp_path)
    with pytest.raises(DamagedError):
        begin(tmp_path)


def test_claiming_sweeps_what_never_committed(tmp_path):
    with rundir.claimed(tmp_path, CONFIG, {}) as directory:
        directory.ledger.commit(Commit("u1", 1, "u1-a", 1, "0" * 64, "a", 1.0, 1, 1))
        (tmp_path / "parts" / "u1-a.h5").write_text("committed")
        (tmp_path / "parts" / "u1-b.h5").write_text("orphan")
    begin(tmp_path)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["u1-a.h5"]


def test_a_note_is_kept_in_run_json(tmp_path):
    with rundir.claimed(tmp_path, CONFIG, {}) as directory:
        directory.note("seconds", 3.5)
    record = rundir.read_record(tmp_path)
    assert record["seconds"] == 3.5
    assert record["config"]["seed"] == 0


LISTED = {
    **CONFIG,
    "concepts": "file",
    "concepts_sha256": "1",
    "sampler": ["raw"],
    "options": {"file": {"path": "old.csv"}, "raw": {"a": 1}},
}


def test_a_list_that_was_moved_goes_on_with_its_run(tmp_path):
    begin(tmp_path, LISTED)
    moved = {**LISTED, "options": {"file": {"path": "new.csv"}, "raw": {"a": 1}}}
    begin(tmp_path, moved)
    assert rundir.read_record(tmp_path)["config"]["options"]["file"] == {"path": "new.csv"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"concepts_sha256": "2"}, "the list gives other concepts now"),
        ({"options": {"file": {"path": "new.csv"}, "raw": {"a": 2}}}, "options.raw.a"),
        ({"concepts": "other", "options": {"other": {"path": "x"}, "raw": {"a": 1}}}, "concepts"),
        ({"sampler": ["raw", "file"]}, "sampler"),
    ],
)
def test_a_moved_list_hides_no_other_difference(tmp_path, change, named):
    begin(tmp_path, LISTED)
    before = content(tmp_path)
    options = {"file": {"path": "new.csv"}, "raw": {"a": 1}}
    with pytest.raises(RunDirectoryError, match=named):
        begin(tmp_path, {**LISTED, "options": options, **change})
    assert content(tmp_path) == before


def test_what_follows_from_another_difference_is_not_listed(tmp_path):
    begin(tmp_path, {**LISTED, "weights_sha256": "1", "model_sha256": "1"})
    hashes = {"concepts_sha256": "2", "weights_sha256": "2", "model_sha256": "2"}
    with pytest.raises(RunDirectoryError) as caught:
        rundir.check_same(tmp_path, {**LISTED, **hashes, "concepts": "core", "options": {"core": {"a": 1}}})
    expected = 'concepts: "file" there, "core" now; the model has other weights now'
    assert f"configuration ({expected}); use" in str(caught.value)


def test_the_options_of_a_list_that_is_also_a_sampler_count(tmp_path):
    both = {**LISTED, "sampler": ["file"]}
    begin(tmp_path, both)
    with pytest.raises(RunDirectoryError, match=r"options\.file\.path"):
        begin(tmp_path, {**both, "options": {"file": {"path": "new.csv"}, "raw": {"a": 1}}})


@pytest.mark.parametrize("name", ["commits", "parts", "rounds", "plugins", "plugins/transformer"])
def test_a_run_whose_folders_are_links_is_refused_and_what_they_lead_to_is_kept(tmp_path: Path, name: str):
    out, mine = tmp_path / "run", tmp_path / "mine"
    begin(out)
    (out / "plugins").mkdir()
    mine.mkdir()
    (mine / "precious").write_text("kept")
    if (out / name).is_dir():
        (out / name).rmdir()
    (out / name).symlink_to(mine)
    with pytest.raises(
        RunDirectoryError, match=rf"can't be used: .*{name} is a link; put the folder itself there"
    ):
        begin(out)
    assert (mine / "precious").read_text() == "kept"


def test_a_lock_that_is_a_link_changes_nothing_elsewhere(tmp_path: Path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock.pid").symlink_to(tmp_path / "precious")
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock.pid").read_text() == f"{os.getpid()}\n"
    (tmp_path / "run" / ".lock").unlink(missing_ok=True)
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(
        RunDirectoryError, match=r"can't be locked: .*; delete .*run/\.lock, or choose another"
    ):
        with locked(tmp_path / "run"):
            pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_the_number_of_the_process_in_a_lock_is_read_safely(tmp_path: Path):
    with locked(tmp_path):
        (tmp_path / ".lock.pid").unlink()
        os.mkfifo(tmp_path / ".lock.pid")
        with pytest.raises(RunDirectoryError, match="in use by process unknown"), locked(tmp_path):
            pass
