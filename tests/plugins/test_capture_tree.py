"""Token trees, as data: nodes, paths, depths, pools and how prompts are cut into groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st


@st.composite
def prompts(draw: st.DrawFn):
    """Tokenised prompts over few tokens, so that prefixes coincide; each pools one run of its tokens."""
    from encyclo_capture.tokens import TokenisedPrompt

    found = []
    texts = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)
    for position, ids in enumerate(draw(st.lists(texts, min_size=1, max_size=12))):
        start = draw(st.integers(0, len(ids) - 1))
        end = draw(st.integers(start + 1, len(ids)))
        found.append(TokenisedPrompt(position, ids, tuple(range(start, end))))
    return found


def cut_into_trees(asked, limit: int):
    """Groups of at most `limit` nodes, each with its tree."""
    from encyclo_capture.tree import grow, tree_groups

    return ((group, grow(group)) for group in tree_groups(asked, limit))


def prefixes(group) -> set[tuple[int, ...]]:
    return {one.ids[:end] for one in group for end in range(1, one.pooled[-1] + 2)}


def paths(tree) -> list[tuple[int, ...]]:
    """The tokens from the root to each node, by the tree's own ancestors."""
    return [
        tuple(tree.tokens[row[: depth + 1]]) for row, depth in zip(tree.ancestors, tree.depth, strict=True)
    ]


@given(prompts(), st.integers(1, 40))
def test_a_node_is_a_distinct_prefix(asked, limit):

    for group, tree in cut_into_trees(asked, limit):
        assert len(tree) == len(prefixes(group))
        assert sorted(paths(tree)) == sorted(prefixes(group))


@given(prompts())
def test_ancestors_are_the_path(asked):

    ((_, tree),) = cut_into_trees(asked, 10_000)
    assert (np.diff(tree.depth) >= 0).all()
    assert tree.ancestors.shape == (len(tree), tree.depth.max() + 1)
    assert tree.ancestors.min() >= 0 and tree.ancestors.max() < len(tree)
    for node, depth in enumerate(tree.depth):
        path = tree.ancestors[node, : depth + 1]
        assert path[-1] == node
        assert list(tree.depth[path]) == list(range(depth + 1))
        if depth:  # the parent's own path is this one without its end
            np.testing.assert_array_equal(tree.ancestors[path[-2], :depth], path[:-1])


@given(prompts(), st.integers(1, 40))
def test_pooled_nodes_are_the_prompts_own_tokens_in_their_context(asked, limit):

    for group, tree in cut_into_trees(asked, limit):
        assert list(tree.counts) == [len(one.pooled) for one in group]
        assert tree.counts.sum() == len(tree.pooled)
        pools = np.split(tree.pooled, np.cumsum(tree.counts)[:-1])
        found = paths(tree)
        for one, pool in zip(group, pools, strict=True):
            assert [found[node] for node in pool] == [one.ids[: place + 1] for place in one.pooled]


@given(prompts(), st.integers(1, 40))
def test_a_group_keeps_the_limit_unless_one_prompt_breaks_it(asked, limit):

    groups = list(cut_into_trees(asked, limit))
    assert sorted(one.position for group, _ in groups for one in group) == list(range(len(asked)))
    for group, tree in groups:
        assert len(tree) <= limit or len(group) == 1
    for (group, tree), (following, _) in itertools.pairwise(groups):  # nor is a group cut early
        assert len(prefixes([*group, following[0]])) > limit or len(tree) > limit


@given(prompts(), st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_order_of_the_prompts_changes_no_tree(asked, limit, random):

    shuffled = random.sample(asked, len(asked))
    one, other = ([(tree.tokens.tolist(), tree.pooled.tolist(), [p.position for p in group])
                   for group, tree in cut_into_trees(some, limit)] for some in (asked, shuffled))  # fmt: skip
    assert one == other


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix(a, b):
    from encyclo_capture.tree import common_prefix

    shared = common_prefix(a, b)
    assert a[:shared] == b[:shared]
    assert a[: shared + 1] != b[: shared + 1] or shared == len(a) == len(b)


@given(prompts())
def test_slices_show_each_node_its_path_and_nothing_else(asked):
    from encyclo_capture.attention import cut_into_slices

    ((_, tree),) = cut_into_trees(asked, 10_000)
    covered = 0
    for part in cut_into_slices(tree, "cpu"):
        assert part.start == covered
        covered = part.end
        for node in range(part.start, part.end):
            keys = part.ancestors[node - part.start]
            if part.seen is not None:
                keys = keys[part.seen[node - part.start, 0, 0]]
            np.testing.assert_array_equal(keys, tree.ancestors[node, : tree.depth[node] + 1])
    assert covered == len(tree)


@pytest.mark.parametrize("few", [1, 3, 64])
@given(asked=prompts())
def test_tree_attention_equals_attention_along_each_path(few, asked):
    """Against sums written out by hand, for one slice and for many, whole and cut into small gathers."""
    import torch

    from encyclo_capture import attention

    ((_, tree),) = cut_into_trees(asked, 10_000)
    assume(len(tree) > 1)
    torch.manual_seed(0)
    heads, key_heads, size, window = 4, 2, 8, 3
    query = torch.randn(1, heads, len(tree), size)
    key, value = torch.randn(2, 1, key_heads, len(tree), size).unbind()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "FEW_NODES", few)
        patch.setattr(attention, "GATHERED_AT_ONCE", 64 if few == 3 else attention.GATHERED_AT_ONCE)
        token = attention._slices.set(attention.cut_into_slices(tree, "cpu"))
        found, _ = attention.tree_attention(None, query, key, value, None, sliding_window=window, softcap=2.0)
        attention._slices.reset(token)
    for node, depth in enumerate(tree.depth):
        path = tree.ancestors[node, max(0, depth + 1 - window) : depth + 1]
        for head in range(heads):
            keys, values = key[0, head // 2, path], value[0, head // 2, path]
            scores = torch.tanh(keys @ query[0, head, node] / size**0.5 / 2.0) * 2.0
            torch.testing.assert_close(found[0, node, head], torch.softmax(scores, 0) @ values)
