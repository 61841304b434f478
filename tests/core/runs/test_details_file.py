"""details.json: it says what measuring again says, and it is used for the run that it was made from only."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from encyclo.errors import DamagedError, EncycloWarning
from encyclo.maintenance.verify import verify
from encyclo.query.encyclopedia import Encyclopedia, open_run
from encyclo.query.evidence import held_out_families
from encyclo.report import report_run
from encyclo.runs.details_file import FILE, load_details
from encyclo.runs.metrics import read_metrics
from encyclo.storage import checksums, run_files
from tests.stored_runs import make_first_version


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def bare(run: Path) -> Iterator[Encyclopedia]:
    """The same run without the file."""
    copy = Path(shutil.copytree(run, run.parent / "bare"))
    (copy / FILE).unlink()
    with open_run(copy) as opened:
        yield opened


def rewritten(run: Path, **change: object) -> None:
    """Replace keys of the file; the seal accepts it."""
    run_files.write_text(run, FILE, json.dumps({**json.loads((run / FILE).read_text()), **change}))


def test_what_is_kept_of_an_entry_is_what_its_samples_say(run: Path, bare: Encyclopedia):
    with open_run(run) as kept:
        assert kept.kept_details is not None and bare.kept_details is None
        misread = 0
        for name in kept.concepts:
            ours, theirs = kept.confusion(name), bare.confusion(name)
            assert (ours.samples, ours.misread) == (theirs.samples, theirs.misread)
            assert ours.likeliest == theirs.likeliest
            assert [row for row, _ in ours.margins] == [row for row, _ in theirs.margins]
            assert [margin for _, margin in ours.margins] == pytest.approx(
                [margin for _, margin in theirs.margins], rel=1e-4, abs=1e-4
            )
            near, again = kept.entry(name).nearest, bare.entry(name).nearest
            assert [n.name for n in near] == [n.name for n in again]
            assert [n.cosine for n in near] == pytest.approx([n.cosine for n in again], abs=1e-5)
            assert kept.entry(name, 3).nearest == near[:3]
            misread += ours.misread
        assert misread, "no sample of this run is misread, so that the test says little"
        assert kept.own_readings is not None and bare.own_readings is not None
        assert kept.own_readings.tolist() == bare.own_readings.tolist()


def test_more_than_is_kept_is_measured(run: Path, bare: Encyclopedia):
    with open_run(run) as kept:
        assert len(kept.confused_with("animal", 12)) == 12
        assert [name for name, _ in kept.confused_with("animal", 12)] == [
            name for name, _ in bare.confused_with("animal", 12)
        ]
        assert len(kept.entry("animal", 20).nearest) == len(bare.entry("animal", 20).nearest) > 8
        assert len(kept.confused_with("animal", 2)) == 2


def test_the_page_is_the_same_from_the_file_and_from_the_samples(run: Path):
    report_run(run)
    page = (run / "report.html").read_bytes()
    (run / FILE).unlink()
    report_run(run)
    assert (run / "report.html").read_bytes() == page
    assert (run / FILE).exists() and verify(run).findings == []


def test_a_kept_page_imports_neither_torch_nor_the_libraries_of_the_map(run: Path):
    heavy = "torch", "sklearn", "transformers", "encyclo_interpreters"
    code = (
        "import sys; from encyclo.cli import run_command;"
        f"print([run_command(['report', {str(run)!r}]), run_command(['show', {str(run)!r}, 'animal'])],"
        f"[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0] []"


def test_details_of_another_interpreter_are_not_used(run: Path):
    rewritten(run, of="0" * 64)
    with open_run(run) as opened:
        assert opened.kept_details is None
        assert opened.confusion("animal").samples == len(opened.samples("animal"))
    report_run(run)
    with open_run(run) as opened:
        assert opened.kept_details is not None


def test_details_of_other_held_out_families_are_not_on_the_page(run: Path):
    before = json.loads((run / FILE).read_text())
    rewritten(run, held_out=["another"], own=None)
    report_run(run)
    after = json.loads((run / FILE).read_text())
    assert after == before and after["held_out"] == sorted(held_out_families(read_metrics(run).splits))


def test_changed_details_are_refused_and_the_report_writes_them_again(run: Path, encyclo):
    good = (run / FILE).read_bytes()
    (run / FILE).write_bytes(good.replace(b'"readings":', b'"readings" :', 1))
    shown = encyclo("show", run, "animal")
    assert shown.returncode == 1 and FILE in shown.stderr and "not what the run wrote" in shown.stderr
    found = verify(run).findings
    assert [problem.where for problem in found] == [FILE] and "encyclo report" in found[0].recovery
    assert encyclo("report", run).returncode == 0
    assert (run / FILE).read_bytes() == good and verify(run).findings == []


@pytest.mark.parametrize(
    "change",
    [
        {"confusions": {"0": {}}},
        {"confusions": []},
        {"shape": [1], "nearest": {}},
        {"scale": "AAAA", "nearest": {}},
        {"nearest": {"0": [[4_000, 0.5]]}},
        {"nearest": {"0": [[-1, 0.5]]}},
        {"own": [1, 2]},
        {"own": "many"},
    ],
)
def test_details_that_say_nothing_sensible_are_refused_in_one_sentence(run: Path, change: dict[str, object]):
    rewritten(run, **change)
    with (
        open_run(run) as opened,
        pytest.raises(DamagedError, match=rf"{FILE} can't be read: .*encyclo report"),
    ):
        entry = opened.entry(opened.book.concepts.id[0])
        opened.confusion(entry.id), entry.nearest, entry.own_readings


def test_a_run_of_the_first_version_keeps_none(run: Path):
    make_first_version(run)
    (run / FILE).unlink(missing_ok=True)
    with pytest.warns(EncycloWarning, match="first version"):
        report_run(run)
    assert not (run / FILE).exists()
    assert load_details(run, checksums.read_seal(run), 40) is None
