"""What a run consists of belongs together: the seal lists its files, and whatever rewrites one rewrites the seal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from encyclo.errors import DamagedError, EncycloWarning
from encyclo.maintenance.verify import verify
from encyclo.query.encyclopedia import open_run
from encyclo.runs.directory import read_record
from encyclo.runs.metrics import read_metrics
from encyclo.storage import checksums, files, run_files
from encyclo.testing.faults import disks
from tests import fast_plugin
from tests.commands import one_sentence
from tests.stored_runs import make_first_version, make_run

LISTED = ("run.json", "metrics.json", "calibration.json", "details.json", "report.html", "interpreter")
TEXT = "The animal drank water."


def flags_of(run: Path, tiny_flags: list[str]) -> list[str]:
    return ["run", "--sampler", "templates", "--limit", "40", *tiny_flags, "--out", str(run)]


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str]) -> Path:
    """A finished run like `tiny_run`, of another seed."""
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("other") / "tiny"
    flags = ["--sampler", "templates", "--limit", "40", "--seed", "1", *tiny_flags]
    assert run_command(["run", *flags, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def older_run(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str]) -> Path:
    """A finished run of encyclo's first version."""
    from encyclo.cli import run_command
    from encyclo.runs.session import Session

    resolved = Session.resolved

    def resolved_then(session: Session) -> dict[str, object]:
        return {key: value for key, value in resolved(session).items() if key != "model_sha256"}

    out = tmp_path_factory.mktemp("older") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "resolved", resolved_then)
        assert run_command(flags_of(out, tiny_flags)) == 0
    make_first_version(out)
    return out


@pytest.fixture
def older(older_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(older_run, tmp_path / "older"))


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def put(source: Path, target: Path) -> None:
    """Replace a file or a folder."""
    if target.is_dir():
        shutil.rmtree(target)
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def refused(result, *words: str) -> None:
    assert result.returncode == 1, result
    message = one_sentence(result.stderr)
    assert all(word in message for word in words), message


def test_a_seal_names_the_run_and_lists_every_file(tiny_run: Path):
    seal = checksums.read_seal(tiny_run)
    assert seal.run_id == json.loads((tiny_run / "run.json").read_text())["run_id"]
    there = [path for name in LISTED for path in [tiny_run / name, *(tiny_run / name).rglob("*")]]
    assert seal.run_files == {
        path.relative_to(tiny_run).as_posix(): (files.sha256_of(path),) for path in there if path.is_file()
    }
    assert verify(tiny_run).findings == []


@pytest.mark.parametrize("name", LISTED)
def test_another_runs_files_are_noticed(run: Path, other_run: Path, encyclo, name: str, tiny_flags):
    put(other_run / name, run / name)
    where = f"{run / name}"
    readers = {
        "run.json": [["show", run, "animal"], ["read", run, TEXT, "--device", "cpu"], ["report", run],
                     ["export", run, "--out", run.parent / "e"]],
        "metrics.json": [["report", run], ["evaluate", run], flags_of(run, tiny_flags)],
        "calibration.json": [["read", run, TEXT, "--device", "cpu"]],
        "interpreter": [["show", run, "animal"], ["read", run, TEXT, "--device", "cpu"], ["report", run],
                        ["evaluate", run], ["export", run, "--out", run.parent / "e"]],
        "details.json": [["show", run, "animal"]],
        "report.html": [],
    }  # fmt: skip
    for command in [*readers[name], ["convert", run, "--store", "zarr", "--out", run.parent / "copy"]]:
        refused(encyclo(*command), where, "another run's")
    assert not (run.parent / "copy").exists() and not (run.parent / "e").exists()
    found = encyclo("verify", run)
    assert found.returncode == 1
    lines = found.stdout.splitlines()
    assert len(lines) == 2 if name != "interpreter" else len(lines) > 2
    assert all(line.startswith(name) for line in lines[:-1]), lines


def test_another_runs_encyclopedia_with_all_that_belongs_to_it_is_noticed(
    run: Path, other_run: Path, encyclo
):
    for path in other_run.iterdir():
        if path.name not in ("run.json", "parts", "commits", "rounds"):
            put(path, run / path.name)
    for command in (["show", run, "animal"], ["report", run], ["read", run, TEXT, "--device", "cpu"]):
        refused(encyclo(*command), "run.json", "another run's")
    assert "run.json" in encyclo("verify", run).stdout


def test_another_runs_rounds_are_noticed(run: Path, other_run: Path, encyclo, tiny_flags):
    """They are read when a run goes on."""
    put(other_run / "rounds", run / "rounds")
    assert "rounds/0/plan.json: it is another run's" in encyclo("verify", run).stdout
    (run / "metrics.json").unlink()
    refused(encyclo(*flags_of(run, tiny_flags)), "rounds/0/plan.json is another run's", "delete the folder")
    refused(encyclo("convert", run, "--store", "zarr", "--out", run.parent / "copy"), "another run's")
    shutil.rmtree(run / "rounds")
    assert encyclo(*flags_of(run, tiny_flags)).returncode == 0
    assert verify(run).findings == []


def test_another_runs_interpreter_of_a_round_is_noticed(run: Path, other_run: Path, encyclo, tiny_flags):
    put(other_run / "rounds" / "0" / "interpreter", run / "rounds" / "0" / "interpreter")
    assert "rounds/0/result.json" in encyclo("verify", run).stdout
    (run / "metrics.json").unlink()
    refused(encyclo(*flags_of(run, tiny_flags)), "rounds/0/interpreter/sha256.json is not what the run wrote")


def test_a_changed_digit_in_metrics_is_refused_wherever_it_is_read(run: Path, encyclo, tiny_flags):
    text = (run / "metrics.json").read_text()
    assert '"prompts": 400' in text
    (run / "metrics.json").write_text(text.replace('"prompts": 400', '"prompts": 500'))
    for command in (flags_of(run, tiny_flags), ["report", run], ["evaluate", run]):
        refused(encyclo(*command), "metrics.json", "not what the run wrote")
    refused(encyclo("convert", run, "--store", "zarr", "--out", run.parent / "copy"), "metrics.json")
    assert encyclo("verify", run).stdout.startswith("metrics.json: it is not what the run wrote")


@pytest.mark.parametrize("which", ["run", "older"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 10_000, b'{"capture": ' * 5_000, b'{"stages": 1}', b"[]"],
    ids=["empty", "cut", "bytes", "deep", "deep objects", "another type", "a list"],
)
def test_broken_metrics_are_refused_in_one_sentence(request, encyclo, tiny_flags, content, which):
    run: Path = request.getfixturevalue(which)
    (run / "metrics.json").write_bytes(content)
    for command in (flags_of(run, tiny_flags), ["report", run], ["evaluate", run]):
        result = encyclo(*command)
        assert result.returncode == 1
        message = one_sentence(result.stderr)
        assert "metrics.json" in message and "unexpected" not in message
    copied = encyclo("convert", run, "--store", "zarr", "--out", run.parent / "copy")
    assert copied.returncode == 1 and "metrics.json" in one_sentence(copied.stderr)
    assert any(line.startswith("metrics.json: ") for line in encyclo("verify", run).stdout.splitlines())


def test_a_file_that_was_taken_away_or_added_is_noticed(run: Path, encyclo):
    """Without its calibration, a run would read as if it could not calibrate."""
    calibration = run / "calibration.json"
    content = calibration.read_bytes()
    calibration.unlink()
    refused(encyclo("read", run, TEXT, "--device", "cpu"), "calibration.json: it is missing")
    assert "calibration.json: it is missing" in encyclo("verify", run).stdout
    calibration.write_bytes(content)
    (run / "convergence.json").write_text("{}")
    (run / "interpreter" / "more").write_text("x")
    found = encyclo("verify", run).stdout
    assert (
        "convergence.json: it is not the run's" in found and "interpreter/more: it is not the run's" in found
    )


def test_what_rewrites_a_file_rewrites_the_seal(run: Path, encyclo, tiny_flags):
    """And no key is added to metrics.json."""
    keys = json.loads((run / "metrics.json").read_text()).keys()
    write_an_older_page(run)
    rewriting = (
        ["report", run],
        ["converge", run],
        ["evaluate", run, "--limit", "20", "--device", "cpu"],
        [*flags_of(run, tiny_flags), "--targets", "0.5,0.8,0.9,0.96"],
    )
    for command in rewriting:
        before = (run / "seal.json").read_bytes()
        result = encyclo(*command)
        assert result.returncode == 0, result.stderr
        assert (run / "seal.json").read_bytes() != before, command
        assert verify(run).findings == [], command
        listed = checksums.read_seal(run).run_files
        assert listed is not None and all(len(sums) == 1 for sums in listed.values())
    assert keys <= json.loads((run / "metrics.json").read_text()).keys() <= {*keys, "unfamiliar"}
    assert encyclo("show", run, "animal").returncode == 0


def write_an_older_page(run: Path) -> None:
    run_files.write_text(run, "report.html", "<p>older</p>")
    run_files.settle(run)


class Killed(KeyboardInterrupt):
    """The process is gone: no plugin's error."""


class DyingDisk(disks.HastyDisk):
    """Dies at the n-th rename; what lies under a temporary name stays."""

    def __init__(self, renames: int) -> None:
        self.left = renames

    def replace(self, source: Path, target: Path) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        if self.left:
            super().remove(path)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str]) -> Path:
    """A finished run that is evaluated, and goes on, within a second."""
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("quick") / "run"
    assert run_command(quick(out, tiny_flags)) == 0
    return out


def quick(out: Path, tiny_flags: list[str]) -> list[str]:
    few = ["--sampler", "templates", "--limit", "12", "--per-concept", "6", "--interpreter", "centroid"]
    return ["run", *few, *tiny_flags, "--out", str(out)]


@pytest.mark.parametrize("command", ["report", "converge", "evaluate", "raised"])
def test_a_kill_at_any_rename_leaves_a_run_that_is_read_and_goes_on(
    quick_run, tmp_path, encyclo, tiny_flags, command, monkeypatch: pytest.MonkeyPatch
):
    """The seal is written before the file and after it, so it accepts what is there at any instant."""
    kills = 0
    if command != "report":
        monkeypatch.setattr("encyclo.report.run.write_report", fast_plugin.write_plainly)
    while True:
        run = Path(shutil.copytree(quick_run, tmp_path / str(kills)))
        write_an_older_page(run)
        call = {
            "report": ["report", run],
            "converge": ["converge", run],
            "evaluate": ["evaluate", run, "--limit", "10", "--device", "cpu"],
            "raised": [*quick(run, tiny_flags), "--targets", "0.5,0.8,0.9,0.96"],
        }[command]
        with files.using(DyingDisk(kills)):
            ended = encyclo(*call)
        if ended.returncode == 0:
            break
        assert ended.returncode == 130, ended.stderr
        kills += 1
        if command != "raised":
            assert not [p for p in verify(run).findings if ".tmp-" not in p.where], kills
            for reader in (["show", run, "animal"], ["read", run, TEXT, "--device", "cpu"]):
                assert encyclo(*reader).returncode == 0, kills
        result = encyclo(*call)
        assert result.returncode == 0, (kills, result.stderr)
        assert not [p for p in verify(run).findings if ".tmp-" not in p.where], kills
    assert kills >= {"report": 3, "converge": 3, "evaluate": 6, "raised": 8}[command]


def test_a_reader_that_opened_before_the_file_was_replaced_reads_the_new_one(run: Path, encyclo):
    with open_run(run) as book:
        assert encyclo("evaluate", run, "--limit", "10", "--device", "cpu").returncode == 0
        assert book.read(TEXT, device="cpu").tokens


def test_a_run_of_the_first_version_opens_with_one_warning_and_verify_seals_it(
    older: Path, encyclo, tiny_flags
):
    run = older
    with pytest.warns(EncycloWarning, match="first version") as warned, open_run(run) as book:
        book.interpreter()
    assert len({str(warning.message) for warning in warned}) == 1
    commands = (
        ["show", run, "animal"], ["read", run, TEXT, "--device", "cpu"], ["report", run], flags_of(run, tiny_flags),
        ["evaluate", run, "--limit", "10", "--device", "cpu"],
    )  # fmt: skip
    for command in commands:
        result = encyclo(*command)
        warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
        assert result.returncode == 0 and len(warnings) == 1, result.stderr
        assert f"`encyclo verify {run}` says how to seal it" in warnings[0]
    found = encyclo("verify", run)
    assert found.returncode == 1 and found.stderr == ""
    assert len(found.stdout.splitlines()) == 2 and f"`encyclo verify {run} --seal`" in found.stdout
    sealed = encyclo("verify", run, "--seal")
    assert (sealed.returncode, sealed.stderr) == (0, "") and "whole" in sealed.stdout
    assert encyclo("verify", run).returncode == 0
    assert encyclo("show", run, "animal").stderr == ""
    assert verify(run, seal=True).findings == []


def test_a_damaged_run_of_the_first_version_is_not_sealed(older: Path, encyclo):
    run = older
    (run / "calibration.json").write_text("{}")
    before = (run / "seal.json").read_bytes()
    found = encyclo("verify", run, "--seal")
    assert found.returncode == 1 and "calibration.json: " in found.stdout
    assert (run / "seal.json").read_bytes() == before


def test_a_run_without_its_seal_is_finished_by_the_same_command(run: Path, encyclo, tiny_flags):
    (run / "seal.json").unlink()
    assert encyclo(*flags_of(run, tiny_flags)).returncode == 0
    assert verify(run).findings == []


@pytest.mark.parametrize("name", ["../x", "parts/a", "/etc/passwd", "interpreter/../../x", "seal.json"])
def test_a_seal_that_lists_another_place_is_refused(tmp_path: Path, name: str):
    run = make_run(tmp_path / "run", "hdf5")
    seal = json.loads((run / "seal.json").read_text())
    del seal["sha256"]
    seal["run_files"][name] = ["0" * 64]
    files.write_json(run / "seal.json", checksums.sealed(seal))
    with pytest.raises(DamagedError, match=r"seal\.json can't be read"):
        read_metrics(run)


def test_another_runs_seal_does_not_stop_the_end_of_a_run(run: Path, other_run: Path, encyclo, tiny_flags):
    shutil.copyfile(other_run / "seal.json", run / "seal.json")
    refused(encyclo("show", run, "animal"), "encyclopedia.h5", "differs from what was written")
    (run / "metrics.json").unlink()
    assert encyclo(*flags_of(run, tiny_flags)).returncode == 0
    assert verify(run).findings == []


def test_a_link_among_the_files_is_not_sealed(tmp_path: Path):
    run = make_run(tmp_path / "run", "hdf5")
    make_first_version(run)
    (run / "report.html").unlink()
    (run / "report.html").symlink_to("/dev/zero")
    with pytest.raises(DamagedError, match=r"report\.html is neither a file nor a folder"):
        run_files.seal_as_it_is(run, "a run")


def test_what_converge_wrote_before_the_end_belongs_to_the_run(run: Path, encyclo, tiny_flags):
    for name in ("metrics.json", "seal.json", "report.html", "calibration.json"):
        (run / name).unlink()
    assert encyclo("converge", run).returncode == 0
    assert encyclo(*flags_of(run, tiny_flags)).returncode == 0
    assert verify(run).findings == []


def test_nothing_is_listed_without_a_seal(tmp_path: Path):
    run_files.write_text(tmp_path, "metrics.json", "{}")
    run_files.settle(tmp_path)
    run_files.check(tmp_path, "metrics.json", b"changed")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_raised_run_does_not_adopt_another_runs_record(run: Path, other_run: Path, encyclo, tiny_flags):
    """The record of a run with the same configuration and another id."""
    record = {**read_record(run), "run_id": "another"}
    files.write_json(run / "run.json", checksums.sealed(record))
    raised = [*flags_of(run, tiny_flags), "--targets", "0.5,0.8,0.9,0.99"]
    for command in (raised, ["evaluate", str(run), "--device", "cpu"]):
        result = encyclo(*command)
        assert result.returncode == 1 and "run.json: it is not what the run wrote" in one_sentence(
            result.stderr
        )
    assert (run / "metrics.json").exists()


def test_a_model_that_gets_its_hash_later_goes_on(run: Path, encyclo, tiny_flags):
    record = read_record(run)
    record["config"]["model_sha256"] = None
    run_files.write_json(run, "run.json", checksums.sealed(record))
    assert encyclo(*flags_of(run, tiny_flags)).returncode == 0


def test_a_run_killed_before_its_report_is_converted(run: Path, encyclo, tmp_path: Path):
    (run / "report.html").unlink()
    (run / "metrics.json").unlink()
    result = encyclo("convert", str(run), "--store", "zarr", "--out", str(tmp_path / "copy"))
    assert result.returncode == 0, result.stderr
    assert not verify(tmp_path / "copy").findings


def test_a_file_replaced_while_it_is_checked_is_no_finding(run: Path):
    before = checksums.read_seal(run)
    run_files.write_text(run, "report.html", "new")
    run_files.settle(run)
    assert not list(run_files.faults(run, before))


def test_what_can_not_be_read_is_said_once(run: Path):
    (run / "interpreter" / "link").symlink_to("nowhere")
    (finding,) = (problem for problem in verify(run).findings if problem.where == "interpreter")
    assert ".;" not in str(finding) and str(finding).count("restore it") == 0
