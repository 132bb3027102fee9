"""Figures of an evaluation: sheets of single cases, IoU curves and scores by artifact type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from PIL import Image, ImageDraw

from evaluate_metrics.functional.intervals import score_with_intervals

from . import style
from .charts import BLUE, FAINT, INK, ORANGE, name_rows, new_figure, only_x, styled, to_image
from .drawing import draw_legend, draw_swatch, draw_title, fitted, in_rows, with_mask, wrapped
from .lettering import draw_text
from .style import LINE, MARGIN, TEXT_FONT, TITLE_FONT


_TRUTH, _PREDICTION = style.BLUE, style.ORANGE
_TILE = 380
_GAP = 8
_CARD = 2 * _TILE + _GAP
_INDENT = 22
_LINES_OF_A_TEXT = 7

# Bin edges for the size of the true region, as a share of the image.
_SIZE_EDGES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, eq=False)
class Case:
    """
    An image with its true and its predicted regions.

    Attributes:
        id (`str`): Id of the image.
        image (`PIL.Image.Image`): The image as stored in the benchmark.
        truth (`np.ndarray` of shape `(height, width)`, `bool`): Union of the true regions.
        prediction (`np.ndarray` of shape `(height, width)`, `bool`): Union of the predicted regions.
        iou (`float`): IoU of `truth` and `prediction`, in [0, 1].
        truth_text (`str`, *optional*, defaults to `""`): True explanation; empty if there is none.
        predicted_text (`str`, *optional*, defaults to `""`): Predicted explanation; empty if there is none.
    """

    id: str
    image: Image.Image
    truth: np.ndarray
    prediction: np.ndarray
    iou: float
    truth_text: str = ""
    predicted_text: str = ""


def case_sheet(cases: Sequence[Case], title: str, columns: int = 2) -> Image.Image:
    """
    Draw a sheet of cases. Each shows the plain image, the image with the true and the predicted region in two
    colours, the IoU and both explanations.

    Args:
        cases (`Sequence[Case]`): At least one case, in the order to show.
        title (`str`): Title of the sheet, e.g. `"worst 6 of 500 images, protocol artiagent"`.
        columns (`int`, *optional*, defaults to 2): Number of cases per row.

    Returns:
        `PIL.Image.Image`: RGB; 1628 px wide for two columns.

    Raises:
        ValueError: `cases` is empty, or a mask does not have the size of its image.
    """
    if not cases:
        raise ValueError("`cases` must hold at least one case, got none")
    for case in cases:
        _check(case)
    cards = [_card(case) for case in cases]
    width = min(columns, len(cards)) * (_CARD + MARGIN) - MARGIN
    heading = wrapped(title, width, TITLE_FONT)
    sheet = in_rows(cards, columns, MARGIN + 34 * len(heading) + 40, MARGIN)
    draw = ImageDraw.Draw(sheet)
    below = draw_title(draw, heading)
    draw_legend(draw, [(_TRUTH, "true region"), (_PREDICTION, "predicted region")], below)
    return sheet


def success_curve(ious: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the share of images whose IoU is at least t, as a step function of t.

    Args:
        ious (`Sequence[float]` or `np.ndarray`): One IoU per image, in [0, 1].

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The thresholds at which the share falls, ascending from 0 to 1, and the share
        just above each threshold. At a threshold itself, images with exactly that IoU still count.

    Example:

    ```python
    >>> thresholds, shares = success_curve([0.0, 0.5])
    >>> thresholds.tolist(), shares.tolist()
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])

    ```
    """
    count = len(ious)
    thresholds = np.concatenate([[0.0], np.sort(ious), [1.0]])
    return thresholds, np.append(np.arange(count, -1, -1) / count, 0.0)


@styled
def reliability_of_boxes(
    ious: Sequence[float], true_shares: Sequence[float] | None = None, protocol: str = "artiagent"
) -> Image.Image:
    """
    Draw the share of images whose IoU is at least t over the threshold t. The area under the curve is the mean IoU.
    With `true_shares` a second panel shows the mean IoU by size of the true region.

    Args:
        ious (`Sequence[float]`): One IoU per image with artifacts, in [0, 1]; 0 where nothing was predicted.
        true_shares (`Sequence[float]`, *optional*): Share of each image that its true region covers, in [0, 1].
        protocol (`str`, *optional*, defaults to `"artiagent"`): Name of the scoring protocol, for the titles.

    Returns:
        `PIL.Image.Image`: The chart, RGB.

    Raises:
        ValueError: `ious` is empty, or `true_shares` has another length.
    """
    values = np.asarray(ious, dtype=np.float64)
    if not values.size:
        raise ValueError("`ious` must hold at least one IoU, got none")
    if true_shares is not None and len(true_shares) != len(values):
        raise ValueError(f"`true_shares` must have the length of `ious`, {len(values)}, got {len(true_shares)}")
    figure = new_figure(560 if true_shares is None else 1064, 400)
    panels = figure.subplots(1, 1 if true_shares is None else 2, squeeze=False)[0]
    _success_curve(panels[0], values, protocol)
    if true_shares is not None:
        _iou_by_size(panels[1], values, np.asarray(true_shares, dtype=np.float64), protocol)
    return to_image(figure)


@styled
def type_bars(
    recall_by_type: Mapping[str, float],
    intervals: Mapping[str, Sequence[float] | None],
    iou_by_type: Mapping[str, Sequence[float]],
    counts: Mapping[str, int] | None = None,
    protocol: str = "artiagent",
) -> Image.Image:
    """
    Draw the recall of image-level detection and the IoU of localization by artifact type, with 95 % intervals.

    Args:
        recall_by_type (`Mapping[str, float]`): Recall by type, as returned by the metric `artifact_detection`. Rows
            keep its order.
        intervals (`Mapping[str, Sequence[float] | None]`): Interval of each recall, `recall_by_type_interval` of the
            same metric; `None` where there is none.
        iou_by_type (`Mapping[str, Sequence[float]]`): IoUs of the images that have the type. Types without regions may
            be missing.
        counts (`Mapping[str, int]`, *optional*): Number of images that have the type; by default the number of IoUs.
        protocol (`str`, *optional*, defaults to `"artiagent"`): Scoring protocol of the IoU, for the title.

    Returns:
        `PIL.Image.Image`: The chart, RGB.

    Raises:
        ValueError: `recall_by_type` is empty.
    """
    if not recall_by_type:
        raise ValueError("`recall_by_type` must hold at least one type, got none")
    if counts is None:
        counts = {kind: len(ious) for kind, ious in iou_by_type.items()}
    figure = new_figure(1064, 120 + 40 * max(2, len(recall_by_type)))
    recall, iou = figure.subplots(1, 2, sharey=True)
    for place, (kind, value) in enumerate(recall_by_type.items()):
        _bar_with_interval(recall, place, value, intervals.get(kind), BLUE)
        if ious := iou_by_type.get(kind):
            mean, interval = _mean_with_interval(ious)
            _bar_with_interval(iou, place, mean, interval, ORANGE)
        else:
            iou.annotate("no regions", (0, place), (5, 0), textcoords="offset points", va="center", color=FAINT)
    notes = [f"  (n = {counts[kind]:,})" if counts.get(kind) else "" for kind in recall_by_type]
    name_rows(recall, list(recall_by_type), notes=notes)
    recall.invert_yaxis()
    for axes, title, label in (
        (recall, "Recall by type", "share detected, of the images with the type"),
        (iou, f"IoU by type, protocol {protocol}", "mean IoU of the images with the type"),
    ):
        axes.set(title=title, xlabel=f"{label}, 95 % interval", xlim=(0, 1.08), xticks=(0, 0.25, 0.5, 0.75, 1))
        only_x(axes)
    return to_image(figure)


def _check(case: Case) -> None:
    shape = (case.image.height, case.image.width)
    for name, mask in (("truth", case.truth), ("prediction", case.prediction)):
        if mask.shape != shape:
            raise ValueError(f"`{name}` of case '{case.id}' must have the shape {shape}, got {mask.shape}")


def _card(case: Case) -> Image.Image:
    plain = fitted(case.image, _TILE)
    marked = with_mask(plain, case.truth, _TRUTH, 0.4, outline=3, halo=True)
    marked = with_mask(marked, case.prediction, _PREDICTION, 0.25, outline=3, halo=True)
    texts = [
        (_TRUTH, _text_lines(f"truth: {case.truth_text or 'no explanation'}")),
        (_PREDICTION, _text_lines(f"predicted: {case.predicted_text or 'no explanation'}")),
    ]
    height = plain.height + 12 + LINE * (1 + sum(len(lines) for _, lines in texts))
    card = Image.new("RGB", (_CARD, height), "white")
    for index, tile in enumerate((plain, marked)):
        card.paste(tile, (index * (_TILE + _GAP), 0))
    draw, top = ImageDraw.Draw(card), plain.height + 8
    empty = "" if case.prediction.any() else ", nothing predicted"
    draw_text(draw, (0, top), wrapped(f"IoU {case.iou:.3f}{empty} · {case.id}", _CARD)[0], style.INK, TEXT_FONT)
    for color, lines in texts:
        draw_swatch(draw, (0, top + LINE + 3), color)
        for line in lines:
            top += LINE
            draw_text(draw, (_INDENT, top), line, style.INK, TEXT_FONT)
    return card


def _text_lines(text: str) -> list[str]:
    lines = wrapped(text, _CARD - _INDENT)
    if len(lines) > _LINES_OF_A_TEXT:
        lines = [*lines[: _LINES_OF_A_TEXT - 1], lines[_LINES_OF_A_TEXT - 1][:-1].rstrip() + "…"]
    return lines


def _success_curve(axes: Axes, values: np.ndarray, protocol: str) -> None:
    thresholds, shares = success_curve(values)
    axes.step(thresholds, shares, where="post", color=BLUE, linewidth=2)
    axes.fill_between(thresholds, shares, step="post", color=BLUE, alpha=0.12, linewidth=0)
    mean = float(values.mean())
    axes.axvline(mean, color=ORANGE, linewidth=1.6, linestyle=(0, (4, 3)))
    axes.set_title(f"Images by IoU, protocol {protocol}, n = {len(values):,}")
    axes.set(xlabel=f"threshold t (dashed: mean IoU, {mean:.3f})", ylabel="images with IoU of at least t")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(FuncFormatter(_as_percent))
    axes.grid()


def _iou_by_size(axes: Axes, values: np.ndarray, shares: np.ndarray, protocol: str) -> None:
    bins = np.clip(np.searchsorted(_SIZE_EDGES, shares, side="right") - 1, 0, len(_SIZE_EDGES) - 2)
    names = []
    for place in range(len(_SIZE_EDGES) - 1):
        own = values[bins == place]
        names.append(f"{_as_percent(_SIZE_EDGES[place])}–{_as_percent(_SIZE_EDGES[place + 1])}\nn = {len(own):,}")
        if not len(own):
            continue
        mean, interval = _mean_with_interval(list(own))
        axes.bar(place, mean, color=ORANGE, width=0.6)
        axes.plot([place, place], interval, color=INK, linewidth=1.4)
        axes.annotate(f"{mean:.2f}", (place, interval[1]), (0, 4), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(names)), names)
    axes.set_title(f"IoU by size of the true region, protocol {protocol}")
    axes.set(xlabel="share of the image that the true region covers", ylabel="mean IoU, 95 % interval", ylim=(0, 1.12))
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.grid(axis="y")


def _bar_with_interval(axes: Axes, place: int, value: float, interval: Sequence[float] | None, color: str) -> None:
    axes.barh(place, value, color=color, height=0.6)
    end = value
    if interval is not None:
        axes.plot(list(interval), [place, place], color=INK, linewidth=1.4)
        end = max(value, interval[1])
    axes.annotate(f"{value:.3f}", (end, place), (5, 0), textcoords="offset points", va="center", annotation_clip=False)


def _mean_with_interval(values: Sequence[float]) -> tuple[float, list[float]]:
    sums, count = np.column_stack([values, np.ones(len(values))]), {"mean": len(values)}
    result = score_with_intervals(sums, _mean_of_sums, totals=count)
    return result["mean"], result["mean_interval"]


def _mean_of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": sums[:, 0] / sums[:, 1]}


def _as_percent(share: float, _: int = 0) -> str:
    return f"{100 * share:g}%"
