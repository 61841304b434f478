"""Forward passes over token trees and padded batches, with pooling during the pass."""
