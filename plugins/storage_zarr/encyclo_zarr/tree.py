"""The files of a Zarr hierarchy, in a folder or in a zip file, checked before anything is read."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from encyclo.regular_files import open_file
from encyclo.storage.checksums import list_files


class Folder:
    """A Zarr directory. Raises ValueError for a link, or anything else that is not a plain file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sizes = list_files(root)
        if "" in self.sizes:
            raise ValueError("it is a file, not a folder")

    def place(self, name: str) -> tuple[Path, int]:
        """Return where the bytes of `name` are."""
        return self.root / name, 0


class Zip:
    """A zip file with uncompressed members. Raises ValueError for any other kind."""

    def __init__(self, path: Path) -> None:
        self.root = path
        self.sizes: dict[str, int] = {}
        self._starts: dict[str, int] = {}
        try:
            with open_file(path) as file, zipfile.ZipFile(file) as archive:
                size, infos = os.fstat(file.fileno()).st_size, archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise ValueError(str(error)) from error
        for info in infos:
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise ValueError(f"its member {info.filename[:80]!r} is compressed or encrypted")
            if info.filename in self.sizes:
                raise ValueError(f"it has two members {info.filename[:80]!r}")
            if info.file_size != info.compress_size:
                raise ValueError(f"its member {info.filename[:80]!r} has two sizes")
            self.sizes[info.filename] = info.file_size
            self._starts[info.filename] = info.header_offset
        if sum(self.sizes.values()) > size:
            raise ValueError("its members claim more bytes than it has")

    def place(self, name: str) -> tuple[Path, int]:
        """Return where the bytes of `name` are: after the member's own header, whose length varies."""
        start = self._starts[name]
        with open_file(self.root) as file:
            file.seek(start)
            header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ValueError(f"its member {name[:80]!r} is not where it should be")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return self.root, start + 30 + lengths


Tree = Folder | Zip
"""Files by relative name."""


def read(tree: Tree, name: str, start: int = 0, length: int | None = None) -> bytes:
    """Return bytes of one of the tree's files; a negative `start` counts from its end. Raises ValueError."""
    size = tree.sizes[name]
    first = size + start if start < 0 else start
    count = size - first if length is None else length
    if not 0 <= first <= first + count <= size:
        raise ValueError(f"the file {name} ends too early, after {size:,} bytes")
    path, offset = tree.place(name)
    with open_file(path) as file:
        file.seek(offset + first)
        data = file.read(count)
    if len(data) != count:
        raise ValueError(f"the file {name} ends too early, after {len(data):,} of {count:,} bytes")
    return data
