"""What a user is told if an object store can't be used: what is wrong, where, what to do."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from encyclo.cli import run_command
from encyclo.errors import StoreError
from encyclo.storage import files, objects
from encyclo.storage.objects import Objects
from encyclo.storage.run_location import fetched
from encyclo.storage.working_copy import WorkingCopy
from tests.commands import one_sentence
from tests.core.storage.test_object_stores import arguments, on_s3, s3, site, surroundings
from tests.object_store import SECRET, Proxy

__all__ = ["s3", "site", "surroundings"]
pytest.importorskip("obstore")


def test_a_missing_bucket_is_named(s3: Proxy, site: Path, tmp_path: Path, monkeypatch, capsys):
    on_s3(s3, tmp_path, monkeypatch)
    sentence = (
        "there is no bucket 'nowhere' on the server that AWS_ENDPOINT_URL names; create it (`aws s3 mb s3://nowhere`) or "
        "correct the URL, and run the same command again."
    )
    for command, verb in (
        (arguments("s3://nowhere/run"), "use"),
        (["show", "s3://nowhere/run", "x"], "read"),
    ):
        assert run_command(command) == 1
        assert one_sentence(capsys.readouterr().err) == f"Can't {verb} s3://nowhere/run: {sentence}"


def test_a_bucket_that_is_removed_meanwhile_is_no_fault_of_the_disk(tmp_path: Path, s3: Proxy, monkeypatch):
    on_s3(s3, tmp_path, monkeypatch)
    copy = WorkingCopy(Objects("s3://nowhere/run"), tmp_path / "copy")
    copy.root.mkdir()
    with files.using(copy), pytest.raises(StoreError) as found:
        files.write_text(copy.root / "run.json", "{}")
    assert "there is no bucket 'nowhere'" in str(found.value) and "disk" not in str(found.value)


ADVICE = {
    401: "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may list, read, write and delete in 'bucket',",
    403: "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may list, read, write and delete in 'bucket',",
    301: "set AWS_REGION to the bucket's region",
}


@pytest.mark.parametrize("status", ADVICE)
def test_each_refusal_has_its_advice(status: int, s3: Proxy, site: Path, tmp_path: Path, monkeypatch, capsys):
    url = on_s3(s3, tmp_path, monkeypatch)
    s3.fault = lambda method, path: status
    for command in (arguments(url), ["show", url, "x"]):
        assert run_command(command) == 1
        assert f"; {ADVICE[status]} and run the same" in one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("variables", "ends"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "; check the network and AWS_ENDPOINT_URL and run"),
        (
            {"AWS_METADATA_ENDPOINT": "http://127.0.0.1:9/169.254.169.254"},
            "the environment has no credentials, and this machine has no role that gives some; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, and run",
        ),
    ],
)
def test_a_server_that_does_not_answer(variables, ends: str, tmp_path: Path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    if "AWS_ENDPOINT_URL" in variables:
        variables |= {"AWS_ACCESS_KEY_ID": "AKIAsecret", "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "RETRIES", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)})
    with pytest.raises(StoreError) as found:
        fetched("s3://bucket/run")
    assert ends in str(found.value) and "AKIA" not in str(found.value)
