"""Wrappers around the chosen plugins: `--with NAME` adds one."""
