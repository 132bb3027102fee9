"""Thresholds of curation, and the verdict they give on an injected artifact (ArtiAgent §5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from ...schema.pair import Artifact, PerceptualName
from ...utils.errors import check_choice
from .triplets import Triplet


@dataclass(frozen=True)
class CurationSettings:
    """
    Thresholds of acceptance.

    Args:
        lpips_band (`tuple[float, float]`, *optional*, defaults to `(0.5, 0.9)`): Least and greatest 1 − LPIPS between
            the box crops of a distortion, from the paper. Below it the crop was replaced rather than distorted, above
            it there is no visible change.
        stlpips_band (`tuple[float, float]`, *optional*, defaults to `(0.4, 0.9)`): The same for the shift-tolerant
            metric. **Not from the paper**: wide enough for crops with all patches shuffled, and narrow enough to
            reject swaps of two patches, which textures hide. Blurred crops can pass.
        min_change_inside (`float`, *optional*, defaults to 0.03): Least mean absolute difference over the target
            patches of an artifact that is no distortion, in [0, 1]. 0.03 is about 8 of 255 grey levels, a barely
            visible change of a whole patch.
        require_closer (`bool`, *optional*, defaults to `True`): Whether a duplication's target must have come closer
            to its reference.
        min_inside_to_outside (`float`, *optional*, defaults to 1.0): The change inside the target must exceed that
            outside all targets this many times; noise all over changes both alike. **Not from the paper**; the demo's
            pairs have 17 and more.
        max_change_outside (`float`, *optional*, defaults to 0.06): Greatest mean absolute difference outside all
            targets, in [0, 1]. **Not from the paper**; the demo's pairs have 0.015 and less, and twice the change of
            the published procedure on the embedded model (25 dB, see `tests/benchmarks/README.md`) is about 0.06.
        min_visible_contrast (`float`, *optional*, defaults to 1.0): Least change within an artifact's mask, as a
            multiple of the local standard deviation of the clean image around it; see
            [`~datasets_script.agents.curation.measures.visible_contrast`]. **Not from the paper**; below 1, texture
            hides the change. An artifact without any visible change is always rejected.
        min_clean_psnr (`float`, *optional*, defaults to 20.0): Least PSNR of the clean image to its source photo, in
            dB. **Not from the paper**; three steps of inversion and fewer stay below, the demo's pairs have 24 and
            more.
    """

    lpips_band: tuple[float, float] = (0.5, 0.9)
    stlpips_band: tuple[float, float] = (0.4, 0.9)
    min_change_inside: float = 0.03
    require_closer: bool = True
    min_inside_to_outside: float = 1.0
    max_change_outside: float = 0.06
    min_visible_contrast: float = 1.0
    min_clean_psnr: float = 20.0


Unchanged = Literal["drop", "flag"]
UNCHANGED: tuple[Unchanged, ...] = get_args(Unchanged)


@dataclass(frozen=True)
class RegionGates:
    """
    Gates of corruptions: the region must have changed, and nothing else. The bounds of SSIM and LPIPS are those that a
    public re-implementation of ASAP's data set (arXiv 2605.25759) holds; those of the shift-tolerant metric are **not
    from a paper**.

    Args:
        max_ssim_inside (`float`, *optional*, defaults to 0.65): Greatest mean SSIM over the region.
        min_lpips_inside (`float`, *optional*, defaults to 0.25): Least LPIPS between the crops of its box.
        min_stlpips_inside (`float`, *optional*, defaults to 0.1): The same for the shift-tolerant metric, from which
            distortions count as visible too. Of 20 random regions on the embedded model at sigma 0.7, 10 pass this
            and the bound of SSIM; 2 would with 0.25.
        min_ssim_outside (`float`, *optional*, defaults to 0.95): Least mean SSIM outside all regions.
        max_lpips_outside (`float`, *optional*, defaults to 0.02): Greatest LPIPS of the images with their regions
            taken from the clean image.
        max_stlpips_outside (`float`, *optional*, defaults to 0.02): The same for the shift-tolerant metric.
        unchanged (`str`, *optional*, defaults to `"drop"`): What happens to regions that hardly changed: `"drop"`
            rejects them, `"flag"` keeps them with the score `unchanged` 1. Without any visible change they are always
            rejected, since their label would be empty.

    Raises:
        ArgumentError: `unchanged` is unknown.
    """

    max_ssim_inside: float = 0.65
    min_lpips_inside: float = 0.25
    min_stlpips_inside: float = 0.1
    min_ssim_outside: float = 0.95
    max_lpips_outside: float = 0.02
    max_stlpips_outside: float = 0.02
    unchanged: Unchanged = "drop"

    def __post_init__(self) -> None:
        check_choice("unchanged", self.unchanged, UNCHANGED)


@dataclass(frozen=True, eq=False)
class Verdict:
    """
    Verdict on an artifact.

    Attributes:
        kept (`bool`): Whether it is kept.
        reason (`str`): Names the measure, its value and the threshold, either way.
        artifact (`Artifact`): The artifact with the scores it was judged by: those of
            [`~datasets_script.agents.curation.measures.measure`], and `vlm_has_artifact` if a vision-language model
            was asked.
        raw (`str`): Answer of that model, if it could not be used.
        triplet (`Triplet`, *optional*): Images that the model was shown.
    """

    kept: bool
    reason: str
    artifact: Artifact
    raw: str = ""
    triplet: Triplet | None = None


def judge(artifact: Artifact, settings: CurationSettings, gates: RegionGates | None = None) -> Verdict:
    """
    Judge one artifact by its measures. Distortions are judged by the perceptual band, as in the paper, and corruptions
    by gates on their region and on the rest of the image. The paper shows the other types to a vision-language model,
    see [`~datasets_script.agents.curation.curator.Curator`]; before that, or without one, they need a visible change,
    and duplications must have come closer to their reference.

    Args:
        artifact (`Artifact`): With the scores of [`~datasets_script.agents.curation.measures.measure`].
        settings (`CurationSettings`): Thresholds.
        gates (`RegionGates`, *optional*): Gates of corruptions.

    Raises:
        ValueError: A distortion or corruption has no perceptual score.
    """
    if artifact.type == "corruption":
        return _judge_corruption(artifact, settings, gates or RegionGates())
    if hidden := _hidden(artifact, settings) or _drowned(artifact, settings):
        kept, reason = False, hidden
    elif artifact.type == "distortion":
        kept, reason = _within_band(artifact, settings)
    else:
        kept, reason = _visible(artifact, settings)
    return Verdict(kept, reason, artifact)


def judge_clean(psnr: float, settings: CurationSettings) -> str:
    """
    Judge a clean image by its PSNR to the source photo, in dB.

    Returns:
        `str`: Why it is rejected, with all pairs made of it; empty if it is kept.
    """
    if psnr >= settings.min_clean_psnr:
        return ""
    return (
        f"clean image unlike its photo: PSNR {psnr:.1f} dB, at least {settings.min_clean_psnr:g} needed; "
        "more inference steps may help"
    )


def _invisible(artifact: Artifact) -> str:
    return "no visible change" if artifact.scores.get("visible_contrast") == 0 else ""


def _hidden(artifact: Artifact, settings: CurationSettings) -> str:
    if invisible := _invisible(artifact):
        return invisible
    contrast = artifact.scores.get("visible_contrast")
    if contrast is None or contrast >= settings.min_visible_contrast:
        return ""
    return (
        f"hidden by texture: change in the mask {contrast:.2f} times the local deviation, at least "
        f"{settings.min_visible_contrast:g} needed"
    )


def _drowned(artifact: Artifact, settings: CurationSettings) -> str:
    inside, outside = artifact.scores.get("change_inside"), artifact.scores.get("change_outside")
    if inside is None or not outside:
        return ""
    if outside > settings.max_change_outside:
        most = settings.max_change_outside
        return f"changed all over: change outside the targets {outside:.3f}, at most {most:g} allowed"
    if inside > settings.min_inside_to_outside * outside:
        return ""
    return (
        f"changed all over: change inside the target {inside:.3f}, outside {outside:.3f}, more than "
        f"{settings.min_inside_to_outside:g} times that outside needed"
    )


def _visible(artifact: Artifact, settings: CurationSettings) -> tuple[bool, str]:
    change = artifact.scores["change_inside"]
    numbers = f"change inside the target {change:.3f}, at least {settings.min_change_inside:.3f} needed"
    if change < settings.min_change_inside:
        return False, f"hardly visible: {numbers}"
    if artifact.type == "duplication" and settings.require_closer:
        return _came_closer(artifact, numbers)
    return True, f"visible: {numbers}"


def _judge_corruption(artifact: Artifact, settings: CurationSettings, gates: RegionGates) -> Verdict:
    if reason := _invisible(artifact) or _drowned(artifact, settings) or _leaked(artifact, gates):
        return Verdict(False, reason, artifact)
    unchanged = _alike(artifact, gates)
    artifact = replace(artifact, scores={**artifact.scores, "unchanged": float(bool(unchanged))})
    if not unchanged:
        return Verdict(True, f"changed: SSIM in the region {artifact.scores['ssim_inside']:.2f}", artifact)
    return Verdict(gates.unchanged == "flag", unchanged, artifact)


def _alike(artifact: Artifact, gates: RegionGates) -> str:
    """Return why a region counts as unchanged; empty if it changed."""
    metric, ssim, distance = _metric(artifact), artifact.scores["ssim_inside"], artifact.scores["distance_inside"]
    least = gates.min_lpips_inside if metric == "lpips" else gates.min_stlpips_inside
    if ssim > gates.max_ssim_inside:
        return f"unchanged: SSIM in the region {ssim:.2f}, at most {gates.max_ssim_inside:g} needed"
    if distance < least:
        return f"unchanged: {metric} of the region {distance:.2f}, at least {least:g} needed"
    return ""


def _leaked(artifact: Artifact, gates: RegionGates) -> str:
    """Return why the rest of the image changed too much; empty if it did not."""
    metric, ssim, distance = _metric(artifact), artifact.scores["ssim_outside"], artifact.scores["distance_outside"]
    most = gates.max_lpips_outside if metric == "lpips" else gates.max_stlpips_outside
    if ssim < gates.min_ssim_outside:
        return f"changed outside the regions: SSIM {ssim:.3f}, at least {gates.min_ssim_outside:g} needed"
    if distance > most:
        return f"changed outside the regions: {metric} {distance:.3f}, at most {most:g} allowed"
    return ""


def _metric(artifact: Artifact) -> PerceptualName:
    """Return the metric that an artifact was measured with."""
    names: tuple[PerceptualName, ...] = ("lpips", "stlpips")
    metric = next((name for name in names if name in artifact.scores), None)
    if metric is None:
        raise ValueError(f"`artifact.scores` must hold one of {sorted(names)}, got {sorted(artifact.scores)}")
    return metric


def _within_band(artifact: Artifact, settings: CurationSettings) -> tuple[bool, str]:
    metric = _metric(artifact)
    least, most = settings.lpips_band if metric == "lpips" else settings.stlpips_band
    similarity = 1 - artifact.scores[metric]
    numbers = f"1 - {metric} = {similarity:.3f} on the box, {least:g} to {most:g} needed"
    if similarity < least:
        return False, f"replaced rather than distorted: {numbers}"
    if similarity > most:
        return False, f"hardly visible: {numbers}"
    return True, f"visible: {numbers}"


def _came_closer(artifact: Artifact, change: str) -> tuple[bool, str]:
    before, after = artifact.scores["reference_distance_before"], artifact.scores["reference_distance_after"]
    distances = f"distance of target and reference {before:.3f} before, {after:.3f} after"
    if not artifact.scores["closer_to_reference"]:
        return False, f"no copy of the reference: {distances}"
    return True, f"visible copy: {change}; {distances}"
