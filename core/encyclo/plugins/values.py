"""Check single values that a plugin gives: texts, numbers, arrays, what goes into a JSON file.

Every check raises WrongAnswer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encyclo.text import unstorable

LONGEST_TEXT = 1_000_000
"""The most characters of one text: a prompt, a definition, a name."""
MOST_JSON, DEEPEST_JSON = 1_000_000, 20
"""The most values and characters, and levels, of what a plugin adds to run.json or metrics.json."""
LARGEST_INT = 2**62
_SHOWN = 60


class WrongAnswer(Exception):
    """A plugin's answer that is not what belongs there; the message is the end of a sentence.

    `encyclo.plugins.manager` adds the plugin's name and package.
    """


def with_article(value: object) -> str:
    """Return the value's type with its article: `a list`, `an int`."""
    kind = type(value).__name__
    if value is None or kind == "bytes":
        return "None" if value is None else kind
    return f"{'an' if kind[:1] in 'aeiouAEIOU' or kind == 'ndarray' else 'a'} {kind}"


def shown(value: object) -> str:
    """Return a short text or number as it is written, of anything else its type: it may have no end."""
    if isinstance(value, str | bytes):
        return repr(value[:_SHOWN]) + "…" * (len(value) > _SHOWN)
    if isinstance(value, np.generic):
        value = value.item()
    small = value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 10**18)
    if type(value) is int and not small:
        return "an int of more than 18 digits"
    return repr(value) if small else with_article(value)


def check_text(value: object, what: str) -> str:
    """Return a text that stores can hold, maybe an empty one; `what` is the beginning of the sentence."""
    if not isinstance(value, str):
        raise WrongAnswer(f"{what} is {shown(value)}, but must be a str")
    if fault := _text_fault((value,)):
        raise WrongAnswer(f"{what} {fault}")
    return value


def texts_fault(texts: Sequence[object], names: Sequence[str]) -> str | None:
    """Return which of an object's texts can't be stored, as the end of a sentence; None if all can be.

    `names` are those of the first fields; the other texts are aliases and the like.
    """
    for place, value in enumerate(texts):
        if not isinstance(value, str):
            name = names[place] if place < len(names) else "alias, example or broader"
            return f"whose {name} is {shown(value)}, but must be a str"
    fault = _text_fault(texts)  # type: ignore[arg-type]
    return f"with a text that {fault}" if fault else None


def _text_fault(texts: Sequence[str]) -> str | None:
    if max(map(len, texts)) > LONGEST_TEXT:
        return f"has more than {LONGEST_TEXT:,} characters; shorten it"
    character = unstorable(texts)
    return f"has the character {character}, which can't be stored; remove it" if character else None


def check_whole(value: object, what: str, least: int = 0, most: int = LARGEST_INT) -> int:
    """Return a whole number from `least` to `most`, numpy's too, as an int."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) <= most:
        too_large = isinstance(value, Integral) and int(value) > most
        limits = (
            f"of at least {least:,}"
            if most == LARGEST_INT and not too_large
            else f"from {least:,} to {most:,}"
        )
        raise WrongAnswer(f"{what} is {shown(value)}, but must be an int {limits}")
    return int(value)


def check_finite(value: object, what: str) -> float:
    """Return a finite number, numpy's too, as a float."""
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise WrongAnswer(f"{what} is {shown(value)}, but must be a finite float")


def check_array(value: object, dtype: str, shape: tuple[int | None, ...], what: str) -> NDArray[Any]:
    """Return an array of `dtype` and `shape` (None: any length).

    "float32" takes any floating-point numbers, "int64" any whole numbers.
    """
    if not isinstance(value, np.ndarray):
        raise WrongAnswer(f"{what} is {with_article(value)}, but must be a numpy array")
    kinds = {"float32": "f", "int64": "iu"}.get(dtype)
    if value.dtype != np.dtype(dtype) if kinds is None else value.dtype.kind not in kinds:
        raise WrongAnswer(f"{what} has the dtype {value.dtype}, but must have {dtype}")
    wanted = ", ".join("any" if length is None else str(length) for length in shape)
    if len(value.shape) != len(shape) or any(
        length not in (None, found) for length, found in zip(shape, value.shape, strict=True)
    ):
        raise WrongAnswer(
            f"{what} has the shape {value.shape}, but must have ({wanted}{',' * (len(shape) == 1)})"
        )
    with np.errstate(over="ignore"):
        return np.asarray(value, dtype)


def is_finite(values: NDArray[Any]) -> bool:
    """Return whether every number is finite, in one pass without a mask if it is so."""
    with np.errstate(all="ignore"):
        # A sum with an infinity or a NaN is not finite; one of large numbers may overflow, so look again.
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def check_json(value: object, what: str) -> Any:
    """Return `value` in JSON's types: numpy's numbers become Python's, tuples lists. Numbers must be finite."""
    left = MOST_JSON

    def plain(value: object, depth: int) -> Any:
        nonlocal left
        left -= 1 + (len(value) if isinstance(value, str) else 0)
        if left < 0 or depth > DEEPEST_JSON:
            raise WrongAnswer(
                f"{what} that is too large to be recorded; keep it under {MOST_JSON:,} values and characters, "
                f"and {DEEPEST_JSON} levels"
            )
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return check_text(value, f"{what} with a text that")
        if isinstance(value, Integral):
            return check_whole(value, f"{what} with a number that", -(2**53), 2**53)
        if isinstance(value, Real):
            return check_finite(value, f"{what} with a number that")
        if isinstance(value, Mapping):
            return {
                plain(check_text(key, f"{what} with a key that"), depth): plain(item, depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [plain(item, depth + 1) for item in value]
        raise WrongAnswer(
            f"{what} that holds {with_article(value)}, for which JSON has no type; use str, int, float, bool, None, "
            "list or dict"
        )

    return plain(value, 0)
