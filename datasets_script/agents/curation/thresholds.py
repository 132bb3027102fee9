"""Thresholds of curation, and the verdict they give on an injected artifact (ArtiAgent §5)."""

from __future__ import annotations

from dataclasses import dataclass

from ...schema.pair import Artifact, PerceptualName
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


def judge(artifact: Artifact, settings: CurationSettings) -> Verdict:
    """
    Judge one artifact by its measures. Distortions are judged by the perceptual band, as in the paper. The paper shows
    the other types to a vision-language model, see [`~datasets_script.agents.curation.curator.Curator`]; before that,
    or without one, they need a visible change, and duplications must have come closer to their reference.

    Args:
        artifact (`Artifact`): With the scores of [`~datasets_script.agents.curation.measures.measure`].
        settings (`CurationSettings`): Thresholds.

    Raises:
        ValueError: A distortion has no perceptual score.
    """
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


def _hidden(artifact: Artifact, settings: CurationSettings) -> str:
    contrast = artifact.scores.get("visible_contrast")
    if contrast == 0:
        return "no visible change"
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


def _within_band(artifact: Artifact, settings: CurationSettings) -> tuple[bool, str]:
    bands: dict[PerceptualName, tuple[float, float]] = {
        "lpips": settings.lpips_band,
        "stlpips": settings.stlpips_band,
    }
    metric = next((name for name in bands if name in artifact.scores), None)
    if metric is None:
        raise ValueError(f"`artifact.scores` must hold one of {sorted(bands)}, got {sorted(artifact.scores)}")
    least, most = bands[metric]
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
