"""Deliberate faults: disks that fail, processes that are killed, bytes that change."""
