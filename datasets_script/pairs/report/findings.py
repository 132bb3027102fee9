"""Simple rules that find biases of a dataset and put them into words."""

from __future__ import annotations

import statistics as middle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from diffusers_artifact.artifact_types import RECORDS
from diffusers_artifact.mapping import ARTIFACT_TYPES, ArtifactType

from ...agents.curation.measures import inside_outside_ratio
from .statistics import Statistics, wilson_interval


# Below this number of artifacts, the 95 % interval of a share is up to 20 points wide.
_FEW = 100
# Number of artifacts below which a rule makes no statement about a group of them.
_ENOUGH = 20
# Labels that agree less with what visibly changed teach a detector to err.
_LEAST_BOX_IOU, _LEAST_MASK_IOU = 0.9, 0.85
# A model that ignores the image should stay below this mean IoU.
_HIGH_CONSTANT_IOU = 0.15


@dataclass(frozen=True)
class Finding:
    """Statement of a rule; `is_bias` marks a bias that a model can learn, as opposed to information."""

    rule: str
    text: str
    is_bias: bool = True


def find_biases(statistics: Statistics, recorded_pairs: int) -> list[Finding]:
    """
    Apply all rules to a dataset.

    Args:
        statistics (`Statistics`): Statistics of at least one pair.
        recorded_pairs (`int`): Number of pairs that the run records.

    Returns:
        `list[Finding]`: The findings, biases first.
    """
    found = [finding for rule in _RULES for finding in rule(statistics)]
    if recorded_pairs != statistics.pairs:
        text = f"run.json records {recorded_pairs} pairs, but the files hold {statistics.pairs}."
        found.insert(0, Finding("missing_pairs", text))
    return sorted(found, key=lambda finding: not finding.is_bias)


def _size(counts: Statistics) -> Iterator[Finding]:
    if counts.artifacts < _FEW:
        low, high = wilson_interval(round(counts.artifacts / 2), counts.artifacts)
        text = (
            f"{counts.artifacts} artifacts are few: any share below may be off by {100 * (high - low) / 2:.0f} points."
        )
        yield Finding("few_flaws", text)


def _types(counts: Statistics) -> Iterator[Finding]:
    even = 1 / len(ARTIFACT_TYPES)
    shares = {kind: counts.types[kind] / counts.artifacts for kind in ARTIFACT_TYPES}
    for kind, share in shares.items():
        name = RECORDS[kind].plural
        if share == 0:
            yield Finding("type_balance", f"There are no {name}.")
        elif share > 1.5 * even or share < even / 1.5:
            text = f"{name.capitalize()} are {share:.0%} of all artifacts; an even share is {even:.0%}."
            yield Finding("type_balance", text)
    if all(even / 1.5 <= share <= 1.5 * even for share in shares.values()):
        yield Finding("type_balance", f"Types are even: {_listed(shares)}.", is_bias=False)


def _acceptance(counts: Statistics) -> Iterator[Finding]:
    made, kept = (sum(of[name] for of in counts.acceptance.values()) for name in ("made", "accepted"))
    if not made:
        return
    yield Finding("acceptance", f"{kept} of {made} artifacts made were kept ({kept / made:.0%}).", is_bias=False)
    for kind, of in counts.acceptance.items():
        if of["made"] >= _ENOUGH and of["accepted"] / of["made"] < 0.5 * kept / made:
            text = (
                f"{kind.replace('/', ' by ', 1).replace('/', ', ')}: {of['accepted']} of {of['made']} were kept "
                f"({of['accepted'] / of['made']:.0%}); the remaining ones are the easy cases."
            )
            yield Finding("acceptance", text)


def _positions(counts: Statistics) -> Iterator[Finding]:
    centre = counts.ninths[1, 1] / counts.artifacts
    text = f"{centre:.0%} of artifacts have their centre in the middle ninth of the image; an even spread has 11%."
    yield Finding("position", text, is_bias=centre > 2 / 9)
    for share, where in (
        (counts.ninths[0].sum(), "upper third"),
        (counts.ninths[2].sum(), "lower third"),
        (counts.ninths[:, 0].sum(), "left third"),
        (counts.ninths[:, 2].sum(), "right third"),
    ):
        if counts.artifacts >= _ENOUGH and share / counts.artifacts < 1 / 6:
            told = f"{share / counts.artifacts:.0%} of artifacts have their centre in the {where}"
            yield Finding("position", f"Only {told}; an even spread has 33%.")


def _sizes(counts: Statistics) -> Iterator[Finding]:
    shares = sorted(artifact.share for artifact in counts.sampled_artifacts())
    low, high = shares[len(shares) // 10], shares[-1 - len(shares) // 10]
    text = (
        f"The median box covers {_percent(middle.median(shares))} of the image; four of five cover "
        f"{_percent(low)} to {_percent(high)}. A detector trained on them sees few smaller or larger ones."
    )
    yield Finding("size", text, is_bias=high < 8 * low)


def _sizes_by_type(counts: Statistics) -> Iterator[Finding]:
    for kind in ARTIFACT_TYPES:
        own = [artifact.share for artifact in counts.sampled_artifacts(kind)]
        others = [artifact.share for artifact in counts.sampled_artifacts() if artifact.type != kind]
        if min(len(own), len(others)) < _ENOUGH:
            continue
        ratio = middle.median(own) / middle.median(others)
        if not 0.5 < ratio < 2:
            text = (
                f"The median box of {RECORDS[kind].plural} covers {_percent(middle.median(own))} of the image, "
                f"that of the other types {_percent(middle.median(others))}: size alone gives away much of the type."
            )
            yield Finding("size_tells_type", text)


def _constant_box(counts: Statistics) -> Iterator[Finding]:
    constant = counts.constant_box
    x_min, y_min, x_max, y_max = (f"{coordinate:.0%}" for coordinate in constant.box)
    text = (
        f"A model that answers the same box for every image ({x_min} to {x_max} across, {y_min} to {y_max} down) "
        f"reaches a mean IoU of at least {constant.mean_iou:.3f}; the whole image, "
        f"{constant.mean_iou_of_whole_image:.3f} (union of boxes, "
        "mean over images: protocol artiagent). Only a higher score shows that a model has learned to localize."
    )
    yield Finding("constant_box", text, is_bias=constant.mean_iou > _HIGH_CONSTANT_IOU)


def _names(counts: Statistics) -> Iterator[Finding]:
    for rule, by_name, where in (("entities", counts.entities, "on"), ("parts", counts.parts, "at the part")):
        totals = Counter({name: of.total() for name, of in by_name.items()})
        if not totals:
            continue
        (name, most), number = totals.most_common(1)[0], len(totals)
        share = most / totals.total()
        if share > 0.25 and number > 1:
            yield Finding(rule, f"{share:.0%} of artifacts are {where} “{name}”, the most frequent of {number} names.")
        top = sum(count for _, count in totals.most_common(5)) / totals.total()
        text = f"The five most frequent {rule} make up {top:.0%} of the artifacts with one; there are {number} names."
        yield Finding(rule, text, is_bias=top > 0.75 and number > 5)


def _types_of_parts(counts: Statistics) -> Iterator[Finding]:
    told = []
    for name, of in sorted(counts.parts.items(), key=lambda item: -item[1].total()):
        kind, most = of.most_common(1)[0]
        if of.total() >= _ENOUGH and most / of.total() >= 0.8 and counts.types[kind] / counts.artifacts < 0.6:
            told.append(f"{most / of.total():.0%} of those at “{name}” are {RECORDS[cast(ArtifactType, kind)].plural}")
    if told:
        yield Finding("part_tells_type", f"The part gives away the type: {', '.join(told[:3])}.")


def _kernels(counts: Statistics) -> Iterator[Finding]:
    total = counts.kernels.total()
    for kernel, number in counts.kernels.most_common(1):
        if total >= _ENOUGH and number / total > 0.8:
            yield Finding("kernels", f"{number / total:.0%} of distortions come from the kernel “{kernel}”.")


def _artifacts_per_pair(counts: Statistics) -> Iterator[Finding]:
    (number, pairs), *_ = counts.artifacts_per_pair.most_common(1)
    artifacts = "one artifact" if number == 1 else f"{number} artifacts"
    text = f"{pairs / counts.pairs:.0%} of artifact images have {artifacts}; a model learns to expect that number."
    yield Finding("flaws_per_pair", text, is_bias=pairs / counts.pairs > 0.8)


def _photos(counts: Statistics) -> Iterator[Finding]:
    if counts.pairs > counts.photos:
        text = (
            f"{counts.pairs} pairs come from {counts.photos} photos: split training and test by "
            "source_id, not by pair, or scenes of the test split are seen in training."
        )
        yield Finding("photographs", text)


def _changes(counts: Statistics) -> Iterator[Finding]:
    ratios = [inside_outside_ratio(*change) for change in counts.sampled_changes()]
    if not ratios:
        return
    weak = sum(ratio < 3 for ratio in ratios) / len(ratios)
    text = (
        f"The median artifact changes its place {middle.median(ratios):.0f} times as much as the rest of the image; "
        f"{weak:.0%} less than 3 times."
    )
    yield Finding("change", text, is_bias=weak > 0.1)


def _labels(counts: Statistics) -> Iterator[Finding]:
    medians = {
        kind: (middle.median(one.box_iou for one in of), middle.median(one.mask_iou for one in of))
        for kind, of in counts.agreements.items()
    }
    poor = {kind: of for kind, of in medians.items() if of[0] < _LEAST_BOX_IOU or of[1] < _LEAST_MASK_IOU}
    told = ", ".join(
        f"{RECORDS[cast(ArtifactType, kind)].plural} {box:.2f} and {mask:.2f}"
        for kind, (box, mask) in (poor or medians).items()
    )
    if medians:
        text = f"Median IoU of boxes and of masks with what visibly changed: {told}."
        yield Finding("labels", text, is_bias=bool(poor))


def _second_opinion(counts: Statistics) -> Iterator[Finding]:
    asked, seen = counts.asked.total(), counts.detected.total()
    if not asked:
        return
    by_type = ", ".join(
        f"{RECORDS[kind].plural} {counts.detected[kind] / counts.asked[kind]:.0%}"
        for kind in ARTIFACT_TYPES
        if counts.asked[kind]
    )
    text = (
        f"A pixel detector saw {seen} of {asked} artifacts ({seen / asked:.0%}): {by_type}. The others are in the set "
        "all the same, with `detector_has_artifact` 0 in their scores: look at some of them."
    )
    yield Finding("second_opinion", text, is_bias=asked >= _ENOUGH and seen < 0.5 * asked)


def _texts(counts: Statistics) -> Iterator[Finding]:
    source, pairs = counts.explanation_sources.most_common(1)[0]
    words = middle.median(pair.words for pair in counts.sample)
    text = f"{pairs / counts.pairs:.0%} of explanations were written by “{source}”; the median has {words:.0f} words."
    if source == "template":
        text += " A model trained on them learns the templates' wording."
    yield Finding("explanations", text, is_bias=source == "template")


_RULES: tuple[Callable[[Statistics], Iterator[Finding]], ...] = (
    _size,
    _types,
    _positions,
    _constant_box,
    _sizes,
    _sizes_by_type,
    _types_of_parts,
    _names,
    _photos,
    _artifacts_per_pair,
    _kernels,
    _acceptance,
    _changes,
    _labels,
    _second_opinion,
    _texts,
)


def _listed(shares: Mapping[ArtifactType, float]) -> str:
    return ", ".join(f"{RECORDS[kind].plural} {share:.0%}" for kind, share in shares.items())


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"
