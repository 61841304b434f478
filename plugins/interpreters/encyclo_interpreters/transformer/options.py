"""The options of the interpreter `transformer`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PRESETS: dict[str, dict[str, int]] = {
    "default": {"width": 128, "heads": 4, "depth": 2},
    # The shape of the experiment that preceded encyclo.
    "seed-shape": {"width": 512, "heads": 8, "depth": 4},
}


class Options(BaseModel):
    """Options of the interpreter `transformer`."""

    model_config = ConfigDict(extra="forbid")

    preset: Literal["default", "seed-shape"] = "default"
    width: int = Field(0, ge=0)
    """Size of a layer's token; 0 uses the preset's value."""
    heads: int = Field(0, ge=0)
    depth: int = Field(0, ge=0)
    """Attention blocks."""
    meaning: int = Field(512, ge=1)
    """Dimensions of the shared space of mentions and descriptions; used if the samples contain descriptions."""
    expand: int = Field(1024, ge=1)
    """Hidden units of the networks that correct the shared space."""
    dropout: float = Field(0.0, ge=0, lt=1)
    meaning_dropout: float = Field(0.2, ge=0, lt=1)
    meaning_batch: int = Field(2048, ge=2)
    """Descriptions per batch in the training phase for descriptions."""
    meaning_epochs: int = Field(3, ge=1)
    """Epochs of the training phase for descriptions; more if they make fewer than 60 steps."""
    meaning_rate: float = Field(1e-3, gt=0)
    epochs: int = Field(8, ge=1)
    """Epochs, at most; training stops when the validation loss no longer falls."""
    patience: int = Field(2, ge=1)
    epoch_steps: int = Field(400, ge=1)
    """Batches per epoch, at most; an epoch of a larger set covers a part of it."""
    batch: int = Field(256, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    hard_negatives: bool = True
    """Also compare each sample with the signatures of near concepts."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the training steps; auto is bfloat16 on CUDA and float32 elsewhere."""

    @model_validator(mode="after")
    def _fill(self) -> Options:
        for key, value in PRESETS[self.preset].items():
            if getattr(self, key) == 0:
                setattr(self, key, value)
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; choose one that is"
            )
        return self

    def shape(self, shared_space: bool) -> dict[str, Any]:
        """Return the network's shape, with or without the shared space."""
        shape = {"width": self.width, "heads": self.heads, "depth": self.depth, "dropout": self.dropout}
        if not shared_space:
            return shape
        shared = {"meaning": self.meaning, "expand": self.expand, "meaning_dropout": self.meaning_dropout}
        return shape | shared
