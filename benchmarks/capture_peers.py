"""The ways of capturing that benchmarks/capture.py compares: encyclo's, and each peer's as its careful user drives it.

Each function of `METHODS` gets encyclo's model and returns a function from prompts to (tokens computed, states float32
[prompts, layers, hidden]), or raises ImportError if its library is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LAYERS = (7, 10, 13, 16, 18)
BATCH = 128


def plain_network(model: Any) -> Any:
    """Return the network as transformers loads it, without encyclo's fused modules."""
    import torch
    from transformers import AutoModel

    return (
        AutoModel.from_pretrained(model.weights.folder, dtype=getattr(torch, model.dtype))
        .to(model.device)
        .eval()
    )


def as_prompts(prompts: list[dict[str, Any]]) -> list[Any]:
    """Return encyclo's prompts."""
    from encyclo.types import Prompt

    return [Prompt("x", p["text"], tuple(p["span"]) if p["span"] else None, "f") for p in prompts]


def encyclo(model: Any) -> Callable[[list[dict[str, Any]]], tuple[int, Any]]:
    """encyclo's own capture, with its default options."""
    import numpy as np

    from encyclo_capture.capture import capture
    from encyclo_capture.transformers import Options

    def run(prompts: list[dict[str, Any]], keep: bool = True) -> tuple[int, Any]:
        size = (len(prompts), len(LAYERS), model.hidden_size)
        states = np.empty(size, np.float32) if keep else None
        tokens = 0
        # In slices of a run's unit, as `encyclo run` hands prompts over.
        for start in range(0, len(prompts), 2000):
            given = as_prompts(prompts[start : start + 2000])
            for batch in capture(model, given, LAYERS, "span", Options().batch_for(model)):
                if states is not None:
                    states[start + batch.positions] = batch.activations
                tokens += batch.tokens_computed
        return tokens, states

    return run


def padded(model: Any, forward: Callable[[Any, Any], list[Any]]) -> Callable[..., tuple[int, Any]]:
    """How a careful user drives a peer: sorted by length, batched, span pooled. `forward` gives the layers."""
    import numpy as np
    import torch

    def run(prompts: list[dict[str, Any]]) -> tuple[int, Any]:
        encoded = model.tokenizer([p["text"] for p in prompts], return_offsets_mapping=True)
        order = sorted(range(len(prompts)), key=lambda i: len(encoded["input_ids"][i]))
        states = np.empty((len(prompts), len(LAYERS), model.hidden_size), np.float32)
        tokens = 0
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            longest = len(encoded["input_ids"][some[-1]])
            ids = torch.zeros(len(some), longest, dtype=torch.long)
            mask = torch.zeros(len(some), longest, dtype=torch.long)
            pool = torch.zeros(len(some), longest)
            for row, i in enumerate(some):
                own = encoded["input_ids"][i]
                ids[row, : len(own)] = torch.tensor(own)
                mask[row, : len(own)] = 1
                span = prompts[i]["span"]
                offsets = encoded["offset_mapping"][i]
                picked = [len(own) - 1]
                if span:
                    picked = [t for t, (a, b) in enumerate(offsets) if t and a < span[1] and b > span[0]]
                pool[row, picked] = 1 / len(picked)
            hidden = forward(ids.to(model.device), mask.to(model.device))
            pool = pool.to(model.device)
            pooled = torch.stack([torch.einsum("bt,bth->bh", pool, h.float()) for h in hidden], 1)
            states[some] = pooled.cpu().numpy()
            tokens += ids.numel()
        return tokens, states

    return run


def transformers(model: Any) -> Callable[..., tuple[int, Any]]:
    """AutoModel (no head), output_hidden_states."""
    import torch

    network = plain_network(model)

    def forward(ids: Any, mask: Any) -> list[Any]:
        with torch.inference_mode():
            hidden = network(
                input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
            ).hidden_states
        return [hidden[layer] for layer in LAYERS]

    return padded(model, forward)


def nnsight(model: Any) -> Callable[..., tuple[int, Any]]:
    """nnsight on AutoModel (no head): the layers saved in a trace, stopped after the deepest."""
    import torch
    from nnsight import NNsight

    wrapped = NNsight(plain_network(model))

    def forward(ids: Any, mask: Any) -> list[Any]:
        with (
            torch.inference_mode(),
            wrapped.trace(input_ids=ids, attention_mask=mask, use_cache=False) as tracer,
        ):
            hidden = list().save()
            for layer in LAYERS[:-1]:
                hidden.append(wrapped.layers[layer - 1].output)
            hidden.append(wrapped.norm.output)
            tracer.stop()
        return [h if isinstance(h, torch.Tensor) and h.dim() == 3 else h[0] for h in hidden]

    return padded(model, forward)


def transformer_lens(model: Any) -> Callable[..., tuple[int, Any]]:
    """transformer-lens: run_with_cache with a names filter and stop_at_layer; the final norm by hand."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    # The bridge downloads by name; handed the loaded model it needs only the folder's configuration.
    from transformers import AutoModelForCausalLM

    language_model = AutoModelForCausalLM.from_pretrained(
        model.weights.folder, dtype=getattr(torch, model.dtype)
    ).to(model.device)
    language_model.config.architectures = ["Gemma3ForCausalLM"]  # the bridge chooses its adapter by this name
    bridge = TransformerBridge.boot_transformers(
        str(model.weights.folder), hf_model=language_model, tokenizer=model.tokenizer, device=model.device
    )
    names = [f"blocks.{layer - 1}.hook_out" for layer in LAYERS]
    depth = LAYERS[-1]

    def forward(ids: Any, mask: Any) -> list[Any]:
        with torch.inference_mode():
            _, cache = bridge.run_with_cache(
                ids, attention_mask=mask, names_filter=names, stop_at_layer=depth
            )
            states = [cache[name] for name in names]
            return [*states[:-1], language_model.model.norm(states[-1])]

    return padded(model, forward)


METHODS: dict[str, Callable[[Any], Callable[..., tuple[int, Any]]]] = {
    "encyclo": encyclo,
    "transformers": transformers,
    "nnsight": nnsight,
    "transformer_lens": transformer_lens,
}
