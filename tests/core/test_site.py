"""`--site`: a run reads what attention or the MLP adds, everywhere, and is another run than one of the residual stream."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from encyclo.config import load_config
from encyclo.errors import UsageError
from encyclo.evaluation.converge import converge
from encyclo.pipeline.units import recipe
from encyclo.query.encyclopedia import open_run
from encyclo.query.text_reader import check_trained_for
from encyclo.runs.directory import read_record, write_record
from encyclo.storage import run_files
from encyclo.terminal import ConsoleProgress
from tests import fast_plugin
from tests.commands import one_sentence
from tests.core.pipeline.test_run import assert_same_encyclopedia
from tests.core.test_echo import Recording, assert_read_as_captured, opened
from tests.plain_forward import relative_error
from tests.plugins.test_sites import PLACES, PlainSites
from tests.third_party import open_site

QUIET = ConsoleProgress(quiet=True)
LAYERS = (1, -2, -1)


@pytest.fixture(scope="module")
def flags(tiny_flags: list[str]) -> list[str]:
    return ["--sampler", "templates", "--limit", "40", *tiny_flags, "-o", "transformers.dtype=float32"]


@pytest.fixture(scope="module")
def attn_run(tmp_path_factory: pytest.TempPathFactory, flags: list[str]) -> Path:
    """A finished run of 40 concepts with --site attn; read it, don't change it."""
    from encyclo.cli import run_command

    out = tmp_path_factory.mktemp("site") / "run"
    assert run_command(["run", "--site", "attn", "--out", str(out), *flags]) == 0
    return out


@pytest.fixture
def copied(attn_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(attn_run, tmp_path / "copied"))


def test_the_residual_stream_is_the_default_and_other_sites_are_refused(tmp_path: Path):
    assert load_config({}).site == "resid" and load_config({"site": "mlp"}).site == "mlp"
    file = tmp_path / "run.toml"
    file.write_text('site = "attn"\n')
    assert load_config({}, file).site == "attn"
    with pytest.raises(
        UsageError, match=r"^--site can't be 'head': input should be 'resid', 'attn' or 'mlp'\.$"
    ):
        load_config({"site": "head"})


def test_the_stored_samples_are_what_attention_adds(attn_run: Path, tiny_gemma: Path):
    plain = PlainSites(tiny_gemma, *PLACES["gemma3"], "attn")
    with open_run(attn_run) as book:
        assert book.site == "attn" and "at layers 1, -2, -1 (--site attn)" in book._repr_html_()
        part = book.samples("animal")
        for row, (text, span) in enumerate(zip(part.prompt, part.span.tolist(), strict=True)):
            tokens = plain.pooled_tokens(text, tuple(span), "span")
            wanted = np.stack([plain.states(text)[layer][tokens].mean(axis=0) for layer in LAYERS])
            assert relative_error(part.values()[row], wanted).max() < 2e-3  # half precision


def test_run_json_says_it_and_the_self_test_checked_the_sums(attn_run: Path):
    record = read_record(attn_run)
    assert record["config"]["site"] == "attn" and record["self_test"]["sums"] == 0
    with open_run(attn_run) as book:
        assert json.loads(book.book.attributes.config)["site"] == "attn"


def test_a_word_is_read_as_its_mention_is_captured(attn_run: Path):
    with open_run(attn_run) as book:
        found = book.reader("cpu")
        reader = dataclasses.replace(found, interpreter=Recording(found.interpreter))
    assert_read_as_captured(reader, opened(attn_run), "Please look at the animal there.", ("animal", "there"))


def test_units_of_sites_differ_and_those_of_the_residual_stream_keep_their_ids(attn_run: Path):
    sessions = [opened(attn_run, site=site).session for site in ("attn", "mlp", "resid")]
    attn, mlp, resid = [recipe(session, session.stages[0], ()) for session in sessions]
    assert attn == {**resid, "site": "attn"} and mlp == {**resid, "site": "mlp"} and "site" not in resid


def test_the_same_command_resumes_and_another_site_is_refused(
    encyclo, copied: Path, attn_run: Path, flags: list[str]
):
    shutil.rmtree(copied / "rounds")
    for name in ("metrics.json", "encyclopedia.h5", "seal.json"):
        (copied / name).unlink()
    for path in (copied / "commits").glob("*.json"):
        path.unlink()
    for extra, now in ((), "resid"), (("--site", "mlp"), "mlp"):
        refused = encyclo("run", *extra, "--out", copied, *flags)
        assert refused.returncode == 2 and f'site: "attn" there, "{now}" now' in one_sentence(refused.stderr)
        assert encyclo("plan", *extra, "--out", copied, *flags).returncode == 2
    result = encyclo("run", "--site", "attn", "--out", copied, *flags)
    assert result.returncode == 0, result.stderr
    assert "at layers 1, -2, -1: what attention adds (--site attn)" in result.stdout
    assert_same_encyclopedia(copied, attn_run)


def test_several_workers_read_the_same_site(encyclo, attn_run: Path, tmp_path: Path, flags: list[str]):
    out = tmp_path / "run"
    result = encyclo("run", "--site", "attn", "-o", "local.workers=2", "--out", out, *flags)
    assert result.returncode == 0, result.stderr
    assert_same_encyclopedia(out, attn_run)


def test_an_older_run_that_records_no_site_goes_on(encyclo, tiny_run: Path, tmp_path: Path, tiny_flags):
    out = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (out / "metrics.json").unlink()
    (out / "seal.json").unlink()
    record = read_record(out)
    del record["config"]["site"]
    write_record(out, record)
    flags = ["--sampler", "templates", "--limit", "40", "--out", out, *tiny_flags]
    assert 'site: "resid" there, "mlp" now' in one_sentence(encyclo("run", "--site", "mlp", *flags).stderr)
    assert encyclo("run", *flags).returncode == 0
    with open_run(out) as book:
        assert book.site == "resid"


def test_the_embedding_has_no_site(encyclo, tmp_path: Path, flags: list[str]):
    for layers in ("0,1", "1,-5"):
        result = encyclo("run", "--site", "mlp", "--out", tmp_path / "run", *flags, "--layers", layers)
        assert result.returncode == 2 and not (tmp_path / "run").exists()
        assert one_sentence(result.stderr).endswith(
            "--layers names layer 0, the embedding, which comes before every block; with --site mlp name layers from "
            "1 to 4."
        )


def test_a_capture_that_knows_no_sites_is_refused(encyclo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with open_site(tmp_path / "site", monkeypatch):
        fast_plugin.install(tmp_path / "site")
        result = encyclo(*fast_plugin.FLAGS, tmp_path / "run", "--site", "attn", "--layers", "1")
    assert result.returncode == 2
    assert one_sentence(result.stderr) == (
        "The capture fast reads only the residual stream, not --site attn; leave --site out, or use --capture "
        "transformers."
    )


def test_the_report_the_plan_and_the_export_say_it(encyclo, attn_run: Path, tmp_path: Path, tiny_run: Path):
    said = "what attention adds (--site attn) to the residual stream"
    assert said in (attn_run / "report.html").read_text()
    assert "<dt>Site" not in (tiny_run / "report.html").read_text()
    assert encyclo("export", attn_run, "--out", tmp_path / "out", "--no-parquet").returncode == 0
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["site"] == "attn"


def test_a_copy_in_the_other_store_keeps_the_site(encyclo, attn_run: Path, tmp_path: Path):
    out = tmp_path / "zarr"
    assert encyclo("convert", attn_run, "--store", "zarr", "--out", out).returncode == 0
    assert encyclo("verify", out).returncode == 0
    with open_run(out) as book:
        assert book.site == "attn"


def test_an_interpreter_refuses_another_site(attn_run: Path, tiny_run: Path):
    with open_run(attn_run) as book:
        about, model = book.book.attributes, book.reader("cpu").model
        assert (
            json.loads((attn_run / "interpreter" / "config.json").read_text())["trained_on"]["site"] == "attn"
        )
    given = (about.layers, about.pooling, False, about.weights_sha256, None)
    check_trained_for(attn_run, model, *given, "attn")
    for run, site, trained in (attn_run, "resid", "attn"), (tiny_run, "mlp", "resid"):
        with pytest.raises(UsageError, match=f"trained for the site {trained} and can't read {site}; use"):
            check_trained_for(run, model, *given, site)


def test_evaluate_follows_the_run(encyclo, copied: Path):
    assert encyclo("evaluate", copied, "--json").returncode == 0
    rungs = json.loads((copied / "metrics.json").read_text())["accuracy"]
    assert rungs["heldout_prompts"]["transformer"]["top1"] > 0.1 and rungs["unseen"] and rungs["described"]
    run_files.check_finished_record(copied)


def test_the_older_protocol_reads_the_residual_stream(
    encyclo, attn_run: Path, tmp_path: Path, flags: list[str]
):
    plain = tmp_path / "plain"
    assert encyclo("run", "--out", plain, *flags).returncode == 0
    both = [
        converge(path, QUIET, "cpu", older=True).older
        for path in (shutil.copytree(attn_run, tmp_path / "a"), plain)
    ]
    assert both[0] and both[1] and both[0].figures == both[1].figures
    assert both[0].here != both[1].here
