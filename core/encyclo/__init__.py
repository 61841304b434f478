"""encyclo writes an encyclopedia of the concepts inside a language model.

Importing this package is cheap: no torch, h5py, zarr or transformers is loaded.
"""

from typing import TYPE_CHECKING, Any

import pluggy

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("encyclo")
"""Marks a function as an implementation of one of the hooks in `encyclo.hookspecs`."""

if TYPE_CHECKING:
    from encyclo.encyclopedia import Encyclopedia
    from encyclo.encyclopedia import open_run as open
    from encyclo.types import Concept, Prompt, Samples

__all__ = ["Concept", "Encyclopedia", "Prompt", "Samples", "__version__", "hookimpl", "open"]


def __getattr__(name: str) -> Any:
    """Load the public classes on first use, so that `import encyclo` and the command line stay fast."""
    if name in {"Concept", "Prompt", "Samples"}:
        from encyclo import types

        return getattr(types, name)
    if name in {"Encyclopedia", "open"}:
        from encyclo import encyclopedia

        return encyclopedia.open_run if name == "open" else encyclopedia.Encyclopedia
    raise AttributeError(f"module 'encyclo' has no attribute {name!r}")
