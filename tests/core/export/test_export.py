"""`encyclo export`: every file is read back by the library that its users have."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import encyclo as package
from encyclo.export import control_vectors
from encyclo.export import export as exporting
from encyclo.export.export import csv_cell
from encyclo.query.encyclopedia import entry_columns, open_run
from encyclo.schema import ConceptTable
from encyclo.storage import files
from tests.commands import one_sentence
from tests.stored_runs import make_run

AWKWARD = [
    '=HYPERLINK("x")',
    "+1",
    "-1",
    "@a",
    "\t=1",
    "\r=1",
    "'=1",
    "a\nb",
    'q"q',
    "a,b",
    "漢😀",
    "'tis",
    "",
    "\ud800",
]


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "not yet there" / "out"
    exporting.export(tiny_run, out, control=("animal", "mountain"), model_hint="gemma3")
    return out


@pytest.fixture(scope="module")
def metadata(exported: Path) -> dict:
    return json.loads((exported / "metadata.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def book(tiny_run: Path):
    with open_run(tiny_run) as book:
        yield book


def test_safetensors_reads_the_vectors(exported: Path, book):
    from safetensors import safe_open

    with safe_open(exported / "vectors.safetensors", framework="np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["encyclo"])
    mean = book.book.signatures.mean
    np.testing.assert_array_equal(found["raw"], mean)
    np.testing.assert_allclose(found["centred"], mean - mean.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["centred"] + found["centre"], mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["scale"], mean.std(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(found["count"], book.book.signatures.count)
    assert {name: found[name].dtype.name for name in ("raw", "centred", "count")} == {
        "raw": "float32", "centred": "float32", "count": "int32",
    }  # fmt: skip
    assert (header["layers"], header["layer_index"], header["pooling"]) == ([1, -2, -1], [1, 3, 4], "span")
    assert header["weights_sha256"] == book.book.attributes.weights_sha256


def test_a_concept_without_samples_is_no_part_of_the_centre(tmp_path: Path):
    with open_run(make_run(tmp_path / "run", "hdf5")) as stored:
        tables = stored.book.signatures
        count, mean = tables.count.copy(), tables.mean.copy()
        count[3], mean[3] = 0, 0
        stored._book = dataclasses.replace(
            stored.book, signatures=dataclasses.replace(tables, count=count, mean=mean)
        )
        found = exporting.concept_vectors(stored)
        others = np.delete(mean, 3, axis=0).astype(np.float64)
        np.testing.assert_allclose(found["centre"], others.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(found["scale"], others.std(axis=0), rtol=1e-5)
        assert not found["centred"][3].any() and found["centred"][2].any()
        with pytest.raises(package.errors.UsageError, match="no sample"):
            control_vectors.find(stored, "name 3", found["centred"])


def test_the_interpreter_is_the_runs_own_and_loads(exported: Path, tiny_run: Path, book):
    from encyclo.plugins.manager import Plugins
    from encyclo.types import Context

    for name in ("model.safetensors", "config.json", "sha256.json"):
        assert (exported / "interpreter" / name).read_bytes() == (
            tiny_run / "interpreter" / name
        ).read_bytes()
    context = Context(0, "cpu", None, exported)
    loaded = Plugins().call(
        "load_interpreter", "transformer", folder=exported / "interpreter", context=context
    )
    values = book.samples("animal").values()
    np.testing.assert_array_equal(loaded.read(values), book.interpreter().read(values))


def test_pandas_reads_the_csv_and_the_parquet(exported: Path, book):
    import pandas

    table = book.to_pandas()
    parquet = pandas.read_parquet(exported / "entries.parquet")
    assert list(parquet.columns) == list(table.columns)
    pandas.testing.assert_frame_equal(parquet, table, check_dtype=False)
    assert parquet["confidence"].dtype == np.float32 and parquet["settled"].dtype == bool
    read = pandas.read_csv(exported / "entries.csv", keep_default_na=False, na_values={"confidence": [""]})
    assert list(read.columns) == list(table.columns) and list(read["name"]) == book.concepts
    np.testing.assert_allclose(read["confidence"], table["confidence"], rtol=1e-6)
    assert read["settled"].dtype == bool and list(read["definition"]) == list(table["definition"])
    own = [book[name].own_readings for name in book.concepts]
    assert list(read["own_readings"]) == list(table["own_readings"]) == own and max(own) > 0


def test_pyarrow_reads_the_parquet(exported: Path, book):
    from pyarrow import parquet

    assert parquet.read_table(exported / "entries.parquet").column("name").to_pylist() == book.concepts


def awkward_table() -> ConceptTable:
    count = len(AWKWARD)
    numbers = np.full(count, np.nan, np.float32)
    ints, flags = np.arange(count, dtype=np.int32), np.zeros(count, bool)
    return ConceptTable(
        AWKWARD, AWKWARD, AWKWARD, AWKWARD, ints, ints, numbers, numbers, numbers, flags, flags
    )


def test_no_cell_of_the_csv_is_a_formula_and_every_text_comes_back(tmp_path: Path):
    exporting.write_csv(tmp_path / "e.csv", entry_columns(awkward_table(), None))
    with (tmp_path / "e.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(AWKWARD)
    for row, text in zip(rows, AWKWARD, strict=True):
        cell = row["name"]
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        stripped = cell[1:] if csv_cell(cell) == f"'{cell}" else cell
        assert stripped == exporting.utf8(text)
        assert row["confidence"] == "" and row["settled"] == "False"
    assert [row["name"][:2] for row in rows[:3]] == ["'=", "'+", "'-"]
    assert rows[11]["name"] == "'tis" and rows[10]["name"] == "漢😀"


def test_the_parquet_holds_awkward_texts_as_they_are(tmp_path: Path):
    from pyarrow import parquet

    exporting.write_parquet(tmp_path / "e.parquet", entry_columns(awkward_table(), None))
    assert parquet.read_table(tmp_path / "e.parquet").column("id").to_pylist() == [
        *AWKWARD[:-1], "\\ud800",
    ]  # fmt: skip


def test_the_sidecar_says_what_it_is_of(exported: Path, metadata: dict, book):
    attributes = book.book.attributes
    assert (metadata["weights_sha256"], metadata["layers"], metadata["layer_index"]) == (
        attributes.weights_sha256, [1, -2, -1], [1, 3, 4],
    )  # fmt: skip
    assert (metadata["pooling"], metadata["hidden_size"]) == ("span", 32)
    assert metadata["model_source"] == book.record["provenance"]["model_source"]
    assert [c["name"] for c in metadata["concepts"]] == book.concepts
    assert metadata["licences"] == {
        "model": exporting.NOT_RECORDED,
        "concepts": "written for encyclo, whose own terms apply",
    }
    there = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert there == metadata["files"].keys() | {"metadata.json"}
    for name, file in metadata["files"].items():
        assert files.sha256_of(exported / name) == file["sha256"]
        assert (exported / name).stat().st_size == file["bytes"]


def test_licences_that_are_known_are_recorded(tmp_path: Path, tiny_gemma: Path, tiny_run: Path):
    from encyclo.plugins.manager import Plugins
    from encyclo.runs.directory import read_record
    from encyclo_capture.loading.weights import PACKAGED, find_licence
    from encyclo_capture.model import TransformersModel

    assert read_record(tiny_run)["provenance"]["licences"]["concepts"] == Plugins().traits("core").licence
    assert "Princeton" in Plugins().traits("wordnet").licence and Plugins().traits("file").licence is None
    folder = shutil.copytree(tiny_gemma, tmp_path / "model")
    model = TransformersModel(str(folder), "cpu", "float32")
    assert model.licence is None
    (folder / "README.md").write_text("---\ntags: [a]\nlicense: apache-2.0\n---\nlicense: mit\n")
    assert model.licence == "apache-2.0, says its model card"
    (folder / "README.md").write_text("no front matter\nlicense: mit\n")
    assert model.licence is None
    assert "ai.google.dev/gemma/terms" in find_licence(PACKAGED, model.weights)


def test_what_lies_beside_the_interpreter_stays(tiny_run: Path, tmp_path: Path):
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    (tmp_path / "secret").write_text("s")
    (copy / "interpreter" / "link.json").symlink_to(tmp_path / "secret")
    metadata = exporting.export(copy, tmp_path / "out", parquet=False)
    assert not (tmp_path / "out" / "interpreter" / "link.json").exists()
    assert {"interpreter/model.safetensors", "interpreter/sha256.json"} <= metadata["files"].keys()


# --- control vectors ---------------------------------------------------------------------------------------------


def test_gguf_reads_the_control_vector(exported: Path, metadata: dict, book):
    from gguf import GGUFReader

    assert sorted(metadata["control"]) == [
        "control/00000-animal.gguf",
        f"control/{book.index('mountain'):05d}-mountain.gguf",
    ]
    described = metadata["control"]["control/00000-animal.gguf"]
    assert described == {"id": "animal", "concept": "animal", "layers": {"direction.2": -2}}
    reader = GGUFReader(exported / "control/00000-animal.gguf")
    field = {name: reader.get_field(name).contents() for name in reader.fields}
    assert field["general.architecture"] == "controlvector"
    assert (field["controlvector.model_hint"], field["controlvector.layer_count"]) == ("gemma3", 1)
    assert field["general.name"] == "animal"
    (tensor,) = reader.tensors
    mean = book.book.signatures.mean
    # hidden_states[3] is what the blocks 0, 1 and 2 have made: block 2's output.
    assert tensor.name == "direction.2" and tensor.data.shape == (32,) and tensor.data.dtype == np.float32
    np.testing.assert_allclose(tensor.data, (mean - mean.mean(axis=0))[0, 1], rtol=1e-4, atol=1e-4)


def test_a_direction_belongs_to_the_block_that_gives_the_hidden_state(tiny_gemma: Path, book):
    """The output of block N, counted from 0 as in llama.cpp, is hidden_states[N + 1]."""
    import torch
    from transformers import AutoModel

    network, given = AutoModel.from_pretrained(tiny_gemma).eval(), {}

    def keep(number: int):
        return lambda _, __, out: given.update({number: out[0] if isinstance(out, tuple) else out})

    for number, block in enumerate(network.layers):
        block.register_forward_hook(keep(number))
    states = network(torch.tensor([[2, 30, 40]]), output_hidden_states=True).hidden_states
    vector = control_vectors.find(book, "animal", book.book.signatures.mean)
    assert vector.tensors == {-2: "direction.2"}
    torch.testing.assert_close(given[2], states[-2])
    assert not torch.allclose(given[3], states[-1]), "the final norm lies between"


def test_the_first_block_and_the_final_norm_have_no_direction(tmp_path: Path):
    run = make_run(tmp_path / "run", "hdf5")
    with open_run(run) as book:
        attributes = book.book.attributes

        def of(layers: tuple[int, ...], index: tuple[int, ...]) -> dict[int, str]:
            changed = dataclasses.replace(attributes, layers=layers, layer_index=index)
            book._book = dataclasses.replace(book.book, attributes=changed)
            return control_vectors.find(book, "name 2", book.book.signatures.mean).tensors

        assert of((-2, -1), (17, 18)) == {-2: "direction.16"}
        assert of((2, -2), (2, 17)) == {2: "direction.1", -2: "direction.16"}
        for layers, index in (((-1, 0), (18, 0)), ((1, -1), (1, 18))):
            with pytest.raises(package.errors.UsageError, match="can shift 2 to 17"):
                of(layers, index)


def test_the_vector_of_another_site_says_so(tmp_path: Path):
    from gguf import GGUFReader

    for site, name in (("resid", "control/00002-name-2.gguf"), ("attn", "control/00002-name-2-attn.gguf")):
        run = make_run(tmp_path / site, "hdf5")
        with open_run(run) as book:
            book.record["config"]["site"] = site
            changed = dataclasses.replace(book.book.attributes, layers=(-2, -1), layer_index=(17, 18))
            book._book = dataclasses.replace(book.book, attributes=changed)
            vector = control_vectors.find(book, "name 2", book.book.signatures.mean)
        assert vector.file == name
        control_vectors.write(tmp_path / "out", vector, "model")
        field = GGUFReader(tmp_path / "out" / name).get_field("general.description")
        assert (field and field.contents()) == (
            None if site == "resid" else "what attn adds to the residual stream"
        )


def test_a_run_whose_layers_count_from_the_start_asks_the_model_how_deep_it_is(
    encyclo, tiny_gemma: Path, tmp_path: Path
):
    flags = [
        "--model",
        tiny_gemma,
        "--layers",
        "2,4",
        "--device",
        "cpu",
        "--limit",
        "4",
        "--interpreter",
        "centroid",
    ]
    assert encyclo("run", "--sampler", "raw", *flags, "--out", tmp_path / "run").returncode == 0
    result = encyclo("export", tmp_path / "run", "--out", tmp_path / "out", "--control", "animal", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["control"]["control/00000-animal.gguf"]["layers"] == {"direction.1": 2}


# --- the command -------------------------------------------------------------------------------------------------


def test_a_person_sees_the_files(encyclo, tiny_run: Path, tmp_path: Path):
    result = encyclo("export", tiny_run, "--out", tmp_path / "out", "--control", "animal")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"Wrote {tmp_path / 'out'}: 40 concepts of ")
    assert [line.split()[0] for line in lines[1:]] == [
        "control/00000-animal.gguf", "entries.csv", "entries.parquet", "interpreter/config.json",
        "interpreter/model.safetensors", "interpreter/sha256.json", "vectors.safetensors",
    ]  # fmt: skip


def test_the_same_run_exports_the_same_bytes(exported: Path, tiny_run: Path, tmp_path: Path):
    exporting.export(tiny_run, tmp_path / "again", control=("animal", "mountain"), model_hint="gemma3")
    for path in exported.rglob("*"):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(exported)).read_bytes() == path.read_bytes(), path


def test_an_empty_folder_is_used_and_a_full_one_or_a_file_is_refused(encyclo, tiny_run: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert encyclo("export", tiny_run, "--out", tmp_path / "empty", "--no-parquet").returncode == 0
    assert not (tmp_path / "empty" / "entries.parquet").exists()
    before = (tmp_path / "empty" / "metadata.json").read_bytes()
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "empty", tmp_path / "file", tiny_run):
        result = encyclo("export", tiny_run, "--out", out)
        assert result.returncode == 2 and "is not empty" in one_sentence(result.stderr)
    assert (tmp_path / "empty" / "metadata.json").read_bytes() == before


def test_an_unknown_concept_is_refused_and_nothing_is_written(encyclo, tiny_run: Path, tmp_path: Path):
    result = encyclo("export", tiny_run, "--out", tmp_path / "out", "--control", "anmal")
    assert result.returncode == 2 and "animal" in one_sentence(result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_an_error_on_the_way_leaves_nothing(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_parquet", refuse)
    with pytest.raises(package.errors.StoreError, match="No space left"):
        exporting.export(tiny_run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_and_a_damaged_interpreter_are_refused(encyclo, tiny_run: Path, tmp_path: Path):
    unfinished = make_run(tmp_path / "unfinished", "hdf5", finish=False)
    result = encyclo("export", unfinished, "--out", tmp_path / "out")
    assert result.returncode == 2 and "not finished" in one_sentence(result.stderr)
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    weights = copy / "interpreter" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    result = encyclo("export", copy, "--out", tmp_path / "out")
    assert result.returncode == 1 and "model.safetensors" in one_sentence(result.stderr)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("package_name", "flags"), [("pyarrow", []), ("gguf", ["--control", "animal"])])
def test_a_missing_package_is_named_before_anything_is_written(
    encyclo,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package_name: str,
    flags: list[str],
):
    monkeypatch.setitem(sys.modules, package_name, None)
    result = encyclo("export", tiny_run, "--out", tmp_path / "out", *flags)
    assert result.returncode == 2 and "pip install 'encyclo[export]'" in one_sentence(result.stderr)
    assert not (tmp_path / "out").exists()
