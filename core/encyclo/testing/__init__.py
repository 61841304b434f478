"""Contracts that a plugin proves itself by: named checks, run by pytest or by a call.

    stores        StoreContract: parts, books, crashes, damage, hostile texts; the oracle is in `stores_memory`
    disks         disks that fail, and what a power cut leaves
    processes     short-lived processes, killed at a chosen instant, held to time and memory
    mutations     damaged files

Needs `pip install 'encyclo[test]'`. See docs/testing.md.
"""
