"""The plots, as SVG text in the page's colours and fonts, light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from encyclo.report.wording import known
from encyclo.statistics.figures import Accuracy, LayerConvergence

# Figures are drawn in these colours, which are then replaced by the style sheet's (Okabe and Ito's palette),
# so that one figure is legible on a light and on a dark page.
INK, RULE, FIRST, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
_STYLED = {INK: "currentColor", RULE: "var(--rule)", FIRST: "var(--first)", SECOND: "var(--second)"}

FEW_BINS = 6
"""With more bins than this, a reliability plot's numbers of readings stand upright."""
# About a phone's width in points at font size 10, so that text stays readable unscaled.
_SIZE = (4.7, 3.3)


def difference_plot(layers: Sequence[tuple[str, LayerConvergence]]) -> str:
    """Return the raw and the centred difference of halves at each layer, with a line at 5%."""
    with _figure("difference") as figure:
        axes = figure.subplots()
        _lines(axes, layers, (("raw_rel_diff", "raw"), ("centred_rel_diff", "centred")))
        _show_difference(axes)
        return _svg(figure, axes)


def cosine_plot(layers: Sequence[tuple[str, LayerConvergence]]) -> str:
    """Return the cosine of halves at each layer, and its null: the cosine with another concept's half."""
    with _figure("cosine") as figure:
        axes = figure.subplots()
        _lines(axes, layers, (("cosine", "same concept"), ("null_cosine", "null: another concept")))
        axes.set_ylim(top=1.02)
        axes.set_ylabel("cosine of halves")
        return _svg(figure, axes)


def reliability_plot(series: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> str:
    """Return accuracy over confidence with 95% intervals, and below it the number of readings in each bin.

    `series` holds at most two names, each with its bins (confidence, accuracy, count).
    """
    from matplotlib.ticker import LogLocator

    with _figure("reliability", height=4.6) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        top.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        crowded = any(len(bins) > FEW_BINS for _, bins in series)
        for place, (name, bins) in enumerate(series):
            colour, marker, _ = _LOOKS[place]
            confidence, accuracy, counts = zip(*bins, strict=True)
            # No line between bins: it would make much of those with a single reading.
            spans = list(
                zip(*(_exact_span(a, n) for a, n in zip(accuracy, counts, strict=True)), strict=True)
            )
            top.errorbar(
                confidence, accuracy, yerr=spans, color=colour, marker=marker, linestyle="none", elinewidth=1,
                label=_plain(name),
            )  # fmt: skip
            # Side by side, so that one's bar does not hide the other's.
            shifted = [c + (place - (len(series) - 1) / 2) * 0.02 for c in confidence]
            bottom.bar(shifted, counts, width=0.018, color=colour)
            side = "center" if len(series) == 1 else ("right", "left")[place]
            for at, count in zip(shifted, counts, strict=True):
                bottom.text(
                    at, count * 1.1, f"{count:,.0f}", ha=side, va="bottom", fontsize=7 if crowded else 8,
                    rotation=90 if crowded else 0, color=colour,
                )  # fmt: skip
        top.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="share read right")
        bottom.set(xlabel="confidence of the reading", ylabel="readings", yscale="log")
        bottom.set_ylim(
            0.7, 8 * max(count for _, bins in series for *_, count in bins)
        )  # room for the numbers
        for axis in (top.yaxis, bottom.xaxis):
            axis.set_major_formatter(lambda value, _: f"{value:.0%}")
        bottom.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        bottom.yaxis.set_major_locator(LogLocator(numticks=6))
        bottom.minorticks_off()
        return _svg(figure, top, bottom)


def _exact_span(share: float, count: float) -> tuple[float, float]:
    """Return how far the exact 95% interval of a share of `count` readings reaches below and above it."""
    from scipy.stats import binomtest

    whole = max(1, round(count))
    found = binomtest(min(max(round(share * whole), 0), whole), whole).proportion_ci()
    return max(0.0, share - float(found.low)), max(0.0, float(found.high) - share)


def curve_plot(curve: Sequence[tuple[int, int, float, float]]) -> str:
    """Return the raw and the centred difference of halves over their size, with a line at 5%.

    `curve` holds (samples in a half, entries, raw, centred).
    """
    with _figure("curve") as figure:
        axes = figure.subplots()
        sizes = [size for size, *_ in curve]
        for place, label in enumerate(("raw", "centred")):
            colour, marker, style = _LOOKS[place]
            values = [row[2 + place] for row in curve]
            axes.plot(sizes, values, color=colour, marker=marker, linestyle=style, label=label)
        _show_difference(axes)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("samples in a half")
        return _svg(figure, axes)


def ladder_plot(names: Sequence[str], rungs: Sequence[tuple[str, Sequence[tuple[str, Accuracy]]]]) -> str:
    """Return top-1 at each rung with its interval, and its null as an upright bar; at most two readers.

    `rungs` holds (rung, [(reader, metrics.json's figures)]).
    """
    with _figure("ladder", height=0.9 + 0.55 * len(rungs)) as figure:
        axes = figure.subplots()
        for place, name in enumerate(names):
            colour, marker, _ = _LOOKS[place]
            points = [(y, dict(rows)[name]) for y, (_, rows) in enumerate(rungs) if name in dict(rows)]
            heights = [y + (place - (len(names) - 1) / 2) * 0.3 for y, _ in points]
            tops = [row.top1 or 0.0 for _, row in points]
            spans = [_span(row, top) for (_, row), top in zip(points, tops, strict=True)]
            axes.errorbar(
                tops, heights, xerr=list(zip(*spans, strict=True)), color=colour, marker=marker, linestyle="none",
                capsize=3, label=_plain(name),
            )  # fmt: skip
            nulls = [
                (n, h) for (_, row), h in zip(points, heights, strict=True) if (n := _null(row)) is not None
            ]
            label = {"label": "null"} if place == 0 else {}
            axes.plot([n for n, _ in nulls], [h for _, h in nulls], "|", color=INK, markersize=9, **label)
        axes.set_yticks(range(len(rungs)), [_plain(rung) for rung, _ in rungs])
        axes.set(xlim=(-0.03, 1.03), ylim=(len(rungs) - 0.4, -0.6), xlabel="share read right (top-1)")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        return _svg(figure, axes, grid="x")


def coverage_plot(series: Sequence[tuple[str, str, bool, Sequence[Sequence[float]]]]) -> str:
    """Return the accuracy of the most confident readings, over the share of readings answered.

    `series` holds (rung, reader, whether it is the run's own, [[coverage, accuracy], ...]).
    """
    with _figure("coverage") as figure:
        axes = figure.subplots()
        rungs = list(dict.fromkeys(rung for rung, *_ in series))
        for rung, name, own, points in series:
            axes.plot(
                [share for share, *_ in points], [right for _, right, *_ in points],
                color=(FIRST, SECOND)[rungs.index(rung) % 2], marker="o" if own else "s",
                linestyle="solid" if own else (0, (5, 2)), label=f"{rung}: {_plain(name)}",
            )  # fmt: skip
        axes.set(
            xlim=(0, 1.03),
            xlabel="share of readings answered, most confident first",
            ylabel="share read right",
        )
        axes.set_ylim(top=1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:.0%}")
        return _svg(figure, axes)


def explained_plot(sizes: Sequence[int], series: Mapping[str, Sequence[float | None]]) -> str:
    """Return the share of activations that so many directions rebuild; `series` holds at most four names."""
    looks = (*_LOOKS, (INK, "^", (0, (1, 1.5))), (INK, "x", (0, (4, 1.5, 1, 1.5))))
    with _figure("explained") as figure:
        axes = figure.subplots()
        for (name, shares), (colour, marker, style) in zip(series.items(), looks, strict=False):
            values = [float("nan") if share is None else share for share in shares]
            axes.plot(sizes, values, color=colour, marker=marker, linestyle=style, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set(ylim=(0, 1.02), xlabel="directions for a token", ylabel="share rebuilt")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        return _svg(figure, axes)


def _span(row: Accuracy, top: float) -> tuple[float, float]:
    """Return the interval's lengths below and above the figure; 0 if it was not measured."""
    low, high = known(row.top1_low), known(row.top1_high)
    return (0.0, 0.0) if low is None or high is None else (max(0.0, top - low), max(0.0, high - top))


def _null(row: Accuracy) -> float | None:
    """Return the measured null, or else the accuracy of a guess."""
    measured = known(row.null.top1) if row.null else None
    return measured if measured is not None or not row.candidates else 1 / row.candidates


# Colour, marker and line differ together, so that no two series differ by colour alone.
_LOOKS = ((FIRST, "o", "solid"), (SECOND, "s", (0, (5, 2))))


def _lines(
    axes: Any, layers: Sequence[tuple[str, LayerConvergence]], series: Sequence[tuple[str, str]]
) -> None:
    places = range(len(layers))
    for (key, label), (colour, marker, style) in zip(series, _LOOKS, strict=True):
        figures = (known(getattr(row, key)) for _, row in layers)
        values = [float("nan") if figure is None else figure for figure in figures]
        axes.plot(places, values, color=colour, marker=marker, linestyle=style, label=label)
    axes.set_xticks(places, [_plain(name).replace("-", "−") for name, _ in layers])
    if len(layers) > 9:  # many upright labels would overlap
        axes.tick_params(axis="x", rotation=90, labelsize=8)
    axes.set_xlim(-0.4, len(layers) - 0.6)
    axes.set_xlabel("layer, deepest last")


def _show_difference(axes: Any) -> None:
    """Let the upright axis show a difference of halves, with a line at 5%."""
    axes.axhline(0.05, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.995, 0.05, "5%", color=INK, ha="right", va="bottom", transform=axes.get_yaxis_transform())
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("difference of halves")


def _svg(figure: Any, *axes: Any, grid: str = "y") -> str:
    """Lighten the frame, put the legend above the plot, and return the SVG."""
    for some in axes:
        some.grid(axis=grid, color=RULE, linewidth=0.8)
        some.set_axisbelow(True)
        some.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    if "null" in labels:  # the null comes last
        last = labels.index("null")
        handles, labels = (x[:last] + x[last + 1 :] + [x[last]] for x in (handles, labels))
    legend = figure.legend(
        handles, labels, loc="outside upper left", ncols=2 if len(labels) == 4 else 3, frameon=False,
        labelcolor=INK, handlelength=2.6, columnspacing=1.2, borderaxespad=0.1,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue(), figure.get_label())


def _plain(name: str) -> str:
    """Return a plugin's or layer's name, shortened, in characters that every font has."""
    return name.encode("ascii", "replace").decode()[:24]


@contextmanager
def _figure(name: str, height: float = _SIZE[1]) -> Iterator[Any]:
    """Give a figure, to be drawn and turned into SVG in the block.

    The user's matplotlibrc is ignored: the same run gives the same bytes anywhere.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 10, "lines.markersize": 5}
            | {f"{part}.color": INK for part in ("text", "xtick", "ytick")}
            | {"axes.labelcolor": INK, "axes.edgecolor": INK, "axes.linewidth": 0.8}
        )
        figure = Figure(figsize=(_SIZE[0], height), layout="constrained", label=name)
        FigureCanvasSVG(figure)
        yield figure


def _inline(svg: str, name: str) -> str:
    """Return an SVG file's text for use inside a page: without prologue, style and shared ids."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|version)="[^"]*"', "", head)
    svg = f'{head} aria-hidden="true" focusable="false">{rest}'
    # Two figures on a page must not share ids: a clip path would cut the wrong one.
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    # Use the page's font: matplotlib would name one that the reader may not have.
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for drawn, styled in _STYLED.items():
        svg = svg.replace(drawn, styled)
    return re.sub(r"\n\s*", "\n", svg)
