"""verify finds what is wrong and says what can be recovered; convert loses no bit; both stores."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import encyclo as package
from encyclo.errors import DamagedError, EncycloError
from encyclo.maintenance.verify import verify
from encyclo.plugins.manager import Plugins
from encyclo.query.encyclopedia import open_run
from encyclo.schema import Part, Schema
from encyclo.storage import checksums, files
from encyclo.storage.finalise import finalise, open_finished
from encyclo.storage.ledger import Commit, Ledger
from tests.commands import one_sentence
from tests.stored_runs import CONCEPTS, HIDDEN, LAYERS, make_run, parts

STORES = ("hdf5", "zarr")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run in each store; don't change them."""
    return {store: make_run(tmp_path_factory.mktemp("finished") / store, store) for store in STORES}


@pytest.fixture(params=STORES)
def run(request, finished, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(finished[request.param], tmp_path / request.param))


def store_of(run: Path, name: str | None = None):
    return Plugins().call(
        "store_activations", name or run.name, location=run, schema=Schema(LAYERS, (3, 4), HIDDEN)
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flip(path: Path, at: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)


def test_a_whole_run_is_whole(run, encyclo):
    before = tree(run)
    result = encyclo("verify", run)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{run}: whole (a finished run, 3 units, 601 samples)\n"
    report = json.loads(encyclo("verify", run, "--json").stdout)
    assert report == {"ok": True, "findings": [], "units": 3, "samples": 601, "finished": True}
    assert tree(run) == before


def test_every_damaged_file_is_one_finding(run):
    """A flipped bit anywhere but in the report: one line that names the file and what can be recovered."""
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        if path.name in ("report.html", ".lock"):
            continue
        content = path.read_bytes()
        flip(path, 0 if path.name == "metrics.json" else None)
        findings = verify(run).findings
        assert len(findings) == 1, (path, findings)
        name = path.name.split(".")[0].rsplit("-", 1)[0] if path.parent.name == "parts" else path.name
        assert any(
            word in str(findings[0]) for word in (name.removesuffix(".json"), "seal", path.parent.name)
        )
        assert any(w in findings[0].recovery for w in ("again", "restore")), findings
        path.write_bytes(content)
    assert not verify(run).findings


def test_findings_are_lines_and_exit_codes(run, encyclo):
    flip(next((run / "parts").iterdir()))
    (run / "interpreter" / "model.safetensors").unlink()
    result = encyclo("verify", run)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 3 and lines[-1].startswith(f"{run}: 2 findings")
    assert (
        "delete metrics.json and commits/unit" in lines[0]
        and "run the same `encyclo run` command again" in lines[0]
    )
    assert "train it again" in lines[1]
    assert not json.loads(encyclo("verify", run, "--json").stdout)["ok"]
    assert encyclo("verify", run.parent).returncode == 2


def test_missing_and_added_files_are_found(run):
    (run / "seal.json").rename(run / "seal.away")
    assert "seal.json" in str(verify(run).findings[0])
    (run / "seal.away").rename(run / "seal.json")
    commit = next((run / "commits").glob("*.json"))
    content = commit.read_text()
    commit.unlink()
    assert "not those that were committed" in str(verify(run).findings[0])
    commit.write_text(content)
    part = next((run / "parts").iterdir())
    (run / "parts" / f"{part.name.split('.')[0]}.more").write_text("x")
    assert part.name.split(".")[0] in str(verify(run).findings[0])


def sealed_again(run: Path, **changed) -> None:
    """Write the encyclopedia again with a changed book, correctly sealed: only its content is wrong."""
    store = store_of(run)
    reader, _ = open_finished(store, run)
    book = reader.book
    reader.close()
    for name, value in changed.items():
        table = next(t for t in ("concepts", "signatures", "attributes") if hasattr(getattr(book, t), name))
        book = dataclasses.replace(
            book, **{table: dataclasses.replace(getattr(book, table), **{name: value})}
        )
    commits = sorted(Ledger(run).commits().values(), key=lambda c: c.unit)
    finalise(store, run, commits, book)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("mean", lambda v: v * np.float32(1.01), "is not its samples' mean"),
        ("mean", lambda v: np.where(np.arange(HIDDEN) == 3, np.nan, v).astype(np.float32), "not finite"),
        ("variance", lambda v: v * np.float32(1.01), "is not its samples' variance"),
        ("count", lambda v: v + np.int32(1), "counts differ"),
        ("n_samples", lambda v: v + np.int32(1), "n_samples"),
        ("id", lambda v: [v[1], *v[1:]], "'c1' occurs 2 times"),
        ("confidence", lambda v: v + np.float32(1), "confidence outside"),
        ("run_id", lambda v: "other", "another run"),
    ],
)
def test_wrong_content_is_found_though_every_checksum_is_right(run, name, change, said):
    reader, _ = open_finished(store_of(run), run)
    table = next(
        t for t in ("concepts", "signatures", "attributes") if hasattr(getattr(reader.book, t), name)
    )
    value = change(getattr(getattr(reader.book, table), name))
    reader.close()
    sealed_again(run, **{name: value})
    assert any(said in str(finding) for finding in verify(run).findings)


@pytest.mark.parametrize(
    ("column", "row", "said"),
    [
        ("scale", 3.0, "power of two"),
        ("scale", np.inf, "not finite"),
        ("activations", np.nan, "not finite"),
        ("span", (4, 2), "span"),
        ("span", (0, 10_000), "span"),
        ("concept", -1, "without a concept"),
        ("concept", CONCEPTS, "concept"),
        ("stage", 3, "stage"),
    ],
)
@pytest.mark.parametrize("store", STORES)
def test_impossible_samples_are_found_though_every_checksum_is_right(tmp_path, store, column, row, said):
    from tests import stored_runs

    def wrong() -> list[Part]:
        made = parts()
        getattr(made[1], column)[7] = row
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_runs, "parts", wrong)
        if (column, row) == ("concept", CONCEPTS):
            patch.setattr(stored_runs, "make_book", lambda *_: None)
        make_run(tmp_path / store, store, finish=False)
    findings = verify(tmp_path / store).findings
    if (column, row) == ("concept", CONCEPTS):
        with pytest.raises(EncycloError, match="concepts"):
            open_run_without_concepts(tmp_path / store)
    else:
        assert len(findings) == 1 and said in str(findings[0])


def open_run_without_concepts(run: Path) -> None:
    from encyclo.query.encyclopedia import check_owners
    from encyclo.storage.sample_rows import CommittedRows

    commits = list(Ledger(run).commits().values())
    check_owners(run, CommittedRows(store_of(run), Ledger(run), commits), CONCEPTS)


def test_an_unfinished_run_is_checked_too(tmp_path):
    out = make_run(tmp_path / "hdf5", "hdf5", finish=False)
    report = verify(out)
    assert (report.findings, report.finished, report.samples) == ([], False, 601)


@pytest.mark.parametrize(("here", "there"), [("hdf5", "zarr"), ("zarr", "hdf5")])
def test_converting_there_and_back_loses_no_bit(finished, tmp_path, encyclo, here, there):
    source, middle, back = finished[here], tmp_path / "middle", tmp_path / "back"
    assert encyclo("convert", source, "--store", there, "--out", middle).returncode == 0
    assert encyclo("convert", middle, "--store", here, "--out", back, "--json").returncode == 0
    name = f"encyclopedia.{'h5' if here == 'hdf5' else here}"
    before, after = tree(source), tree(back)
    for path in (p for p in before if p.startswith((name, "interpreter", "report", "metrics"))):
        assert before[path] == after[path], path
    assert verify(middle).findings == verify(back).findings == []
    with open_run(source) as ours, open_run(middle) as theirs:
        assert theirs.samples().checksum() == ours.samples().checksum()
        assert theirs.record["config"]["store"] == there == json.loads(theirs.book.attributes.config)["store"]
        for table in ("concepts", "signatures"):
            for field in dataclasses.fields(getattr(ours.book, table)):
                a, b = (getattr(getattr(book.book, table), field.name) for book in (ours, theirs))
                np.testing.assert_array_equal(a, b)


def test_a_unit_without_samples_is_converted_too(finished, tmp_path, encyclo):
    run = Path(shutil.copytree(finished["hdf5"], tmp_path / "run"))
    nothing = Commit("empty", 3, "empty-none", 0, "", "", 0.0, 0, 0)
    Ledger(run).commit(nothing)
    assert encyclo("convert", run, "--store", "zarr", "--out", tmp_path / "there").returncode == 0
    assert Ledger(tmp_path / "there").commits()["empty"] == nothing
    assert not verify(tmp_path / "there").findings


def test_both_stores_of_one_run_are_converted_into_the_same_files(finished, tmp_path, encyclo):
    for store in STORES:
        assert (
            encyclo("convert", finished["hdf5"], "--store", store, "--out", tmp_path / store).returncode == 0
        )
    assert (tmp_path / "hdf5/encyclopedia.h5").read_bytes() == (
        finished["hdf5"] / "encyclopedia.h5"
    ).read_bytes()


def test_convert_refuses_what_it_should(run, tmp_path, encyclo):
    other = {"hdf5": "zarr", "zarr": "hdf5"}[run.name]
    assert encyclo("convert", run, "--store", other, "--out", run).returncode == 2
    result = encyclo("convert", run, "--store", "nothing", "--out", tmp_path / "new")
    assert result.returncode == 2 and "'nothing'" in one_sentence(result.stderr)
    assert not (tmp_path / "new").exists()
    flip(next((run / "parts").iterdir()))
    result = encyclo("convert", run, "--store", other, "--out", tmp_path / "new")
    assert result.returncode == 1 and "not those that were committed" in one_sentence(result.stderr)
    assert not (tmp_path / "new" / "metrics.json").exists()


def test_an_unfinished_run_is_converted_and_stays_unfinished(tmp_path, encyclo):
    out = make_run(tmp_path / "hdf5", "hdf5", finish=False)
    assert encyclo("convert", out, "--store", "zarr", "--out", tmp_path / "zarr").returncode == 0
    assert verify(tmp_path / "zarr").samples == 601


def test_samples_are_read_by_concept_stage_and_layer(run):
    whole = Part.join(parts())
    with package.open(run) as book:
        assert book.finished and len(book) == CONCEPTS
        mine = np.flatnonzero(whole.concept == 7)
        assert book.samples("name 7").checksum() == whole.take(mine).checksum()
        both = np.flatnonzero((whole.concept == 7) & (whole.stage == 2))
        assert book.samples("name 7", stage=2).prompt == whole.take(both).prompt
        assert len(book.samples(stage=1)) == 301 and len(book.samples(stage=3)) == 0
        np.testing.assert_array_equal(np.concatenate(list(book.layer(-1, block=100))), whole.values()[:, 1])
        rows = np.array([600, 3, 3, 250])
        np.testing.assert_array_equal(book.activations(rows), whole.values()[rows])
        with pytest.raises(EncycloError, match="no layer -9; it has -2, -1"):
            book.activations(rows, layer=-9)


def test_batches_hold_every_row_once_and_depend_on_the_seed_alone(run):
    whole = Part.join(parts())
    with package.open(run) as book:
        found = list(book.batches(100, seed=1))
        assert [len(batch.rows) for batch in found] == [100] * 6 + [1]
        rows = np.concatenate([batch.rows for batch in found])
        assert sorted(rows) == list(range(601)) and list(rows) != sorted(rows)
        for batch in found:
            np.testing.assert_array_equal(batch.activations, whole.values()[batch.rows])
            np.testing.assert_array_equal(batch.concept, whole.concept[batch.rows])
        assert [list(b.rows) for b in book.batches(100, 1)] == [list(b.rows) for b in found]
        assert [list(b.rows) for b in book.batches(100, 2)] != [list(b.rows) for b in found]
        some = np.arange(0, 601, 7)
        assert sorted(np.concatenate([b.rows for b in book.batches(8, 0, some)])) == some.tolist()


def test_batches_mix_far_more_than_one_block():
    from encyclo.storage.sample_rows import batches

    class Source:
        def __init__(self, rows: int) -> None:
            part = parts()[0].take(np.arange(rows) % 301)
            self.columns = part.columns()
            self.most = 0

        def halves(self, rows, layers=None):
            self.most = max(self.most, len(rows))
            return np.zeros((len(rows), 2, HIDDEN), np.float16)

    source = Source(60_000)
    first = next(batches(source, 256, 0))
    assert len(set(first.rows // 250)) > 40
    assert sum(len(batch.rows) for batch in batches(source, 256, 0)) == 60_000
    assert source.most <= 64 * 250


@pytest.mark.parametrize("store", STORES)
def test_a_changed_activation_is_refused_when_it_is_read(finished, tmp_path, store):
    """Opening doesn't read activations; reading compares them row by row."""
    run = Path(shutil.copytree(finished[store], tmp_path / store))
    seal = checksums.read_seal(run)
    name, entry = next((n, e) for n, e in seal.files.items() if e["bulk"])
    flip(run / seal.path / name if name else run / seal.path, entry["bulk"][0][0] + 40)
    with open_run(run) as book:
        with pytest.raises(DamagedError, match="differ from what was written"):
            book.samples()
        with pytest.raises(DamagedError, match="differ from what was written"):
            list(book.layer(-2))
        np.testing.assert_array_equal(next(book.layer(-1)), Part.join(parts()).values()[:, 1])


def test_any_other_changed_byte_is_refused_before_it_is_parsed(run):
    seal = checksums.read_seal(run)
    root = run / seal.path
    for name, entry in seal.files.items():
        path = root / name if name else root
        bulk = entry["bulk"]
        for at in {0, 100, entry["bytes"] - 1}:
            if at >= entry["bytes"] or any(start <= at < start + length for start, length in bulk):
                continue
            flip(path, at)
            with pytest.raises(DamagedError, match="differs from what was written"):
                open_run(run)
            flip(path, at)
    open_run(run).close()


def test_every_byte_of_an_encyclopedia_is_compared(run):
    """Each once: what opening doesn't compare is samples' activations to the last byte, filled-up chunks are not."""
    seal = checksums.read_seal(run)
    bulk = [length for entry in seal.files.values() for _, length in entry["bulk"]]
    assert sum(bulk) == 601 * len(LAYERS) * HIDDEN * 2
    path = run / seal.path / "samples/activations/c.0.0.0" if run.name == "zarr" else run / seal.path
    ranges = next(entry["bulk"] for entry in seal.files.values() if entry["bulk"])
    last = ranges[-1][0] + ranges[-1][1]
    flip(path, last - 1)
    open_run(run).close()
    assert "differ from what was written" in str(verify(run).findings[0])
    flip(path, last - 1)
    flip(path, last)  # the first byte that fills up the last chunk
    assert "differs from what was written" in str(verify(run).findings[0])
    with pytest.raises(DamagedError, match="differs from what was written"):
        open_run(run)


@pytest.mark.parametrize("store", STORES)
def test_a_changed_part_is_refused_whatever_byte_it_is(tmp_path, store):
    """Its activations when they are read, before an encyclopedia is replaced; all else before it is parsed."""
    run = make_run(tmp_path / store, store, finish=False)
    commit = max(Ledger(run).commits().values(), key=lambda c: c.rows)
    ((name, entry),) = commit.files.items()
    ((start, length),) = entry["bulk"]
    assert length == commit.rows * len(LAYERS) * HIDDEN * 2
    for at in (0, start - 1, start, start + length - 1, start + length, entry["bytes"] - 1):
        flip(run / "parts" / name, at)
        inside = start <= at < start + length
        said = "activations of part" if inside else "files of part"
        with pytest.raises(DamagedError, match=said):
            open_run(run)
        with pytest.raises(DamagedError, match=said):
            finalise(store_of(run, store), run, [commit], None)
        (finding,) = verify(run).findings
        assert commit.part in finding.where and commit.unit in finding.recovery
        flip(run / "parts" / name, at)
    open_run(run).close()


def test_what_is_no_plain_file_or_unknown_is_refused(run, tmp_path):
    seal = checksums.read_seal(run)
    if run.name == "zarr":
        (run / seal.path / "more").write_text("x")
        with pytest.raises(DamagedError, match="does not belong"):
            open_run(run)
        (run / seal.path / "more").unlink()
    away = tmp_path / "away"
    (run / seal.path).rename(away)
    (run / seal.path).symlink_to(away)
    with pytest.raises(DamagedError, match="neither a file nor a folder"):
        open_run(run)


def test_a_run_whose_record_was_edited_is_refused(run):
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(DamagedError, match="differs from its checksum"):
        open_run(run)
    files.write_json(run / "run.json", {k: v for k, v in json.loads(text).items() if k != "sha256"})
    with pytest.raises(DamagedError, match="has no checksum"):
        open_run(run)


@pytest.mark.parametrize("store", STORES)
def test_an_unfinished_run_is_opened_over_its_parts(tmp_path, encyclo, tiny_flags, monkeypatch, store):
    """Killed before the end: samples by name, stage, layer; signatures say that they are not there yet."""
    from encyclo.pipeline import refine

    out = tmp_path / "run"
    monkeypatch.setattr(refine, "judge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    flags = ["run", "--sampler", "templates", "--limit", "12", "--store", store, "--out", out]
    assert encyclo(*flags, *tiny_flags).returncode == 130
    with package.open(out) as book:
        assert not book.finished and len(book) == 12 and "not finished" in repr(book)
        assert len(book.samples(book.concepts[3])) == 10 and set(book.samples(stage=1).stage) == {1}
        assert sum(len(block) for block in book.layer(-1)) == 120
        assert sum(len(batch.rows) for batch in book.batches(50, 0)) == 120
        with pytest.raises(EncycloError, match="signatures, confidences and report are not there yet"):
            book.entry(book.concepts[3])
    result = encyclo("show", out, "animal")
    assert result.returncode == 2 and "not finished" in one_sentence(result.stderr)


@pytest.mark.parametrize("store", STORES)
def test_the_disk_that_a_run_takes_is_predicted(tmp_path, encyclo, tiny_flags, store):
    """Within 10%, parts, commit records and encyclopedia together."""
    from encyclo.pipeline import cost_estimate as planning

    flags = ["--sampler", "templates", "--limit", "130", "--store", store, *tiny_flags]
    plan = json.loads(encyclo("plan", *flags, "--json").stdout)
    assert encyclo("run", *flags, "--out", tmp_path / "run").returncode == 0
    taken = sum(
        path.stat().st_size
        for pattern in ("parts/*", "commits/*", "seal.json", "encyclopedia*", "encyclopedia*/**/*")
        for path in (tmp_path / "run").glob(pattern)
        if path.is_file()
    )
    assert abs(plan["disk_bytes"] - planning.OTHER_BYTES - taken) < 0.1 * taken
