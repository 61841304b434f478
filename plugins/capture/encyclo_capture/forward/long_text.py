"""Checks a text that exceeds the network's sliding window, which a run's prompts seldom do, against a plain pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from encyclo.errors import CaptureError
from encyclo_capture.forward.plain_pass import EAGER, plain_states

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.04}
"""Largest mean error of the tokens after the window at a layer; the self-test allows the same for a layer's mean."""


def exceeds_window(config: Any, tokens: int) -> bool:
    """Return whether a text of so many tokens has some that don't see its first ones."""
    window = vars(config).get("sliding_window")
    return isinstance(window, int) and 0 < window < tokens


def check_long_text(
    network: Any, device: str, name: str, ids: Sequence[int], states: Sequence[Tensor]
) -> None:
    """Compare the `states` of a text that exceeds the window, [1, tokens, H] each, with eager attention's.

    Raises CaptureError if the tokens after the window differ by more than rounding.
    """
    window = vars(network.config)["sliding_window"]
    plain = plain_states(network, device, ids, EAGER)
    bound = TOLERANCE.get(network.dtype, TOLERANCE[torch.bfloat16])
    for layer, (ours, theirs) in enumerate(zip(states, plain, strict=True)):
        error = (ours[0, window:].float() - theirs[window:].float()).norm(dim=-1)
        mean = float((error / theirs[window:].float().norm(dim=-1).clamp_min(1e-12)).mean())
        if not mean <= bound:
            raise CaptureError(
                f"The model {name!r} can't read a text of {len(ids)} tokens: those after its window of {window} tokens "
                f"differ by {mean:.2g} of their length at layer {layer} from a plain pass with eager attention, but "
                f"rounding allows {bound:g}; read shorter texts."
            )
