"""The function `compare`, the Python form of `artiagent compare`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from evaluate_metrics.functional.intervals import Bootstrap

from ..agents.curation.perceptual import check_perceptual_metric, load_perceptual_metric
from ..detection.images import upright
from ..detection.scoring import load_detector, load_reward
from ..utils.errors import ArgumentError
from .diversity import DIVERSITY, diversities
from .folders import Compared, match_folders
from .given_scores import read_given_scores
from .measures import ArtifactMeasure, Measure, MeasuredColumn, RewardMeasure, SharpnessMeasure, labels_of
from .scores import ColumnScores, Comparison, score_column
from .settings import ComparisonSettings
from .text_image import clip_t, pickscore
from .writing import write_comparison


def compare(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    device: str | None = None,
    **settings: Any,
) -> Comparison:
    """
    Compare folders of images pair by pair: each other one with the first.

    Args:
        folders (`Sequence[str]`): At least two, written by [`~datasets_script.generation.generate.generate`] from
            equal prompts and seeds, or folders of images with equal names.
        out (`str` or `os.PathLike`): Folder to write: `compare.html`, `compare.md`, `compare.json` and `values.jsonl`,
            the values of single images.
        device (`str`, *optional*): Device of the models; by default CUDA if available, else the CPU.
        settings: See [`ComparisonSettings`].

    Returns:
        `Comparison`: The scores, with 95 % intervals of pairs. The bootstrap draws prompts.

    Raises:
        ArgumentError, UserError: The images do not belong together, or a model cannot be loaded.
    """
    chosen, places = ComparisonSettings(**settings), [Path(folder) for folder in folders]
    compared = match_folders(places)
    several = len(set(compared.groups)) < len(compared.images)
    if several and chosen.diversity != "none":
        check_perceptual_metric(chosen.diversity)
    given = [read_given_scores(name, places, compared) for name in chosen.scores]
    measures = load_measures(chosen, compared, device)
    names = [column.name for measure in measures for column in measure.columns] + list(chosen.scores)
    if same := next((name for name in chosen.scores if names.count(name) > 1), None):
        raise ArgumentError(
            f"`scores` must have names of their own, got '{same}', which is measured or given too; rename its files"
        )
    columns = [*measured(measures, compared, chosen.batch_size), *given]
    bootstrap = Bootstrap(chosen.n_resamples, seed=chosen.seed)
    scores = [score_column(column, compared.groups, bootstrap) for column in columns]
    if several and chosen.diversity != "none":
        groups, diversity = diversities(compared, load_perceptual_metric(chosen.diversity))
        scores.append(score_column(diversity, groups, bootstrap))
    comparison = Comparison(compared.names, tuple(scores), tuple(_notes(compared, scores)))
    write_comparison(Path(out), comparison, compared, columns, measures, asdict(chosen))
    return comparison


def load_measures(settings: ComparisonSettings, compared: Compared, device: str | None) -> list[Measure]:
    """
    Load what is measured of single images.

    Args:
        settings (`ComparisonSettings`): The models.
        compared (`Compared`): The folders.
        device (`str`, *optional*): Device of the models.

    Raises:
        ArgumentError: A model cannot be loaded, or needs prompts that are not known.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    measures: list[Measure] = []
    for name, label in zip(settings.detectors, labels_of(settings.detectors), strict=True):
        measures.append(ArtifactMeasure(load_detector(name, device), label))
    if settings.reward:
        measures.append(RewardMeasure(load_reward(settings.reward, device)))
    for argument, model, load in (("clip", settings.clip, clip_t), ("pickscore", settings.pickscore, pickscore)):
        if model is None:
            continue
        if not all(image.prompt for image in compared.images):
            raise ArgumentError(
                f"`{argument}` needs the prompts of the images, which only `artiagent generate` records"
            )
        measures.append(load(model, device))
    return [*measures, SharpnessMeasure()]


def measured(measures: Sequence[Measure], compared: Compared, batch_size: int) -> list[MeasuredColumn]:
    """
    Measure all images.

    Args:
        measures (`Sequence[Measure]`): What to measure.
        compared (`Compared`): The folders.
        batch_size (`int`): Images measured together.

    Returns:
        `list[MeasuredColumn]`: The columns of all measures, in order.
    """
    columns = [
        MeasuredColumn(column, [[] for _ in compared.names], [any(map(measure.chose, by)) for by in compared.scorers])
        for measure in measures
        for column in measure.columns
    ]
    by_name = {of.column.name: of.values for of in columns}
    with tqdm(desc="measuring", total=len(compared.names) * len(compared.images), unit="image") as bar:
        for place in range(len(compared.names)):
            waiting = iter(compared.images)
            while batch := list(islice(waiting, batch_size)):
                images = [upright(image.paths[place]) for image in batch]
                for measure in measures:
                    for of_image in measure(images, [image.prompt for image in batch]):
                        for name, value in of_image.items():
                            by_name[name][place].append(value)
                bar.update(len(batch))
    return columns


def _notes(compared: Compared, scores: Sequence[ColumnScores]) -> Iterator[str]:
    groups = len(set(compared.groups))
    yield (
        f"Means of {len(compared.images)} images of {groups} prompts or names, with 95 % bootstrap intervals over "
        "them; changes are those of pairs of images."
    )
    if groups == 1:
        yield "A single prompt has no interval: generate images of more prompts."
    sizes = {_size(image.paths[place]) for image in compared.images for place in range(len(compared.names))}
    if len(sizes) > 1:
        told = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:4])
        yield f"The images differ in size ({told}): sharpness and detectors depend on it."
    if all(of.column.name != DIVERSITY.name for of in scores):
        yield "Diversity is not measured: it needs several images of a prompt (--images-per-prompt) and --diversity."


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
