"""The loop over stages: after each, only what is not settled yet goes on to the next.

Refinement.run ── plan           which concepts, how many new samples of each
               ├─ visit          collect_stage: prompts → activations → parts
               │                 judging.judge: samples → interpreter → figures, settled concepts
               └─ finish         encyclopedia, interpreter, metrics, report
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.evaluation.rungs import NaturalSentences
from encyclo.pipeline import judge as judging
from encyclo.pipeline import run as pipeline
from encyclo.pipeline.allocation import allocate, samples_to_clear, samples_to_converge
from encyclo.pipeline.attacks import Memory, fresh_attacks
from encyclo.pipeline.collect import Collector
from encyclo.pipeline.rounds import Plan, Result, Rounds
from encyclo.runs.directory import Effort, RunDirectory
from encyclo.runs.session import Session, Stage
from encyclo.statistics.signatures import relative_standard_error
from encyclo.storage.ledger import Commit

NOWHERE = -1
"""The stage that a concept has reached before its first."""


class Refinement:
    """Takes a run through its stages, round by round; a round is one visit to one stage. C concepts.

    reached: int64 [C], the last stage that each concept went through
    settled: bool [C]
    spent:   int64 [C, stages], samples by concept and stage
    """

    def __init__(self, session: Session, directory: RunDirectory) -> None:
        self.session, self.directory = session, directory
        self.store = pipeline.open_store(session, directory.path)
        self.rounds = Rounds(directory.path)
        self.natural = NaturalSentences(session, directory.path, self.store)
        self.commits: list[Commit] = []
        self.results: list[Result] = []
        self.numbers = [stage.number for stage in session.stages]
        count = len(session.concepts)
        self.reached = np.full(count, NOWHERE)
        self.settled = np.zeros(count, bool)
        self.spent = np.zeros((count, max(self.numbers) + 1), np.int64)
        self._judged: judging.Judgement | None = None

    def run(self) -> dict[str, Any]:
        """Go through the stages and finish the run; return metrics.json's content.

        A run whose targets or budget were raised goes through its stages once more each time (an effort), with
        the concepts that the latest figures leave unsettled under the new targets.
        """
        for number, effort in enumerate(self.directory.efforts):
            if number:
                self._unsettle(effort)
            for stage in self.session.stages:
                plan = self.rounds.plan(len(self.results)) or self.plan(stage, number, effort)
                if plan is not None and (plan.stage, plan.effort) == (stage.number, number):
                    self.visit(stage, plan, effort)
                elif not number:
                    self._say(f"Stage {stage.number} ({stage.sampler}): nothing is unsettled")
        rows = [result.row for result in self.results]
        return pipeline.finish(
            self.session, self.directory, self.store, self.commits, self.judged(), rows, self.settled,
            self.natural,
        )  # fmt: skip

    def plan(self, stage: Stage, number: int, effort: Effort) -> Plan | None:
        """Return whom the stage visits with how many new samples each; None where there is nothing to do.

        In the first round everyone gets the same. Later it is the turn of those who are not settled and have
        been through the stage before; in a further effort also of those whom the last stage left unsettled.
        """
        usual = self.session.config.per_concept if stage.number else 1
        budget = effort.budget or usual * len(self.reached)
        left = budget - int(self.spent[:, stage.number].sum())
        before = max((n for n in self.numbers if n < stage.number), default=NOWHERE)
        due = ~self.settled & (self.reached == before)
        if number and stage.number == self.numbers[-1]:
            due |= ~self.settled & (self.reached == stage.number)
        chosen = np.flatnonzero(due)
        if len(chosen) == 0 or left <= 0:
            return None
        needed = (
            self._needed(effort.target(stage.number)) if self.results else np.full(len(due), float(usual))
        )
        given = allocate(needed[chosen], usual, left)
        chosen, given = chosen[given > 0], given[given > 0]
        done = self.spent[chosen, stage.number]
        return Plan(stage.number, number, tuple(chosen.tolist()), tuple(given.tolist()), tuple(done.tolist()))

    def visit(self, stage: Stage, plan: Plan, effort: Effort) -> None:
        """Do one round, or read back what an earlier process found in it."""
        begun, index = time.perf_counter(), len(self.results)
        looks = self.session.plugins.needs_interpreter(stage.sampler)
        self.rounds.begin(index, plan)
        result = self.rounds.result(index)
        memory = Memory(Collector(self.session, self.directory.path, self.store, self.directory.ledger))
        before = self._attacked(stage, plan, self.judged(), memory) if looks and result is None else None
        fresh = pipeline.collect_stage(
            self.session, self.directory, self.store, stage, plan, self.commits,
            self.judged if self.results else None,
        )  # fmt: skip
        self.commits += fresh
        chosen = np.array(plan.concepts)
        self.reached[chosen] = stage.number
        self.spent[chosen, stage.number] += np.array(plan.wanted)
        self._judged = None
        if result is None:
            judged = judging.judge(self.session, self.directory.path, self.store, self.commits, self.natural)
            # A confidence that could not be measured (NaN) clears nothing.
            clears = (judged.scores.low >= effort.target(stage.number)) & judged.converged
            settled = self.settled | clears
            after = self._attacked(stage, plan, judged, memory) if looks else None
            row = pipeline.stage_row(
                self.session, stage, len(chosen), fresh, int(settled.sum()), judged, begun
            )
            if looks:
                row["attacks"] = {"before": before, "after": after}
            judging.save_interpreter(self.session, judged.interpreter, self.rounds.interpreter(index))
            result = Result(row, judged.scores, judged.accuracy, judged.natural, judged.converged, settled)
            self.rounds.end(index, result)
            self._judged = judged
        self.settled = result.settled
        self.results.append(result)

    def judged(self) -> judging.Judgement:
        """Return what the latest round found; its interpreter is loaded if another process trained it."""
        if self._judged is None:
            last = len(self.results) - 1
            self._judged = judging.recall(
                self.session, self.directory.path, self.store, self.commits,
                self.results[last], self.rounds.interpreter(last),
            )  # fmt: skip
        return self._judged

    def _attacked(
        self, stage: Stage, plan: Plan, judged: judging.Judgement, memory: Memory
    ) -> dict[str, Any] | None:
        """Return how the interpreter withstands fresh attacks, from frames that never make samples."""
        self._say(f"Attacking the {self.session.config.interpreter} interpreter")
        return fresh_attacks(self.session, memory, stage, plan.concepts, judged)

    def _needed(self, target: float) -> NDArray[np.float64]:
        """Return float64 [C]: new samples until signature and confidence are where the target wants them."""
        judged = self.judged()
        count, scores = judged.signatures.count, judged.scores
        error = relative_standard_error(judged.signatures)
        converge = samples_to_converge(count, error, self.session.config.converged_below)
        result: NDArray[np.float64] = np.fmax(
            converge, samples_to_clear(count, scores.confidence, scores.low, target)
        )
        return result

    def _unsettle(self, effort: Effort) -> None:
        """Keep settled only whom the latest figures lift over the new target of the stage that it reached."""
        latest = self.results[-1]
        target = np.array([effort.target(stage) for stage in np.maximum(self.reached, 0)])
        self.settled = (latest.scores.low >= target) & latest.converged

    def _say(self, text: str) -> None:
        self.session.progress.stage(text)


def refine(session: Session, directory: RunDirectory) -> dict[str, Any]:
    """Go through the session's stages and finish the run; return metrics.json's content."""
    return Refinement(session, directory).run()
