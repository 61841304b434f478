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
    from encyclo_capture.tokenization import TokenisedPrompt

    found = []
    texts = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)
    for position, ids in enumerate(draw(st.lists(texts, min_size=1, max_size=12))):
        start = draw(st.integers(0, len(ids) - 1))
        end = draw(st.integers(start + 1, len(ids)))
        found.append(TokenisedPrompt(position, ids, tuple(range(start, end))))
    return found


def cut_into_trees(asked, limit: int):
    """Groups of at most `limit` nodes, each with its tree."""
    from encyclo_capture.forward.token_tree import build_tree, tree_groups

    return ((group, build_tree(group)) for group in tree_groups(asked, limit))


def prefixes(group) -> set[tuple[int, ...]]:
    return {one.ids[:end] for one in group for end in range(1, one.pooled[-1] + 2)}


def ancestors(tree) -> dict[int, list[int]]:
    """Each node's path from the root, itself included, by the tree's own branches."""
    found = {}
    for path, length, fresh in zip(tree.paths, tree.lengths, tree.fresh, strict=True):
        for end in range(length - fresh, length):
            assert path[end] not in found
            found[int(path[end])] = [int(node) for node in path[: end + 1]]
    return found


def paths(tree) -> list[tuple[int, ...]]:
    """The tokens from the root to each node."""
    found = ancestors(tree)
    return [tuple(tree.tokens[found[node]]) for node in range(len(tree))]


@given(prompts(), st.integers(1, 40))
def test_a_node_is_a_distinct_prefix(asked, limit):

    for group, tree in cut_into_trees(asked, limit):
        assert len(tree) == len(prefixes(group))
        assert sorted(paths(tree)) == sorted(prefixes(group))


@given(prompts())
def test_branches_are_paths_and_own_each_node_once(asked):

    ((_, tree),) = cut_into_trees(asked, 10_000)
    found = ancestors(tree)
    assert sorted(found) == list(range(len(tree)))
    for path in found.values():
        assert list(tree.depth[path]) == list(range(len(path)))
        if path[:-1]:  # the parent's own path is this one without its end
            assert found[path[-2]] == path[:-1]
    for path, length, fresh in zip(tree.paths, tree.lengths, tree.fresh, strict=True):
        own = path[length - fresh : length]
        assert fresh >= 1 and list(own) == list(range(own[0], own[0] + fresh))


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
    from encyclo_capture.forward.token_tree import common_prefix

    shared = common_prefix(a, b)
    assert a[:shared] == b[:shared]
    assert a[: shared + 1] != b[: shared + 1] or shared == len(a) == len(b)


@pytest.mark.parametrize("span", [1, 3, 16])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("filling", [0, 5])
@given(asked=prompts(), some=st.sets(st.integers(0, 100), min_size=1) | st.none())
def test_blocks_show_each_node_its_path_and_nothing_else(span, window, filling, asked, some):
    from encyclo_capture.forward import tree_attention

    ((_, tree),) = cut_into_trees(asked, 10_000)
    size = len(tree)
    tree = tree.filled(size + filling)
    asking = None if some is None else np.array(sorted({node % size for node in some}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "SPAN", span)
        patch.setattr(tree_attention, "POOLED_SPAN", 2 * span)
        layout = tree_attention.lay_out(tree, "cpu", asking)
    nodes, shown = range(len(tree)) if asking is None else asking, []
    for block in layout.blocks:
        mask = block.mask(window, 2)
        for row, queries in enumerate(block.queries):
            for place, query in enumerate(queries):
                one, other = mask[row, 0, 2 * place], mask[row, 0, 2 * place + 1]
                assert one.tolist() == other.tolist()  # two heads that share a key head
                shown.append((int(query), sorted(block.keys[row][one == 0].tolist())))
    rows = range(len(nodes)) if layout.rows is None else layout.rows.tolist()
    assert len(set(rows)) == len(nodes)
    for place, node in enumerate(nodes):
        path = ancestors(tree)[node]
        start = 0 if window is None else max(0, len(path) - window)
        assert shown[rows[place]] == (place, sorted(path[start:]))


@given(asked=prompts(), filling=st.integers(0, 20))
def test_filling_adds_nodes_that_nobody_reads(asked, filling):
    ((_, tree),) = cut_into_trees(asked, 10_000)
    filled = tree.filled(len(tree) + filling)
    assert len(filled) == len(tree) + filling and filled.pooled is tree.pooled
    found = ancestors(filled)
    assert {node: found[node] for node in range(len(tree))} == ancestors(tree)
    assert all(found[node] == [node] for node in range(len(tree), len(filled)))


@pytest.mark.parametrize("span", [1, 3, 16])
@given(asked=prompts())
def test_tree_attention_equals_attention_along_each_path(span, asked):
    """Against sums written out by hand, for one block and for many, whole and cut into small gathers."""
    import torch

    from encyclo_capture.forward import tree_attention

    ((_, tree),) = cut_into_trees(asked, 10_000)
    assume(len(tree) > 1)
    torch.manual_seed(0)
    heads, key_heads, size, window = 4, 2, 8, 3
    query = torch.randn(1, heads, len(tree), size)
    key, value = torch.randn(2, 1, key_heads, len(tree), size).unbind()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "SPAN", span)
        patch.setattr(
            tree_attention, "GATHERED_AT_ONCE", 64 if span == 3 else tree_attention.GATHERED_AT_ONCE
        )
        token = tree_attention._state.set(tree_attention.TreeState(tree_attention.lay_out(tree, "cpu")))
        found, _ = tree_attention.tree_attention(
            None, query, key, value, None, sliding_window=window, softcap=2.0
        )
        tree_attention._state.reset(token)
    for node, whole in ancestors(tree).items():
        path = whole[max(0, len(whole) - window) :]
        for head in range(heads):
            keys, values = key[0, head // 2, path], value[0, head // 2, path]
            scores = torch.tanh(keys @ query[0, head, node] / size**0.5 / 2.0) * 2.0
            torch.testing.assert_close(found[0, node, head], torch.softmax(scores, 0) @ values)
