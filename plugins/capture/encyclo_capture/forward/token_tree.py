"""Token trees: a prefix that several prompts share is one path, computed once.

In a causal model a token's state depends only on the token and those before it. So one node represents a token in all
prompts that share its path, and the tokens after a prompt's last pooled token are not needed. The nodes of a tree are
packed into one sequence without padding; each node attends to its ancestors and itself.
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
    """The nodes of a tree in the order of their first use by a prompt; a prompt's first token has depth 0.

    tokens, depth: int64 [nodes]
    paths:         int64 [branches, longest]; the first lengths[i] columns of row i hold the nodes from the root to
                   the end of branch i
    lengths:       int64 [branches]
    fresh:         int64 [branches], number of nodes at the path's end that belong to the branch; they are
                   consecutive, and every node belongs to one branch
    pooled:        int64, the pooled nodes, prompt by prompt
    counts:        int64 [prompts], number of pooled nodes per prompt
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
        """Return the tree padded to `size` nodes; the added nodes are branches of their own and are not pooled."""
        added = np.arange(len(self), size)
        added_paths = np.zeros((len(added), self.paths.shape[1]), np.int64)
        added_paths[:, 0] = added
        ones = np.ones(len(added), np.int64)
        return replace(
            self,
            tokens=np.concatenate([self.tokens, self.tokens[:1].repeat(len(added))]),
            depth=np.concatenate([self.depth, 0 * ones]),
            paths=np.concatenate([self.paths, added_paths]),
            lengths=np.concatenate([self.lengths, ones]),
            fresh=np.concatenate([self.fresh, ones]),
        )


def tree_groups(prompts: Sequence[TokenisedPrompt], max_nodes: int) -> Iterator[list[TokenisedPrompt]]:
    """Yield the prompts in groups whose trees have at most `max_nodes` nodes or one prompt.

    Prompts are sorted by their tokens, so that prompts with a common prefix share a tree.
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
    """Return the number of nodes of one tree of all `prompts`."""
    paths = sorted(prompt.needed for prompt in prompts)
    shared = sum(common_prefix(path, before) for before, path in itertools.pairwise(paths))
    return sum(map(len, paths)) - shared


def build_tree(prompts: Sequence[TokenisedPrompt]) -> TokenTree:
    """Return the tree of `prompts`, which are sorted by their tokens."""
    tokens: list[int] = []
    depth: list[int] = []
    branches: list[list[int]] = []
    fresh: list[int] = []
    pooled: list[int] = []
    before: tuple[int, ...] = ()
    path: list[int] = []
    for prompt in prompts:
        shared = common_prefix(prompt.needed, before)
        added = prompt.needed[shared:]
        path = [*path[:shared], *range(len(tokens), len(tokens) + len(added))]
        tokens += added
        depth += range(shared, len(path))
        if added:
            branches.append(path)
            fresh.append(len(added))
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
    """Return the number of leading items that two sequences share."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return place
    return min(len(a), len(b))
