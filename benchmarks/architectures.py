"""Reads a tiny random model of every text architecture in transformers, and writes the tables of docs/models.md.

python benchmarks/architectures.py RESULTS.jsonl [KIND ...]

Each architecture takes a line of RESULTS.jsonl; those that are in it already are not read again. Takes about half
an hour on one core. Needs a checkout with its tests, and `pip install -e '.[test]'`.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from verdicts import at_most, write_tables

SECONDS = 400
LONGEST_REASON = 160
CLASHES = (
    "size of tensor",
    "split_sizes",
    "mat1 and mat2",
    "stack expects",
    "Could not find a `sliding_window`",
)
"""What torch says if the small sizes don't fit each other, and transformers of a setting without a default."""


def reads_text(kind: str) -> bool:
    """Return whether models of the type take token ids first."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    model = MODEL_MAPPING[CONFIG_MAPPING[kind]]
    return bool((model[0] if isinstance(model, tuple) else model).main_input_name == "input_ids")


def verdict(kind: str) -> dict[str, Any]:
    """Return what `examine` says of the type, or why no model of it could be made."""
    from tests.architectures import VARIANTS, examine, tiny_config

    with at_most(SECONDS):
        try:
            if kind not in VARIANTS and not reads_text(kind):
                return {"kind": kind, "how": "no text"}
            tiny_config(kind)
        except Exception as error:  # any model's own code
            return {"kind": kind, "how": "not tried", "reason": f"{type(error).__name__}: {error}"}
        with TemporaryDirectory() as folder:
            try:
                found = asdict(examine(kind, Path(folder) / "model"))
            except TimeoutError:
                return {"kind": kind, "how": "not tried", "reason": f"it takes more than {SECONDS} s"}
    if found["how"] == "refused" and any(clash in found["reason"] for clash in CLASHES):
        found["how"] = "not tried"
    return found


def tables(found: list[dict[str, Any]]) -> str:
    """Return the two tables: how each architecture is read, and why others are not."""
    lines = ["| how | number | architectures |", "|---|---|---|"]
    for how in ("shared prefixes", "padded", "alone"):
        kinds = [verdict["kind"] for verdict in found if verdict["how"] == how]
        lines.append(f"| {how} | {len(kinds)} | {', '.join(kinds)} |")
    read = [verdict for verdict in found if verdict["how"] in ("shared prefixes", "padded", "alone")]
    worst = max(read, key=lambda verdict: verdict["error"])
    lines += ["", f"The largest error is {worst['error']:.1e} ({worst['kind']}).", ""]
    if above := [verdict for verdict in read if verdict["error"] > 1e-5]:
        lines += [
            "Above 1e-5, and no further than two plain passes are from each other: "
            + ", ".join(f"{v['kind']} ({v['error']:.1e} of {v['allowed']:.1e})" for v in above)
            + ".",
            "",
        ]
    lines += ["| architecture | why not |", "|---|---|"]
    for how in ("refused", "not tried"):
        for verdict in found:
            if verdict["how"] == how:
                lines.append(f"| `{verdict['kind']}` | {how}: {shown(verdict['reason'])} |")
    return "\n".join(lines)


def shown(reason: str) -> str:
    """Return the reason without the model's folder and the advice, on one line."""
    for start in (") can't be read: ", "The model "):
        if start in reason:
            reason = reason.partition(start)[2] if start[0] == ")" else reason.partition("' ")[2]
            break
    reason = re.sub(r"'?/[\w./-]+'?", "…", reason)  # paths
    line = " ".join((reason.rpartition("; use another")[0] or reason).split()).replace("|", "/").strip(".")
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON] + "…"


def main() -> None:
    """Read the architectures that RESULTS.jsonl lacks; write the page's tables."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    from tests.architectures import VARIANTS

    write_tables("architectures", sorted([*MODEL_MAPPING_NAMES, *VARIANTS]), verdict, tables)


if __name__ == "__main__":
    main()
