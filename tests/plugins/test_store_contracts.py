"""The built-in stores keep the contract of stores; the oracle keeps what needs no disk."""

from __future__ import annotations

from encyclo.testing.stores import StoreContract


class TestHdf5(StoreContract):
    plugin = "hdf5"
