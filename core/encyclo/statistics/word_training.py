"""Fit a `WordReader` on mentions in running text: each is known to mean an entry, or none of its word's entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.entry_words import NamedWord
from encyclo.statistics.calibration import fit_temperature
from encyclo.statistics.word_reader import (
    FEATURES,
    SCALE,
    Floats,
    Layers,
    Means,
    WordMeaning,
    WordReader,
    feature_row,
    unit,
)

WIDTH = 256
"""Discriminants kept."""
SHRINKAGE = 0.1
"""Of the within-meaning scatter, towards a multiple of the identity."""
REPEATED = 3
"""A meaning with at least this many mentions shows how much one meaning's mentions vary."""
HELD_OUT = 0.1
"""The share of groups that stop the training and fit the temperature."""
MOST_DIMENSIONS = 4096
"""Above this, the scatter of all dimensions would take too long."""
EPOCHS, BATCH, RATE, DECAY = 15, 512, 2e-3, 0.8
RANKER, OUTSIDER = 32, 64
"""Hidden units."""


@dataclass(frozen=True)
class Mentions:
    """Mentions in running text.

    activations: [n, L, H]; meant: int32 [n], the row of one of the word's entries or NONE; words: one of each
    mention; group: int64 [n], the source that it comes from
    """

    activations: NDArray[Any]
    meant: NDArray[np.int32]
    words: Sequence[NamedWord]
    group: NDArray[np.int64]


def fit(mentions: Mentions, seed: int) -> WordReader:
    """Fit on mentions of at least two groups; the features of a mention leave its own group's mentions out."""
    place: dict[WordMeaning, int] = {}
    keys = [(named.word, row) for named, row in zip(mentions.words, mentions.meant.tolist(), strict=True)]
    of = np.array([place.setdefault(key, len(place)) for key in keys])
    projection, offset = discriminants(mentions.activations, of)
    directions = unit(mentions.activations.reshape(len(of), -1) @ projection - offset)
    sums, count = _sums(directions, of, len(place))
    features, target, lengths = _features_by_group(mentions, directions, of, place, sums, count)
    reader = WordReader(
        projection,
        offset,
        Means(place, (sums / count[:, None]).astype(np.float32), count),
        features.mean(axis=0),
        features.std(axis=0) + 1e-6,
        (),
        (),
        1.0,
        len(of),
    )
    return _train(reader, features, directions, target, lengths, mentions.group, seed)


def discriminants(activations: Floats, of: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return projection [D, k] and offset [k] of Fisher's linear discriminants of the meanings `of` [n].

    Fisher, 1936; Rao, 1948. Dimensions are standardised; the within-meaning scatter is that of meanings with REPEATED
    mentions, shrunk. Of more than MOST_DIMENSIONS, the discriminants use a random projection.
    """
    flat = activations.reshape(len(of), -1)
    if flat.shape[1] > MOST_DIMENSIONS:
        first = np.random.default_rng(0).standard_normal((flat.shape[1], MOST_DIMENSIONS), dtype=np.float32)
        first /= np.sqrt(flat.shape[1])
        projection, offset = discriminants(flat @ first, of)
        return first @ projection, offset
    centre = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.maximum(flat.std(axis=0, dtype=np.float64), 1e-6).astype(np.float32)
    means, within = _scatter(flat, of, centre, scale)
    whiten = _whitening(within)
    enough = np.bincount(of) >= min(REPEATED, int(np.bincount(of).max()))
    between = means[enough] @ whiten
    between -= between.mean(axis=0)
    _, directions = np.linalg.eigh(between.T @ between)
    projection = ((whiten @ directions[:, ::-1][:, :WIDTH]) / scale[:, None]).astype(np.float32)
    return projection, centre @ projection


def _scatter(
    flat: Floats, of: NDArray[np.int64], centre: Floats, scale: Floats
) -> tuple[Floats, NDArray[np.float64]]:
    """Return each meaning's mean [m, D] and the scatter within the meanings with REPEATED mentions [D, D]."""
    count = np.bincount(of)
    means = np.zeros((len(count), flat.shape[1]), np.float32)
    within = np.zeros((flat.shape[1], flat.shape[1]))
    for block in _blocks(np.argsort(of, kind="stable"), of):
        values = (flat[block] - centre) / scale
        own, inverse = np.unique(of[block], return_inverse=True)
        total = np.zeros((len(own), values.shape[1]), np.float32)
        np.add.at(total, inverse, values)
        means[own] = total / count[own][:, None]
        rest = (values - means[of[block]])[count[of[block]] >= REPEATED]
        within += rest.T @ rest
    return means, within / max(1, int(count[count >= REPEATED].sum()))


def _whitening(within: NDArray[np.float64]) -> NDArray[np.float64]:
    level = max(float(np.trace(within)) / len(within), 1e-6)
    values, vectors = np.linalg.eigh(within + SHRINKAGE * level * np.eye(len(within)))
    result: NDArray[np.float64] = vectors / np.sqrt(values)
    return result


def _blocks(order: NDArray[np.int64], of: NDArray[np.int64], size: int = 8192) -> list[NDArray[np.int64]]:
    """Cut rows that are sorted by meaning into blocks that keep each meaning whole."""
    edges = np.flatnonzero(np.diff(of[order])) + 1
    cuts, last = [], 0
    for edge in edges.tolist():
        if edge - last >= size:
            cuts.append(edge)
            last = edge
    return np.split(order, cuts)


def _sums(directions: Floats, of: NDArray[np.int64], count: int) -> tuple[Floats, NDArray[np.int32]]:
    sums = np.zeros((count, directions.shape[1]), np.float32)
    np.add.at(sums, of, directions)
    return sums, np.bincount(of, minlength=count).astype(np.int32)


def _features_by_group(
    mentions: Mentions,
    directions: Floats,
    of: NDArray[np.int64],
    place: Mapping[WordMeaning, int],
    sums: Floats,
    count: NDArray[np.int32],
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return all meanings' features, each mention's right meaning, and its number of meanings.

    The mentions of a mention's own group are left out, as if it came from a source that was never seen.
    """
    inner: dict[tuple[int, int], int] = {}
    groups = mentions.group.tolist()
    own = np.array([inner.setdefault(key, len(inner)) for key in zip(of.tolist(), groups, strict=True)])
    own_sums, own_count = _sums(directions, own, len(inner))
    rows, target, lengths = [], [], []
    for at, (named, group, meant) in enumerate(
        zip(mentions.words, groups, mentions.meant.tolist(), strict=True)
    ):
        pairs, found = named.meanings(), []
        for row, _ in pairs:
            where = place.get((named.word, row), -1)
            inside = inner.get((where, group), -1)
            number = int(count[where]) if where >= 0 else 0
            total = sums[where]
            if inside >= 0:
                number, total = number - int(own_count[inside]), total - own_sums[inside]
            found.append((number, float(directions[at] @ total) / number if number else 0.0))
        everything = sum(number for number, _ in found)
        rows += [
            feature_row(row, share, number, everything, alike)
            for (row, share), (number, alike) in zip(pairs, found, strict=True)
        ]
        target.append([row for row, _ in pairs].index(meant))
        lengths.append(len(pairs))
    return np.array(rows, np.float32).reshape(-1, FEATURES), np.array(target), np.array(lengths)


def _train(
    reader: WordReader,
    features: Floats,
    directions: Floats,
    target: NDArray[np.int64],
    lengths: NDArray[np.int64],
    group: NDArray[np.int64],
    seed: int,
) -> WordReader:
    """Train the two networks on most groups, stop by the others, fit the temperature on these."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    generator = np.random.default_rng(seed)
    names = generator.permutation(np.unique(group))
    held = np.isin(group, names[: max(1, round(HELD_OUT * len(names)))])
    padded, there = _padded((features - reader.feature_centre) / reader.feature_scale, lengths)
    last = lengths - 1
    torch.manual_seed(seed)
    ranker = nn.Sequential(nn.Linear(FEATURES, RANKER), nn.GELU("tanh"), nn.Linear(RANKER, 1))
    outsider = nn.Sequential(
        nn.Linear(directions.shape[1], OUTSIDER), nn.GELU("tanh"), nn.Dropout(0.2), nn.Linear(OUTSIDER, 1)
    )
    nets = nn.ModuleList([ranker, outsider])
    a, m, z = torch.from_numpy(padded), torch.from_numpy(there), torch.from_numpy(directions * SCALE)
    t, end = torch.from_numpy(target), torch.from_numpy(last)

    def logits(some: Any) -> Any:
        raw = ranker(a[some])[..., 0].masked_fill(~m[some], -1e9)
        return raw.scatter_add(1, end[some][:, None], outsider(z[some]))

    optimizer = torch.optim.AdamW(nets.parameters(), lr=RATE, weight_decay=1e-3)
    rows, judged = np.flatnonzero(~held), torch.from_numpy(np.flatnonzero(held))
    best, kept = np.inf, dict[str, Any]()
    for _ in range(EPOCHS):
        nets.train()
        shuffled = generator.permutation(rows)
        for start in range(0, len(shuffled), BATCH):
            some = torch.from_numpy(shuffled[start : start + BATCH])
            loss = cross_entropy(logits(some), t[some])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for part in optimizer.param_groups:
            part["lr"] *= DECAY
        nets.eval()
        with torch.inference_mode():
            found = float(cross_entropy(logits(judged), t[judged]))
        if found < best:
            best, kept = found, {key: value.clone() for key, value in nets.state_dict().items()}
    nets.load_state_dict(kept)
    with torch.inference_mode():
        scores = logits(judged).numpy()
    return replace(
        reader,
        ranker=_layers(ranker),
        outsider=_layers(outsider),
        temperature=fit_temperature(scores, target[held]),
    )


def _padded(features: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    there = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros((*there.shape, features.shape[1]), np.float32)
    padded[there] = features
    return padded, there


def _layers(network: Any) -> Layers:
    linear = [layer for layer in network if hasattr(layer, "weight")]
    return tuple(
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear
    )
