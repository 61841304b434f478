"""The loop over stages: only concepts that are not settled enter the next stage.

Refinement.refine ── begin   unsettled concepts, for all samplers of the stage
                  ├─ plan    a sampler's new samples of each
                  └─ visit   Dispatcher.collect_stage: prompts → activations → parts
                             judge: samples → interpreter → figures, settled concepts
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from encyclo.pipeline.allocation import allocate, samples_to_clear, samples_to_converge
from encyclo.pipeline.attacks import CaptureOnce, fresh_attacks
from encyclo.pipeline.dispatch import Dispatcher
from encyclo.pipeline.judge import Judgement, judge, recall
from encyclo.pipeline.metrics import stage_figures
from encyclo.pipeline.natural_sentences import NaturalSentences
from encyclo.pipeline.rounds import Plan, Result, Rounds
from encyclo.runs.directory import Goals
from encyclo.runs.metrics import Attacks
from encyclo.runs.open_run import OpenRun
from encyclo.runs.session import Stage
from encyclo.statistics.signatures import estimate, relative_standard_error
from encyclo.storage.ledger import Commit

NOWHERE = -1
"""The value of `reached` before a concept's first stage."""


@dataclass(frozen=True)
class Start:
    """What a stage's samplers share: the run as it was before the first of them. due, settled: bool [C]."""

    due: NDArray[np.bool_]
    """The concepts that the stage visits."""
    settled: NDArray[np.bool_]
    rounds: int
    commits: int


class Refinement:
    """Takes a run through its stages in rounds; a round is one sampler's visit to its stage. C concepts.

    reached: int64 [C], the last stage that visited each concept
    settled: bool [C]
    spent:   int64 [C, samplers], samples by concept and sampler
    """

    def __init__(self, run: OpenRun) -> None:
        self.run, self.session = run, run.session
        self.dispatcher = Dispatcher(run)
        self.rounds = Rounds(run.path, run.directory.record["run_id"])
        self.natural = NaturalSentences(run)
        self.commits: list[Commit] = []
        self.results: list[Result] = []
        self.numbers = [stage.number for stage in self.session.stages]
        count = len(self.session.concepts)
        self.reached = np.full(count, NOWHERE)
        self.settled = np.zeros(count, bool)
        self.spent = np.zeros((count, len(self.numbers)), np.int64)
        self._judged: Judgement | None = None
        self.judging: float | None = 0.0
        """Seconds of training and scoring; None if an earlier process did a part of it."""

    def refine(self) -> None:
        """Run the stages; end the executor's workers.

        Each time targets or budget were raised (an effort), the run repeats its stages with the concepts that
        the latest figures leave unsettled under the new targets.
        """
        with self.dispatcher:
            self._refine()

    def _refine(self) -> None:
        for number, effort in enumerate(self.run.directory.goals):
            if number:
                self._unsettle(effort)
            for _, samplers in groupby(self.session.stages, key=lambda stage: stage.number):
                start: Start | None = None
                for stage in samplers:
                    start = start or self.begin(stage, number)
                    plan = self.rounds.plan(len(self.results)) or self.plan(stage, number, effort, start)
                    visit = (stage.number, number, stage.key)
                    if plan is not None and (plan.stage, plan.effort, plan.sampler) == visit:
                        self.visit(stage, plan, effort, start)
                    elif not number:
                        self.session.progress.stage(
                            f"Stage {stage.number} ({stage.sampler}): nothing is unsettled"
                        )

    def begin(self, stage: Stage, number: int) -> Start:
        """Return which concepts all samplers of a stage visit: the unsettled ones that the stage before visited.

        In a further effort (`number`) these are also the concepts that the last stage left unsettled.
        """
        before = max((n for n in self.numbers if n < stage.number), default=NOWHERE)
        due = ~self.settled & (self.reached == before)
        if number and stage.number == self.numbers[-1]:
            due |= ~self.settled & (self.reached == stage.number)
        return Start(due, self.settled, len(self.results), len(self.commits))

    def plan(self, stage: Stage, number: int, effort: Goals, start: Start) -> Plan | None:
        """Return the concepts that a sampler visits and their new samples; None if there are none.

        In the first stage every concept gets the same number.
        """
        place = self.session.stages.index(stage)
        budget = effort.budget or stage.usual * len(self.reached)
        left = budget - int(self.spent[:, place].sum())
        chosen = np.flatnonzero(start.due)
        if len(chosen) == 0 or left <= 0:
            return None
        needed = (
            self._needed(effort.target(stage.number), start)
            if start.rounds
            else np.full(len(start.due), float(stage.usual))
        )
        given = allocate(needed[chosen], stage.usual, left)
        chosen, given = chosen[given > 0], given[given > 0]
        concepts, wanted, done = (tuple(c.tolist()) for c in (chosen, given, self.spent[chosen, place]))
        return Plan(stage.number, number, concepts, wanted, done, stage.key)

    def visit(self, stage: Stage, plan: Plan, effort: Goals, start: Start) -> None:
        """Do one round, or read its result if an earlier process did it."""
        begun, index = time.perf_counter(), len(self.results)
        self.rounds.begin(index, plan)
        result = self.rounds.result(index)
        capture, attacks = CaptureOnce(self.run), self.session.looks(stage) and result is None
        before = fresh_attacks(self.run, capture, stage, plan.concepts, self.judged()) if attacks else None
        fresh = self.dispatcher.collect_stage(
            index, stage, plan, self.commits, lambda: self.judged().known() if self.results else {}
        )
        self.commits += fresh
        chosen = np.array(plan.concepts)
        self.reached[chosen] = stage.number
        self.spent[chosen, self.session.stages.index(stage)] += np.array(plan.wanted)
        self._judged = None
        if result is not None:
            self.judging = None
        else:
            started = time.perf_counter()
            sentences = self.natural.rung(self.commits)
            if self._is_last(stage, number=plan.effort) and not attacks:
                self.run.free_model()  # nothing more is captured, and training takes memory
            judged = judge(self.run, self.commits, sentences)
            if self.judging is not None:
                self.judging += time.perf_counter() - started
            # A confidence that could not be measured (NaN) clears no target.
            clears = (judged.scores.low >= effort.target(stage.number)) & judged.converged
            # The stage's last sampler decides.
            settled = start.settled | clears
            after = fresh_attacks(self.run, capture, stage, plan.concepts, judged) if attacks else None
            row = stage_figures(self.session, stage, len(chosen), fresh, int(settled.sum()), judged, begun)
            if attacks:
                row = row.model_copy(update={"attacks": Attacks(before=before, after=after)})
            self.run.save_interpreter(judged.interpreter, self.rounds.interpreter(index))
            result = Result(row, judged.scores, judged.accuracy, judged.natural, judged.converged, settled)
            self.rounds.end(index, result)
            self._judged = judged
        self.settled = result.settled
        self.results.append(result)

    def _is_last(self, stage: Stage, number: int) -> bool:
        return stage is self.session.stages[-1] and number == len(self.run.directory.goals) - 1

    def judged(self) -> Judgement:
        """Return the latest round's judgement; load its interpreter if another process trained it."""
        if self._judged is None:
            last = len(self.results) - 1
            self._judged = recall(
                self.run, self.commits, self.results[last], self.rounds.saved_interpreter(last)
            )
        return self._judged

    def forget_samples(self) -> None:
        """Free the latest judgement, a large run's gigabytes; `judged` reads it again."""
        self._judged = None

    def _needed(self, target: float, start: Start) -> NDArray[np.float64]:
        """Return float64 [C]: new samples until a concept has converged and clears `target`, as known at `start`."""
        if start.rounds == len(self.results):
            signatures = self.judged().signatures
        else:
            samples = self.run.load_samples(self.commits[: start.commits])
            signatures, _ = estimate(samples, len(self.session.concepts))
        count, scores = signatures.count, self.results[start.rounds - 1].scores
        error = relative_standard_error(signatures)
        converge = samples_to_converge(count, error, self.session.config.converged_below)
        result: NDArray[np.float64] = np.fmax(
            converge, samples_to_clear(count, scores.confidence, scores.low, target)
        )
        return result

    def _unsettle(self, effort: Goals) -> None:
        """Keep a concept settled only if it has converged and clears the new target of its last stage."""
        latest = self.results[-1]
        target = np.array([effort.target(stage) for stage in np.maximum(self.reached, 0)])
        self.settled = (latest.scores.low >= target) & latest.converged
