"""A plugin's traits: attributes in capitals of its module or class, read only here.

    Options             a pydantic model of the plugin's options
    STAGE               a sampler's stage, 0 to 127 (default 1, templates)
    NEEDS_INTERPRETER   the sampler looks for prompts that the interpreter misreads; they are only used for training
    PARTIAL             the sampler may give no prompt for a concept
    OBJECT_STORES       the store writes with `encyclo.storage.files` alone, so a run with it may be on an object store
    MOST_CONCEPTS       the largest number of concepts that an interpreter can train on
    FINGERPRINT         a hash of data that the plugin's results depend on, such as its templates
    LICENCE             the terms of the plugin's data, such as a concept list

See docs/hooks.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from encyclo.text import unstorable

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True)
class Traits:
    """A plugin's traits, checked, with defaults for those that it doesn't have."""

    options: type[BaseModel] | None = None
    stage: int = 1
    needs_interpreter: bool = False
    most_concepts: int | None = None
    fingerprint: str = ""
    licence: str | None = None
    partial: bool = False
    object_stores: bool = False


def read_traits(plugin: object) -> Traits:
    """Return the traits of a plugin's module or object. Raises ValueError saying which one is invalid."""
    from pydantic import BaseModel

    options = getattr(plugin, "Options", None)
    if options is not None and not (isinstance(options, type) and issubclass(options, BaseModel)):
        raise ValueError(f"Options must be a pydantic model (a class), not {options!r:.80}")
    stage = getattr(plugin, "STAGE", 1)
    if type(stage) is not int or not 0 <= stage <= 127:
        raise ValueError(f"STAGE must be an int from 0 to 127, not {stage!r:.80}")
    most = getattr(plugin, "MOST_CONCEPTS", None)
    if most is not None and (type(most) is not int or most < 1):
        raise ValueError(f"MOST_CONCEPTS must be an int of at least 1, not {most!r:.80}")
    fingerprint = getattr(plugin, "FINGERPRINT", "")
    if not isinstance(fingerprint, str) or unstorable((fingerprint,)):
        raise ValueError(f"FINGERPRINT must be a str without NUL or lone surrogates, not {fingerprint!r:.80}")
    licence = getattr(plugin, "LICENCE", None)
    if licence is not None and (not isinstance(licence, str) or unstorable((licence,))):
        raise ValueError(f"LICENCE must be a str without NUL or lone surrogates, not {licence!r:.80}")
    return Traits(
        options,
        stage,
        _switch(plugin, "NEEDS_INTERPRETER"),
        most,
        fingerprint,
        licence,
        _switch(plugin, "PARTIAL"),
        _switch(plugin, "OBJECT_STORES"),
    )


def _switch(plugin: object, name: str) -> bool:
    value = getattr(plugin, name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r:.80}")
    return value
