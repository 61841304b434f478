"""A plugin's traits: attributes in capitals of its module or class, read only here.

    Options             a pydantic model of the plugin's options
    STAGE               a sampler's stage, 0 to 127 (default 1, templates)
    NEEDS_INTERPRETER   the sampler looks for prompts that the interpreter misreads; they only train
    MOST_CONCEPTS       the most concepts that an interpreter can take
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


def read_traits(plugin: object) -> Traits:
    """Return the traits of a plugin's module or object. Raises ValueError with the end of a sentence."""
    from pydantic import BaseModel

    options = getattr(plugin, "Options", None)
    if options is not None and not (isinstance(options, type) and issubclass(options, BaseModel)):
        raise ValueError("names Options that are no pydantic model")
    stage = getattr(plugin, "STAGE", 1)
    if type(stage) is not int or not 0 <= stage <= 127:
        raise ValueError(f"names the stage {stage!r}, which is no number from 0 to 127")
    most = getattr(plugin, "MOST_CONCEPTS", None)
    if most is not None and (type(most) is not int or most < 1):
        raise ValueError(f"names MOST_CONCEPTS {most!r}, which is no number of concepts")
    fingerprint = getattr(plugin, "FINGERPRINT", "")
    if not isinstance(fingerprint, str) or unstorable((fingerprint,)):
        raise ValueError(f"names the fingerprint {fingerprint!r}, which is no text")
    licence = getattr(plugin, "LICENCE", None)
    if licence is not None and (not isinstance(licence, str) or unstorable((licence,))):
        raise ValueError(f"names the licence {licence!r}, which is no text")
    looks = getattr(plugin, "NEEDS_INTERPRETER", False)
    if not isinstance(looks, bool):
        raise ValueError(f"names NEEDS_INTERPRETER {looks!r}, which is neither True nor False")
    return Traits(options, stage, looks, most, fingerprint, licence)
