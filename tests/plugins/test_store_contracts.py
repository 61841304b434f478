"""The built-in stores keep the contract of stores; the oracle keeps what needs no disk."""

from __future__ import annotations

import pytest

from encyclo.testing.stores import StoreContract
from encyclo.testing.stores_data import SCHEMA
from encyclo.testing.stores_memory import MemoryStore


class TestHdf5(StoreContract):
    plugin = "hdf5"
