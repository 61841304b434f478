"""Every error that encyclo raises on purpose.

    EncycloError                 the work failed (exit code 1)
    ├── UsageError               the request can't be carried out (exit code 2, nothing written)
    │   ├── UnknownPluginError   no installed plugin has that name, or it lacks the hook
    │   ├── MissingDependencyError  an optional package isn't installed
    │   ├── AmbiguousNameError   several entries have the name
    │   ├── ModelNotFoundError   the model could not be found
    │   └── RunDirectoryError    the output directory can't be used for this run
    ├── PluginError              a plugin failed: names the plugin and its package
    ├── CaptureError             an activation can't be trusted: names prompt, layer, compute type
    ├── StoreError               a store can't be written or read
    └── DamagedError             a file differs from what was committed

`EncycloWarning` is for what can be read but not checked, or may not be meant. A message is one sentence: what is wrong,
where, what to do.
"""

from __future__ import annotations

from collections.abc import Mapping

from encyclo.text import named, one_line


class EncycloError(Exception):
    """Base class: the work failed."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message on one line, and with URLs in place of their copies (see `encyclo.text`)."""
        return one_line(named(super().__str__()))


class UsageError(EncycloError):
    """The request can't be carried out; nothing has been written."""

    exit_code = 2


class UnknownPluginError(UsageError):
    """No installed plugin has that name, or the plugin does not implement the hook."""


class MissingDependencyError(UsageError):
    """An optional package is not installed; the message has the pip line that installs it."""


class AmbiguousNameError(UsageError):
    """Several entries have the name; `senses` has a short definition of each, by the name or the id that chooses it."""

    def __init__(self, name: str, where: str, senses: Mapping[str, str]) -> None:
        """`where` names the run."""
        self.question = f"{name!r} means {len(senses)} entries of {where}; choose one by its name or id"
        self.senses = dict(senses)
        listed = (f"{key}: {definition}" if definition else key for key, definition in senses.items())
        super().__init__(f"{self.question}: {'; '.join(listed)}.")


class ModelNotFoundError(UsageError):
    """The model is not a known package, local folder, .gguf file or hub id that can be loaded."""


class RunDirectoryError(UsageError):
    """The output directory can't be used: not writable, not a run, in use, or of another configuration."""


class PluginError(EncycloError):
    """A plugin failed to load, raised an error, or returned an invalid result."""


class CaptureError(EncycloError):
    """An activation that can't be trusted: not finite, or a mention that no token covers."""


class StoreError(EncycloError):
    """A store could not be written or read."""


class DamagedError(StoreError):
    """Data on disk differ from what was committed."""


class EncycloWarning(UserWarning):
    """Something can be read but not checked, or may not be meant, such as a run of an earlier version."""


class ConceptListWarning(EncycloWarning):
    """A concept list may not be meant as it is read; shown where a run begins, not where it is opened again."""


def without_advice(error: Exception) -> str:
    """Return an error's message without what to do."""
    return str(error).split("; ")[0].rstrip(".")
