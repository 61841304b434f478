"""What `encyclo verify` finds: each problem, and how to recover."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

LEFTOVER = "a killed process left it, or a running one is writing it"
NO_COMMIT = "no commit names this part"
PRUNE = "`encyclo verify {run} --prune` removes it"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and how to recover."""

    where: str
    what: str
    recovery: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.recovery}."


@dataclass
class Report:
    """The problems that `verify` found, and how much it checked."""

    findings: list[Problem] = field(default_factory=list)
    units: int = 0
    samples: int = 0
    finished: bool = False
    kind: str = "run"

    def json(self) -> dict[str, Any]:
        """Return the report as `encyclo verify --json` prints it."""
        content = asdict(self)
        del content["kind"]
        return {"ok": not self.findings, **content}
