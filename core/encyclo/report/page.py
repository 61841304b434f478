"""Build the page's context from a run's record, metrics and book; render it; write it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from encyclo import files
from encyclo.report.wording import clip, moment, shown
from encyclo.schema import Attributes, Book


def write_report(path: Path, record: dict[str, Any], metrics: dict[str, Any], book: Book) -> None:
    """Write the page about a run to `path`: one HTML file that needs no network and no script.

    `record` is run.json's content, `metrics` metrics.json's; a figure that is null there is said in words
    to be not measured. The same arguments give the same bytes.
    """
    files.write_text(path, _render(_context(record, metrics, book)))


def _context(record: dict[str, Any], metrics: dict[str, Any], book: Book) -> dict[str, Any]:
    """Return everything that the template prints, already in words."""
    from encyclo.report import entries, sections

    interpreter = str(sections.at(record, "config", "interpreter") or "interpreter")
    return {
        "model": book.attributes.model,
        "run": _run(record, book.attributes),
        "command": _command(record.get("command")),
        "figures": sections.key_figures(metrics, interpreter, book),
        "stages": sections.stages(metrics),
        "ladder": sections.ladder(metrics, interpreter),
        "families": sections.families(metrics),
        "convergence": sections.convergence(metrics, book.attributes),
        "no_halves": sections.NO_HALVES,
        "reliability": sections.reliability(metrics, interpreter),
        "no_calibration": sections.no_calibration(metrics),
        "trusted": entries.trusted(book),
        "categories": entries.by_category(book),
        "total": f"{len(book.concepts):,}",
        "details": _details(record),
    }


def _run(record: dict[str, Any], attributes: Attributes) -> list[tuple[str, str]]:
    """Return what was run, on which weights, when."""
    source = (record.get("provenance") or {}).get("model_source")
    layers = ", ".join(
        f"{layer} ({index})" for layer, index in zip(attributes.layers, attributes.layer_index, strict=True)
    )
    return [
        ("Model", attributes.model),
        ("Weights", str(source or "the run did not record where they came from")),
        ("Weights' sha256", f"{attributes.weights_sha256[:12]}…"),
        ("Layers", f"{layers.replace('-', '−')}; in brackets the same counted from the embedding, 0"),
        ("Pooling", attributes.pooling),
        ("Begun", moment(record.get("created") or attributes.created)),
        ("Run", f"{attributes.run_id}, encyclo {attributes.encyclo_version}"),
    ]


def _command(command: Any) -> str:
    """Return the command line as a shell would take it."""
    if isinstance(command, list | tuple):
        command = shlex.join(str(word) for word in command)
    return clip(str(command), 2000) if command else "not recorded"


def _details(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what it takes to repeat the run, as JSON under headings."""
    kept = {
        "Configuration": record.get("config"),
        "Plugins": (record.get("provenance") or {}).get("plugins"),
        "Versions": record.get("versions"),
        "Platform": record.get("platform"),
    }
    return [
        (heading, clip(json.dumps(value, indent=2, ensure_ascii=False), 20_000))
        for heading, value in kept.items()
        if value
    ]


def _render(context: dict[str, Any]) -> str:
    from importlib.resources import files as resources

    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # The plots are this package's own text, and the only text that is not escaped.
    def plot(svg: str) -> Markup:
        return Markup(svg)

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=shown
    )
    environment.filters["plot"] = plot
    source = resources("encyclo.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(context) + "\n"
