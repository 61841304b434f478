"""A guard around each hook implementation: it knows whose it is, so that an error or a wrong result names its plugin.

An error is marked where it leaves the plugin that raised it, and told where it leaves all of them: a hook wrapper
may catch what the plugin that it wraps raises.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

OWNER = "encyclo_plugin"
"""The attribute of an error that names the plugin which raised it."""
Blame = Callable[[], AbstractContextManager[None]]
Check = Callable[[Any], None]
"""Raises where a hook's result can't be."""


@contextmanager
def marking(name: str) -> Iterator[None]:
    """Mark an error that is raised in the block as the plugin `name`'s, unless it is marked already."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if not hasattr(error, OWNER):
            setattr(error, OWNER, name)
        raise


def guard(function: Callable[..., Any], blame: Blame, check: Check) -> Callable[..., Any]:
    """Return a hook implementation whose errors, also while its result is gone through, are marked by `blame`."""

    def guarded(*arguments: Any) -> Any:
        with blame():
            result = function(*arguments)
        return _checked(result, blame, check if result is not None else _anything)

    return guarded


def guard_wrapper(
    function: Callable[..., Generator[None, Any, Any]], blame: Blame, check: Check
) -> Callable[..., Generator[None, Any, Any]]:
    """Return the same of a hook wrapper, which yields once for the answer of what it wraps."""

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
    """Check nothing: pluggy takes None for no answer, which a wrapper may hand on."""


def _ended(step: Callable[[], Any]) -> tuple[Any] | None:
    """Return what a generator returned, in a tuple, if the step ended it."""
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
