"""The store keeps the contract, as a third party would show it."""

from encyclo.testing.stores import StoreContract


class TestSqlite(StoreContract):
    plugin = "sqlite"
