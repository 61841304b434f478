"""The page's section about coverage: how much of a text's activations the entries explain."""

from __future__ import annotations

from typing import Any

from encyclo.report import figures
from encyclo.report.wording import clip, known, number, percent
from encyclo.runs.metrics import Metrics
from encyclo.statistics.coverage import FEWEST, SHOWN, SIZES

DIRECTIONS = {
    "entries": "entries",
    "shuffled": "shuffled signatures",
    "random": "random directions",
    "principal": "principal components",
}
"""What rebuilds activations, as the page names it."""
NO_TEXT = "give evaluate a text with --text."


def explained(metrics: Metrics) -> dict[str, Any]:
    """Return the plot, the tables by layer and by kind of token; else `reason`, why there are none."""
    found = metrics.coverage
    if found is None:
        return {"plot": "", "reason": NO_TEXT}
    if not found.layers:
        return {"plot": "", "reason": f"it takes at least {FEWEST} tokens of text and 2 entries."}
    means = {label: [known(found.mean(name, size)) for size in SIZES] for name, label in DIRECTIONS.items()}
    return {
        "source": clip(found.source, 60),
        "measured": number(found.measured),
        "candidates": number(found.candidates),
        "shown": SHOWN,
        "plot": figures.explained_plot(SIZES, means),
        "sizes": [number(size) for size in SIZES],
        "means": [[label, *(percent(share, 1) for share in row)] for label, row in means.items()],
        "directions": list(DIRECTIONS.values()),
        "layers": [
            [
                name.replace("-", "−"),
                *(
                    percent(dict(zip(row.k, getattr(row, key), strict=False)).get(SHOWN), 1)
                    for key in DIRECTIONS
                ),
            ]
            for name, row in found.layers.items()
        ],
        "kinds": [[row.kind, number(row.tokens), percent(row.explained, 1)] for row in found.kinds or []],
    }
