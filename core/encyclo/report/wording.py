"""Format figures and foreign text for the page: never `None`, `nan` or a control character."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

NOT_MEASURED = "not measured"

# What HTML and UTF-8 can't carry: control characters, lone surrogates, noncharacters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def known(value: Any) -> float | None:
    """Return `value` as a finite float, or None if it is not one."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        figure = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return figure if math.isfinite(figure) else None


def number(value: Any, digits: int = 0) -> str:
    """Return `1,234.5`, or `not measured`."""
    figure = known(value)
    return NOT_MEASURED if figure is None else f"{figure:,.{digits}f}".replace("-", "−")


def where_read(site: Any) -> str | None:
    """Return what the layers of a run with --site attn or mlp are; None for the residual stream."""
    adds = {"attn": "attention adds", "mlp": "the MLP adds"}.get(str(site))
    return f"what {adds} (--site {site})" if adds else None


def percent(value: Any, digits: int = 0) -> str:
    """Return `98%`, or `not measured`."""
    figure = known(value)
    return NOT_MEASURED if figure is None else f"{figure:.{digits}%}".replace("-", "−")


def thousandths(value: Any) -> int | None:
    """Return a share in whole thousandths; None if it was not measured."""
    figure = known(value)
    return None if figure is None else round(figure * 1000)


def duration(value: Any) -> str:
    """Return `14.2 s`, `3 min 12 s` or `2 h 5 min`, or `not measured`."""
    seconds = known(value)
    if seconds is None:
        return NOT_MEASURED
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def interval(confidence: Any, low: Any, high: Any) -> str:
    """Return `98% (91% to 100%)`, or `not measured`."""
    if known(confidence) is None:
        return NOT_MEASURED
    if known(low) is None or known(high) is None:
        return f"{percent(confidence)} (interval not measured)"
    return f"{percent(confidence)} ({percent(low)} to {percent(high)})"


def moment(text: Any) -> str:
    """Return an ISO time as `2026-11-22 12:46 UTC`; anything else unchanged."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    if when.tzinfo is None:
        return f"{when:%Y-%m-%d %H:%M}"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def clip(text: str, most: int) -> str:
    """Return `text`; if it is longer than `most` characters, cut it and add its full length."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def clean(text: str) -> str:
    """Return `text` with what HTML or UTF-8 can't carry replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def shown(value: Any) -> Any:
    """Return the text that the template prints for `value`: the last check before the page."""
    if isinstance(value, str):
        # Markup is a str and must stay Markup, so only text with unprintable characters is rebuilt.
        return value if not _UNPRINTABLE.search(value) else type(value)(clean(value))
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOT_MEASURED
    return value
