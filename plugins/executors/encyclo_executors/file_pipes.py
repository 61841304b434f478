"""Pickled messages between two machines, through a file that one process appends to and another reads.

Both open the file anew for each look: a network file system then shows what is written. It must exist before they
begin, because such a system may hide a new name for a while.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("<Q")


class FilePipe:
    """One of the two ends; only one process sends, and only one receives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def send(self, message: object) -> None:
        """Append a message. Raises OSError."""
        data = pickle.dumps(message)
        with self.path.open("r+b") as file:
            file.seek(0, 2)
            file.write(_LENGTH.pack(len(data)) + data)

    def receive(self) -> list[Any]:
        """Return the messages that have arrived in full since the last call. Raises OSError."""
        found = []
        with self.path.open("rb") as file:
            file.seek(self._read)
            while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
                (length,) = _LENGTH.unpack(head)
                if len(data := file.read(length)) < length:
                    break
                self._read = file.tell()
                found.append(pickle.loads(data))
        return found
