"""Faults made on purpose: disks that refuse, processes that are killed, bytes that change."""
