"""A run's self-test: a few of its prompts, captured in every way, must agree with a plain pass.

The plain pass is transformers' own forward pass with its own attention over the same modules. Modules replaced on a
CPU were compared with their originals when they were replaced (see fused_modules.py). The plain passes run in
parallel, like a run's batches.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encyclo.errors import CaptureError
from encyclo.types import Prompt
from encyclo_capture.capture import capture, out_of_range, range_fault
from encyclo_capture.cpu.workers import worker_count
from encyclo_capture.forward.passes import run_padded
from encyclo_capture.loading.refusals import refusing
from encyclo_capture.model import TransformersModel
from encyclo_capture.tokenization import TokenisedPrompt, tokenise

PROMPTS = 8
# Largest error of one vector and largest mean error of a layer over the prompts, relative to the vector's length.
# Another order of summation on gemma-3-270m causes, in float32, errors of about 1e-6; the rest of the tolerance
# allows for deeper models. In bfloat16 it causes errors of up to 2.8% for one prompt and about 1% in the mean (60
# template prompts, all layers). Neighbouring layers differ by at least 6% for one prompt and 10% in the mean. So the
# bound on the mean finds a wrong layer, and the bound on one vector finds a prompt with another prompt's tokens.
TOLERANCE = {"float32": (1e-3, 1e-4), "bfloat16": (0.10, 0.04)}

ADVICE = "try another --device or -o transformers.dtype"

Floats = NDArray[np.float32]


def check(
    model: TransformersModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    pooling: str,
    batch_tokens: int,
) -> dict[str, float]:
    """Return each check's worst value: {mentions, finite, layers, batch, padding}.

    mentions: number of prompts whose pooled tokens don't decode to the mention; always 0, since one is an error
    finite:   the largest |activation|, at most LARGEST of capture.py
    layers:   each prompt captured alone against a plain forward pass with output_hidden_states
    batch:    all prompts captured together against each one alone
    padding:  all prompts in one padded batch against the plain pass
    The last three are relative errors. The argument `layers` holds hidden_states indices from 0. Raises CaptureError
    naming the failed check.
    """
    chosen = choose(prompts)
    if not chosen:
        return {}
    test, tokenised = SelfTest(model, chosen, layers, pooling), tokenise(model, chosen, pooling)
    worst = {"mentions": test.mentions(tokenised)}
    passes = [partial(_plain, model.device, layers, prompt) for prompt in tokenised]
    plain = np.stack(list(model.replicas.run(passes, worker_count(model.device))))
    worst["finite"] = test.finite(plain)
    alone, together = test.captured(batch_tokens=1), test.captured(batch_tokens)
    padded = run_padded(model.network, model.device, tokenised, layers).cpu().numpy()
    for name, ours, theirs, how in (
        ("layers", alone, plain, "captured and by a plain forward pass"),
        ("batch", together, alone, "captured with others and alone"),
        ("padding", padded, plain, "padded and by a plain forward pass"),
    ):
        worst[name] = test.equal(name, ours, theirs, how)
    return worst


def choose(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return at most PROMPTS different prompts, evenly spaced by length, with the shortest and the longest."""
    different = sorted({(len(p.text), p.text, p.span or (-1, -1)): p for p in prompts}.items())
    places = np.linspace(0, len(different) - 1, min(PROMPTS, len(different))).round().astype(int)
    return [different[place][1] for place in places]


def _plain(device: str, layers: Sequence[int], prompt: TokenisedPrompt, network: Any) -> Floats:
    """Pool one prompt's hidden states from transformers' own output: float32 [L, H]."""
    ids = torch.tensor([prompt.ids], device=device)
    with (
        refusing("A plain forward pass of the model failed", CaptureError, f"; {ADVICE}"),
        torch.inference_mode(),
    ):
        hidden = network(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        rows = [hidden[layer][0, list(prompt.pooled)].float().mean(dim=0) for layer in layers]
        pooled: Floats = torch.stack(rows).cpu().numpy()
    return pooled


@dataclass(frozen=True)
class SelfTest:
    """The checks of a few prompts; each raises CaptureError that names it."""

    model: TransformersModel
    prompts: Sequence[Prompt]
    layers: Sequence[int]
    pooling: str

    def captured(self, batch_tokens: int) -> Floats:
        """Return the prompts' activations, captured as in a run: float32 [n, L, H]."""
        batches = list(capture(self.model, self.prompts, self.layers, self.pooling, batch_tokens))
        order = np.argsort(np.concatenate([batch.positions for batch in batches]))
        values: Floats = np.concatenate([batch.activations for batch in batches])[order]
        return values

    def equal(self, name: str, ours: Floats, theirs: Floats, how: str) -> float:
        """Return the largest relative error; neither it nor a layer's mean error may exceed the tolerance."""
        lengths = np.linalg.norm(theirs, axis=-1)
        # Below, "not error <= bound" instead of "error > bound": a NaN must fail too.
        error = np.linalg.norm(ours - theirs, axis=-1) / np.maximum(lengths, 1e-12)
        bound, mean_bound = TOLERANCE[self.model.dtype]
        prompt, layer = np.unravel_index(np.nan_to_num(error, nan=np.inf).argmax(), error.shape)
        if not error.max() <= bound:
            raise CaptureError(
                f"The self-test's check {name!r} failed: the vector of {self.prompts[prompt].text!r} at layer "
                f"{self.layers[layer]} of {self.model.depth} differs by {error[prompt, layer]:.2g} of its length "
                f"{how} (lengths {np.linalg.norm(ours[prompt, layer]):.6g} and {lengths[prompt, layer]:.6g}), "
                f"but {self.model.dtype} allows {bound:g}; {ADVICE}."
            )
        mean = error.mean(axis=0)
        layer = mean.argmax()
        if not mean[layer] <= mean_bound:
            raise CaptureError(
                f"The self-test's check {name!r} failed: vectors at layer {self.layers[layer]} of "
                f"{self.model.depth} differ by {mean[layer]:.2g} of their length in the mean over "
                f"{len(self.prompts)} prompts {how} (lengths "
                f"{np.linalg.norm(ours[:, layer], axis=-1).mean():.6g} and {lengths[:, layer].mean():.6g}), "
                f"but {self.model.dtype} allows {mean_bound:g}; {ADVICE}."
            )
        return float(error.max())

    def finite(self, values: Floats) -> float:
        """Return the largest |activation|; all must be finite and plausible."""
        bad = np.argwhere(out_of_range(values))
        if len(bad):
            row, layer, place = bad[0]
            raise CaptureError(
                f"The self-test's check 'finite' failed: the activation of {self.prompts[row].text!r} at layer "
                f"{self.layers[layer]} of {self.model.depth} {range_fault(values[row, layer, place])}: "
                f"{values[row, layer, place]} in dimension {place}, computed in {self.model.dtype}; {ADVICE}."
            )
        return float(np.abs(values).max())

    def mentions(self, tokenised: Sequence[TokenisedPrompt]) -> float:
        """Decode the pooled tokens, which must be the mention, the text or, for `last`, its end; return 0."""
        decode = self.model.tokenizer.decode
        for prompt, tokens in zip(self.prompts, tokenised, strict=True):
            pooled = [tokens.ids[place] for place in tokens.pooled]
            decoded = decode(pooled, skip_special_tokens=False)
            if "\ufffd" in decoded or self.model.tokenizer.unk_token_id in pooled:
                continue  # incomplete bytes of a character, or a character that the tokenizer doesn't know
            read = _letters(decoded)
            if self.pooling == "last" or (self.pooling == "span" and prompt.span is None):
                expected, holds = prompt.text[-40:], _letters(prompt.text).endswith(read)
            elif self.pooling == "span" and prompt.span is not None:
                expected = prompt.text[slice(*prompt.span)]
                holds = _letters(expected) in read
                for rest, end in ((pooled[1:], pooled[:1]), (pooled[:-1], pooled[-1:])):
                    # A separate blank may be pooled too; a token with letters must be part of the mention.
                    holds = holds and not (
                        _letters(decode(end)) and rest and _letters(expected) in _letters(decode(rest))
                    )
            else:
                expected, holds = prompt.text, _letters(prompt.text) in read
            if not holds:
                raise CaptureError(
                    f"The self-test's check 'mentions' failed: the pooled tokens of the prompt {prompt.text!r} "
                    f"decode to {decoded!r}, but {expected!r} is expected; use the "
                    "tokenizer that belongs to this model."
                )
        return 0.0


def _letters(text: str) -> str:
    """Remove what tokenizers change: case, blanks, control characters, accents, BERT's ## inside a word."""
    decomposed = unicodedata.normalize("NFKD", text.removeprefix("##")).casefold()
    return "".join(letter for letter in decomposed if unicodedata.category(letter)[0] not in "ZCM")
