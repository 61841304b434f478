"""A guard around each hook implementation, so that an error or an invalid result names its plugin.

An error is marked when it leaves the plugin that raised it, and reported only when it leaves all plugins: a hook
wrapper may catch an error of the plugin that it wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

OWNER = "encyclo_plugin"
"""The attribute of an error that holds the name of the plugin that raised it."""
Blame = Callable[[], AbstractContextManager[None]]
Check = Callable[[Any], None]
"""Raises if a hook's result is invalid."""


@contextmanager
def marking(name: str) -> Iterator[None]:
    """Mark an error raised in the block with the plugin `name`, unless it is marked already."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if not hasattr(error, OWNER):
            setattr(error, OWNER, name)
        raise


def guard(function: Callable[..., Any], blame: Blame, check: Check) -> Callable[..., Any]:
    """Return a hook implementation whose errors, also during iteration over its result, are marked by `blame`."""

    def guarded(*arguments: Any) -> Any:
        with blame():
            result = function(*arguments)
        return _checked(result, blame, check if result is not None else _anything)

    return guarded


def guard_wrapper(
    function: Callable[..., Generator[None, Any, Any]], blame: Blame, check: Check
) -> Callable[..., Generator[None, Any, Any]]:
    """Return the same for a hook wrapper, which yields once to get the wrapped result."""

    def guarded(*arguments: Any) -> Generator[None, Any, Any]:
        with blame():
            steps = function(*arguments)
            if _ended(lambda: next(steps)):
                raise RuntimeError("its hook wrapper did not yield")
            ended: tuple[Any] | None
            answer = None
            try:
                answer = yield
            except BaseException as error:
                failure = error
                ended = _ended(lambda: steps.throw(failure))
            else:
                ended = _ended(lambda: steps.send(answer))
            if ended is None:
                raise RuntimeError("its hook wrapper has a second yield")
        return _checked(ended[0], blame, check if answer is not None else _anything)

    return guarded


def _anything(result: Any) -> None:
    """Accept any result: a wrapper may pass on None, which pluggy takes for no result."""


def _ended(step: Callable[[], Any]) -> tuple[Any] | None:
    """Return the generator's return value, in a tuple, if `step` ended it; else None."""
    try:
        step()
    except StopIteration as end:
        return (end.value,)
    return None


def _checked(result: Any, blame: Blame, check: Check) -> Any:
    check(result)
    return _through(result, blame) if isinstance(result, Iterator) else result


def _through(items: Iterator[Any], blame: Blame) -> Iterator[Any]:
    while True:
        with blame():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
