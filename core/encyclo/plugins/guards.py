"""A guard around each hook implementation, so that an error or an invalid answer names its plugin.

An error is marked when it leaves the plugin that raised it, and reported only when it leaves all plugins: a hook
wrapper may catch an error of the plugin that it wraps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

OWNER = "encyclo_plugin"
"""The attribute of an error that holds the name of the plugin that raised it."""
Blame = Callable[[], AbstractContextManager[None]]
Check = Callable[[Any], Any]
"""Returns a hook's answer, or an item of it, as the core uses it; raises if it is invalid."""


@contextmanager
def marking(name: str) -> Iterator[None]:
    """Mark an error raised in the block with the plugin `name`, unless it is marked already."""
    try:
        yield
    except KeyboardInterrupt:  # the user's
        raise
    except BaseException as error:
        if owner_of(error) is None:
            with contextlib.suppress(Exception):  # a class of errors may refuse attributes
                setattr(error, OWNER, name)
        raise


def owner_of(error: BaseException) -> str | None:
    """Return the name of the plugin that raised an error; None if it isn't marked."""
    with contextlib.suppress(Exception):
        found: str | None = getattr(error, OWNER, None)
        return found
    return None


def guard(function: Callable[..., Any], blame: Blame, check: Check) -> Callable[..., Any]:
    """Return a hook implementation whose answers go through `check` and whose errors are marked by `blame`."""

    def guarded(*arguments: Any) -> Any:
        with blame():
            result = function(*arguments)
            return None if result is None else check(result)

    return guarded


def guard_wrapper(
    function: Callable[..., Generator[None, Any, Any]], blame: Blame, check: Check
) -> Callable[..., Generator[None, Any, Any]]:
    """Return the same for a hook wrapper, which yields once to get the wrapped answer."""

    def guarded(*arguments: Any) -> Generator[None, Any, Any]:
        with blame():
            steps = function(*arguments)
            if _ended(lambda: next(steps)):
                raise RuntimeError("its hook wrapper did not yield, but must yield once")
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
                raise RuntimeError("its hook wrapper has a second yield, but must yield once")
            # A wrapper may pass on None, which pluggy takes for no answer.
            return None if ended[0] is None and answer is None else check(ended[0])

    return guarded


def through(items: Iterable[Any], blame: Blame, check: Check) -> Generator[Any, None, None]:
    """Yield the items of an answer through `check`, and close it at the end; errors are marked by `blame`."""
    with blame():
        iterator = iter(items)
    try:
        while True:
            with blame():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                item = check(item)
            yield item
    finally:
        if isinstance(iterator, Generator):
            with blame():  # what its `finally` does is the plugin's too
                iterator.close()


def _ended(step: Callable[[], Any]) -> tuple[Any] | None:
    """Return the generator's return value, in a tuple, if `step` ended it; else None."""
    try:
        step()
    except StopIteration as end:
        return (end.value,)
    return None
