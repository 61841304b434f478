"""The details of an entry that the book does not hold: its prompts, its curve, its confusions.

They are read from the run's samples in one pass, a few entries at a time, so that memory doesn't grow. In a large
run only the least trusted entries have details; the page says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encyclo.query.confusions import confusion_of
from encyclo.query.encyclopedia import Encyclopedia
from encyclo.query.evidence import held_out_families, own_readings
from encyclo.report.entries import ranking
from encyclo.runs.details_file import Confusion, Detail, Details, Near
from encyclo.runs.metrics import Metrics
from encyclo.schema import Book, Part
from encyclo.seeds import derive_seed
from encyclo.statistics.accuracy import batch_size
from encyclo.statistics.compared_halves import compare_takes, draw_ranks
from encyclo.statistics.similarity import smallest
from encyclo.storage.sample_rows import fetch
from encyclo.types import Interpreter

MOST = 2000
"""The most entries with details: the least trusted ones."""
PROMPTS = 6
CONFUSED = 5
READ = 8
"""The most samples of an entry that the interpreter reads, held-out ones if there are any."""
SAMPLES = 64
"""The most samples of an entry for its curve and its confusion."""
SPLITS = 5
"""The number of random splits that a curve is averaged over. Their ten halves are what `compare_takes` replaces the
samples of an entry with more than ten of them by."""
AT_ONCE = 50
MOST_SCORES = 2**27
"""The most scores, samples x concepts, that are computed of entries without details: some seconds."""
PAIRS = 20
Curve = tuple[list[float], list[float]]
"""The relative differences, raw and centred, of two random halves of 2, 4, 8 … of an entry's samples."""


@dataclass(frozen=True)
class _Reading:
    """What is needed to make an entry's details."""

    opened: Encyclopedia
    interpreter: Interpreter
    heldout: frozenset[str]
    near: Mapping[int, Near]


def least_trusted(book: Book) -> NDArray[np.int64]:
    """Return the rows of the entries that have details, ascending."""
    return np.sort(ranking(book, unmeasured_last=True)[-MOST:])


def collect(
    opened: Encyclopedia, interpreter: Interpreter, metrics: Metrics, nearest: Mapping[int, Near]
) -> Details:
    """Read a finished run's samples for the page. The same run gives the same details.

    `nearest` are the neighbours of each of `least_trusted`.
    """
    chosen = least_trusted(opened.book)
    tools = _Reading(opened, interpreter, held_out_families(metrics.splits), nearest)
    found: dict[int, Detail] = {}
    confusions: dict[int, Confusion] = {}
    pairs: dict[bool, Counter[tuple[int, int]]] = {True: Counter(), False: Counter()}
    for some in np.array_split(chosen, max(1, -(-len(chosen) // AT_ONCE))):
        for row, detail, misread, confusion in _read_some(tools, some.tolist()):
            found[row] = detail
            if confusion:
                confusions[row] = confusion
            pairs[detail.held].update((row, other) for other in misread)
    held = any(detail.held for detail in found.values())
    ordered = sorted(pairs[held].items(), key=lambda item: (-item[1], item[0]))[:PAIRS]
    return Details(
        found,
        [(a, b, times) for (a, b), times in ordered],
        sum(detail.readings for detail in found.values() if detail.held == held),
        held,
        _mean_curve(list(found.values())),
        own_readings(opened.source.columns, metrics.splits, len(opened)),
        confusions | _other_confusions(opened, interpreter, chosen),
    )


def _other_confusions(
    opened: Encyclopedia, interpreter: Interpreter, without: NDArray[np.int64]
) -> dict[int, Confusion]:
    """Return the confusions of the entries that have no details; of a large run none, since reading would take long."""
    rest = [row for row in range(len(opened)) if 0 < len(opened.rows_of(row)) <= SAMPLES]
    rest = np.setdiff1d(rest, without).tolist()
    found: dict[int, Confusion] = {}
    if sum(len(opened.rows_of(row)) for row in rest) * len(opened) > MOST_SCORES:
        return found
    for start in range(0, len(rest), AT_ONCE):
        some = rest[start : start + AT_ONCE]
        own = [opened.rows_of(row) for row in some]
        values = fetch(opened.source, np.concatenate(own))
        groups = [np.arange(low, high) for low, high in pairwise(np.cumsum([0, *map(len, own)]))]
        scored = _scored(interpreter, values, groups)
        found.update({row: confusion_of(scores, row) for row, scores in zip(some, scored, strict=True)})
    return found


def _read_some(
    tools: _Reading, rows: Sequence[int]
) -> Iterator[tuple[int, Detail, list[int], Confusion | None]]:
    """Yield (entry, its details, its misreadings, the confusion of all its samples) for the entries in `rows`."""
    opened, near = tools.opened, tools.near
    similarity, seed = opened.similarity, opened.record["config"]["seed"]
    own = {row: _spread(opened.rows_of(row), SAMPLES) for row in rows}
    part = opened.source.samples(np.concatenate([*own.values(), np.empty(0, np.int64)]))
    values = part.values()
    # All at once: one by one, a large run's candidates are gone through for each entry.
    edges = pairwise(np.cumsum([0, *(len(mine) for mine in own.values())]))
    places_of = [np.arange(low, high) for low, high in edges]
    scored = _scored(tools.interpreter, values, places_of)
    generators = [np.random.default_rng(derive_seed(seed, "curve", row)) for row in rows]
    mentions = [places[part.span[places, 0] >= 0] for places in places_of]
    curves = entry_curves(values, mentions, similarity.centre, similarity.scale, generators)
    for (row, mine), all_scores, places, (raw, centred) in zip(
        own.items(), scored, places_of, curves, strict=True
    ):
        if len(mine) == 0:
            yield row, Detail(nearest=near[row]), [], None
            continue
        read, held = _to_read(part, places, tools.heldout)
        scores = all_scores[read - places[0]]
        best = scores.argmax(axis=1)
        count = len(opened.rows_of(row))
        detail = Detail(
            nearest=near[row],
            confused=_confused(scores, row),
            readings=len(read),
            right=int((best == row).sum()),
            held=held,
            prompts=[(part.prompt[i], part.family[i]) for i in _spread(places, PROMPTS)],
            samples=count,
            raw=raw,
            centred=centred,
        )
        confusion = confusion_of(all_scores, row) if len(mine) == count else None
        yield row, detail, [other for other in best.tolist() if other != row], confusion


def _scored(
    interpreter: Interpreter, values: NDArray[np.float32], groups: Sequence[NDArray[np.int64]]
) -> Iterator[NDArray[np.float32]]:
    """Yield the scores of each group of samples; as many groups are read at once as `accuracy` reads samples."""
    most = batch_size(len(interpreter.concepts))
    waiting: list[NDArray[np.int64]] = []
    for number, group in enumerate(groups, 1):
        waiting.append(group)
        if number < len(groups) and sum(map(len, [*waiting, groups[number]])) <= most:
            continue
        rows = np.concatenate(waiting)
        scores = interpreter.read(values[rows]) if len(rows) else np.empty((0, 1), np.float32)
        yield from np.split(scores, np.cumsum([len(some) for some in waiting])[:-1])
        waiting = []


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most `most` of `rows`, evenly spaced from first to last."""
    if len(rows) <= most:
        return rows
    chosen: NDArray[np.int64] = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return chosen


def _to_read(
    part: Part, places: NDArray[np.int64], heldout: Collection[str]
) -> tuple[NDArray[np.int64], bool]:
    """Return the samples of an entry to read, and whether training never saw their families."""
    named = places[part.span[places, 0] >= 0]
    held = np.array([place for place in named.tolist() if part.family[place] in heldout], np.int64)
    return (_spread(held, READ), True) if len(held) else (_spread(named, READ), False)


def _confused(scores: NDArray[np.floating], row: int) -> list[tuple[int, int, float]]:
    if len(scores) == 0:
        return []
    margin = (scores[:, [row]] - scores).mean(axis=0, dtype=np.float64)
    instead = np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])
    read = np.flatnonzero(instead)
    # Those that were read instead come first; the other places need no more rows than these.
    rows = np.union1d(read, smallest(margin, CONFUSED + 1 + len(read)))
    order = rows[np.lexsort((margin[rows], -instead[rows]))]
    likeliest = [int(i) for i in order if i != row][:CONFUSED]
    return [(i, int(instead[i]), float(margin[i])) for i in likeliest]


def entry_curves(
    values: NDArray[np.float32],
    places: Sequence[NDArray[np.int64]],
    centre: NDArray[np.float32],
    scale: NDArray[np.float32],
    generators: Sequence[np.random.Generator],
) -> list[Curve]:
    """Return each entry's curve, from its samples, the `places` of `values` [n, L, H], and its own generator."""
    curves: list[Curve] = [([], []) for _ in places]
    some = [number for number, own in enumerate(places) if len(own) > 1]
    if not some:
        return curves
    counts = [len(places[number]) for number in some]
    ranks = [draw_ranks(count, SPLITS, generators[n]) for n, count in zip(some, counts, strict=True)]
    takes = [2**power for power in range(1, max(counts).bit_length())]
    together = np.concatenate([places[number] for number in some])
    compared = compare_takes(values[together], counts, None, centre, scale, ranks, takes)
    raw, centred = compared[:, :2].mean(axis=3).swapaxes(0, 1)
    for place, (number, count) in enumerate(zip(some, counts, strict=True)):
        steps = count.bit_length() - 1
        curves[number] = raw[:steps, place].tolist(), centred[:steps, place].tolist()
    return curves


def _mean_curve(entries: Sequence[Detail]) -> list[tuple[int, int, float, float]]:
    longest = max((len(detail.raw) for detail in entries), default=0)
    curve = []
    for step in range(longest):
        some = [detail for detail in entries if len(detail.raw) > step]
        raw, centred = (float(np.mean([getattr(d, name)[step] for d in some])) for name in ("raw", "centred"))
        curve.append((2**step, len(some), raw, centred))
    return curve
