"""Interpreter `transformer`: encodes a sample's layers as a sequence and compares the embedding with prototypes.

This module holds only the hooks, so that loading the plugin doesn't import torch. The network is in network.py,
training in training.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encyclo import hookimpl
from encyclo.types import Concept, Context, SampleSet
from encyclo_interpreters.transformer.options import Options

if TYPE_CHECKING:
    from encyclo_interpreters.transformer.interpreter import TransformerInterpreter


@hookimpl
def train_interpreter(
    samples: SampleSet, concepts: Sequence[Concept], context: Context
) -> TransformerInterpreter:
    """Train on the training families of prompts; stop early on the validation families."""
    from encyclo_interpreters.transformer.training import train

    assert isinstance(context.options, Options)
    return train(samples, [concept.id for concept in concepts], context, context.options)


@hookimpl
def load_interpreter(folder: Path, context: Context) -> TransformerInterpreter:
    """Load what `TransformerInterpreter.save` wrote, onto the run's device."""
    from encyclo_interpreters.transformer.interpreter import TransformerInterpreter, resolve_device

    return TransformerInterpreter.load(folder, resolve_device(context.device))
