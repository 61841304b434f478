"""Capture `transformers`: any model of the transformers library, on CUDA or a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from encyclo import hookimpl
from encyclo.types import Context, Prompt, Samples

if TYPE_CHECKING:
    from encyclo_capture.model import TransformersModel


class Options(BaseModel):
    """Options of the capture `transformers`."""

    model_config = ConfigDict(extra="forbid")

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Compute type; auto is bfloat16 if the processor computes it fast, else float32. float16 would overflow."""
    batch_tokens: int | None = Field(None, ge=1)
    """Approximate tokens per batch; the default is 2,048 on a CPU (per thread), and on a GPU 65,536 or what fits."""
    fused: bool = True
    """Use torch's private operations (fused modules) for bfloat16 on a CPU; false keeps transformers' modules."""

    def batch_for(self, model: TransformersModel) -> int:
        """Return `batch_tokens`, or the default on the model's device."""
        from encyclo_capture.batch_sizes import default_batch

        return self.batch_tokens or default_batch(model)


@hookimpl
def load_model(name: str, context: Context) -> TransformersModel:
    """Return the model `name`: one with packaged weights (gemma-3-270m), a folder, a .gguf file or a hub id."""
    from encyclo_capture.model import TransformersModel

    assert isinstance(context.options, Options)
    options = context.options
    model = TransformersModel(
        name, context.device, options.dtype, context.progress, options.fused, context.site
    )
    model.batch_tokens = options.batch_tokens
    return model


@hookimpl
def capture_layers(
    prompts: Sequence[Prompt], layers: Sequence[int], pooling: str, context: Context
) -> Iterator[Samples]:
    """Yield the prompts' pooled hidden layers in batches."""
    from encyclo_capture.capture import capture
    from encyclo_capture.model import TransformersModel

    assert isinstance(context.options, Options)
    assert isinstance(context.model, TransformersModel)
    return capture(context.model, prompts, layers, pooling, context.options.batch_for(context.model))


@hookimpl
def check_capture(
    prompts: Sequence[Prompt], layers: Sequence[int], pooling: str, context: Context
) -> dict[str, float]:
    """Capture a few of the prompts in every way and compare with a plain pass (see selftest.py).

    A run like an earlier one on this machine remembers that one's figures (see remembered_selftest.py).
    """
    from encyclo_capture.model import TransformersModel
    from encyclo_capture.remembered_selftest import check_once

    assert isinstance(context.options, Options)
    assert isinstance(context.model, TransformersModel)
    return check_once(context.model, prompts, layers, pooling, context.options.batch_for(context.model))
