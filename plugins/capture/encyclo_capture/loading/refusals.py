"""Turns what libraries raise over a model's files into one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from encyclo.errors import EncycloError, ModelNotFoundError

LONGEST_REASON = 300
# Their messages say what is wrong, as those of plain Exceptions do; a KeyError's needs its type to be understood.
SPEAKING = (OSError, ValueError, RuntimeError, ImportError, SafetensorError)


@contextmanager
def refusing(what: str, error: type[EncycloError] = ModelNotFoundError, advice: str = "") -> Iterator[None]:
    """Turn any error in the block into `error`: `what`, the reason and the advice, in one sentence.

    For calls of a library that reads foreign files: it may raise anything. encyclo's own errors pass.
    """
    try:
        yield
    except EncycloError:
        raise
    except BaseException as problem:
        if not isinstance(problem, Exception) and not is_panic(problem):
            raise
        raise error(f"{what}: {reason(problem)}{advice}.") from problem


def is_panic(error: BaseException) -> bool:
    """Return whether a library in Rust panicked; its error is no Exception."""
    return type(error).__name__ == "PanicException"


def reason(error: BaseException) -> str:
    """Return the first sentence of a library's message, on one line and without its full stop."""
    message = " ".join(str(error).split()).partition(". ")[0].rstrip(".: ")
    if len(message) > LONGEST_REASON:
        message = message[:LONGEST_REASON] + "…"
    if message and (isinstance(error, SPEAKING) or type(error) is Exception):
        return message
    name = type(error).__name__
    return f"{name}: {message}" if message else name
