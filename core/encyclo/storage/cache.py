"""The user's cache folder: what one run leaves for later ones."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for prepared models and measurements: ENCYCLO_CACHE, or the user's cache directory."""
    import platformdirs

    return Path(os.environ.get("ENCYCLO_CACHE") or platformdirs.user_cache_dir("encyclo"))
