"""Samples on disk: durable files, the ledger of commits, checksums, rows by number, the finished encyclopedia."""
