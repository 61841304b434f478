"""Which tokens a pooling reads: every prompt's vector is the mean of these tokens' states."""

from __future__ import annotations

from collections.abc import Sequence


def pooled_tokens(
    ranges: Sequence[tuple[int, int]],
    special: Sequence[bool | int],
    mention: tuple[int, int] | None,
    pooling: str,
) -> tuple[int, ...]:
    """Return the places of the tokens whose states are averaged, rising; empty where none can be read.

    `ranges` are the tokens' character ranges [start, end) in the prompt, `special` says which tokens the
    tokenizer added, `mention` is the prompt's span. `pooling` is one of `encyclo.types.POOLINGS`:

    span      the tokens that overlap the mention; without a mention the last token of the text
    last      the last token of the text
    mean      every token of the text
    mean-all  every token, special ones included
    """
    if pooling == "mean-all":
        return tuple(range(len(ranges)))
    own = [place for place, added in enumerate(special) if not added]
    if pooling == "mean":
        return tuple(own)
    if pooling == "last" or mention is None:
        return tuple(own[-1:])
    start, end = mention
    # A token may hold the blank before the mention, so overlap decides, not containment.
    return tuple(place for place in own if max(ranges[place][0], start) < min(ranges[place][1], end))
