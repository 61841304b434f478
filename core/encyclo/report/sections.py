"""The page's tables and sentences about metrics.json, with the reason for each figure that is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from encyclo.report import figures
from encyclo.report.entries import entry_name
from encyclo.report.wording import NOT_MEASURED, clip, duration, known, number, percent
from encyclo.runs.details_file import Details
from encyclo.runs.metrics import Metrics, Rung
from encyclo.runs.unmeasured import why_not
from encyclo.schema import Attributes, Book
from encyclo.statistics.figures import Accuracy, Calibration, LayerConvergence

READ_FROM = {
    "heldout_prompts": "prompts of families that training never saw, naming the concept",
    "natural": "sentences by other authors that mention the concept",
    "aliases": "mentions of the concept by a word that its training samples never had",
    "senses": "a word of running text that several entries have, ranked among them",
    "described": "the concept's definition, with no word of its name",
    "unseen": "concepts that training never saw, among all concepts",
    "adversarial": "fresh attacks against the current interpreter",
}
NO_HALVES = "halving takes two concepts with at least four samples that mention them."


USES = {
    "train": "trained the readers",
    "validation": "decided when training stops",
    "calibration": "calibrated them",
    "test": "tested them",
}


def stages(metrics: Metrics) -> list[list[str]]:
    """Return a row for each stage: stage and sampler, concepts, samples, settled, accuracy, convergence, time."""
    return [
        [
            f"{number(row.stage)} {clip(row.sampler or 'not named', 60)}",
            *(number(count) for count in (row.concepts, row.samples, row.settled, row.converged)),
            *(percent(share, 1) for share in (row.heldout_top1, row.natural_top1, row.confidence)),
            number(row.ece, 3),
            _at_best_layer(row.convergence, "within_5pct_raw", max),
            _at_best_layer(row.convergence, "adjusted_rel_diff", min),
            duration(row.seconds).replace(" ", "\N{NO-BREAK SPACE}"),
        ]
        for row in metrics.stages
    ]


def _at_best_layer(table: Mapping[str, LayerConvergence] | None, key: str, best: Callable[..., str]) -> str:
    """Return the best layer's figure, and the layer's name."""
    figures_by_layer = {layer: known(getattr(row, key)) for layer, row in (table or {}).items()}
    found = {layer: figure for layer, figure in figures_by_layer.items() if figure is not None}
    if not found:
        return NOT_MEASURED
    layer = best(found, key=found.__getitem__)
    return f"{percent(found[layer])} at layer\N{NO-BREAK SPACE}{clip(str(layer), 8)}".replace("-", "−")


def ladder(metrics: Metrics, interpreter: str) -> list[dict[str, Any]]:
    """Return for each rung what it reads and a row for each reader, or why there are none."""
    return [
        {
            "name": rung_name(rung),
            "read_from": READ_FROM[rung],
            "rows": [_reading(name, row) for name, row in interpreter_first(rows, interpreter)],
            "reason": why_not(rung, metrics),
        }
        for rung, rows in metrics.accuracy.rungs().items()
    ]


def rung_name(rung: str) -> str:
    """Return a rung's name for people."""
    return rung.replace("heldout", "held-out").replace("_", " ")


def ladder_plot(metrics: Metrics, interpreter: str) -> str:
    """Return the plot of top-1 by rung with intervals and nulls; empty if nothing was read."""
    rungs = {}
    for rung, readers in metrics.accuracy.rungs().items():
        rows = {n: row for n, row in interpreter_first(readers, interpreter) if known(row.top1) is not None}
        if rows:
            rungs[rung_name(rung)] = rows
    names = list(dict.fromkeys(name for rows in rungs.values() for name in rows))[:2]
    drawn = [(rung, [(name, rows[name]) for name in names if name in rows]) for rung, rows in rungs.items()]
    return figures.ladder_plot(names, drawn) if drawn else ""


def coverage(metrics: Metrics, interpreter: str) -> dict[str, Any] | None:
    """Return accuracy against coverage, a series for each rung and reader; None before `encyclo evaluate`."""
    series = []
    for rung, label in (("heldout_prompts", "held-out"), ("natural", "natural")):
        rows = interpreter_first(metrics.accuracy.rungs()[rung], interpreter)[:2]
        for name, row in rows:
            points = [
                [float(share), float(right)]
                for share, right, *_ in (row.calibration and row.calibration.coverage) or []
                if share is not None and right is not None
            ]
            if points:
                series.append((label, clip(name, 40), name == interpreter, points))
    if not series:
        return None
    return {
        "plot": figures.coverage_plot(series),
        "rows": [
            [f"{label}, {name}", *(percent(_accuracy_at(points, share), 1) for share in (0.2, 0.5, 0.8, 1.0))]
            for label, name, _, points in series
        ],
    }


def _accuracy_at(points: list[list[float]], share: float) -> float:
    return min(points, key=lambda point: abs(point[0] - share))[1]


def confused(metrics: Metrics, interpreter: str, details: Details | None, book: Book) -> list[dict[str, Any]]:
    """Return a table of the most frequent misreadings for each kind of reading: (truth, read instead, times)."""
    tables: list[dict[str, Any]] = []
    if details is not None:
        kind = (
            "prompts of families that training never saw"
            if details.held_out
            else "samples that training may have seen"
        )
        names = book.concepts.name
        tables.append(
            {
                "of": f"{details.readings:,} readings of {kind}",
                "rows": [
                    [(entry_name(names[a], 80), a), (entry_name(names[b], 80), b), f"{times:,}"]
                    for a, b, times in details.pairs
                ],
            }
        )
    for rung in ("natural", "described", "unseen", "adversarial"):
        row = (metrics.accuracy.rungs()[rung] or {}).get(interpreter)
        if row and row.confused:
            found = [
                [(entry_name(str(a), 80), None), (entry_name(str(b), 80), None), number(times)]
                for a, b, times in row.confused[:20]
            ]
            tables.append({"of": f"{number(row.n)} readings of the rung {rung}", "rows": found})
    return tables


def families(metrics: Metrics) -> str:
    """Return a sentence that counts prompt families by their use."""
    splits = metrics.splits
    parts = [f"{len(splits.get(key) or []):,} {verb}" for key, verb in USES.items() if key in splits]
    return f"Of the prompt families, {', '.join(parts)}." if parts else ""


def convergence(metrics: Metrics, attributes: Attributes) -> dict[str, Any] | None:
    """Return the convergence table, shallow layers first, and its two plots; None if not measured."""
    table = metrics.convergence
    if not table:
        return None
    depth = {
        str(layer): index for layer, index in zip(attributes.layers, attributes.layer_index, strict=True)
    }
    layers = sorted(table.items(), key=lambda item: depth.get(item[0], len(depth)))
    counts = [row.concepts for _, row in layers if row.concepts is not None]
    return {
        "rows": [_layer(name, depth.get(name), row) for name, row in layers],
        "concepts": f"{number(max(counts))} concepts" if counts else "the concepts",
        "difference": figures.difference_plot(layers),
        "cosine": figures.cosine_plot(layers),
    }


def curve(details: Details | None) -> dict[str, Any] | None:
    """Return the difference of halves by their size, as a plot and rows; None if no entry has two samples."""
    if details is None or not details.curve:
        return None
    return {
        "plot": figures.curve_plot(details.curve),
        "rows": [
            [number(size), number(entries), percent(raw, 1), percent(centred, 1)]
            for size, entries, raw, centred in details.curve
        ],
    }


def reliability(metrics: Metrics, interpreter: str) -> dict[str, Any] | None:
    """Return the calibration of the interpreter and of the baselines; None if not measured."""
    found = calibrations(metrics, interpreter)
    if not found:
        return None
    drawn = [(name, bins) for name, row in found if (bins := bins_of(row))][:2]
    return {
        "rows": [
            [
                clip(name, 40),
                number(row.n),
                *(number(figure, 3) for figure in (row.ece, row.brier, row.temperature)),
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


def interpreter_first(rung: Rung, interpreter: str) -> list[tuple[str, Accuracy]]:
    """Return the measured readers, the run's interpreter first."""
    measured = {name: row for name, row in (rung or {}).items() if row is not None}
    return sorted(measured.items(), key=lambda item: (item[0] != interpreter, item[0]))


def _reading(name: str, row: Accuracy) -> list[str]:
    null = row.null.top1 if row.null else None
    guess = f"{percent(1 / row.candidates, 2)}, a guess" if row.candidates else NOT_MEASURED
    return [
        clip(name, 40),
        number(row.n),
        percent(row.top1, 1),
        top1_interval(row),
        *(percent(share, 1) for share in (row.top10, row.top100)),
        number(row.median_rank, 0 if (known(row.median_rank) or 0) % 1 == 0 else 1),
        percent(null, 2) if known(null) is not None else guess,
    ]


def top1_interval(row: Accuracy) -> str:
    """Return `90.1% to 95.2%`, or `not measured`."""
    if known(row.top1_low) is None or known(row.top1_high) is None:
        return NOT_MEASURED
    return f"{percent(row.top1_low, 1)} to {percent(row.top1_high, 1)}"


def _layer(name: str, index: int | None, row: LayerConvergence) -> list[str]:
    return [
        name.replace("-", "−") + ("" if index is None else f" ({index})"),
        percent(row.raw_rel_diff, 1),
        percent(row.within_5pct_raw),
        percent(row.centred_rel_diff, 1),
        percent(row.within_5pct_centred),
        percent(row.adjusted_rel_diff, 1),
        number(row.cosine, 3),
        number(row.null_cosine, 3),
        number(row.samples_to_5pct_median),
    ]


def calibrations(metrics: Metrics, interpreter: str) -> list[tuple[str, Calibration]]:
    """Return (name, calibration), the run's interpreter first, then the baselines."""
    own = metrics.calibration
    if own is None or not own.as_json():
        return []
    return [(interpreter, own), *own.baselines().items()]


def bins_of(row: Calibration) -> list[list[float]]:
    """Return the bins that can be drawn: those with three figures and at least one reading."""
    whole = [[figure for value in bin_ if (figure := known(value)) is not None] for bin_ in row.bins or []]
    return [some for some in whole if len(some) == 3 and some[2] > 0]
