"""Stores an encyclopedia as Zarr format 3."""
