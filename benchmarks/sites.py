"""Tries --site attn and mlp on a tiny model of every architecture that encyclo reads; writes docs/models.md's table.

python benchmarks/sites.py RESULTS.jsonl [KIND ...]

Each architecture takes a line of RESULTS.jsonl; those that are in it already are not tried again. Takes about 10
minutes on one core. Needs a checkout with its tests, and `pip install -e '.[test]'`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from verdicts import at_most, write_tables

SECONDS = 200
REASONS = {
    "not the outputs of a list of blocks": "the hidden states are not the outputs of a list of blocks",
    "no two outputs": "a block has other parts, or scales what attention and MLP give",
    "of one text and not of another": "the sum holds for one text and not for another",
}
"""What a refusal says, and the table of it."""


def table(found: list[dict[str, Any]]) -> str:
    """Return which architectures have sites, and why others have none."""
    kinds = {how: [v["kind"] for v in found if v["how"] == how] for how in ("sites", "no sites")}
    lines = ["| sites | number | architectures |", "|---|---|---|"]
    lines.append(f"| proven | {len(kinds['sites'])} | {', '.join(kinds['sites'])} |")
    for said, reason in REASONS.items():
        some = [v["kind"] for v in found if v["how"] == "no sites" and said in v["reason"]]
        if some:
            lines.append(f"| none: {reason} | {len(some)} | {', '.join(some)} |")
    worst = max((v for v in found if v["how"] == "sites"), key=lambda verdict: verdict["error"])
    return "\n".join([*lines, "", f"The largest error is {worst['error']:.1e} ({worst['kind']})."])


def verdict(kind: str) -> dict[str, Any]:
    """Return what `examine_sites` says of the type."""
    from tests.architectures import examine_sites

    with at_most(SECONDS), TemporaryDirectory() as folder:
        return asdict(examine_sites(kind, Path(folder) / "model"))


def main() -> None:
    """Try the architectures that RESULTS.jsonl lacks; write the page's table."""
    from tests.plugins.test_architectures import documented

    read = sorted(kind for kind, how in documented().items() if how != "refused")
    write_tables("sites", read, verdict, table)


if __name__ == "__main__":
    main()
