"""Finds weights and loads models."""
