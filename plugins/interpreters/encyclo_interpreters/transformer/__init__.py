"""The interpreter `transformer`; its hooks are in plugin.py."""
