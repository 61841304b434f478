"""Prompts as a tree of tokens: a prefix that several prompts share is one path, computed once.

In a causal model the state at a token depends on the tokens before it and on nothing else, so that one node
stands for the token in every prompt that goes through it, and nothing after a prompt's last pooled token is
needed. The nodes of a tree are packed into one sequence without padding; each attends to its ancestors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encyclo_capture.tokens import TokenisedPrompt


@dataclass(frozen=True)
class TokenTree:
    """Nodes ordered by depth (0 is a prompt's first token).

    tokens, depth: int64 [nodes]
    ancestors:     int64 [nodes, deepest + 1]; row i holds the path from the root to node i, itself included, in
                   its first depth[i] + 1 columns
    pooled:        int64, the nodes that the prompts pool, one prompt after another
    counts:        int64 [prompts], how many of `pooled` belong to each prompt
    """

    tokens: NDArray[np.int64]
    depth: NDArray[np.int64]
    ancestors: NDArray[np.int64]
    pooled: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)


def tree_groups(prompts: Sequence[TokenisedPrompt], most_nodes: int) -> Iterator[list[TokenisedPrompt]]:
    """Yield the prompts in groups whose trees have at most `most_nodes` nodes (or hold one prompt).

    Prompts are taken in the order of their tokens, so that those with a common prefix meet in one tree.
    """
    group: list[TokenisedPrompt] = []
    nodes = 0
    before: tuple[int, ...] = ()
    for prompt in sorted(prompts, key=lambda p: (p.needed, p.position)):
        path = prompt.needed
        fresh = len(path) - common_prefix(path, before)
        if group and nodes + fresh > most_nodes:
            yield group
            group, nodes, fresh = [], 0, len(path)
        group.append(prompt)
        nodes, before = nodes + fresh, path
    if group:
        yield group


def grow(prompts: Sequence[TokenisedPrompt]) -> TokenTree:
    """Return the tree of prompts that are sorted by their tokens."""
    tokens: list[int] = []
    paths: list[list[int]] = []
    before: tuple[int, ...] = ()
    path: list[int] = []
    for prompt in prompts:
        shared = common_prefix(prompt.needed, before)
        path = path[:shared]
        for token in prompt.needed[shared:]:
            path.append(len(tokens))
            tokens.append(token)
        paths.append(path)
        before = prompt.needed
    return _ordered_by_depth(np.array(tokens, np.int64), paths, prompts)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many leading items two sequences share."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return place
    return min(len(a), len(b))


def _ordered_by_depth(
    tokens: NDArray[np.int64], paths: Sequence[Sequence[int]], prompts: Sequence[TokenisedPrompt]
) -> TokenTree:
    depth = np.empty(len(tokens), np.int64)
    ancestors = np.zeros((len(tokens), max(len(path) for path in paths)), np.int64)
    for path in paths:
        nodes = np.array(path, np.int64)
        depth[nodes] = np.arange(len(nodes))
        # Every node of the path gets the whole path; what lies below a node is beyond its depth.
        ancestors[nodes, : len(nodes)] = nodes
    order = np.argsort(depth, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    pooled = [paths[row][token] for row, prompt in enumerate(prompts) for token in prompt.pooled]
    return TokenTree(
        tokens=tokens[order],
        depth=depth[order],
        ancestors=place[ancestors[order]],
        pooled=place[np.array(pooled, np.int64)],
        counts=np.array([len(prompt.pooled) for prompt in prompts], np.int64),
    )
