"""Passes through a network: token trees and padded batches, pooled at once."""
