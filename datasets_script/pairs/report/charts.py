"""Charts of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from PIL import Image

from diffusers_artifact.artifact_types import RECORDS

from ...figures.charts import (
    BLUE,
    COLOR_OF_TYPE,
    FAINT,
    INK,
    ORANGE,
    RULE,
    legend_below,
    name_rows,
    new_figure,
    only_x,
    styled,
    to_image,
)
from ...schema.expected_types import expected_types
from .statistics import GRID, ConstantBox, Statistics, wilson_interval


_HALF, _WHOLE = 520, 1064
_NAMES_SHOWN = 15
_POINTS_SHOWN = 2000


@dataclass(frozen=True)
class Chart:
    """Chart with its alternative text."""

    image: Image.Image
    description: str


def make_charts(statistics: Statistics) -> list[Chart]:
    """
    Draw all charts in the order of the page.

    Args:
        statistics (`Statistics`): Statistics of at least one pair.

    Returns:
        `list[Chart]`: The charts; those without data are left out.
    """
    charts = [_types(statistics), _artifacts_per_pair(statistics), _positions(statistics), _sizes(statistics)]
    if statistics.sampled_changes():
        charts.append(_changes(statistics))
    charts.append(_names(statistics.entities, "entity", statistics.artifacts))
    if statistics.parts:
        charts.append(_names(statistics.parts, "part", sum(of.total() for of in statistics.parts.values())))
    charts.append(_words(statistics))
    if statistics.acceptance:
        charts.append(_acceptance(statistics.acceptance))
    return charts


@styled
def _types(statistics: Statistics) -> Chart:
    figure = new_figure(_HALF, 250)
    axes = figure.subplots()
    kinds = expected_types(statistics.types)
    numbers = [statistics.types[kind] for kind in kinds]
    axes.barh(kinds, numbers, color=[COLOR_OF_TYPE[kind] for kind in kinds], height=0.64)
    even = statistics.artifacts / len(kinds)
    axes.axvline(even, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for place, number in enumerate(numbers):
        _beside(axes, number, place, f"{number:,}  ({number / statistics.artifacts:.0%})")
    axes.set_xlim(0, 1.28 * max(numbers))
    axes.set(
        title=f"Artifacts by type, n = {statistics.artifacts:,}",
        xlabel="artifacts (dashed: equal numbers of all types)",
    )
    _finish_bars(axes)
    shares = ", ".join(f"{kind} {number}" for kind, number in zip(kinds, numbers, strict=True))
    return Chart(to_image(figure), f"Artifacts by type: {shares}.")


@styled
def _artifacts_per_pair(statistics: Statistics) -> Chart:
    figure = new_figure(_HALF, 250)
    axes = figure.subplots()
    places = range(1, max(3, *statistics.artifacts_per_pair) + 1)
    numbers = [statistics.artifacts_per_pair[place] for place in places]
    axes.bar([str(place) for place in places], numbers, color=BLUE, width=0.6)
    for place, number in enumerate(numbers):
        axes.annotate(
            f"{number:,}  ({number / statistics.pairs:.0%})", (place, number), (0, 4), textcoords="offset points",
            ha="center", fontsize=9.5,
        )  # fmt: skip
    axes.set_ylim(0, 1.15 * max(numbers))
    axes.set(title=f"Artifacts per image, n = {statistics.pairs:,} pairs", xlabel="artifacts in the artifact image")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylabel("pairs")
    axes.grid(axis="y")
    told = ", ".join(f"{number} with {place}" for place, number in zip(places, numbers, strict=True))
    return Chart(to_image(figure), f"Pairs by number of artifacts: {told}.")


@styled
def _positions(statistics: Statistics) -> Chart:
    figure = new_figure(_WHOLE, 300)
    kinds = expected_types(statistics.types)
    panels = figure.subplots(1, 1 + len(kinds))
    everywhere = sum(statistics.coverage.values(), np.zeros((GRID, GRID)))
    sums = {"all": everywhere} | {str(kind): statistics.coverage[kind] for kind in kinds}
    for axes, (name, cells) in zip(panels, sums.items(), strict=True):
        number = statistics.artifacts if name == "all" else statistics.types[name]
        axes.imshow(cells, cmap="cividis", extent=(0, 1, 1, 0), vmin=0, vmax=max(1e-9, cells.max()))
        axes.set_title(f"{name}, n = {number:,}", fontsize=10, color=COLOR_OF_TYPE.get(name, INK))
        axes.set_xlabel(f"brightest: {cells.max() / max(1, number):.0%} of boxes", loc="left")
        axes.set(xticks=(1 / 3, 2 / 3), yticks=(1 / 3, 2 / 3))
        axes.tick_params(labelbottom=False, labelleft=False, length=0)
        axes.grid(color="white", alpha=0.3, linewidth=0.8)
        axes.set_axisbelow(False)
        axes.spines[:].set_visible(False)
    _outline_constant_box(panels[0], statistics.constant_box)
    figure.suptitle(
        "Positions of artifacts: number of boxes that cover each place (dashed: the best constant box, mean IoU "
        f"{statistics.constant_box.mean_iou:.3f})",
        x=0.006,
        ha="left",
        fontsize=11,
        fontweight="bold",
    )
    row, column = np.unravel_index(everywhere.argmax(), everywhere.shape)
    description = (
        f"Heat maps of box positions. The place most often covered is {(column + 0.5) / GRID:.0%} across and "
        f"{(row + 0.5) / GRID:.0%} down, by {everywhere.max() / statistics.artifacts:.0%} of all boxes."
    )
    return Chart(to_image(figure), description)


def _outline_constant_box(axes: Axes, constant: ConstantBox) -> None:
    x_min, y_min, x_max, y_max = constant.box
    outline = Rectangle(
        (x_min, y_min), x_max - x_min, y_max - y_min, fill=False, edgecolor="white", linewidth=1.8, linestyle="--"
    )
    outline.set_clip_on(False)
    axes.add_patch(outline)


@styled
def _sizes(statistics: Statistics) -> Chart:
    figure = new_figure(_HALF, 330)
    axes = figure.subplots()
    kinds = expected_types(statistics.types)
    shares = {kind: [artifact.share for artifact in statistics.sampled_artifacts(kind)] for kind in kinds}
    everything = np.concatenate([np.asarray(of) for of in shares.values()])
    edges = np.geomspace(min(0.001, everything.min()), 1, 25)
    axes.hist(
        list(shares.values()), bins=list(edges), stacked=True, color=[COLOR_OF_TYPE[kind] for kind in shares],
        label=list(shares), rwidth=0.9,
    )  # fmt: skip
    median = float(np.median(everything))
    axes.axvline(median, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"median, {_percent(median)}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set(
        title=f"Box sizes, n = {_sampled(len(everything), statistics.artifacts)}",
        xlabel="share of the image that the box covers (logarithmic)",
        ylabel="artifacts",
    )
    axes.grid(axis="y")
    legend_below(axes)
    return Chart(to_image(figure), f"Histogram of box sizes; the median covers {_percent(median)}.")


@styled
def _changes(statistics: Statistics) -> Chart:
    figure = new_figure(_HALF, 330)
    axes = figure.subplots()
    changes = {kind: statistics.sampled_changes(kind) for kind in expected_types(statistics.types)}
    total = sum(len(of) for of in changes.values())
    least = 1e-4  # smaller changes are invisible, and zero has no place on a logarithmic axis
    for kind, of in changes.items():
        if of:
            points = np.asarray(of[: max(1, _POINTS_SHOWN * len(of) // max(total, _POINTS_SHOWN))])
            axes.scatter(
                np.maximum(points[:, 1], least), points[:, 0], s=22, marker=RECORDS[kind].marker,
                color=COLOR_OF_TYPE[kind], alpha=0.75, linewidths=0, label=kind,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="change outside all artifacts", ylabel="change inside the artifact")
    # Leave room below, so that the lines of equal ratio are recognisable as diagonals.
    x_low, x_high = axes.get_xlim()
    y_low, y_high = axes.get_ylim()
    y_low = min(y_low, 0.03)
    for ratio in (1, 3, 10, 30, 100, 300):
        axes.plot([x_low, x_high], [ratio * x_low, ratio * x_high], color=RULE, linewidth=1, zorder=0)
        if y_low < ratio * x_high < y_high:
            axes.annotate(f"{ratio}×", (x_high, ratio * x_high), (3, 0), textcoords="offset points", fontsize=8.5,
                          color=FAINT, va="center", annotation_clip=False)  # fmt: skip
    axes.set(xlim=(x_low, x_high), ylim=(y_low, y_high))
    axes.set_title(f"Change inside and outside, n = {_sampled(total, statistics.artifacts)}")
    legend_below(axes)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    description = "Scatter of the change inside each artifact over the change outside, with lines of equal ratio."
    return Chart(to_image(figure), description)


@styled
def _names(counts: Mapping[str, Counter[str]], what: str, total: int) -> Chart:
    names = sorted(counts, key=lambda name: (-counts[name].total(), name))
    shown = names[:_NAMES_SHOWN]
    figure = new_figure(_HALF, 130 + 22 * max(4, len(shown)))
    axes = figure.subplots()
    places, left = np.arange(len(shown)), np.zeros(len(shown))
    for kind in COLOR_OF_TYPE:
        numbers = np.asarray([counts[name][kind] for name in shown])
        if numbers.any():
            axes.barh(places, numbers, left=left, color=COLOR_OF_TYPE[kind], height=0.7, label=kind)
        left += numbers
    for place, number in enumerate(left):
        _beside(axes, number, place, f"{number:,.0f}")
    name_rows(axes, shown, length=24)
    axes.set_xlim(0, 1.12 * left.max())
    rest = len(names) - len(shown)
    others = f"; {rest:,} rarer ones not shown" if rest else ""
    axes.set(title=f"Artifacts by {what}, n = {total:,}{others}", xlabel="artifacts")
    _finish_bars(axes)
    legend_below(axes)
    told = ", ".join(f"{name} {counts[name].total()}" for name in shown[:5])
    return Chart(to_image(figure), f"Artifacts by {what}, the most frequent first: {told}.")


@styled
def _words(statistics: Statistics) -> Chart:
    figure = new_figure(_HALF, 300)
    of_artifact_axes, of_image_axes = figure.subplots(1, 2, sharex=True)
    of_artifacts = [artifact.words for artifact in statistics.sampled_artifacts()]
    of_images = [pair.words for pair in statistics.sample]
    most = max(*of_artifacts, *of_images, 1)
    step = -(-most // 25)
    edges = list(np.arange(0, most + 1 + step, step) - 0.5)
    for axes, words, what in ((of_artifact_axes, of_artifacts, "artifact"), (of_image_axes, of_images, "image")):
        median = float(np.median(words))
        axes.hist(words, bins=edges, color=BLUE, rwidth=0.9)
        axes.axvline(median, color=ORANGE, linewidth=1.4, linestyle=(0, (4, 3)))
        axes.set_title(f"per {what}: median {median:.0f}", fontsize=9.5, fontweight="normal")
        axes.set_xlabel("words")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y")
    figure.suptitle(
        f"Length of explanations, n = {len(of_artifacts):,} artifacts in {len(of_images):,} images",
        x=0.012, ha="left", fontsize=11, fontweight="bold",
    )  # fmt: skip
    medians = f"{np.median(of_artifacts):.0f} per artifact, {np.median(of_images):.0f} per image"
    description = f"Histograms of words: median {medians}."
    return Chart(to_image(figure), description)


@styled
def _acceptance(acceptance: Mapping[str, Mapping[str, int]]) -> Chart:
    kinds = list(acceptance)
    figure = new_figure(_HALF, 110 + 30 * max(3, len(kinds)))
    axes = figure.subplots()
    for place, kind in enumerate(kinds):
        accepted, made = acceptance[kind]["accepted"], acceptance[kind]["made"]
        low, high = wilson_interval(accepted, made)
        axes.barh(place, accepted / made, color=COLOR_OF_TYPE[kind.partition("/")[0]], height=0.62)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.4)
        axes.text(1.03, place, f"{accepted:,} of {made:,}", va="center", fontsize=9.5)
    axes.set_yticks(range(len(kinds)), [_spaced(kind) for kind in kinds])
    axes.set_xlim(0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    made = sum(of["made"] for of in acceptance.values())
    axes.set(title=f"Acceptance by curation, n = {made:,}", xlabel="share accepted, 95 % interval")
    axes.invert_yaxis()
    only_x(axes)
    told = "; ".join(f"{_spaced(kind)} {of['accepted']} of {of['made']}" for kind, of in acceptance.items())
    return Chart(to_image(figure), f"Artifacts accepted by curation: {told}.")


def _spaced(kind: str) -> str:
    """Write `"type/tool/kernel"` as `"type, kernel"`, since the tool follows from the type."""
    names = kind.split("/")
    return ", ".join([names[0], *names[2:]])


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", fontsize=9.5)


def _finish_bars(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.invert_yaxis()
    only_x(axes)


def _sampled(shown: int, total: int) -> str:
    return f"{total:,}" if shown == total else f"{shown:,} drawn of {total:,}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"
