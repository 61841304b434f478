"""`encyclo evaluate`: measure every rung of the ladder on a finished run and write the figures into it.

evaluate ── reopen_run                check that configuration, concepts and model are the run's
         ├─ coverage                  how much of a text's activations the entries explain
         ├─ capture_aliases           the rung aliases
         ├─ read_heldout, _natural    the run's own interpreter, and its baselines trained again
         ├─ unseen_concepts           the rungs described and unseen
         ├─ keep_calibrator           calibration.json, replaced atomically
         ├─ running_text              what `encyclo read` finds in a labelled text: the rungs running_text and senses
         └─ write                     report.html, metrics.json: each replaced atomically
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encyclo.evaluation.coverage import coverage
from encyclo.evaluation.labelled_text import WORDS, read_labelled_text
from encyclo.evaluation.rungs import LIMIT, capture_definitions, check_apart, figures, measure, read_twice
from encyclo.evaluation.running_text import running_text
from encyclo.evaluation.unseen_aliases import capture_aliases
from encyclo.evaluation.unseen_concepts import measure_unseen, take_out_concepts
from encyclo.pipeline.natural_sentences import NaturalSentences, RungSamples
from encyclo.pipeline.reading_calibration import keep_calibrator
from encyclo.pipeline.train import score
from encyclo.report import report_run
from encyclo.runs.metrics import Metrics, read_metrics, write_metrics
from encyclo.runs.open_run import OpenRun
from encyclo.runs.reopen import finished_run
from encyclo.statistics import confidence
from encyclo.statistics.confidence import TrainingDistribution
from encyclo.statistics.figures import Accuracy
from encyclo.statistics.signatures import estimate_signatures
from encyclo.storage.ledger import Commit
from encyclo.storage.run_location import in_working_copy
from encyclo.types import Interpreter, Progress, SampleSet, Signatures, Split


@in_working_copy()
def evaluate(
    path: Path,
    progress: Progress,
    device: str = "auto",
    limit: int = LIMIT,
    text: Path | None = None,
    labelled: Path | None = None,
    words: int = WORDS,
) -> Metrics:
    """Measure every rung on the finished run in `path`, write the results there, return all figures.

    At most `limit` sentences and at most `limit` definitions are captured. `text` is a UTF-8 file with ordinary text
    for `coverage`, `labelled` a labelled one for `running_text` and `senses`, of which at most `words` words are read.
    The same run gives the same figures. Raises UsageError (or a subclass) if the run is not finished or can't be
    reopened, or if a text can't be read.
    """
    with finished_run(path, progress, device) as run:
        before = read_metrics(path)
        commits = run.ledger.ordered()
        samples = run.load_samples(commits)
        own = run.load_interpreter(path / "interpreter")
        signatures = estimate_signatures(samples, len(run.session.concepts))
        marked = labelled and read_labelled_text(labelled, run.session.concepts, words)
        explained = coverage(run, own, signatures, text)  # before the work: the text may be refused
        rungs, sureness = climb(run, commits, samples, signatures, own, limit)
        further: dict[str, Any] = {}
        if marked and (found := running_text(run, own, marked)):
            further["running_text"], rungs["senses"] = found
        metrics = before.model_copy(
            update={
                "accuracy": before.accuracy.model_copy(update=rungs),
                **sureness,
                # The figures of an earlier text still hold: the run is the same.
                "coverage": explained or before.coverage,
                **further,
            }
        )
        write(path, metrics, own)
        return metrics


def climb(
    run: OpenRun,
    commits: Sequence[Commit],
    samples: SampleSet,
    signatures: Signatures,
    own: Interpreter,
    limit: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return {rung: {interpreter: figures}} and {`unfamiliar` and `absent`: ...}; write calibration.json."""
    config, distribution = run.session.config, confidence.training_distribution(samples)
    natural = NaturalSentences(run, limit).rung(commits)
    if natural:
        check_apart(samples, natural, "natural")
    aliases = capture_aliases(run, samples, commits, limit)
    if aliases:
        check_apart(samples, aliases, "aliases")
    rungs: dict[str, Any] = {
        "heldout_prompts": {},
        "natural": {} if natural else None,
        "aliases": {} if aliases else None,
    }
    for name in dict.fromkeys((config.interpreter, *config.baselines)):
        interpreter = own
        if name != config.interpreter:
            run.session.progress.stage(f"Training the {name} interpreter again")
            interpreter = run.train(name, samples)
        run.session.progress.stage(f"Reading with the {name} interpreter")
        rungs["heldout_prompts"][name] = read_heldout(run, interpreter, samples, distribution)
        if natural:
            rungs["natural"][name] = read_natural(run, interpreter, natural, distribution)
        if aliases:
            rungs["aliases"][name] = read_natural(run, interpreter, aliases, distribution)
    keep_calibrator(run, score(run, own, samples, signatures, natural), own, samples, natural)
    taken = take_out_concepts(run.session, samples, capture_definitions(run, limit))
    if taken is None:
        return {**rungs, "described": None, "unseen": None}, {"unfamiliar": None, "absent": None}
    more, sureness = measure_unseen(run, taken, commits)
    return {**rungs, **more}, sureness


def read_heldout(
    run: OpenRun, interpreter: Interpreter, samples: SampleSet, distribution: TrainingDistribution
) -> Accuracy | None:
    """Read families that training did not see: accuracy on those that test, calibration over families."""
    session = run.session
    seed = session.config.seed
    test = confidence.few_enough(samples.named_rows(Split.TEST))
    both = confidence.few_enough(samples.named_rows(Split.CALIBRATION, Split.TEST))
    read = read_twice(interpreter, RungSamples(samples, both), distribution, seed)
    # Of very many held-out samples each of the two has a part of its own.
    tested = np.isin(both, test)
    tests = (
        read.take(tested)
        if tested.sum() == len(test)
        else read_twice(interpreter, RungSamples(samples, test), distribution, seed)
    )
    found = figures(tests, session.concepts, 0, seed)
    if found is None:
        return None
    calibration = confidence.cross_fit(
        read.readings, samples.family[both], distribution, folds=len(samples.families), seed=seed
    )
    return found.model_copy(update={"calibration": calibration})


def read_natural(
    run: OpenRun, interpreter: Interpreter, natural: RungSamples, distribution: TrainingDistribution
) -> Accuracy | None:
    """Read natural sentences or mentions by aliases; measure calibration on concepts that it was not fitted on."""
    seed = run.session.config.seed
    found, readings = measure(interpreter, natural, run.session.concepts, distribution, seed)
    if found is None:
        return None
    calibration = confidence.cross_fit(readings, readings.truth, distribution, seed=seed)
    return found.model_copy(update={"calibration": calibration})


def write(path: Path, metrics: Metrics, interpreter: Interpreter | None = None) -> None:
    """Replace the page, then metrics.json: after a crash in between, the old figures can be measured again."""
    report_run(path, metrics, interpreter)
    write_metrics(path, metrics)
