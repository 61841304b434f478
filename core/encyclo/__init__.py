"""encyclo writes an encyclopedia of the concepts inside a language model.

Importing this package is cheap: no torch, h5py, zarr or transformers is loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

from encyclo.hookspecs import hookimpl
from encyclo.version import __version__

if TYPE_CHECKING:
    from encyclo.query.encyclopedia import Encyclopedia
    from encyclo.query.opening import open_folder as open
    from encyclo.statistics import calibration
    from encyclo.storage import files
    from encyclo.types import Concept, Prompt, Samples

__all__ = [
    "Concept",
    "Encyclopedia",
    "Prompt",
    "Samples",
    "__version__",
    "calibration",
    "files",
    "hookimpl",
    "open",
]

_LAZY = {
    "Concept": ("encyclo.types", "Concept"),
    "Prompt": ("encyclo.types", "Prompt"),
    "Samples": ("encyclo.types", "Samples"),
    "Encyclopedia": ("encyclo.query.encyclopedia", "Encyclopedia"),
    "open": ("encyclo.query.opening", "open_folder"),
    # Modules that plugins use under these names: docs/hooks.md lists what they may rely on.
    "files": ("encyclo.storage.files", None),
    "calibration": ("encyclo.statistics.calibration", None),
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that `import encyclo` and the command line stay fast."""
    if name not in _LAZY:
        raise AttributeError(f"module 'encyclo' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = importlib.import_module(module)
    return loaded if attribute is None else getattr(loaded, attribute)
