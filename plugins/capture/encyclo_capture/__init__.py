"""Captures hidden layers of transformers models."""
