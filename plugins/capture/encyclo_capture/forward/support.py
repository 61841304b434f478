"""Finds out by trying how a network can be read, instead of keeping a list of model names.

A few short texts are read in every way, from the fastest to the plainest; a way counts if it gives the hidden states
of transformers' own eager pass over each text alone, at every layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from encyclo.errors import CaptureError
from encyclo_capture.forward.passes import Reading, run_padded, run_tree
from encyclo_capture.forward.plain_pass import EAGER, plain_states
from encyclo_capture.forward.text_part import text_config
from encyclo_capture.forward.token_tree import build_tree
from encyclo_capture.forward.tree_attention import register
from encyclo_capture.loading.refusals import reason
from encyclo_capture.tokenization import TokenisedPrompt

# Largest error against the plain pass, relative to the vector's length, after the first and the last block. It
# allows for another order of summation (gemma-3-270m in bfloat16: up to 0.6% and 7%, on arbitrary tokens).
TOLERANCE = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (0.03, 0.25)}
LENGTH = 6
LONGER = 12
WINDOWS = ("sliding_window", "local_attn_chunk_length", "lsh_attn_chunk_length")
LONGEST_WINDOW = 192
"""A sliding window up to this length is tried with a text that exceeds it; longer texts never run in a tree."""
READINGS = (
    Reading(),
    Reading(attention=EAGER),
    Reading(padded=False, attention=EAGER),
    Reading(tapped=False, attention=EAGER),
    Reading(padded=False, tapped=False, attention=EAGER),
)
ADVICE = "use another --model"

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Support:
    """How a network is read: whether short prompts share prefixes, and how whole texts run."""

    trees: bool
    whole: Reading


def find_support(network: Any, name: str, device: str) -> Support:
    """Return how the network of the model `name` is read.

    Raises CaptureError if its plain pass fails or gives something else than a vector per token and layer, if its two
    attention functions disagree, or if it gives other states each time.
    """
    what = f"The model {name!r} ({type(network).__name__}) can't be read"
    texts = probes(text_config(network.config))
    try:
        plain = [plain_states(network, device, ids) for ids in texts]
    except Exception as error:  # any model's own code
        raise CaptureError(
            f"{what}: transformers' forward pass over a text fails with {reason(error)}; {ADVICE}."
        ) from error
    if fault := _shape_fault(network, texts, plain):
        raise CaptureError(f"{what}: {fault}; {ADVICE}.")
    if not all(bool(state.isfinite().all()) for states in plain for state in states):
        return Support(False, Reading())  # capture names the prompt and the layer
    trial = Trial(network, device, texts, plain)
    whole = next((reading for reading in READINGS if trial.agrees(reading)), None)
    if whole is None:
        raise CaptureError(f"{what}: the same text gets other hidden states each time; {ADVICE}.")
    # If transformers' default attention had agreed with eager, it would have been taken.
    if whole.attention == EAGER and (distance := trial.error_of_sdpa()) > 1:
        dtype = "bfloat16" if is_quantised(network) else str(network.dtype).removeprefix("torch.")
        raise CaptureError(
            f"{what}: transformers' two ways to compute its attention, eager and sdpa, disagree by "
            f"{distance:.2g} times what rounding in {dtype} explains, so that none can be trusted; {ADVICE}."
        )
    return Support(trial.shares_prefixes(), whole)


def probes(config: Any) -> tuple[Ids, Ids, Ids]:
    """Return three texts as token ids: two that differ in the last token only, and a longer one that begins alike.

    `config` is that of the part that reads text. If it has a short sliding window, or cuts texts into short chunks, the
    longer text exceeds it.
    """
    special = {value for key, value in vars(config).items() if key.endswith("_token_id")}
    usable = [token for token in range(config.vocab_size // 2 + 1) if token not in special] or [0, 1]
    # As attributes they fail if layers have several.
    windows = [vars(config).get(name) for name in WINDOWS]
    room = getattr(config, "max_position_embeddings", None)
    longer = LONGER
    for window in windows:
        if isinstance(window, int) and LONGER < window <= LONGEST_WINDOW:
            longer = max(longer, window + LENGTH)
    if isinstance(room, int) and room > 0:
        longer = min(longer, room)
    step = max(1, len(usable) // (longer + 1))
    tokens = [usable[place * step % len(usable)] for place in range(1, longer + 2)]
    first = tuple(tokens[: min(LENGTH, longer)])
    return first, (*first[:-1], tokens[-1]), tuple(tokens[:longer])


def is_quantised(network: Any) -> bool:
    """Return whether transformers loaded quantised weights as such."""
    return bool(getattr(network.config, "_is_quantized", False))


def _shape_fault(network: Any, texts: Sequence[Ids], plain: Sequence[Sequence[Tensor]]) -> str | None:
    """Return what is wrong with the hidden states of the plain pass."""
    config = text_config(network.config)
    for ids, states in zip(texts, plain, strict=True):
        if len(states) != config.num_hidden_layers + 1:
            return (
                f"transformers gives {len(states)} hidden states for its {config.num_hidden_layers} layers, "
                f"instead of {config.num_hidden_layers + 1}"
            )
        wanted = (len(ids), config.hidden_size)
        for layer, state in enumerate(states):
            if tuple(state.shape) != wanted:
                return (
                    f"its hidden state at layer {layer} has the shape {tuple(state.shape)} for a text of "
                    f"{len(ids)} tokens, instead of {wanted}"
                )
    return None


@dataclass(frozen=True)
class Trial:
    """Probes of a network, with the hidden states of their plain passes."""

    network: Any
    device: str
    texts: Sequence[Ids]
    plain: Sequence[Sequence[Tensor]]

    def agrees(self, reading: Reading) -> bool:
        """Return whether a reading gives the plain pass's states: alone, and in a batch if that may be padded."""
        prompts = self._prompts()
        alone = [[prompt for prompt in prompts if prompt.ids == ids] for ids in self.texts]
        # Without padding there is no mask, and some networks attend in another way.
        batches = [alone[-1], prompts] if reading.padded else alone
        run = partial(run_padded, self.network, self.device, reading=reading)
        return all(self._holds(batch, partial(run, batch)) for batch in batches)

    def shares_prefixes(self) -> bool:
        """Return whether the network is causal and gives the plain pass's states on a token tree."""
        if not getattr(type(self.network), "_supports_attention_backend", False) or not self._is_causal():
            return False
        register()
        prompts = sorted(self._prompts(), key=lambda prompt: (prompt.needed, prompt.position))

        def run(layers: Sequence[int]) -> Tensor:
            return run_tree(self.network, self.device, build_tree(prompts), layers)

        return self._holds(prompts, run)

    def error_of_sdpa(self) -> float:
        """Return the error of transformers' sdpa attention, over what is allowed; 0 where it isn't comparable.

        Without norms between its blocks a network may multiply rounding errors, so a large one is measured again in
        float64.
        """
        config = self.network.config
        if config._attn_implementation != "sdpa" or getattr(config, "attn_logit_softcapping", None):
            return 0.0  # sdpa ignores the soft cap
        quantised = is_quantised(self.network)
        # Quantised layers may round their inputs to 8 bits or to bfloat16, whatever the compute type.
        bounds = self._bounds(torch.bfloat16 if quantised else self.network.dtype)
        error = self._between(self.network, self.plain, bounds)
        if error <= 1 or quantised:
            return error
        try:
            exact = copy.deepcopy(self.network).double()
            return self._between(exact, [plain_states(exact, self.device, ids) for ids in self.texts], bounds)
        except Exception:  # any model's own code
            return error

    def _between(self, network: Any, plain: Sequence[Sequence[Tensor]], bounds: Sequence[float]) -> float:
        """Return the largest error of sdpa against the plain pass, over its layer's bound."""
        states = [plain_states(network, self.device, ids, "sdpa") for ids in self.texts]
        return max(
            float(_errors(a, b).nan_to_num(nan=torch.inf).max()) / bound
            for ours, theirs in zip(states, plain, strict=True)
            for a, b, bound in zip(ours, theirs, bounds, strict=True)
        )

    def _is_causal(self) -> bool:
        """Return whether the two texts have equal states before the token in which they differ."""
        first, other = (states[-1][:-1] for states in self.plain[:2])
        # Not bit for bit in float32: mixtures of experts multiply as many rows as an expert gets.
        bound = 1e-5 if self.network.dtype == torch.float32 else 0.0
        return bool(_errors(first, other).max() <= bound)

    def _prompts(self) -> list[TokenisedPrompt]:
        """Return each text three times: with its first, middle and last token pooled."""
        chosen = [(ids, place) for ids in self.texts for place in (0, len(ids) // 2, len(ids) - 1)]
        return [TokenisedPrompt(number, ids, (place,)) for number, (ids, place) in enumerate(chosen)]

    def _holds(self, prompts: Sequence[TokenisedPrompt], run: Callable[[Sequence[int]], Tensor]) -> bool:
        layers = range(len(self.plain[0]))
        try:
            ours = run(layers)
        except Exception:  # any model's own code: it takes no mask or position ids, or has no list of blocks
            return False
        states = {ids: states for ids, states in zip(self.texts, self.plain, strict=True)}
        theirs = torch.stack([torch.stack([h[p.pooled[0]] for h in states[p.ids]]) for p in prompts])
        bounds = torch.tensor(self._bounds(self.network.dtype), device=ours.device)
        return ours.shape == theirs.shape and bool((_errors(ours, theirs.float()) <= bounds).all())

    def _bounds(self, dtype: torch.dtype) -> list[float]:
        """Return the error that rounding in `dtype` allows at each layer."""
        first, last = TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])
        return torch.linspace(first, last, len(self.plain[0])).tolist()


def _errors(ours: Tensor, theirs: Tensor) -> Tensor:
    wide = torch.float64 if ours.dtype == torch.float64 else torch.float32
    return (ours.to(wide) - theirs.to(wide)).norm(dim=-1) / theirs.to(wide).norm(dim=-1).clamp_min(1e-12)
