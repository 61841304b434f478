"""The line about running text, for the summary of a run and of `encyclo evaluate`."""

from __future__ import annotations

from encyclo.statistics.figures import RunningText

NOT_MEASURED = "not measured"
PAGE = "docs/evaluation.md"


def running_text_line(found: RunningText | None, directory: str = "DIR") -> str:
    """Return what `encyclo read` finds in running text; by word if the text marks no entry."""
    if found is None:
        return f"{NOT_MEASURED}; `encyclo evaluate {directory} --running-text FILE` does"
    figures, word = (found, "mentions") if found.mentions else (found.by_word, "words of an entry")
    read = figures.read
    if read.recall is None:
        return f"{NOT_MEASURED}; no word of {found.words:,} is an entry's"
    right = (
        "no reading"
        if read.precision is None
        else f"{read.precision:.0%} of readings right, {read.others_per_1000:.0f} others per 1,000 words, "
        f"calibration error {read.ece:.2f}"
    )
    return f"{read.recall:.0%} of {figures.mentions:,} {word} read, {right} ({PAGE})"
