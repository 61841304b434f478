"""Find an entry by its id, name, word or alias; if several entries have it, list them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

from encyclo.english import without_qualifier
from encyclo.entry_words import EntryWords
from encyclo.errors import AmbiguousNameError, UsageError
from encyclo.query.html import clip
from encyclo.query.suggestions import nearest_names

LONGEST = 60
"""The most characters of a name or a definition in a message."""


class EntryLookup:
    """A run's entries by id, name, word (the name without its qualifier) and alias.

    The first of these that only one entry has finds it. Ids, names and words are compared exactly, and only if that
    finds nothing without regard to case; aliases always without regard to case.
    """

    def __init__(
        self,
        ids: Sequence[str],
        names: Sequence[str],
        definitions: Sequence[str],
        words: Callable[[], EntryWords | None],
    ) -> None:
        """`words` returns the entries' words, aliases too; it is called for what is no id, name or word."""
        self._ids, self._names, self._definitions, self._words = ids, names, definitions, words
        self._made: dict[tuple[str, bool], dict[str, list[int]]] = {}

    def rows(self, name: str) -> Sequence[int]:
        """Return the rows of the entries that `name` may mean, ascending; none if it means none."""
        if found := _first(self._tables(False), name) or _first(self._tables(True), name.casefold()):
            return found
        words = self._words()
        named = words.meanings.get(" ".join(name.lower().split()), ()) if words else ()
        return sorted(row for row, _, _ in named)

    def row(self, name: str, where: str) -> int:
        """Return the row of the entry that `name` means in `where`.

        Raises UsageError that suggests the nearest names, and AmbiguousNameError that lists what the name may mean.
        """
        found = self.rows(name)
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousNameError(clip(name, LONGEST), where, self.senses(found))
        near = nearest_names(name, self._names)
        hint = f"; did you mean {', '.join(near)}?" if near else "; try another name, or an id."
        said = name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
        raise UsageError(f"There is no concept named {said!r} in {where}{hint}")

    def senses(self, rows: Iterable[int]) -> dict[str, str]:
        """Return the short definition of each entry by what chooses it: its name, or its id if others have its name."""
        return {
            self._names[row] if self._count[self._names[row]] == 1 else self._ids[row]: clip(
                self._definitions[row], LONGEST
            )
            for row in rows
        }

    @cached_property
    def _count(self) -> Counter[str]:
        return Counter(self._names)

    def _tables(self, fold: bool) -> Iterator[dict[str, list[int]]]:
        """Yield the rows by id, by name and by word; each table is made when it is first needed."""
        for column, texts in (
            ("id", self._ids),
            ("name", self._names),
            ("word", map(without_qualifier, self._names)),
        ):
            if (column, fold) not in self._made:
                self._made[column, fold] = _by(map(str.casefold, texts) if fold else texts)
            yield self._made[column, fold]


def _first(tables: Iterable[dict[str, list[int]]], key: str) -> list[int]:
    """Return the rows of the first table in which only one row has the key, else those of the last that has it."""
    found: list[int] = []
    for table in tables:
        found = table.get(key, found)
        if len(found) == 1:
            break
    return found


def _by(texts: Iterable[str]) -> dict[str, list[int]]:
    """Return {text: rows}."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows[text].append(row)
    return dict(rows)
