"""Query a run: entries, neighbours, samples, readings of a text."""
