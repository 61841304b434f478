"""The page's first lines, and the key figures, each with its baseline and its null."""

from __future__ import annotations

from typing import Any

from encyclo.report.entries import alike, median
from encyclo.report.sections import (
    NO_HALVES,
    bins_of,
    calibrations,
    interpreter_first,
    top1_interval,
)
from encyclo.report.wording import NOT_MEASURED, clip, duration, known, moment, number, percent
from encyclo.runs.details_file import Details
from encyclo.runs.metrics import Metrics
from encyclo.runs.unmeasured import no_accuracy, no_calibration, no_sentences
from encyclo.schema import Book
from encyclo.statistics.figures import Accuracy


def about(record: dict[str, Any], book: Book) -> str:
    """Return one line: how many entries, how many are settled, when they were made."""
    count, settled = len(book.concepts), int(book.concepts.settled.sum())
    begun = moment(record.get("created") or book.attributes.created).partition(" ")[0]
    return f"{count:,} {'entry' if count == 1 else 'entries'}, {settled:,} settled; made {begun}."


def meaning(metrics: Metrics, book: Book, details: Details | None) -> str:
    """Return what a confidence is, among how many concepts, and how many readings it rests on."""
    if median(book.concepts.confidence) is None:
        return f"No entry has a confidence: {no_calibration(metrics)}"
    count = len(book.concepts)
    said = (
        "A confidence is the probability that the interpreter picks the right concept from one new sample, among this "
        f"run's {count:,}, with its 95% interval. It says nothing about concepts that have no entry."
    )
    if details is None or details.own is None:
        return said
    total, without = int(details.own.sum()), int((details.own == 0).sum())
    rests = (
        f" It rests on {total:,} held-out readings, {total / count:.1f} for an entry on average; n is the number "
        "of the entry's own. The fewer there are, the wider the interval."
    )
    if without:
        verb = "entry has" if without == 1 else "entries have"
        rests += f" {without:,} {verb} none: the confidence is that of the other concepts."
    if alike(book):
        rests += " All confidences are nearly the same, so there are no bars; n tells which entries have more evidence."
    return said + rests


def key_figures(metrics: Metrics, interpreter: str, book: Book) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the key figures, each with its baseline and its null, and a sentence for each that says nothing."""
    found = [
        _top1("Held-out top-1", metrics, interpreter, "heldout_prompts", no_accuracy(metrics)),
        _top1("Top-1 in natural sentences", metrics, interpreter, "natural", no_sentences(metrics)),
        _error(metrics, interpreter),
        _halves(metrics),
        _settled(metrics, book),
    ]
    return [one for one in found if isinstance(one, dict)], [one for one in found if isinstance(one, str)]


def capture_line(metrics: Metrics) -> str:
    """Return the speed and the amount of the run's capture."""
    capture = metrics.capture
    rate = known(capture.prompts_per_second)
    if rate is None:
        return f"{NOT_MEASURED}: the run did not record how long capture took"
    return (
        f"{number(rate, 0 if rate >= 10 else 2)} prompts/s: {number(capture.prompts)} prompts, "
        f"{number(capture.tokens)} tokens, {duration(capture.seconds)} in the model, "
        f"{capture.dtype or 'unknown type'} on {capture.device or 'an unnamed device'}"
    )


def _top1(label: str, metrics: Metrics, interpreter: str, rung: str, reason: str) -> dict[str, Any] | str:
    readers = metrics.accuracy.rungs()[rung]
    own = (readers or {}).get(interpreter)
    if own is None or known(own.top1) is None:
        return _unknown(label, reason)
    others = [(name, row) for name, row in interpreter_first(readers, interpreter) if name != interpreter]
    baselines = [
        f"Baseline: {clip(name, 40)} {percent(row.top1, 1)}{_points(row.top1, own.top1)}, n = {number(row.n)}"
        for name, row in others
    ]
    interval = top1_interval(own)
    span = "" if interval == NOT_MEASURED else f", {interval}"
    among = f"{clip(interpreter, 40)}{span}, n = {number(own.n)}, among {number(own.candidates)} concepts"
    return {
        "label": label,
        "value": percent(own.top1, 1),
        "detail": [among, *(baselines or ["Baseline: none was trained"]), null_line(own)],
    }


def null_line(row: Accuracy) -> str:
    """Return the null: measured with shuffled concepts, or else the accuracy of a guess."""
    if row.null and known(row.null.top1) is not None:
        return f"Null: {percent(row.null.top1, 2)}, with the concepts shuffled"
    return f"Null: {percent(1 / row.candidates, 2)}, a guess" if row.candidates else f"Null: {NOT_MEASURED}"


def _points(other: float | None, own: float | None) -> str:
    """Return how many percentage points a baseline is above or below the interpreter."""
    if other is None or own is None or known(other) is None:
        return ""
    points = round((other - own) * 100, 1)
    if points == 0:
        return " (as good)"
    return f" ({abs(points):.1f} points {'higher' if points > 0 else 'lower'})"


def _error(metrics: Metrics, interpreter: str) -> dict[str, Any] | str:
    label, found = "Calibration error", calibrations(metrics, interpreter)
    error = known(found[0][1].ece) if found else None
    if error is None:
        return _unknown(label, no_calibration(metrics))
    baselines = [
        f"Baseline: {clip(name, 40)} {number(row.ece, 3)}, n = {number(row.n)}" for name, row in found[1:]
    ]
    bins = bins_of(found[0][1])
    total = sum(count for *_, count in bins)
    # The error of always claiming certainty is the share of wrong readings.
    sure = 1 - sum(a * n for _, a, n in bins) / total if total else None
    count = number(found[0][1].n)
    if sure is not None and round(error, 3) >= round(sure, 3):
        return (
            f"{label}: {error:.3f} of n = {count} readings says little, since claiming certainty for each of them "
            f"gives {sure:.3f}."
        )
    return {
        "label": label,
        "value": f"{error:.3f}",
        "detail": [
            f"{clip(interpreter, 40)}, n = {count}; 0 is perfect",
            *(baselines or ["Baseline: none was measured"]),
            f"Null: {number(sure, 3)}, if every reading claimed certainty",
        ],
    }


def _halves(metrics: Metrics) -> dict[str, Any] | str:
    label, table = "Agreement of halves", metrics.convergence or {}

    def mean(key: str) -> float | None:
        figures = [figure for row in table.values() if (figure := known(getattr(row, key))) is not None]
        return sum(figures) / len(figures) if figures else None

    if mean("cosine") is None:
        return _unknown(label, NO_HALVES)
    return {
        "label": label,
        "value": number(mean("cosine"), 3),
        "detail": [
            f"cosine of centred halves of a concept's samples, mean over {len(table)} layers; 1 is perfect",
            f"Baseline: raw difference {percent(mean('raw_rel_diff'), 1)}, which looks better than it should; "
            f"centred {percent(mean('centred_rel_diff'), 1)}",
            f"Null: {number(mean('null_cosine'), 3)}, with another concept's half",
        ],
    }


def _settled(metrics: Metrics, book: Book) -> dict[str, Any]:
    table, stages = book.concepts, metrics.stages
    middle = median(table.confidence)
    confident = (
        "confidence not measured, so that nothing can settle"
        if middle is None
        else f"median confidence {percent(middle)}; {int(table.converged.sum()):,} signatures converged"
    )
    first = f"Baseline: {number(stages[0].settled)} after the first round" if len(stages) > 1 else ""
    return {
        "label": "Concepts settled",
        "value": f"{int(table.settled.sum()):,} of {len(table):,}",
        "detail": [confident, *([first] if first else [])],
    }


def _unknown(label: str, reason: str) -> str:
    return f"{label}: {NOT_MEASURED}, since {reason}"
