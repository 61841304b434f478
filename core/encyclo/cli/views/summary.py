"""Print the summary at the end of a run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from encyclo.cli.views.running_text import running_text_line
from encyclo.cli.views.tables import columns, labelled
from encyclo.echo import how_given
from encyclo.pipeline.run import Outcome
from encyclo.query.encyclopedia import Encyclopedia, open_run
from encyclo.query.entry import confidence_text
from encyclo.query.evidence import basis_text
from encyclo.report.wording import where_read
from encyclo.runs.metrics import Metrics, Rung, StageFigures
from encyclo.storage.checksums import read_seal
from encyclo.storage.objects import is_remote
from encyclo.storage.working_copy import address_of

EXAMPLES = 5
NO_FAMILY = "not measured: no prompt family could be held out (use --sampler templates)"
NOT_CALIBRATED = (
    "not measured: no prompt family was left for calibration (use more concepts or a larger --per-concept)"
)
NO_CALIBRATOR = "not measured: the run's scorer reported none"


def print_summary(outcome: Outcome, console: Console) -> None:
    """Print the run's results, how far to trust them, and what to do next."""
    metrics, config = outcome.metrics, outcome.record["config"]
    with open_run(outcome.out) as book:
        if outcome.was_finished:
            console.print("This run was already finished; nothing was computed. Its results:")
        console.print()
        console.print(labelled(_figures(metrics, config, book)))
        if len(metrics.stages) > 1:
            console.print()
            console.print(_stages(metrics.stages))
        console.print()
        console.print(_examples(book))
        console.print()
        out = outcome.out
        first = shlex.quote(book.book.concepts.name[0])
        lines = [
            ("Written to", f"{out}: {read_seal(out).path}, interpreter/, metrics.json, report.html"),
            ("Next", f"{_how_to_open(out / 'report.html')}, or: encyclo show {out} {first}"),
        ]
        console.print(labelled(lines))


def _how_to_open(page: Path) -> str:
    if is_remote(address_of(page.parent)):
        return f"download {page} and open it in a browser"
    return f"open {page} in a browser"


def _figures(metrics: Metrics, config: dict[str, Any], book: Encyclopedia) -> list[tuple[str, str]]:
    capture, table = metrics.capture, book.book.concepts
    layers, site = ", ".join(map(str, config["layers"])), where_read(config.get("site"))
    return [
        ("Model", f"{config['model']} ({book.record['provenance']['model_source']})"),
        ("Concepts", f"{len(book):,}, settled {int(table.settled.sum()):,}"),
        (
            "Samples",
            f"{capture.prompts:,} at layers {layers}{f': {site}' if site else ''}{how_given(config)}",
        ),
        (
            "Capture",
            f"{capture.prompts_per_second or 0:,.0f} prompts/s in {capture.dtype} on {capture.device}, "
            "without sampling and storing",
        ),
        ("Held-out top-1", _accuracy(metrics.accuracy.heldout_prompts, config["interpreter"])),
        ("Running text", running_text_line(metrics.running_text)),
        ("Calibration error", _calibration(metrics, config["interpreter"])),
        ("Confidence", _confidence(metrics, book)),
        ("Peak memory", f"{(capture.peak_rss_mb or 0) / 1024:.1f} GB"),
    ]


def _confidence(metrics: Metrics, book: Encyclopedia) -> str:
    """Return the median confidence, among how many concepts it is, and how many readings it rests on."""
    known = book.book.concepts.confidence[~np.isnan(book.book.concepts.confidence)]
    if not len(known):
        return _not_calibrated(metrics)
    readings = book.own_readings
    basis = f"among {len(book):,} concepts" if readings is None else basis_text(readings)
    return f"{np.median(known):.0%} (median) {basis}"


def _stages(rows: Sequence[StageFigures]) -> Table:
    headings = ("Stage", "Concepts", "Samples", "Settled", "Held-out", "Natural", "Attacks", "Seconds")
    table = columns(*headings, right=True, spare=("Concepts", "Seconds", "Samples"))
    table.title, table.title_justify = "Stages", "left"
    for row in rows:
        attacks = (row.attacks.before, row.attacks.after) if row.attacks else ()
        table.add_row(
            f"{row.stage} {row.sampler or ''}",
            *(f"{count:,}" for count in (row.concepts, row.samples, row.settled)),
            *(_share(share) for share in (row.heldout_top1, row.natural_top1)),
            " → ".join(_share(1 - (found.top1 or 0)) for found in attacks if found),
            f"{row.seconds or 0:,.0f}",
        )
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _accuracy(rung: Rung, name: str) -> str:
    measured = {other: row for other, row in (rung or {}).items() if row is not None}
    if name not in measured:
        return NO_FAMILY
    own = measured.pop(name)
    figures = [f"{_share(row.top1)} ({other})" for other, row in {name: own, **measured}.items()]
    text = f"{', '.join(figures)}; n={own.n:,}, {own.candidates:,} candidates"
    better = [other for other, row in measured.items() if (row.top1 or 0) >= (own.top1 or 0)]
    return f"{text}; {name} does not beat {' and '.join(better)}" if better else text


def _not_calibrated(metrics: Metrics) -> str:
    if not metrics.splits.get("test"):
        return NO_FAMILY
    return NO_CALIBRATOR if metrics.splits.get("calibration") else NOT_CALIBRATED


def _calibration(metrics: Metrics, name: str) -> str:
    calibration = metrics.calibration
    if calibration is None or calibration.ece is None:
        return _not_calibrated(metrics)
    measured = {name: calibration, **calibration.baselines()}
    figures = [f"{row.ece:.3f} ({other})" for other, row in measured.items() if row.ece is not None]
    return f"{', '.join(figures)}; n={calibration.n or 0:,}"


def _examples(book: Encyclopedia) -> Table:
    headings = ("Concept", "Confidence", "Own readings", "Nearest concepts")
    table = columns(*headings, wrapped={"Concept", "Own readings", "Nearest concepts"})
    table.title, table.title_justify = "Five entries", "left"
    ids = book.book.concepts.id  # names may be shared
    step = max(1, len(ids) // EXAMPLES)
    for id in ids[::step][:EXAMPLES]:
        entry = book.entry(id, neighbours=4)
        own = "" if entry.own_readings is None or math.isnan(entry.confidence) else f"{entry.own_readings:,}"
        near = ", ".join(n.name for n in entry.nearest) or "none is similar"
        table.add_row(entry.name, confidence_text(entry), own, near)
    return table
