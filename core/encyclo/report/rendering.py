"""Render templates: everything is escaped except this package's own style, script, plots and JSON."""

from __future__ import annotations

from importlib.resources import files as resources
from typing import Any

from encyclo.report.wording import shown


def render(template: str, context: dict[str, Any]) -> str:
    """Return the package's `template` filled with `context`.

    The filter `own` marks text that must not be escaped: assets, plots, and data from `payload.as_json`.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def own(text: str) -> Markup:
        return Markup(text)

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=shown
    )
    environment.filters["own"] = own
    source = resources("encyclo.report").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(context) + "\n"
