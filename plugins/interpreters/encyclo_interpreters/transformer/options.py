"""The options of the interpreter `transformer`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PRESETS: dict[str, dict[str, int]] = {
    "default": {"width": 128, "heads": 4, "depth": 2},
    # The shape of the experiment that encyclo grew from.
    "seed-shape": {"width": 512, "heads": 8, "depth": 4},
}


class Options(BaseModel):
    """Options of the interpreter `transformer`."""

    model_config = ConfigDict(extra="forbid")

    preset: Literal["default", "seed-shape"] = "default"
    width: int = Field(0, ge=0)
    """Size of a layer's token; 0 takes the preset's."""
    heads: int = Field(0, ge=0)
    depth: int = Field(0, ge=0)
    """Attention blocks."""
    meaning: int = Field(512, ge=1)
    """Dimensions that mentions and descriptions share; used where the samples hold descriptions."""
    expand: int = Field(1024, ge=1)
    """Hidden units of the networks that correct the shared dimensions."""
    dropout: float = Field(0.0, ge=0, lt=1)
    meaning_dropout: float = Field(0.2, ge=0, lt=1)
    meaning_batch: int = Field(2048, ge=2)
    """Descriptions in a batch of the phase that trains on descriptions alone."""
    meaning_epochs: int = Field(3, ge=1)
    """Epochs of that phase; where descriptions are few there are more, until 60 steps are made."""
    meaning_rate: float = Field(1e-3, gt=0)
    epochs: int = Field(8, ge=1)
    """At most; training stops earlier when the validation loss no longer falls."""
    patience: int = Field(2, ge=1)
    epoch_steps: int = Field(400, ge=1)
    """Batches in an epoch, at most; a larger set of samples is not gone through whole."""
    batch: int = Field(256, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    hard_negatives: bool = True
    """Add signatures of near concepts to those that a sample is told from."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the training steps; auto is bfloat16 on CUDA and float32 elsewhere."""

    @model_validator(mode="after")
    def _fill(self) -> Options:
        for key, value in PRESETS[self.preset].items():
            if getattr(self, key) == 0:
                setattr(self, key, value)
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self

    def shape(self, shared_space: bool) -> dict[str, Any]:
        """Return the network's shape, with the shared space or without it."""
        shape = {"width": self.width, "heads": self.heads, "depth": self.depth, "dropout": self.dropout}
        if not shared_space:
            return shape
        shared = {"meaning": self.meaning, "expand": self.expand, "meaning_dropout": self.meaning_dropout}
        return shape | shared
