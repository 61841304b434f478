"""Plugins that make every mistake we could think of: wrong types, NaN, infinities, lists that never end, exits.

`EVIL` is a good plugin but for its `mistake`, one of those listed in `encyclo.testing.faults.mistakes`. Whatever it
does must end in one sentence that names it, and leave a run that goes on with the good plugin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encyclo.testing.fixtures.complete_plugin import CompletePlugin

Spoil = Callable[[Any], Any]
"""Makes a bad answer of a good one, or raises."""


@dataclass(frozen=True)
class Mistake:
    """A mistake of one hook, or of an object that it returns."""

    hook: str
    words: str
    spoil: Spoil
    command: str = "run"
    """The command that meets it: run, or one that opens a finished run."""

    def __str__(self) -> str:
        return f"{self.hook}: {self.words} ({self.command})"


class Evil(CompletePlugin):
    """The complete plugin, with at most one mistake."""

    mistake: Mistake | None = None

    def answer(self, hook: str, value: Any) -> Any:
        """Return the good answer, or the spoilt one."""
        made = self.mistake
        return made.spoil(value) if made is not None and made.hook == hook else value


class Spoilt:
    """An object of which some attributes are replaced."""

    def __init__(self, good: Any, **changed: Any) -> None:
        self.__dict__.update(changed)
        self._good = good

    def __getattr__(self, name: str) -> Any:
        return getattr(self._good, name)


class Rude(BaseException):
    """Neither an Exception nor one of Python's own."""


class Mute(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Stubborn(Exception):
    """An error that takes no mark."""

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("it never changes")


ERRORS = {
    "ends the process": SystemExit(3),
    "raises GeneratorExit": GeneratorExit(),
    "raises StopIteration": StopIteration("early"),
    "raises what is no Exception": Rude("out of my way"),
    "raises an error without words": Mute(),
    "raises an error that takes no mark": Stubborn("no"),
    "raises a very long error": ValueError("long\n" * 1_000_000),
    "runs out of memory": MemoryError(),
    "calls itself too often": RecursionError("maximum recursion depth exceeded"),
}
NUMBERS: dict[str, Any] = {"a text": "many", "nothing": None, "negative": -1, "NaN": np.nan, "huge": 10**30}
TEXTS: dict[str, Any] = {
    "nothing": None,
    "bytes": b"dog",
    "a number": 5,
    "a list": ["dog"],
    "a text with NUL": "do\0g",
    "a text with half a character": "do\ud800g",
    "a text without end": "dog " * 300_000,
}
JUNK: dict[str, Any] = {
    "a number": 5,
    "a text": "dog",
    "bytes": b"dog",
    "a mapping": {"a": 1},
    "a class": int,
    "an object": object(),
}


def always(value: Any) -> Spoil:
    """Answer `value`."""
    return lambda good: value


def raising(error: BaseException) -> Spoil:
    """Raise `error`."""

    def spoil(good: Any) -> Any:
        raise error

    return spoil


def first(**changed: Any) -> Spoil:
    """Change fields of the first item."""
    return lambda good: [replace(good[0], **changed), *good[1:]]


def field(**changed: Any) -> Spoil:
    """Change fields of a dataclass."""
    return lambda good: replace(good, **changed)


def attribute(**changed: Any) -> Spoil:
    """Replace attributes of an object."""
    return lambda good: Spoilt(good, **changed)


def method(name: str, spoil: Spoil) -> Spoil:
    """Spoil what a method of an object returns."""

    def changed(good: Any) -> Any:
        return Spoilt(good, **{name: lambda *given, **named: spoil(getattr(good, name)(*given, **named))})

    return changed


def field_of(name: str, spoil: Spoil) -> Spoil:
    """Spoil one field of a dataclass."""
    return lambda good: replace(good, **{name: spoil(getattr(good, name))})


def attribute_of(name: str, spoil: Spoil) -> Spoil:
    """Spoil one attribute of an object."""
    return lambda good: Spoilt(good, **{name: spoil(getattr(good, name))})


def method_raising(error: BaseException) -> Any:
    """Return a method that raises."""

    def fail(*given: Any, **named: Any) -> Any:
        raise error

    return fail


def breaking_off(error: BaseException) -> Spoil:
    """Raise `error` after the first item."""

    def spoil(good: Any) -> Iterator[Any]:
        yield good[0]
        raise error

    return spoil


def at_the_end(error: BaseException) -> Spoil:
    """Give more than was asked for, and raise `error` when nothing more is wanted."""

    def spoil(good: Any) -> Iterator[Any]:
        try:
            yield from good
            yield from itertools.repeat(good[-1])
        finally:
            raise error

    return spoil


def endless(good: Any) -> Iterator[Any]:
    """Give the first item for ever."""
    return itertools.repeat(good[0])


def broken_property(name: str, error: BaseException) -> Spoil:
    """Let reading an attribute of the object raise."""

    def fail(self: Any) -> Any:
        raise error

    return lambda good: type("Broken", (Spoilt,), {name: property(fail)})(good)


def mistakes(hook: str, table: Mapping[str, Spoil], command: str = "run") -> list[Mistake]:
    """Return the mistakes of one hook."""
    return [Mistake(hook, words, spoil, command) for words, spoil in table.items()]


def of_texts(name: str, change: Callable[..., Spoil] = first) -> dict[str, Spoil]:
    """Return mistakes in which a field is not a text that can be stored."""
    return {f"{name} is {words}": change(**{name: value}) for words, value in TEXTS.items()}


def of_numbers(name: str, change: Callable[..., Spoil]) -> dict[str, Spoil]:
    """Return mistakes in which a field is not a valid number."""
    return {f"{name} is {words}": change(**{name: value}) for words, value in NUMBERS.items()}


def junk(change: Callable[[Any], Spoil] = always, *, but: tuple[str, ...] = ()) -> dict[str, Spoil]:
    """Return mistakes in which the answer is of another type."""
    return {f"returns {words}": change(value) for words, value in JUNK.items() if words not in but}


EVIL = Evil()
