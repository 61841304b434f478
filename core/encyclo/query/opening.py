"""`encyclo.open`: an encyclopedia, or a capture of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from encyclo.corpus.directory import is_capture
from encyclo.corpus.text_capture import TextCapture
from encyclo.errors import RunDirectoryError
from encyclo.query.encyclopedia import open_run
from encyclo.storage.objects import url_of
from encyclo.storage.run_files import RECORD
from encyclo.storage.safe_read import TEXTS_RECORD


def open_folder(path: Path | str) -> Any:
    """Open what `encyclo run` wrote, as an `Encyclopedia`, or what `encyclo capture` wrote, as a `TextCapture`.

    `path` is a folder, or the URL of a run. Raises UsageError, DamagedError, StoreError.
    """
    here = Path(path)
    if url_of(path) is None and not (here / RECORD).exists() and not is_capture(here):
        raise RunDirectoryError(
            f"{path} is neither an encyclopedia nor a capture of texts: it has no {RECORD} and no {TEXTS_RECORD}; name "
            "the --out of an `encyclo run` or an `encyclo capture`."
        )
    return TextCapture(here) if is_capture(here) else open_run(path)
