"""What captured vectors are compared with, a plain pass, and how far they may be from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encyclo.errors import CaptureError
from encyclo.types import RESIDUAL
from encyclo_capture.forward.plain_pass import EAGER, plain_states
from encyclo_capture.forward.sites import plain_blocks, wrong_sum
from encyclo_capture.loading.loaded_model import LoadedModel

# Largest error of one vector and largest mean error of a layer over the prompts, relative to the vector's length.
# Another order of summation on gemma-3-270m causes, in float32, errors of about 1e-6; the rest of the tolerance
# allows for deeper models. In bfloat16 it causes errors of up to 2.8% for one prompt and about 1% in the mean (60
# template prompts, all layers). Neighbouring layers differ by at least 6% for one prompt and 10% in the mean. So the
# bound on the mean finds a wrong layer, and the bound on one vector finds a prompt with another prompt's tokens.
TOLERANCE = {"float32": (1e-3, 1e-4), "bfloat16": (0.10, 0.04)}
# What attention or the MLP adds is often small beside the residual that it is computed from. By the same measure it has
# errors of up to 9.2% and 2.8%, and neighbouring layers differ by at least 35% and 59%.
SITE_TOLERANCE = {"float32": (1e-3, 1e-4), "bfloat16": (0.25, 0.08)}

ADVICE = "try another --device or -o transformers.dtype"

Floats = NDArray[np.float32]


def relative_errors(ours: Floats, theirs: Floats) -> Floats:
    """Return each vector's distance, relative to its length: [..., H] -> [...]."""
    errors: Floats = np.linalg.norm(ours - theirs, axis=-1) / np.maximum(
        np.linalg.norm(theirs, axis=-1), 1e-12
    )
    return errors


def allowed_errors(dtype: str, site: str) -> tuple[float, float]:
    """Return the largest error of one vector, and of a layer in the mean, that rounding explains."""
    return (TOLERANCE if site == RESIDUAL else SITE_TOLERANCE)[dtype]


def plain_hidden(
    model: LoadedModel, network: Any, ids: Sequence[int], attention: str = EAGER
) -> Sequence[Tensor]:
    """Return what the model's site has in one plain pass of `network`, by layer: [tokens, H] each.

    At another site than the residual stream layer 0 is empty. Raises CaptureError if attention and MLP don't add up to
    the hidden states that transformers lists.
    """
    if model.sites is None:
        return plain_states(network, model.device, ids, attention)
    blocks = plain_blocks(network, model.device, ids, model.sites, attention)
    if (layer := wrong_sum(network, model.sites, blocks)) is not None:
        raise CaptureError(
            f"The self-test's check 'sums' failed: at layer {layer} of {model.depth} attention and MLP don't "
            f"add up to the residual stream over {len(ids)} tokens; leave --site out."
        )
    added = (
        block.outputs[getattr(found, model.site)] for block, found in zip(blocks, model.sites, strict=True)
    )
    return [torch.empty(0), *added]
