"""Contracts for plugins: named checks, run by pytest or by a call.

    concepts      ConceptsContract: a list of concepts
    samplers      SamplerContract: prompts, lazily, with spans that match
    capture       CaptureContract: equal to a plain forward pass (`plain_forward`) of a tiny model
    stores        StoreContract: parts, books, crashes, damage, hostile texts; the oracle is in `stores_memory`
    interpreters  InterpreterContract: learns a planted signal, and keeps it when saved and loaded
    scorers       ScorerContract: calibrated on planted data
    executors     ExecutorContract: every unit once, though workers die
    planted       concepts, samples and an interpreter with a known answer
    disks         disks that fail, and what a power cut leaves
    processes     short-lived processes, killed at a chosen instant, limited in time and memory
    mutations     damaged files

Needs `pip install 'encyclo[testing]'`. See docs/contracts.md and docs/testing.md.
"""
