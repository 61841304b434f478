"""Wrappers that run around the chosen plugins: `--with NAME` opts one in."""
