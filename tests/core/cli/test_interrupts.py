"""Ctrl-C, pressed once or twice, in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from encyclo.testing.fixtures import complete_plugin
from tests.commands import one_sentence, start

SLOW = """
import time
from encyclo.testing.fixtures.complete_plugin import CompletePlugin


class Slow(CompletePlugin):
    def answer(self, hook, value):
        return self.slowly(value) if hook == "sample_prompts" else value

    def slowly(self, prompts):
        try:
            for prompt in prompts:
                print("sampling", flush=True)
                time.sleep({before})
                yield prompt
        finally:
            time.sleep({after})


class Lost:
    def __del__(self):
        print("sampling", flush=True)
        time.sleep(1)


class Losing(Slow):
    def slowly(self, prompts):
        Lost()
        yield from super().slowly(prompts)


class Turning(Slow):
    def slowly(self, prompts):
        try:
            yield from super().slowly(prompts)
        except KeyboardInterrupt as error:
            raise RuntimeError("something happened") from error


SLOW, LOSING, TURNING = Slow(), Losing(), Turning()
"""


def stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, presses: int, before: float, after: float
) -> tuple[int, str]:
    """Run until the sampler is at work, press Ctrl-C `presses` times; return exit code and stderr."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "slow_plugin.py").write_text(SLOW.format(before=before, after=after))
    complete_plugin.install(site, "slow", f"slow_plugin:{name}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    process = start("run", *complete_plugin.flags("slow"), "--out", tmp_path / "run")
    assert process.stderr is not None
    said = ""
    while process.poll() is None and "sampling" not in said:
        said += process.stderr.readline()
    time.sleep(0.1)
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.15)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, said + stderr


@pytest.mark.parametrize(("name", "presses"), [("SLOW", 2), ("SLOW", 5), ("LOSING", 1), ("LOSING", 2)])
def test_interrupts_stop_a_run_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, presses: int
):
    """While a generator is being closed, or in `__del__`, where Python loses the first one."""
    code, stderr = stopped(tmp_path, monkeypatch, name, presses, before=0.2, after=0.5)
    assert code == 130
    assert "stopped; run the same command to continue" in one_sentence(stderr)
    assert "Exception ignored" not in stderr and "KeyboardInterrupt" not in stderr


def test_an_interrupt_that_a_library_turned_into_another_error_stops_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code, stderr = stopped(tmp_path, monkeypatch, "TURNING", 1, before=0.2, after=0)
    assert code == 130 and "stopped" in one_sentence(stderr)


def test_a_later_interrupt_ends_a_process_that_does_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import encyclo.cli.interrupts as i; i.PATIENCE = 0.05\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    begun = time.monotonic()
    (tmp_path / "more").mkdir()
    code, stderr = stopped(tmp_path / "more", monkeypatch, "SLOW", 2, before=0.2, after=50)
    assert code == 130 and time.monotonic() - begun < 40
    assert "stopped" in one_sentence(stderr)
