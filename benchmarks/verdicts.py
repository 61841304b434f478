"""A verdict on each architecture, kept as a line of RESULTS.jsonl, and the table of them in docs/models.md.

Both `architectures.py` and `sites.py` take RESULTS.jsonl [KIND ...]: kinds that have a line are not examined again.
"""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/models.md"
sys.path.insert(0, str(ROOT))  # for the tests' tiny models

Verdict = dict[str, Any]


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after some seconds."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def write_tables(
    name: str, kinds: Iterable[str], examine: Callable[[str], Verdict], tables: Callable[[list[Verdict]], str]
) -> None:
    """Examine the kinds that RESULTS.jsonl lacks, write the page's tables `name`, exit with 1 for a fault."""
    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    results = Path(sys.argv[1])
    lines = results.read_text().splitlines() if results.exists() else []
    found = {verdict["kind"]: verdict for verdict in map(json.loads, lines)}
    for kind in sys.argv[2:] or kinds:
        if kind in found:
            continue
        try:
            found[kind] = examine(kind)
        except Exception as error:  # a fault of encyclo's, or too slow
            found[kind] = {"kind": kind, "how": "FAILED", "reason": f"{type(error).__name__}: {error}"}
        print(found[kind], flush=True)
        with results.open("a") as file:
            file.write(json.dumps(found[kind]) + "\n")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page = PAGE.read_text()
    before, after = page.partition(begin)[0], page.partition(end)[2]
    listed = tables([found[kind] for kind in sorted(found)])
    PAGE.write_text(f"{before}{begin}\n{listed}\n{end}{after}")
    faults = [verdict for verdict in found.values() if verdict["how"] in ("WRONG", "FAILED")]
    print(*faults, sep="\n")
    sys.exit(bool(faults))
