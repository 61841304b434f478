"""Damage files as a disk, a transfer or an attacker may, or replace them by another run's."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Mutation:
    """One damage to one file; the same seed gives the same damage."""

    file: str
    """Relative to the run directory."""
    kind: str
    seed: int
    other: Path | None = None
    """Another run, for the kind `foreign`."""

    def __str__(self) -> str:
        return f"{self.kind} (seed {self.seed}) in {self.file}"

    def apply(self, folder: Path) -> None:
        """Damage the file in place."""
        path = folder / self.file
        if self.kind == "delete":
            path.unlink()
            return
        if self.other is not None:
            shutil.copyfile(self._foreign(self.other), path)
            return
        path.write_bytes(mutate(path.read_bytes(), self.kind, Random(self.seed)))

    def _foreign(self, other: Path) -> Path:
        """Return the same file of another run, or one of its files in the same folder."""
        if (other / self.file).is_file():
            return other / self.file
        there = sorted(path for path in (other / self.file).parent.iterdir() if path.is_file())
        return there[self.seed % len(there)]


KINDS = (
    "flip", "flip", "flips", "overwrite", "zero", "truncate", "grow", "insert", "cut", "swap", "digit", "digit",
    "number", "delete",
)  # fmt: skip
FOREIGN = "foreign"


def plan_mutations(
    folder: Path, count: int, seed: int, files: list[str] | None = None, other: Path | None = None
) -> list[Mutation]:
    """Return `count` mutations of the files in a run directory, about equally many for each file.

    With `other`, another run, its files replace some; the runs must have files in the same folders.
    """
    names = files or sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )
    random = Random(seed)
    kinds = KINDS if other is None else (*KINDS, *[FOREIGN] * 4)
    planned = []
    for i in range(count):
        kind, number = random.choice(kinds), random.randrange(2**32)
        planned.append(Mutation(names[i % len(names)], kind, number, other if kind == FOREIGN else None))
    return planned


def mutate(data: bytes, kind: str, random: Random) -> bytes:
    """Return `data` with damage of `kind`; the kind for digits changes a digit if there is one."""
    content = bytearray(data)
    size = len(content)
    if size == 0 or kind == "grow":
        return data + random.randbytes(random.choice((1, 8, 4096)))
    at = random.randrange(size)
    length = min(random.choice((1, 2, 4, 8, 64, 512)), size - at)
    if kind == "flip":
        content[at] ^= 1 << random.randrange(8)
    elif kind == "flips":
        for _ in range(random.randrange(2, 20)):
            content[random.randrange(size)] ^= 1 << random.randrange(8)
    elif kind == "overwrite":
        content[at : at + length] = random.randbytes(length)
    elif kind == "zero":
        content[at : at + length] = bytes(length)
    elif kind == "truncate":
        del content[at:]
    elif kind == "insert":
        content[at:at] = random.randbytes(length)
    elif kind == "cut":
        del content[at : at + length]
    elif kind == "swap":
        other = random.randrange(size)
        content[at], content[other] = content[other], content[at]
    elif kind == "number":  # sizes and addresses are little-endian numbers: make one extreme
        value = random.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
        content[at : at + length] = value.to_bytes(8, "little")[:length].ljust(length, b"\xff")
    elif kind == "digit":
        places = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
        if places:
            content[random.choice(places)] = 48 + random.randrange(10)
    return bytes(content)


def copy_run(source: Path, target: Path) -> None:
    """Make `target` a copy of the run directory `source`; replace its old content."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
