"""Hostile files are refused in one sentence before anything in them is read. Texts are data."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from encyclo.errors import DamagedError, StoreError
from encyclo.plugins.manager import Plugins
from encyclo.schema import Part, Schema
from encyclo.storage import checksums
from tests.stored_runs import HIDDEN, LAYERS, make_part, make_run

ROOT = Path(__file__).parents[2]
STORES = ("hdf5", "zarr")
TEXTS = [
    "../../x", "/", "a/b", "", "..", "x" * 10_000, "🐕‍🦺", "\u202eright to left", "مرحبا", "CON",
    "=1+1", "<script>alert(1)</script>", "back\\slash \\0 \\uD800", "\\", " ",
]  # fmt: skip


def store_of(run: Path, name: str):
    return Plugins().call("store_activations", name, location=run, schema=Schema(LAYERS, (3, 4), HIDDEN))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {store: make_run(tmp_path_factory.mktemp("finished") / store, store) for store in STORES}


@pytest.fixture
def hdf5(finished, tmp_path: Path):
    """(the run, its file opened for changes)."""
    run = Path(shutil.copytree(finished["hdf5"], tmp_path / "hdf5"))
    with h5py.File(run / "encyclopedia.h5", "a") as file:
        yield run, file


@pytest.fixture
def zarr_run(finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished["zarr"], tmp_path / "zarr"))


def refused(run: Path, store: str, what: str) -> None:
    with pytest.raises(DamagedError, match=what) as caught:
        store_of(run, store).open()
    assert "\n" not in str(caught.value) and str(run) in str(caught.value)


@pytest.mark.parametrize("store", STORES)
def test_texts_are_data(tmp_path, store):
    part = make_part(len(TEXTS), 0)
    part = Part(**{**vars(part), "prompt": TEXTS, "family": TEXTS[::-1]})
    (tmp_path / "run" / "parts").mkdir(parents=True)
    made = store_of(tmp_path / "run", store)
    made.write_part("a", part)
    made.write_part("plain", make_part(3, 1))
    found = made.read_part("a")
    assert (found.prompt, found.family) == (TEXTS, TEXTS[::-1])
    assert found.checksum() == part.checksum()
    book = make_run(tmp_path / "other", store) and store_of(tmp_path / "other", store).open().book
    for name in ("id", "name", "definition", "category"):
        getattr(book.concepts, name)[: len(TEXTS)] = TEXTS
    made.finalise(["plain", "a"], book)
    reader = made.open()
    assert reader.samples(slice(None)).prompt == [*make_part(3, 1).prompt, *TEXTS]
    assert reader.samples(np.array([3, 6, 17])).prompt == [TEXTS[0], TEXTS[3], TEXTS[14]]
    assert reader.book.concepts.name == book.concepts.name
    reader.close()
    names = {path.name for path in tmp_path.rglob("*")}
    assert not names & {"x", "CON", "a", "b"}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(("text", "character"), [("NUL \0 inside", "U+0000"), ("\ud800 alone", "U+D800")])
def test_a_text_that_no_store_holds_is_refused_and_nothing_written(
    finished, tmp_path, store, text, character
):
    run = Path(shutil.copytree(finished[store], tmp_path / store))
    made, before = store_of(run, store), checksums.list_files(run)
    for column in ("prompt", "family"):
        part = dataclasses.replace(make_part(2, 0), **{column: ["A dog.", text]})
        with pytest.raises(
            StoreError,
            match=rf"parts/a\..*: a {column} has the character {re.escape(character)}, which can't",
        ):
            made.write_part("a", part)
    book = made.open().book
    for column in ("id", "name", "definition", "category"):
        table = dataclasses.replace(book.concepts, **{column: [text] * len(book.concepts)})
        with pytest.raises(
            StoreError, match=rf"a {column} has the character {re.escape(character)}, which can't"
        ):
            made.finalise([], dataclasses.replace(book, concepts=table))
    assert checksums.list_files(run) == before


def test_escaped_texts_of_an_earlier_version_are_refused(hdf5):
    run, file = hdf5
    file["samples/prompt"].attrs["escaped"] = np.int8(1)
    file.flush()
    refused(run, "hdf5", "/samples/prompt has the attribute '.*', which this version does not write")


def test_hdf5_links_are_refused_before_they_are_followed(hdf5, tmp_path):
    run, file = hdf5
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as other:
        other["scale"] = np.zeros(3)
    for link in (h5py.SoftLink("/samples/scale"), h5py.ExternalLink(str(secret), "/scale")):
        kept = file["samples/span"][...]
        del file["samples/span"]
        file["samples/span"] = link
        file.flush()
        refused(run, "hdf5", "'span' in /samples is a soft or external link")
        del file["samples/span"]
        file["samples/span"] = kept
    file.flush()
    store_of(run, "hdf5").open().close()


def test_an_hdf5_attribute_that_is_no_utf8_is_refused(hdf5):
    """h5py hands it on as half characters, which no file that encyclo writes can hold."""
    run, file = hdf5
    for name in ("model", "config", "created"):
        kept = file.attrs[name]
        file.attrs.create(name, b"x\xff", dtype=h5py.string_dtype())
        file.flush()
        refused(run, "hdf5", f"its attribute '{name}' holds the character U.DCFF")
        file.attrs[name] = kept
    file.flush()


def test_hdf5_bytes_that_lie_elsewhere_are_refused(hdf5, tmp_path):
    run, file = hdf5
    (tmp_path / "passwd").write_bytes(bytes(10_000))
    shape = file["samples/concept"].shape
    for what, make in {
        "stored in another file": lambda group: group.create_dataset(
            "concept", shape, "i4", external=[(str(tmp_path / "passwd"), 0, shape[0] * 4)]
        ),
        "virtual": lambda group: group.create_virtual_dataset("concept", h5py.VirtualLayout(shape, "i4")),
        "filters": lambda group: group.create_dataset("concept", shape, "i4", compression="gzip"),
        "chunks of another shape": lambda group: group.create_dataset("concept", shape, "i4", chunks=(7,)),
        "of the type": lambda group: group.create_dataset("concept", shape, "i8"),
        "is not a dataset": lambda group: group.create_group("concept"),
        "does not hold": lambda group: group.create_dataset("concept", shape, "i4"),
        "more than the file has": lambda group: group.create_dataset("concept", (2**40,), "i4"),
    }.items():
        del file["samples/concept"]
        make(file["samples"])
        file.flush()
        refused(run, "hdf5", what)


def test_hdf5_objects_references_and_strangers_are_refused(hdf5):
    run, file = hdf5
    file["samples/more"] = [1]
    file.flush()
    refused(run, "hdf5", "'more', which is not part of encyclo's format")
    del file["samples/more"]
    file.attrs["ref"] = file["samples"].ref
    file.flush()
    refused(run, "hdf5", "attribute 'ref'")
    del file.attrs["ref"]
    name = file["concepts/name"][...]
    del file["concepts/name"]
    file["concepts"].create_dataset("name", name.shape, h5py.ref_dtype)
    file.flush()
    refused(run, "hdf5", "concepts/name is of the type object")


def test_hdf5_many_references_to_one_long_text_are_refused(hdf5):
    """A small file must not make terabytes of text: the same heap object, named over and over."""
    run, file = hdf5
    del file["samples/prompt"]
    prompts = file["samples"].create_dataset("prompt", (601,), h5py.string_dtype())
    prompts[...] = ["x" * 50_000] + ["y"] * 600
    file.flush()
    offset = prompts.id.get_offset()
    file.close()
    path = run / "encyclopedia.h5"
    content = bytearray(path.read_bytes())
    content[offset : offset + 601 * 16] = content[offset : offset + 16] * 601
    path.write_bytes(content)
    refused(run, "hdf5", "claim more bytes than the file has")


def test_hdf5_missing_chunks_are_not_read_as_zeros(hdf5):
    run, file = hdf5
    shape = file["samples/activations"].shape
    del file["samples/activations"]
    data = file["samples"].create_dataset("activations", shape, "f2", chunks=(250, 1, HIDDEN))
    data.id.write_direct_chunk((0, 0, 0), np.zeros((250, 1, HIDDEN), "<f2"))
    file.flush()
    refused(run, "hdf5", "is missing chunks")


@pytest.mark.parametrize("store", STORES)
def test_parts_are_checked_as_well(finished, tmp_path, store):
    run = Path(shutil.copytree(finished[store], tmp_path / store))
    path = next((run / "parts").iterdir())
    if store == "hdf5":
        with h5py.File(path, "a") as file:
            file["more"] = h5py.ExternalLink("elsewhere.h5", "/")
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../../more", "x")
    with pytest.raises(DamagedError, match="more"):
        store_of(run, store).read_part(path.name.split(".")[0])


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("format 3", lambda d: d.update(zarr_format=2)),
        ("codec 'numcodecs.pickle'", lambda d: d.update(codecs=[{"name": "numcodecs.pickle"}])),
        ("codecs that are not allowed", lambda d: d["codecs"].append({"name": "gzip"})),
        ("of the type 'object'", lambda d: d.update(data_type="object")),
        ("chunk grid", lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[7])),
        ("chunk grid", lambda d: d["chunk_key_encoding"].update(name="v2")),
        ("storage transformers", lambda d: d.update(storage_transformers=[{"name": "x"}])),
        ("the shape", lambda d: d.update(shape=[-1])),
        ("the shape", lambda d: d.update(shape=[2**50])),
        ("chunk grid", lambda d: d.update(shape=[2**39])),
        ("dimensions", lambda d: d.update(shape=[2, 2])),
        ("has the attributes", lambda d: d.update(attributes={"x": 1})),
        ("unknown metadata", lambda d: d.update(more=1)),
        ("fill value", lambda d: d.update(fill_value=2**100)),
        ("dimension names", lambda d: d.update(dimension_names=["n"])),
        ("consolidated", lambda d: d.update(dimension_names=None)),
    ],
)
def test_zarr_metadata_is_what_encyclo_writes(zarr_run, what, change):
    path = zarr_run / "encyclopedia.zarr" / "samples" / "concept" / "zarr.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    refused(zarr_run, "zarr", re.escape(what))


def test_zarr_files_are_what_the_metadata_justifies(zarr_run):
    root = zarr_run / "encyclopedia.zarr"
    shard, column = root / "samples/activations/c.0.0.0", root / "samples/concept/c.0"
    prompts = root / "samples/family/c.0"
    index = shard.read_bytes()
    for path, what, content in (
        (column, "bytes, not", column.read_bytes()[:-4]),
        (column, "bytes, not", column.read_bytes() + b"more"),
        (prompts, "number of texts", (2**32 - 1).to_bytes(4, "little") + prompts.read_bytes()[4:]),
        (shard, "index that points outside", index[:-20] + (2**63).to_bytes(8, "little") + index[-12:]),
        (shard, "is missing chunks", index[:-100] + b"\xff" * 96 + index[-4:]),
        (shard, "ends too early", index[:10]),
        (root / "zarr.json", "format 3", b"[]"),
        (root / "zarr.json", "nested", b"[" * 100_000),
        (root / "more", "does not belong there", b"x"),
    ):
        kept = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        refused(zarr_run, "zarr", what)
        path.write_bytes(kept) if kept is not None else path.unlink()
    store_of(zarr_run, "zarr").open().close()
    column.rename(root.parent / "away")
    column.symlink_to(root.parent / "away")
    refused(zarr_run, "zarr", "neither a file nor a folder")


def test_compressed_or_doubled_members_of_a_zip_are_refused(zarr_run):
    path = next((zarr_run / "parts").iterdir())
    name = path.name.split(".")[0]
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    with pytest.raises(DamagedError, match="compressed or encrypted"):
        store_of(zarr_run, "zarr").read_part(name)
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for member, content in [*members.items(), *members.items()]:
            archive.writestr(member, content)
    with pytest.raises(DamagedError, match="two members"):
        store_of(zarr_run, "zarr").read_part(name)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "x" * 300, "a.b", "\0"])
def test_a_commit_record_names_no_path(tmp_path, name):
    from encyclo.storage import files
    from encyclo.storage.ledger import Ledger

    run = make_run(tmp_path / "hdf5", "hdf5", finish=False)
    path = next((run / "commits").glob("unit0.json"))
    record = {**checksums.read_sealed(path, at_most=2**20, within=run), "part": name}
    files.write_json(path, checksums.sealed(record))
    with pytest.raises(DamagedError, match=r"unit0\.json can't be read"):
        Ledger(run).commits()


def test_nothing_unpickles():
    """No module names a way to run code out of a file.

    testing/ and the executors talk to processes that they started themselves, by pipes or in a folder made for it.
    """
    forbidden = re.compile(r"\bpickle\b|torch\.load|joblib|\bdill\b|\bshelve\b|\bmarshal\b|allow_pickle|np\.load\(|yaml\.load|\beval\(|\bexec\(")  # fmt: skip
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("core", "plugins")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line.split("#")[0])
        and ".eval(" not in line
        and not {"testing", "executors"} & set(path.parts)
    ]
    assert found == []
