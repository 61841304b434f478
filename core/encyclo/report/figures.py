"""The plots, as SVG text that the page's own colours and fonts style, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from encyclo.report.wording import known

# Drawn in these colours and rewritten: what a figure means by ink or by a series is the style sheet's
# choice (Okabe and Ito's palette), so that one figure is legible on a light and on a dark page.
INK, RULE, FIRST, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
_STYLED = {INK: "currentColor", RULE: "var(--rule)", FIRST: "var(--first)", SECOND: "var(--second)"}

# About a phone's width in points at font size 10, so that text stays readable unscaled.
_SIZE = (4.7, 3.3)


def difference_plot(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the raw and the centred difference of halves at each layer, with a line at 5%."""
    with _figure("difference") as (figure, svg):
        axes = figure.subplots()
        _lines(axes, layers, (("raw_rel_diff", "raw"), ("centred_rel_diff", "centred")))
        axes.axhline(0.05, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(0.995, 0.05, "5%", color=INK, ha="right", va="bottom", transform=axes.get_yaxis_transform())
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_ylabel("difference of halves")
        _finish(figure, axes)
    return svg()


def cosine_plot(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the cosine of halves at each layer beside its null: another concept's half."""
    with _figure("cosine") as (figure, svg):
        axes = figure.subplots()
        _lines(axes, layers, (("cosine", "same concept"), ("null_cosine", "null: another concept")))
        axes.set_ylim(top=1.02)
        axes.set_ylabel("cosine of halves")
        _finish(figure, axes)
    return svg()


def reliability_plot(series: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> str:
    """Return accuracy over confidence, and below it how many readings each bin holds.

    `series` holds at most two names, each with its bins (confidence, accuracy, count).
    """
    from matplotlib.ticker import LogLocator

    with _figure("reliability", height=4.6) as (figure, svg):
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        top.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        for place, (name, bins) in enumerate(series):
            colour, marker, style = _LOOKS[place]
            confidence, accuracy, counts = zip(*bins, strict=True)
            top.plot(confidence, accuracy, color=colour, marker=marker, linestyle=style, label=_plain(name))
            # Side by side, so that one's bar does not hide the other's.
            beside = [c + (place - (len(series) - 1) / 2) * 0.02 for c in confidence]
            bottom.bar(beside, counts, width=0.018, color=colour)
        top.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="share read right")
        bottom.set(xlabel="confidence of the reading", ylabel="readings", yscale="log")
        bottom.set_ylim(bottom=0.7)
        for axis in (top.yaxis, bottom.xaxis):
            axis.set_major_formatter(lambda value, _: f"{value:.0%}")
        bottom.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        bottom.yaxis.set_major_locator(LogLocator(numticks=6))
        bottom.minorticks_off()
        _finish(figure, top, bottom)
    return svg()


# Colour, marker and line differ together: no series is told from another by colour alone.
_LOOKS = ((FIRST, "o", "solid"), (SECOND, "s", (0, (5, 2))))


def _lines(
    axes: Any, layers: Sequence[tuple[str, Mapping[str, Any]]], series: Sequence[tuple[str, str]]
) -> None:
    places = range(len(layers))
    for (key, label), (colour, marker, style) in zip(series, _LOOKS, strict=True):
        figures = (known(row.get(key)) for _, row in layers)
        values = [float("nan") if figure is None else figure for figure in figures]
        axes.plot(places, values, color=colour, marker=marker, linestyle=style, label=label)
    axes.set_xticks(places, [_plain(name).replace("-", "−") for name, _ in layers])
    if len(layers) > 9:  # upright labels of many layers would run into each other
        axes.tick_params(axis="x", rotation=90, labelsize=8)
    axes.set_xlim(-0.4, len(layers) - 0.6)
    axes.set_xlabel("layer, deepest last")


def _finish(figure: Any, *axes: Any) -> None:
    """Take away the frame's weight and put the legend above the plot."""
    for some in axes:
        some.grid(axis="y", color=RULE, linewidth=0.8)
        some.set_axisbelow(True)
        some.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, labelcolor=INK,
        handlelength=2.6, columnspacing=1.2, borderaxespad=0.1,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _plain(name: str) -> str:
    """Return a plugin's or layer's name short, in characters that every font has."""
    return name.encode("ascii", "replace").decode()[:24]


@contextmanager
def _figure(name: str, height: float = _SIZE[1]) -> Iterator[tuple[Any, Callable[[], str]]]:
    """Give a figure, and a function that returns its SVG once the block has ended.

    The reader's own matplotlibrc is set aside: the same run gives the same bytes anywhere.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    written: list[str] = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 10, "lines.markersize": 5}
            | {f"{part}.color": INK for part in ("text", "xtick", "ytick")}
            | {"axes.labelcolor": INK, "axes.edgecolor": INK, "axes.linewidth": 0.8}
        )
        figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, lambda: written[0]
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        written.append(_inline(buffer.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """Return a stand-alone SVG file's text as part of a page: no prologue, no style or id of its own."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|version)="[^"]*"', "", head)
    svg = f'{head} aria-hidden="true" focusable="false">{rest}'
    # Two figures on a page must not share ids: a clip path would cut the wrong one.
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    # The page's font; matplotlib would name one that the reader need not have.
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for drawn, styled in _STYLED.items():
        svg = svg.replace(drawn, styled)
    return re.sub(r"\n\s*", "\n", svg)
