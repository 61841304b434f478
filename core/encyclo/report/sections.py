"""What metrics.json measured, as the page's tables and sentences; what it could not, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from encyclo.report import figures
from encyclo.report.entries import median
from encyclo.report.wording import NOT_MEASURED, clip, duration, known, number, percent
from encyclo.schema import Attributes, Book

RUNGS = {
    "heldout_prompts": "prompts of families that training never saw, naming the concept",
    "natural": "sentences by other authors that mention the concept",
    "described": "the concept's definition, with no word of its name",
    "unseen": "concepts that training never saw, among all concepts",
    "adversarial": "fresh attacks against the interpreter as it now is",
}
NO_FAMILY = (
    "no prompt family could be held out. A stage whose prompts are all of one family gives it to training; "
    "run with a sampler of several families, such as the sampler templates."
)
NO_SPARE_FAMILY = (
    "no prompt family was left to calibrate on, beside those for training and testing. Run with a sampler of "
    "more families, such as the sampler templates."
)
NO_HALVES = "fewer than two concepts have the four samples that mention them, which halving takes."


USES = {
    "train": "trained the readers",
    "validation": "told training when to stop",
    "calibration": "calibrated them",
    "test": "tested them",
}


def at(tree: Any, *keys: str) -> Any:
    """Return tree[key]…[key], or None where there is nothing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def key_figures(metrics: Mapping[str, Any], interpreter: str, book: Book) -> list[dict[str, Any]]:
    """Return the figures that matter, each with what it stands beside."""
    return [
        _capture(at(metrics, "capture")),
        _top1(metrics, interpreter),
        _error(metrics, interpreter),
        _settled(book),
    ]


def stages(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a stage: stage, sampler, concepts, samples, settled, time."""
    return [
        [
            number(at(row, "stage")),
            clip(str(at(row, "sampler") or "not named"), 60),
            *(number(at(row, key)) for key in ("concepts", "samples", "settled")),
            duration(at(row, "seconds")),
        ]
        for row in at(metrics, "stages") or []
    ]


def ladder(metrics: Mapping[str, Any], interpreter: str) -> list[dict[str, Any]]:
    """Return a rung each: what it reads from, and a row a reader, or why there is none."""
    accuracy = at(metrics, "accuracy") or {}
    return [
        {
            "name": rung.replace("heldout", "held-out").replace("_", " "),
            "read_from": RUNGS.get(rung, ""),
            "rows": [
                _reading(name, row) for name, row in _interpreter_first(accuracy.get(rung), interpreter)
            ],
            "reason": no_accuracy(metrics)
            if rung == "heldout_prompts"
            else "this run did not climb this rung.",
        }
        for rung in dict.fromkeys((*RUNGS, *accuracy))
    ]


def families(metrics: Mapping[str, Any]) -> str:
    """Return how many prompt families went where."""
    splits = at(metrics, "splits") or {}
    parts = [f"{len(splits.get(key) or []):,} {verb}" for key, verb in USES.items() if key in splits]
    return f"Of the prompt families, {', '.join(parts)}." if parts else ""


def no_accuracy(metrics: Mapping[str, Any]) -> str:
    """Return why nothing was read from held-out prompts."""
    return "the run recorded no such reading." if at(metrics, "splits", "test") else NO_FAMILY


def no_calibration(metrics: Mapping[str, Any]) -> str:
    """Return why the confidences were not measured."""
    if not at(metrics, "splits", "test"):
        return NO_FAMILY
    return "the run's scorer reported none." if at(metrics, "splits", "calibration") else NO_SPARE_FAMILY


def convergence(metrics: Mapping[str, Any], attributes: Attributes) -> dict[str, Any] | None:
    """Return the convergence table, shallow layers first, and its two plots; None where not measured."""
    table = at(metrics, "convergence")
    if not table:
        return None
    depth = {
        str(layer): index for layer, index in zip(attributes.layers, attributes.layer_index, strict=True)
    }
    layers = sorted(table.items(), key=lambda item: depth.get(item[0], len(depth)))
    counts = [count for _, row in layers if (count := known(at(row, "concepts"))) is not None]
    return {
        "rows": [_layer(name, depth.get(name), row) for name, row in layers],
        "concepts": f"{number(max(counts))} concepts" if counts else "the concepts",
        "difference": figures.difference_plot(layers),
        "cosine": figures.cosine_plot(layers),
    }


def reliability(metrics: Mapping[str, Any], interpreter: str) -> dict[str, Any] | None:
    """Return the calibration of the interpreter and of the baselines; None where not measured."""
    found = _calibrations(metrics, interpreter)
    if not found:
        return None
    drawn = [(name, bins) for name, row in found if (bins := _bins(row))][:2]
    return {
        "rows": [
            [
                clip(name, 40),
                number(at(row, "n")),
                *(number(at(row, key), 3) for key in ("ece", "brier", "temperature")),
            ]
            for name, row in found
        ],
        "plot": figures.reliability_plot(drawn) if drawn else "",
        "drawn": " and ".join(clip(name, 40) for name, _ in drawn),
        "bins": [
            {"name": clip(name, 40), "rows": [[percent(c, 1), percent(a, 1), number(n)] for c, a, n in bins]}
            for name, bins in drawn
        ],
    }


def _capture(capture: Any) -> dict[str, Any]:
    rate = known(at(capture, "prompts_per_second"))
    detail = (
        f"{number(at(capture, 'prompts'))} prompts, {number(at(capture, 'tokens'))} tokens, "
        f"{duration(at(capture, 'seconds'))} in the model, {at(capture, 'dtype') or 'unknown type'} "
        f"on {at(capture, 'device') or 'an unnamed device'}"
    )
    if rate is None:
        return _unknown("Capture", "the run kept no time for its captures.")
    return {
        "label": "Capture",
        "value": f"{number(rate, 0 if rate >= 10 else 2)} prompts/s",
        "detail": [detail],
    }


def _top1(metrics: Mapping[str, Any], interpreter: str) -> dict[str, Any]:
    label, rung = "Held-out top-1", at(metrics, "accuracy", "heldout_prompts")
    own = at(rung, interpreter)
    if known(at(own, "top1")) is None:
        return _unknown(label, no_accuracy(metrics))
    others = [(name, row) for name, row in _interpreter_first(rung, interpreter) if name != interpreter]
    beside = [
        f"{clip(name, 40)} {percent(at(row, 'top1'), 1)}{_points(at(row, 'top1'), own['top1'])}, "
        f"n = {number(at(row, 'n'))}"
        for name, row in others
    ]
    among = (
        f"{clip(interpreter, 40)}, n = {number(at(own, 'n'))}, among {number(at(own, 'candidates'))} concepts"
    )
    return {
        "label": label,
        "value": percent(own["top1"], 1),
        "detail": [among, *(beside or ["no baseline was trained beside it"])],
    }


def _points(other: Any, own: float) -> str:
    """Return how many percentage points a baseline lies above or below."""
    figure = known(other)
    if figure is None:
        return ""
    points = round((figure - own) * 100, 1)
    if points == 0:
        return " (as good)"
    return f" ({abs(points):.1f} points {'higher' if points > 0 else 'lower'})"


def _error(metrics: Mapping[str, Any], interpreter: str) -> dict[str, Any]:
    label, found = "Calibration error", _calibrations(metrics, interpreter)
    if not found or known(at(found[0][1], "ece")) is None:
        return _unknown(label, no_calibration(metrics))
    said = [
        f"{clip(name, 40)} {number(at(row, 'ece'), 3)}, n = {number(at(row, 'n'))}" for name, row in found[1:]
    ]
    own = f"{clip(interpreter, 40)}, n = {number(at(found[0][1], 'n'))}; 0 is perfect"
    return {
        "label": label,
        "value": number(found[0][1]["ece"], 3),
        "detail": [own, *(said or ["no baseline was measured beside it"])],
    }


def _settled(book: Book) -> dict[str, Any]:
    table = book.concepts
    middle = median(table.confidence)
    confident = (
        "confidence not measured, so that nothing can settle"
        if middle is None
        else f"median confidence {percent(middle)}"
    )
    return {
        "label": "Concepts settled",
        "value": f"{int(table.settled.sum()):,} of {len(table):,}",
        "detail": [confident, f"{int(table.converged.sum()):,} signatures converged"],
    }


def _unknown(label: str, reason: str) -> dict[str, Any]:
    return {"label": label, "value": NOT_MEASURED, "detail": [reason[0].upper() + reason[1:]]}


def _interpreter_first(rung: Any, interpreter: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the readers that were measured, the run's own first."""
    measured = {name: row for name, row in (rung or {}).items() if isinstance(row, Mapping) and row}
    return sorted(measured.items(), key=lambda item: (item[0] != interpreter, item[0]))


def _reading(name: str, row: Mapping[str, Any]) -> list[str]:
    candidates = known(at(row, "candidates"))
    return [
        clip(name, 40),
        number(at(row, "n")),
        *(percent(at(row, key), 1) for key in ("top1", "top10", "top100")),
        number(at(row, "median_rank"), 0 if (known(at(row, "median_rank")) or 0) % 1 == 0 else 1),
        percent(1 / candidates, 2) if candidates else NOT_MEASURED,
    ]


def _layer(name: str, index: int | None, row: Mapping[str, Any]) -> dict[str, Any]:
    cells = [
        percent(at(row, "raw_rel_diff"), 1),
        percent(at(row, "within_5pct_raw")),
        percent(at(row, "centred_rel_diff"), 1),
        percent(at(row, "within_5pct_centred")),
        number(at(row, "cosine"), 3),
        number(at(row, "null_cosine"), 3),
        number(at(row, "samples_to_5pct_median")),
    ]
    return {"name": name.replace("-", "−"), "index": "" if index is None else str(index), "cells": cells}


def _calibrations(metrics: Mapping[str, Any], interpreter: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return (name, calibration), the run's interpreter first and then the baselines under their names."""
    own = at(metrics, "calibration")
    if not own:
        return []
    return [(interpreter, own)] + [(k, v) for k, v in own.items() if isinstance(v, Mapping) and v]


def _bins(row: Mapping[str, Any]) -> list[list[float]]:
    """Return the bins that can be drawn: three figures each, and a reading at least."""
    whole = [
        [figure for value in bin_ if (figure := known(value)) is not None] for bin_ in at(row, "bins") or []
    ]
    return [some for some in whole if len(some) == 3 and some[2] > 0]
