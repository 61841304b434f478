"""Find plugins by their entry points, load those that a run names, call one by name.

Only the plugins of a run are imported, so a broken third-party plugin affects no other.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import inspect
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from encyclo import hookspecs
from encyclo.errors import EncycloError, MissingDependencyError, PluginError, UnknownPluginError, UsageError
from encyclo.plugins.answers import check_answer, returned_none
from encyclo.plugins.guards import guard, guard_wrapper, marking, owner_of, through
from encyclo.plugins.handles import Handle, Owner
from encyclo.plugins.traits import Traits, read_traits
from encyclo.plugins.validation import GROUP, hooks_fault, version_fault
from encyclo.plugins.values import WrongAnswer
from encyclo.types import Context

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")
READY, BROKEN = "ready", "broken"
LONGEST_MESSAGE = 1_000
"""The most characters shown of an error's message."""


@dataclass(frozen=True)
class InstalledPlugin:
    """One entry point of the group `encyclo`, not imported yet."""

    name: str
    package: str
    version: str
    entry_point: importlib.metadata.EntryPoint

    @property
    def origin(self) -> str:
        """Return the package and its version, as in error messages."""
        return f"package {self.package} {self.version}"


@dataclass(frozen=True)
class PluginRow:
    """A line of `encyclo plugins`."""

    name: str
    hooks: list[str]
    package: str
    version: str
    state: str
    """`ready`, or `broken`."""
    error: str | None


def find_installed() -> dict[str, list[InstalledPlugin]]:
    """Return the installed plugins by name, sorted; a name claimed by two packages has two entries."""
    found: dict[str, list[InstalledPlugin]] = {}
    seen: set[tuple[str, str, str]] = set()
    # By the package's object, which parses a file each time that it is asked for its name or version.
    packages: dict[int, tuple[str, str]] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.dist and id(point.dist) not in packages:
            about = point.dist.metadata
            packages[id(point.dist)] = about["Name"], about["Version"]
        package, version = packages[id(point.dist)] if point.dist else ("unknown", "unknown")
        # An editable install can be on the path twice; equal claims by one package are one plugin.
        if (point.name, point.value, package) in seen:
            continue
        seen.add((point.name, point.value, package))
        found.setdefault(point.name, []).append(InstalledPlugin(point.name, package, version, point))
    return dict(sorted(found.items()))


class Plugins:
    """The plugins of one run: loaded one by one, called by name."""

    def __init__(self) -> None:
        self.installed = find_installed()
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._wrappers: list[str] = []
        self._plugins: dict[str, object] = {}
        """The loaded plugins by name, without the guards that the manager has around them."""
        self._arguments: list[Mapping[str, Any]] = []
        """The arguments of the running hook calls, the innermost last: a sampler may call a capture."""

    def load(self, name: str) -> InstalledPlugin:
        """Import and register the plugin `name`.

        Raises UnknownPluginError, UsageError (two packages claim the name), MissingDependencyError or
        PluginError. Registration is rolled back on failure.
        """
        candidates = self.installed.get(name, [])
        if not candidates:
            raise self._unknown(name, list(self.installed))
        if len(candidates) > 1:
            both = " and ".join(c.origin for c in candidates)
            raise UsageError(f"The plugin name {name!r} is claimed by {both}; uninstall one of them.")
        found = candidates[0]
        if self._manager.has_plugin(name):
            return found
        if other := version_fault(found.entry_point.dist):
            raise self.fault(name, other)
        plugin = _import(found)
        try:
            if wrong := hooks_fault(self._manager, plugin):
                raise self.fault(name, wrong)
            self._manager.register(self._guarded(name, plugin), name=name)
            self._manager.check_pending()
            self._plugins[name] = plugin
        except BaseException as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            if isinstance(error, PluginError | KeyboardInterrupt):
                raise
            raise self.fault(
                name, f"does not fit encyclo's hooks, which docs/hooks.md lists: {_message(error)}"
            ) from error
        return found

    def opt_in(self, names: Sequence[str]) -> None:
        """Load the plugins given by --with, whose hook wrappers run around every chosen plugin.

        Raises UsageError for a plugin that wraps no hook: it would silently do nothing.
        """
        for name in names:
            found = self.load(name)
            if not self._wrapped_by(name):
                raise UsageError(
                    f"Plugin {name!r} ({found.origin}) wraps no hook, so --with {name} would do nothing; "
                    f"choose it by its own flag, or leave it out."
                )
            self._wrappers.append(name)

    @property
    def wrappers(self) -> tuple[str, ...]:
        """Return the plugins given by --with."""
        return tuple(self._wrappers)

    def _wrapped_by(self, name: str) -> set[str]:
        """Return the hooks that the loaded plugin `name` wraps."""
        plugin = self._manager.get_plugin(name)
        callers = self._manager.get_hookcallers(plugin) if plugin is not None else None
        return {
            caller.name
            for caller in callers or []
            for found in caller.get_hookimpls()
            if found.plugin is plugin and (found.wrapper or found.hookwrapper)
        }

    def hooks_of(self, name: str) -> list[str]:
        """Return the hooks that the loaded plugin `name` implements, sorted."""
        plugin = self._manager.get_plugin(name)
        callers = self._manager.get_hookcallers(plugin) if plugin is not None else None
        return sorted(caller.name for caller in callers or [])

    def implements(self, name: str, hook: str) -> bool:
        """Return whether the plugin `name` implements the optional hook `hook`."""
        self.load(name)
        return hook in self.hooks_of(name)

    def require(self, hook: str, name: str) -> InstalledPlugin:
        """Load `name` and check that it implements `hook`. Raises UnknownPluginError if it doesn't."""
        if name not in self.installed:
            rows = [row for row in self.describe() if hook in row.hooks]
            raise self._unknown(name, [r.name for r in rows if hook not in self._wrapped_by(r.name)], hook)
        found = self.load(name)
        if hook not in self.hooks_of(name):
            raise UnknownPluginError(
                f"Plugin {name!r} ({found.origin}) has no hook {hook}; it implements: "
                f"{', '.join(self.hooks_of(name)) or 'none'}; run `encyclo plugins` to list all plugins and hooks."
            )
        return found

    def _unknown(self, name: str, candidates: Sequence[str], hook: str = "") -> UnknownPluginError:
        """Return the error for a plugin that isn't installed; it lists and suggests `candidates`."""
        near = difflib.get_close_matches(name, candidates, n=1)
        meant = f"; did you mean {near[0]}? Installed" if near else "; installed"
        having = f" with the hook {hook}" if hook else ""
        return UnknownPluginError(
            f"There is no plugin named {name!r}{meant}{having} are: {', '.join(candidates)}."
        )

    def traits(self, name: str) -> Traits:
        """Return the traits of the plugin `name`. Raises PluginError naming an invalid trait."""
        self.load(name)
        with self.blame(name):
            try:
                return read_traits(self._plugins[name])
            except ValueError as error:
                raise self.fault(name, f"has an invalid attribute: {error}") from error

    def options(self, name: str, values: Mapping[str, Any]) -> BaseModel | None:
        """Fill the plugin's options model. Raises UsageError for an unknown key, listing the valid ones."""
        from pydantic import ValidationError

        found, model = self.load(name), self.traits(name).options
        if model is None:
            if values:
                raise UsageError(
                    f"Plugin {name!r} ({found.origin}) takes no options; leave out {_listed(values)}."
                )
            return None
        unknown = [key for key in values if key not in model.model_fields]
        if unknown:
            raise UsageError(
                f"Plugin {name!r} has no option {_listed(unknown)}; its options are: "
                f"{', '.join(sorted(model.model_fields))}."
            )
        with self.blame(name):
            try:
                filled = model(**values)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join([name, *map(str, first["loc"])])
                raise UsageError(
                    f"Option {where} can't be {first.get('input')!r}: {_plain(first['msg'])}."
                ) from error
            for key, value in filled.model_dump(mode="json").items():
                if not _is_json(value):
                    raise UsageError(
                        f"Option {name}.{key} can't be {value!r:.80}, since run.json can't hold it; "
                        "give a finite number."
                    )
            return filled

    def call(self, hook: str, name: str, /, **arguments: Any) -> Any:
        """Call `hook` of the plugin `name`, inside the wrappers given by --with, and return its checked answer.

        Raises PluginError naming the plugin or wrapper that raised an error or gave an invalid answer.
        """
        self.require(hook, name)
        kept = {name, *self._wrappers}
        others = [plugin for key, plugin in self._manager.list_name_plugin() if key not in kept]
        caller = self._manager.subset_hook_caller(hook, remove_plugins=others)
        self._arguments.append(arguments)
        try:
            with self.blame(name):
                result = caller(**{key: _given_to(name, value) for key, value in arguments.items()})
        finally:
            self._arguments.pop()
        if result is None:  # pluggy takes None for no result, from plugin or wrapper
            raise self.fault(name, returned_none(hook))
        return result

    def _guarded(self, name: str, plugin: object) -> object:
        """Return an object with the plugin's hook implementations, each in a guard that knows its name."""
        owner = Owner(name, partial(marking, name), partial(self.blame, name))

        def check(hook: str, answer: object) -> Any:
            return check_answer(hook, answer, self._arguments[-1], owner)

        hooks = {}
        for hook in dir(plugin):
            if (options := self._manager.parse_hookimpl_opts(plugin, hook)) is None:
                continue
            function = getattr(plugin, hook)
            if options["wrapper"] and not inspect.isgeneratorfunction(function):
                raise self.fault(
                    name, f"wraps {hook} with a function that is not a generator function; let it yield once"
                )
            around = guard_wrapper if options["wrapper"] else guard
            guarded = around(function, owner.mark, partial(check, hook))
            hooks[hook] = staticmethod(wraps(function)(guarded))
        return type(name, (), hooks)()

    def iterate(self, name: str, items: Iterable[T]) -> Generator[T, None, None]:
        """Iterate over a hook's answer; an error during iteration names the plugin. Close it if it may have more."""
        return through(items, partial(self.blame, name), _same)

    @contextmanager
    def blame(self, name: str) -> Iterator[None]:
        """Turn an unexpected error in the block into a PluginError that names plugin and package."""
        try:
            yield
        except (EncycloError, KeyboardInterrupt):
            raise
        except BaseException as error:  # only the command line may exit
            what = str(error) if isinstance(error, WrongAnswer) else f"failed with {_message(error)}"
            raise self.fault(owner_of(error) or name, what) from error

    def fault(self, name: str, what: str) -> PluginError:
        """Return a PluginError: the plugin `name`, its package, and `what` it did wrong."""
        return PluginError(f"Plugin {name!r} ({self.installed[name][0].origin}) {what}.")

    def describe(self) -> list[PluginRow]:
        """Return every installed plugin with its hooks, or the reason why it can't be loaded."""
        rows = []
        for name, candidates in self.installed.items():
            error, hooks = None, []
            try:
                self.load(name)
                hooks = self.hooks_of(name)
            except EncycloError as problem:
                error = str(problem)
            state = BROKEN if error else READY
            rows += [PluginRow(name, hooks, c.package, c.version, state, error) for c in candidates]
        return rows


def _import(found: InstalledPlugin) -> Any:
    """Return the module or object that the entry point names, or a new instance if it is a class."""
    try:
        loaded = found.entry_point.load()
        return loaded() if isinstance(loaded, type) else loaded
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing and missing != found.entry_point.module.split(".")[0]:
            raise MissingDependencyError(
                f"Plugin {found.name!r} ({found.origin}) needs the package {missing!r}, which is not "
                f"installed; install it with: pip install {missing}"
            ) from error
        raise _import_failed(found, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script without a main guard may call sys.exit
        raise _import_failed(found, error) from error


def _import_failed(found: InstalledPlugin, error: BaseException) -> PluginError:
    return PluginError(f"Plugin {found.name!r} ({found.origin}) could not be imported: {_message(error)}.")


def _given_to(plugin: str, value: Any) -> Any:
    """Return a hook's argument as `plugin` gets it: handles of its own objects as it made them."""
    if isinstance(value, Handle):
        return value.given_to(plugin)
    if isinstance(value, Context):
        model, interpreter = (_given_to(plugin, item) for item in (value.model, value.interpreter))
        if model is not value.model or interpreter is not value.interpreter:
            return replace(value, model=model, interpreter=interpreter)
    return value


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _same(item: T) -> T:
    return item


def _message(error: BaseException) -> str:
    """Return a plugin's error as the end of a sentence, on one line."""
    try:
        message = " ".join(str(error)[:LONGEST_MESSAGE].split()).rstrip(".")
    except Exception:  # its own `__str__` fails
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(repr(key) for key in keys)


def _plain(message: str) -> str:
    """Return pydantic's message as the end of a sentence."""
    message = message.removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:]
