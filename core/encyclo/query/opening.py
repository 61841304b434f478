"""`encyclo.open`: an encyclopedia, or a capture of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from encyclo.corpus.directory import is_capture
from encyclo.corpus.text_capture import TextCapture
from encyclo.query.encyclopedia import open_run


def open_folder(path: Path | str) -> Any:
    """Open what `encyclo run` wrote, as an `Encyclopedia`, or what `encyclo capture` wrote, as a `TextCapture`.

    `path` is a folder, or the URL of a run. Raises UsageError, DamagedError, StoreError.
    """
    return TextCapture(Path(path)) if is_capture(Path(path)) else open_run(path)
