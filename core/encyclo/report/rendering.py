"""Pages from templates: everything is escaped but this package's own style, script, drawings and JSON."""

from __future__ import annotations

from importlib.resources import files as resources
from typing import Any

from encyclo.report.wording import shown


def render(template: str, context: dict[str, Any]) -> str:
    """Return the page that the package's `template` makes of `context`.

    The filter `own` marks text that must stand as it is: assets, plots, and data from `payload.as_json`.
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
