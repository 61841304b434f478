"""Parallel batches give the same as successive ones; the deepest block is computed for the pooled nodes alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from encyclo.errors import CaptureError
from encyclo.types import Prompt
from tests.plugins.test_capture_equal import CORPUS, captured
from tests.tiny_models import CAUSAL, FAMILIES, LAYERS, build_network


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[int]:
    """So many cores to compute on."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def replicas():
    """A small network's replicas."""
    from encyclo_capture.cpu.workers import Replicas

    return Replicas(nn.Linear(2, 2))


def run(jobs, some=None):
    """The jobs' results, computed by as many workers as there are cores."""
    from encyclo_capture.cpu.workers import worker_count

    return (some or replicas()).run(jobs, worker_count("cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_side_by_side_gives_what_one_at_a_time_gives(tiny_family, family, threads):
    model, plain = tiny_family(family)
    values, batches = captured(model, CORPUS, (0, 2, -1), "span", 20)
    assert len(batches) > threads and torch.get_num_threads() == threads
    wanted = np.stack([plain.read(prompt, (0, 2, -1), "span") for prompt in CORPUS])
    np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)


def test_results_come_in_the_jobs_order(threads):
    gate = threading.Event()

    def first(_):
        gate.wait(5 if threads > 1 else 0)
        return 0

    def later(place, _):
        gate.set()
        return place

    jobs = [first, *(partial(later, place) for place in range(1, 20))]
    assert list(run(jobs)) == list(range(20))


def test_each_worker_has_a_network_and_a_share_of_the_cores(threads):
    some, seen = replicas(), set()
    together = threading.Barrier(threads, timeout=5)

    def job(network):
        together.wait()
        seen.add((id(network), torch.get_num_threads()))

    list(run([job] * threads, some))
    assert len(seen) == threads and {cores for _, cores in seen} == {1}
    assert (id(some._network) in {network for network, _ in seen}) is (threads == 1)


def test_an_error_comes_where_its_batch_would_and_stops_the_rest(threads):
    done = []

    def job(place, _):
        done.append(place)
        if place == 3:
            raise CaptureError("the fourth")
        return place

    given = run([partial(job, place) for place in range(100)])
    found = []
    with pytest.raises(CaptureError, match="the fourth"):
        for place in given:
            found.append(place)
    assert found == [0, 1, 2] and len(done) < 20 and torch.get_num_threads() == threads


def test_a_run_that_is_given_up_leaves_nothing_behind(threads):
    some = replicas()
    for _ in range(3):
        given = run([lambda network: network] * 50, some)
        next(given)
        given.close()
    assert torch.get_num_threads() == threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("capture")]
    assert len(some._idle) == (threads if threads > 1 else 0)  # and the same ones serve every run


def test_replicas_share_weights_and_nothing_else():
    from encyclo_capture.cpu.workers import replica_of

    network = build_network("gemma3", 1200)
    replica = replica_of(network)
    for one, other in zip(network.state_dict().values(), replica.state_dict().values(), strict=True):
        assert one.data_ptr() == other.data_ptr()
    assert not {id(module) for module in network.modules()} & {id(module) for module in replica.modules()}
    replica.config._attn_implementation_internal = "eager"
    replica.layers[0].register_forward_hook(lambda *_: pytest.fail("a replica's hook"))
    network.config._attn_implementation_internal = "sdpa"
    assert replica.layers[0].self_attn.config._attn_implementation == "eager"
    network(torch.tensor([[1, 2, 3]]))


def test_work_is_cut_evenly(tiny_family, threads):
    """Several workers end at about one time: no batch of all the rest, no single one at the end."""
    model, _ = tiny_family("gemma3")
    asked = [Prompt("c", f"{a}{b}{c} was", None, "f") for a in "abcdefgh" for b in "ijklmn" for c in "opqrst"]
    _, batches = captured(model, asked, [1], "span", 300)
    sizes = sorted(batch.tokens_computed for batch in batches)
    assert sizes[-1] <= 300
    if threads > 1:
        assert len(sizes) % threads == 0 and sizes[0] > 0.7 * sizes[-1]


def rows_through(model, block: int, asked, pooling: str, layers) -> list[int]:
    """How many rows the block's last linear layer gets, per pass."""
    seen = []
    (*_, last) = (m for m in model.network.modules() if isinstance(m, nn.ModuleList) and len(m) == LAYERS)
    name, _ = [pair for pair in last[block].named_modules() if "mlp" in pair[0]][-1]
    hook = (
        last[block]
        .get_submodule(name)
        .register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    )
    try:
        captured(model, asked, layers, pooling, 4096)
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("family", CAUSAL)
def test_the_deepest_block_is_computed_for_the_pooled_tokens_alone(tiny_family, family):
    model, _ = tiny_family(family)
    texts = ["The cat sat on the mat", "The cat sat here", "The dog slept in the house", "The dog slept"]
    asked = [Prompt("c", text, None, "f") for text in texts]
    assert rows_through(model, 3, asked, "last", (2, 4)) == [4]
    assert rows_through(model, 1, asked, "last", (2,)) == [4]
    (earlier,) = rows_through(model, 1, asked, "last", (2, 4))
    assert earlier > 12
    assert rows_through(model, 3, asked, "mean-all", (4,)) == [earlier]  # nearly every token is pooled


def test_a_block_that_is_given_a_mask_is_computed_whole():
    """It is unknown which other arguments have one row per token."""
    from encyclo_capture.forward.last_block import LastBlockPruning
    from encyclo_capture.forward.token_tree import build_tree
    from encyclo_capture.forward.tree_attention import TreeState
    from encyclo_capture.tokenization import TokenisedPrompt

    network = build_network("llama", 1200)
    tree = build_tree([TokenisedPrompt(0, (1, 2, 3, 4, 5), (4,))])
    pruning = LastBlockPruning(TreeState(None), tree, network, "cpu")
    x = torch.randn(1, 5, 32)
    assert pruning.pays
    assert pruning._before(network.layers[3], (x,), {"attention_mask": torch.zeros(1, 1, 5, 5)}) is None
    assert pruning._before(network.layers[3], (x[:, :3],), {}) is None


def test_sizes_are_few_and_near():
    from encyclo_capture.batch_sizes import even_size

    coarse = SimpleNamespace(device=torch.device("cpu"), dtype=torch.bfloat16)
    sizes = {rows: even_size(coarse, rows) for rows in range(1, 4097)}
    assert all(rows <= size < max(rows + 16, 1.126 * rows) for rows, size in sizes.items())
    assert len(set(sizes.values())) < 60 and all(even_size(coarse, size) == size for size in sizes.values())
    exact = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32)
    assert [even_size(exact, rows) for rows in (1, 17, 1000)] == [1, 17, 1000]


def test_filling_is_counted_as_computed(tiny_family):
    from encyclo_capture.model import TransformersModel

    exact, _ = tiny_family("gemma3")
    coarse = TransformersModel(exact.name, "cpu", "bfloat16")
    asked = [Prompt("c", "The cat sat on the mat", None, "f")]
    computed = [captured(model, asked, [1], "last", 64)[1][0].tokens_computed for model in (exact, coarse)]
    assert computed[0] < 16 and computed[1] == 16
