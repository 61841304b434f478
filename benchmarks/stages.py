"""Print the tables of docs/refinement.md for a finished run: its stages, and how far signatures had converged.

encyclo run -o core.examples=wordnet --out RUN
python benchmarks/stages.py RUN
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

EXPECTED = {0: "40%", 1: "70%", 2: "85%", 3: "95%"}
"""The confidence that the experiment that preceded encyclo expected of each stage."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    metrics = json.loads((given.run / "metrics.json").read_text(encoding="utf-8"))
    print_stages(metrics["stages"])
    print_convergence(metrics["stages"])
    print()
    for rung, rows in metrics["accuracy"].items():
        for name, row in (rows or {}).items():
            print(f"{rung}, {name}: {row['top1']:.2%} of {row['n']:,}")
    print(f"{sum(row['samples'] for row in metrics['stages']):,} samples")


def print_stages(stages: list[dict[str, Any]]) -> None:
    """Print one row per stage."""
    print(
        "| stage | concepts | new samples | seconds | settled so far | converged | held-out top-1 | natural top-1 | "
        "mean confidence | expected | calibration error |"
    )
    print("|" + "---|" * 11)
    for row in stages:
        cells = (
            f"{row['stage']} {row['sampler']}", *(f"{row[key]:,}" for key in ("concepts", "samples")),
            f"{row['seconds']:,.0f}", *(f"{row[key]:,}" for key in ("settled", "converged")),
            *(shown(row[key], "{:.1%}") for key in ("heldout_top1", "natural_top1", "confidence")),
            EXPECTED.get(row["stage"], ""), shown(row["ece"], "{:.3f}"),
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    for row in stages:
        if row.get("attacks"):
            before, after = (row["attacks"][when] for when in ("before", "after"))
            succeed = (f"{1 - found['top1']:.2%} of {found['n']:,}" for found in (before, after))
            print(f"\nattacks that succeed, before and after: {', '.join(succeed)}")


def print_convergence(stages: list[dict[str, Any]]) -> None:
    """Print one row per stage and layer."""
    print(
        "\n| after stage | layer | raw difference | concepts within 5% (raw) | centred difference | "
        "adjusted difference | samples until 95% are within 5% (raw) | samples until 10% (centred) | "
        "samples until 10% (adjusted) |"
    )
    print("|" + "---|" * 9)
    for row in stages:
        for layer, found in (row["convergence"] or {}).items():
            shares = ("raw_rel_diff", "within_5pct_raw", "centred_rel_diff", "adjusted_rel_diff")
            needed = ("samples_to_95pct_raw", "samples_to_10pct_centred", "samples_to_10pct_adjusted")
            cells = [f"{found[key]:.1%}" for key in shares] + [f"{found[key]:,.0f}" for key in needed]
            print(f"| {row['stage']} | {layer} | {' | '.join(cells)} |")


def shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


if __name__ == "__main__":
    main()
