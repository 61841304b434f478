"""Seeds that depend on what is sampled, not on the order of work or the worker."""

import hashlib
import json


def derive_seed(*parts: int | str) -> int:
    """Return a 64-bit seed from the parts, the same on every machine and in every process."""
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()
    return int.from_bytes(digest[:8], "big")
