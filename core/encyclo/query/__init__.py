"""Ask a run: entries, neighbours, samples, what the interpreter reads in a text."""
