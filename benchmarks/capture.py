"""Compare encyclo's capture with its peers: one process each, in turn, on the same prompts.

    python benchmarks/capture.py                     both workloads, every peer that is installed
    python benchmarks/capture.py --workload raw      50,000 bare names against 5,000, encyclo alone
    python benchmarks/capture.py --workload raw --words /usr/share/wordnet/index.noun

The script installs nothing; it leaves out a peer that can't be imported, with a message. Every method gives the same
numbers: the default five layers, pooled over the mention, float32 on the host. Peers run the network as transformers
loads it. Rates are medians of --repeat passes after a warm-up pass over the first prompts. Compare ratios within one
run, since times drift. The share counts only necessary work: without encyclo's padding of batches, and with the deepest
block only for the pooled tokens. The raw workload drops its results batch by batch, so that its peak memory is that of
capture itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from capture_peers import LAYERS, METHODS, as_prompts, encyclo

PEERS = ("transformers", "nnsight", "transformer_lens")
WARM_UP = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", choices=["templates", "definitions", "raw", "all"], default="all")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--concepts", type=int, default=1000)
    parser.add_argument("--methods", default=",".join((*PEERS, "encyclo")))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--words", type=Path, help="names for the raw workload: the first word of each line")
    parser.add_argument("--drop", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments)))
        return
    chosen = ["templates", "definitions"] if arguments.workload == "all" else [arguments.workload]
    for workload in chosen:
        arguments.drop = workload == "raw"
        for name, prompts in make_prompts(workload, arguments.concepts, arguments.words):
            methods = ["encyclo"] if workload == "raw" else arguments.methods.split(",")
            report(name, len(prompts), run_each(methods, prompts, arguments))


def make_prompts(
    workload: str, concepts: int, words: Path | None
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield (name, prompts as JSON objects: text and span)."""
    from encyclo.types import Context
    from encyclo_concepts import core
    from encyclo_samplers import templates

    chosen = list(core.load_concepts(core.Options()))[:concepts]
    if workload == "templates":
        context = Context(0, "cpu", templates.Options(), Path())
        prompts = templates.sample_prompts(chosen, 1, context)
        yield f"templates: {len(chosen):,} concepts x 10", [{"text": p.text, "span": p.span} for p in prompts]
    elif workload == "definitions":
        texts = [c.definition for c in chosen] + [
            c.definition[0].upper() + c.definition[1:] + "." for c in chosen
        ]
        yield "definitions, nothing to share but BOS", [{"text": text, "span": None} for text in texts]
    else:
        names = read_names(words) if words else pairs_of([c.name for c in chosen], 50_000)
        for count in (5_000, 50_000):
            # Spread over the whole list, which may be sorted.
            some = [names[i * len(names) // count] for i in range(count)]
            yield f"raw: {count:,} names", [{"text": text, "span": [0, len(text)]} for text in some]


def read_names(file: Path) -> list[str]:
    """Return the first word of each line, "_" for a blank; indented lines (WordNet's licence) are not names."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.split()[0].replace("_", " ") for line in lines if line.strip() and not line[0].isspace()]


def pairs_of(names: list[str], count: int) -> list[str]:
    """Return invented names, pairs of words; with about 1,000 words all are different."""
    return [f"{names[i % len(names)]} {names[i * 7 // len(names) % len(names)]}" for i in range(count)]


def run_each(
    methods: list[str], prompts: list[dict[str, Any]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Run each method in a process of its own; return its figures by name."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.json"
        file.write_text(json.dumps(prompts))
        for method in methods:
            flags = ["--worker", method, "--prompts", str(file), "--model", arguments.model]
            flags += ["--device", arguments.device, "--repeat", str(arguments.repeat)]
            flags += ["--drop"] * arguments.drop
            done = subprocess.run([sys.executable, __file__, *flags], capture_output=True, text=True)
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1][:200]
                print(f"{method} is left out: {reason}", file=sys.stderr)
            else:
                results[method] = json.loads(done.stdout.splitlines()[-1])
    return results


def report(name: str, count: int, results: dict[str, Any]) -> None:
    """Print a table: rates, ratios to the best peer, tokens, memory, share of the matrix-product rate."""
    peers = [r["rate"] for method, r in results.items() if method != "encyclo"]
    best = max(peers, default=None)
    print(f"\n{name} ({count:,} prompts)")
    print(f"{'method':<18}{'prompts/s':>10}{'ratio':>8}{'tokens':>10}{'peak MB':>9}{'matmul share':>14}")
    for method, figures in results.items():
        ratio = f"{figures['rate'] / best:.2f}" if best else "-"
        print(
            f"{method:<18}{figures['rate']:>10,.0f}{ratio:>8}{figures['tokens']:>10,}{figures['peak_mb']:>9,.0f}"
            f"{figures['share']:>13.0%}"
        )
    if "encyclo" in results:
        ours = results["encyclo"]
        print(
            f"encyclo: {ours['seconds']:.1f} s a pass; self-test {ours['self_test']:.2f} s; this machine's matrix "
            f"product {ours['matrix_product_tflops']:.2f} TFLOP/s; {ours['mapped_mb']:,.0f} MB of its peak are files"
        )
    if "encyclo" in results and "transformers" in results:
        print(f"largest relative difference, encyclo against transformers: {_difference(results):.4f}")


def _difference(results: dict[str, Any]) -> float:
    return max(
        abs(a - b) / abs(b)
        for a, b in zip(results["encyclo"]["lengths"], results["transformers"]["lengths"], strict=True)
    )


def work(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time one method in this process."""
    import resource

    from encyclo_capture.model import TransformersModel

    prompts = json.loads(arguments.prompts.read_text())
    model = TransformersModel(arguments.model, arguments.device)
    self_test = time_self_test(model, prompts) if arguments.worker == "encyclo" else None
    run = partial(encyclo(model), keep=not arguments.drop) if self_test else METHODS[arguments.worker](model)
    run(prompts[:WARM_UP])
    rates, products, trees = [], [], count_trees()
    for _ in range(arguments.repeat):
        trees.clear()
        before = matrix_product_rate(model)
        begun = time.perf_counter()
        tokens, states = run(prompts)
        rates.append(len(prompts) / (time.perf_counter() - begun))
        products.append((before + matrix_product_rate(model)) / 2)
    rate = statistics.median(rates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    needed = float(tokens)
    if arguments.worker == "encyclo" and model.shares_prefixes:
        needed = sum(nodes - (nodes - pooled) / model.depth for nodes, pooled in trees)
    floating = 2 * block_parameters(model) * needed * rate / len(prompts)
    return {
        "rate": rate,
        "rates": rates,
        "seconds": len(prompts) / rate,
        "self_test": self_test,
        "tokens": tokens,
        "peak_mb": peak,
        "mapped_mb": mapped_mb(),
        "share": floating / statistics.median(products),
        "matrix_product_tflops": statistics.median(products) / 1e12,
        "lengths": [] if states is None else lengths(states, len(prompts), model.hidden_size),
    }


def mapped_mb() -> float:
    """Return how much of this process's memory is pages of files; 0 if the system does not report it.

    Weights are mapped: the embedding of a token takes memory once the token has come up, and only while nobody else
    needs that memory.
    """
    status = Path("/proc/self/status")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return int(lines.get("RssFile", "0").split()[0]) / 1024


def lengths(states: Any, prompts: int, hidden: int) -> list[float]:
    """Return each layer's root mean squared length."""
    assert states.shape == (prompts, len(LAYERS), hidden)
    return [float(x) for x in (states.astype("float64") ** 2).sum(-1).mean(0) ** 0.5]


def time_self_test(model: Any, prompts: list[dict[str, Any]]) -> float:
    """Return the seconds that the check before a run takes, weights and tokenizer already loaded."""
    from encyclo_capture.selftest import check
    from encyclo_capture.transformers import Options

    assert model.shares_prefixes is not None and model.tokenizer  # loads both, and tries trees
    begun = time.perf_counter()
    check(model, as_prompts(prompts), LAYERS, "span", Options().batch_for(model))
    return time.perf_counter() - begun


def count_trees() -> list[tuple[int, int]]:
    """Return a list that gets (nodes, pooled nodes) of every token tree that encyclo computes from now on."""
    from encyclo_capture import capture

    counts, run_tree = [], capture.run_tree

    def counting(network: Any, device: str, tree: Any, *rest: Any) -> Any:
        counts.append((len(tree), len(set(tree.pooled.tolist()))))
        return run_tree(network, device, tree, *rest)

    capture.run_tree = counting
    return counts


def matrix_product_rate(model: Any) -> float:
    """Return the floating-point operations per second of a 2048 x 640 by 640 x 2048 product in the model's type."""
    import torch

    kind = getattr(torch, model.dtype)
    a = torch.randn(2048, 640, dtype=kind, device=model.device)
    b = torch.randn(640, 2048, dtype=kind, device=model.device)
    wait = torch.cuda.synchronize if model.device.startswith("cuda") else lambda: None
    for _ in range(5):
        a @ b
    wait()
    begun = time.perf_counter()
    for _ in range(30):
        a @ b
    wait()
    return 30 * 2 * 2048 * 640 * 2048 / (time.perf_counter() - begun)


def block_parameters(model: Any) -> int:
    """Return the number of weights that every token is multiplied with: those of the blocks' matrices."""
    import torch
    from transformers import AutoModel

    from encyclo_capture.forward.passes import find_blocks

    with torch.device("meta"):
        network = AutoModel.from_config(model.config)
    return sum(p.numel() for p in find_blocks(network).parameters() if p.dim() > 1)


if __name__ == "__main__":
    main()
