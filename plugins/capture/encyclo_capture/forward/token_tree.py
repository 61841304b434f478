"""Prompts as a tree of tokens: a prefix that several prompts share is one path, computed once.

In a causal model the state at a token depends on the tokens before it and on nothing else, so that one node
stands for the token in every prompt that goes through it, and nothing after a prompt's last pooled token is
needed. The nodes of a tree are packed into one sequence without padding; each attends to its ancestors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from encyclo_capture.tokenization import TokenisedPrompt


@dataclass(frozen=True)
class TokenTree:
    """Nodes in the order in which the prompts need them first; depth 0 is a prompt's first token.

    tokens, depth: int64 [nodes]
    paths:         int64 [branches, longest]; row i holds the nodes from the root to the end of branch i, in its
                   first lengths[i] columns
    lengths:       int64 [branches]
    fresh:         int64 [branches], how many nodes at its path's end are the branch's own: they follow one
                   another, and every node belongs to one branch
    pooled:        int64, the nodes that the prompts pool, one prompt after another
    counts:        int64 [prompts], how many of `pooled` belong to each prompt
    """

    tokens: NDArray[np.int64]
    depth: NDArray[np.int64]
    paths: NDArray[np.int64]
    lengths: NDArray[np.int64]
    fresh: NDArray[np.int64]
    pooled: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    def filled(self, size: int) -> TokenTree:
        """Return the tree with so many nodes: those that are added stand alone and nobody reads them."""
        added = np.arange(len(self), size)
        alone = np.zeros((len(added), self.paths.shape[1]), np.int64)
        alone[:, 0] = added
        ones = np.ones(len(added), np.int64)
        return replace(
            self,
            tokens=np.concatenate([self.tokens, self.tokens[:1].repeat(len(added))]),
            depth=np.concatenate([self.depth, 0 * ones]),
            paths=np.concatenate([self.paths, alone]),
            lengths=np.concatenate([self.lengths, ones]),
            fresh=np.concatenate([self.fresh, ones]),
        )


def tree_groups(prompts: Sequence[TokenisedPrompt], max_nodes: int) -> Iterator[list[TokenisedPrompt]]:
    """Yield the prompts in groups whose trees have at most `max_nodes` nodes (or hold one prompt).

    Prompts are taken in the order of their tokens, so that those with a common prefix meet in one tree.
    """
    group: list[TokenisedPrompt] = []
    nodes = 0
    before: tuple[int, ...] = ()
    for prompt in sorted(prompts, key=lambda p: (p.needed, p.position)):
        path = prompt.needed
        fresh = len(path) - common_prefix(path, before)
        if group and nodes + fresh > max_nodes:
            yield group
            group, nodes, fresh = [], 0, len(path)
        group.append(prompt)
        nodes, before = nodes + fresh, path
    if group:
        yield group


def count_nodes(prompts: Sequence[TokenisedPrompt]) -> int:
    """Return how many nodes one tree of all these prompts would have."""
    paths = sorted(prompt.needed for prompt in prompts)
    shared = sum(common_prefix(path, before) for before, path in itertools.pairwise(paths))
    return sum(map(len, paths)) - shared


def build_tree(prompts: Sequence[TokenisedPrompt]) -> TokenTree:
    """Return the tree of prompts that are sorted by their tokens."""
    tokens: list[int] = []
    depth: list[int] = []
    branches: list[list[int]] = []
    fresh: list[int] = []
    pooled: list[int] = []
    before: tuple[int, ...] = ()
    path: list[int] = []
    for prompt in prompts:
        shared = common_prefix(prompt.needed, before)
        own = prompt.needed[shared:]
        path = [*path[:shared], *range(len(tokens), len(tokens) + len(own))]
        tokens += own
        depth += range(shared, len(path))
        if own:
            branches.append(path)
            fresh.append(len(own))
        pooled += [path[token] for token in prompt.pooled]
        before = prompt.needed
    lengths = [len(branch) for branch in branches]
    paths = np.zeros((len(branches), max(lengths)), np.int64)
    for row, branch in enumerate(branches):
        paths[row, : len(branch)] = branch
    return TokenTree(
        tokens=np.array(tokens, np.int64),
        depth=np.array(depth, np.int64),
        paths=paths,
        lengths=np.array(lengths, np.int64),
        fresh=np.array(fresh, np.int64),
        pooled=np.array(pooled, np.int64),
        counts=np.array([len(prompt.pooled) for prompt in prompts], np.int64),
    )


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many leading items two sequences share."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return place
    return min(len(a), len(b))
