"""A run's self-test: a few of its prompts, captured in every way, must agree with a plain pass.

The plain pass is transformers' own: eager attention, one text at a time, modules that encyclo hasn't touched, and the
hidden states that transformers returns. The plain passes run in parallel, like a run's batches.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from encyclo.errors import CaptureError
from encyclo.types import Prompt
from encyclo_capture.batches import out_of_range, range_fault
from encyclo_capture.capture import capture
from encyclo_capture.cpu.workers import Replicas, worker_count
from encyclo_capture.forward.passes import run_padded
from encyclo_capture.forward.plain_pass import EAGER
from encyclo_capture.loading.refusals import refusing
from encyclo_capture.model import TransformersModel
from encyclo_capture.plain_comparison import ADVICE, Floats, allowed_errors, plain_hidden, relative_errors
from encyclo_capture.tokenization import TokenisedPrompt, tokenise

PROMPTS = 8


def check(
    model: TransformersModel,
    prompts: Sequence[Prompt],
    layers: Sequence[int],
    pooling: str,
    batch_tokens: int,
) -> dict[str, float]:
    """Return each check's worst value: {mentions, sums, finite, layers, batch, padding, sdpa}.

    mentions: number of prompts whose pooled tokens don't decode to the mention; always 0, since one is an error
    sums:     number of blocks whose attention and MLP don't add up to the residual stream; always 0, since one is an
              error, and left out at the site `resid`
    finite:   the largest |activation|, at most LARGEST of capture.py
    layers:   each prompt captured alone against a plain forward pass with output_hidden_states
    batch:    all prompts captured together against each one alone
    padding:  all prompts in one padded batch against the plain pass; left out if the model's texts can't be padded
    sdpa:     the longest prompt by transformers' sdpa attention against eager; recorded, not checked, and left out
              where transformers would not use sdpa
    `layers`, `batch`, `padding` and `sdpa` are relative errors. The argument `layers` holds hidden_states indices from
    0. Raises CaptureError naming the failed check.
    """
    chosen = choose(prompts)
    if not chosen:
        return {}
    test, tokenised = SelfTest(model, chosen, layers, pooling), tokenise(model, chosen, pooling)
    worst = {"mentions": test.mentions(tokenised)}
    plain, sdpa = plain_passes(model, layers, tokenised)
    if model.sites is not None:
        worst["sums"] = 0.0
    worst["finite"] = test.finite(plain)
    alone, together = test.captured(batch_tokens=1), test.captured(batch_tokens)
    worst["layers"] = test.equal("layers", alone, plain, "captured and by a plain forward pass")
    worst["batch"] = test.equal("batch", together, alone, "captured with others and alone")
    if (whole := model.support.whole).padded:
        padded = run_padded(model.network, model.device, tokenised, layers, whole, model.places).cpu().numpy()
        worst["padding"] = test.equal("padding", padded, plain, "padded and by a plain forward pass")
    if sdpa is not None:
        worst["sdpa"] = float(relative_errors(sdpa, plain[-1]).max())
    return worst


def plain_passes(
    model: TransformersModel, layers: Sequence[int], prompts: Sequence[TokenisedPrompt]
) -> tuple[Floats, Floats | None]:
    """Return the prompts' pooled layers by plain passes, float32 [n, L, H], and the last one's by sdpa, [L, H].

    The second is None if the model was loaded with eager attention.
    """
    network, pass_over = model.original, partial(_plain, model, layers)
    passes = [partial(pass_over, prompt, EAGER) for prompt in prompts]
    own = network.config._attn_implementation
    if own != EAGER:
        passes.append(partial(pass_over, prompts[-1], own))
    states = np.stack(list(Replicas(network).run(passes, worker_count(model.device))))
    return states[: len(prompts)], states[-1] if own != EAGER else None


def choose(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return at most PROMPTS different prompts, evenly spaced by length, with the shortest and the longest."""
    different = sorted({(len(p.text), p.text, p.span or (-1, -1)): p for p in prompts}.items())
    places = np.linspace(0, len(different) - 1, min(PROMPTS, len(different))).round().astype(int)
    return [different[place][1] for place in places]


def _plain(
    model: TransformersModel, layers: Sequence[int], prompt: TokenisedPrompt, attention: str, network: Any
) -> Floats:
    """Pool one prompt's hidden states from transformers' own output, or its site: float32 [L, H]."""
    with refusing("A plain forward pass of the model failed", CaptureError, f"; {ADVICE}"):
        hidden = plain_hidden(model, network, prompt.ids, attention)
    rows = [hidden[layer][list(prompt.pooled)].float().mean(dim=0) for layer in layers]
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
        error = relative_errors(ours, theirs)
        bound, mean_bound = allowed_errors(self.model.dtype, self.model.site)
        worst = np.nan_to_num(error, nan=np.inf).argmax()
        prompt, layer = (int(place) for place in np.unravel_index(worst, error.shape))
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
                # A text's own BOS is special, as one that the tokenizer puts before it.
                expected = prompt.text.removeprefix(self.model.tokenizer.bos_token or "")
                holds = _letters(expected) in read
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
