"""Stores an encyclopedia as HDF5."""
