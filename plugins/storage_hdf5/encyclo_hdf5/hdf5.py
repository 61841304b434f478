"""Store `hdf5`: part files, joined into one plain .h5 that h5py alone reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from encyclo import hookimpl
from encyclo.schema import Schema

if TYPE_CHECKING:
    from encyclo_hdf5.store import Hdf5Store


@hookimpl
def store_activations(location: Path, schema: Schema) -> Hdf5Store:
    """Return the store of the run directory `location`."""
    from encyclo_hdf5.store import Hdf5Store  # h5py is loaded only when a run uses it

    return Hdf5Store(location, schema)
