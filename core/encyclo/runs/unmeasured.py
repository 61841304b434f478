"""Why a figure of metrics.json was not measured: the same sentence in the report and in the terminal."""

from __future__ import annotations

from encyclo.runs.metrics import Metrics

NO_FAMILY = (
    "no prompt family could be held out. If all prompts of a stage are of one family, it is used for training; "
    "run with a sampler of several families, such as the sampler templates."
)
NO_SPARE_FAMILY = (
    "no prompt family was left for calibration, besides training and testing. Run with more "
    "concepts, a larger --per-concept, or a sampler of more families, such as templates."
)
UNKNOWN_SENTENCES = (
    "the concept list has no natural sentences (wordnet's has), or all of them are training prompts too."
)
"""Of a run whose metrics don't say how many there were."""
NOT_EVALUATED = "encyclo evaluate measures it."
WITHOUT_SAMPLES = {
    "aliases": "no concept has an alias that its samples never used and that only it has.",
    "described": "no concept left out of training has a definition that does not name it.",
    "unseen": "no held-out prompt mentions a concept that was left out of training.",
}
"""Why a rung that `encyclo evaluate` measures has no samples."""
TOO_FEW = "too few concepts have training samples to leave a fifth of them out."
BY_OTHER_MEANS = {
    "senses": "give evaluate a labelled text with --running-text, with words that several entries have.",
    "adversarial": "the run had no adversarial stage, or could not attack; run with --sampler adversarial as the last.",
}
"""How to measure a rung that `encyclo evaluate` alone does not."""


def why_not(rung: str, metrics: Metrics) -> str:
    """Return why a rung of the ladder was not measured."""
    if rung == "heldout_prompts":
        return no_accuracy(metrics)
    if rung == "natural":
        return no_sentences(metrics)
    if rung in BY_OTHER_MEANS:
        return BY_OTHER_MEANS[rung]
    if not is_evaluated(metrics):
        return NOT_EVALUATED
    if rung in ("described", "unseen") and metrics.accuracy.rungs()[rung] is None:
        return TOO_FEW
    return WITHOUT_SAMPLES[rung]


def is_evaluated(metrics: Metrics) -> bool:
    """Return whether `encyclo evaluate` has written these figures."""
    return "unfamiliar" in metrics.model_fields_set


def no_accuracy(metrics: Metrics) -> str:
    """Return why no held-out prompts were read."""
    return "the run did not record it." if metrics.splits.get("test") else NO_FAMILY


def no_calibration(metrics: Metrics) -> str:
    """Return why the confidences were not measured."""
    if not metrics.splits.get("test"):
        return NO_FAMILY
    return "the run's scorer reported none." if metrics.splits.get("calibration") else NO_SPARE_FAMILY


def no_sentences(metrics: Metrics) -> str:
    """Return why no natural sentences were read."""
    count = metrics.natural_sentences
    if count is None:
        return UNKNOWN_SENTENCES
    if count == 0:
        return "the concepts have no sentences by other authors; give some with --examples FILE."
    return f"all {count:,} natural sentences are prompts of the run too; give others with --examples FILE."
