"""Store `zarr`: zipped parts, joined into one sharded Zarr directory that zarr alone reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from encyclo import hookimpl
from encyclo.schema import Schema

if TYPE_CHECKING:
    from encyclo_zarr.store import ZarrStore

OBJECT_STORES = True


@hookimpl
def store_activations(location: Path, schema: Schema) -> ZarrStore:
    """Return the store of the run directory `location`."""
    from encyclo_zarr.store import ZarrStore  # zarr is loaded only when a run uses it

    return ZarrStore(location, schema)
