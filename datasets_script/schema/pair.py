"""Records that leave the engine: an injected artifact, a pair of images, and a rejection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np
from PIL import Image

from diffusers_artifact.mapping import ArtifactType, PatchMapping


PerceptualName = Literal["lpips", "stlpips"]
"""The key that a perceptual metric stores its distances under."""

UNKNOWN_INSTANCE = -1
"""The `instance_id` of an artifact that was not planned on a perceived part or entity."""


class ArtifactScores(TypedDict, total=False):
    """
    Measures that curation takes of an artifact. Changes are mean absolute differences in [0, 1].

    Attributes:
        change_inside (`float`): Change within the artifact's target patches.
        change_outside, psnr_outside (`float`): Change, and peak signal-to-noise ratio in dB, outside all target
            patches of the image; equal for all artifacts of an image.
        lpips, stlpips (`float`): Perceptual distance between the box crops of the clean and the artifact image, under
            the name of the metric that measured it.
        reference_distance_before, reference_distance_after (`float`): Perceptual distance between target and reference
            patches of a duplication, in the clean and in the artifact image.
        closer_to_reference (`float`): 1 if that distance has decreased, else 0.
        visible_contrast (`float`): Change of luminance within the artifact's mask, as a multiple of what the texture
            around it hides; see [`~datasets_script.agents.curation.measures.visible_contrast`].
        ssim_inside, distance_inside, ssim_outside, distance_outside (`float`): Of a corruption, structural similarity
            and perceptual distance (of the metric above) in its region and outside all regions, see
            [`~datasets_script.agents.curation.similarity.RegionSimilarity`].
        unchanged (`float`): Of a corruption, 1 if its region hardly changed, else 0.
        vlm_has_artifact (`float`): 1 if a vision-language model saw the artifact, 0 if not; absent if none was asked.
        detector_inside, detector_clean (`float`): Greatest probability that a pixel detector gives a pixel of the
            artifact's mask, in the artifact and in the clean image; absent if none was asked.
        detector_has_artifact (`float`): 1 if `detector_inside` exceeds the detector's threshold, else 0.
    """

    change_inside: float
    change_outside: float
    psnr_outside: float
    lpips: float
    stlpips: float
    reference_distance_before: float
    reference_distance_after: float
    closer_to_reference: float
    visible_contrast: float
    ssim_inside: float
    distance_inside: float
    ssim_outside: float
    distance_outside: float
    unchanged: float
    vlm_has_artifact: float
    detector_inside: float
    detector_clean: float
    detector_has_artifact: float


@dataclass(frozen=True, eq=False)
class Artifact:
    """
    One artifact in one image.

    Attributes:
        type (`str`): `"duplication"`, `"omission"`, `"distortion"`, `"fusion"` or `"corruption"`.
        tool (`str`): `"add"`, `"remove"`, `"distort"`, `"fuse"`, `"corruption"`; `"none"` if a generator drew it by
            itself.
        kernel (`str`): How a distortion permutes its patches, or the method of a corruption; empty for other tools.
        entity (`str`): Name of the entity that has the artifact; `UNNAMED` for a region that is none.
        part (`str`): Name of the part; empty where a whole entity is concerned, as by a fusion.
        fused_entity (`str`): Name of the second entity of a fusion, else empty.
        instance_id (`int`): Number of the part, or of the entity of a fusion, in the photo's `Perception`;
            `UNKNOWN_INSTANCE` if there is none.
        mapping (`PatchMapping`): Target and reference patches. A corruption borrows from no other patch, so that each
            of its targets is its own reference.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): Its pixels in the artifact image: where that visibly
            differs from the clean image, see [`~diffusers_artifact.visible_change`]. Masks of one image are disjoint.
            Until the artifact is injected, `part_mask`.
        bbox (`tuple[float, float, float, float]`): `(x_min, y_min, x_max, y_max)` of `mask`, exclusive maxima, pixels.
        part_mask (`np.ndarray` of shape `(height, width)`, `bool`): Where the part or entity was or now is in the
            target patches: the copy of a duplication, the removed part of an omission, before and after for others;
            the region of a corruption.
        label (`str`): A few words, e.g. `"duplicated ear"`.
        explanation (`str`): One sentence on what is wrong and where.
        scores (`ArtifactScores`): Measures of curation.
        parameters (`dict`): Further settings of the tool, JSON-serialisable.
    """

    type: ArtifactType
    tool: str
    entity: str
    part: str
    fused_entity: str
    mapping: PatchMapping
    mask: np.ndarray
    bbox: tuple[float, float, float, float]
    part_mask: np.ndarray
    label: str = ""
    explanation: str = ""
    scores: ArtifactScores = field(default_factory=ArtifactScores)
    parameters: dict[str, Any] = field(default_factory=dict)
    kernel: str = ""
    instance_id: int = UNKNOWN_INSTANCE


@dataclass(frozen=True, eq=False)
class Pair:
    """
    A clean image and an artifact image of one source photo, with everything known about them. The three images are RGB
    and of one size.

    Attributes:
        pair_id (`str`): Id of the photo and number of the variant, see [`~datasets_script.schema.pair_id.PairId`].
        source_id (`str`): File name of the source photo, relative to the source folder.
        variant (`int`): Number of the pair among those of the photo, from 0.
        source, clean, flawed (`PIL.Image.Image`): The source photo as the model saw it, the clean image and the
            artifact image.
        caption (`str`): Prompt of inversion and denoising.
        clean_description (`str`): What the clean image shows.
        explanation (`str`): What is wrong with the artifact image.
        explanation_source (`str`): Author of the texts: `"template"`, or the id of a vision-language model.
        grid (`tuple[int, int]`): Rows and columns of patches.
        seed (`int`): Seed of the sample.
        solver (`str`): Name of the solver.
        num_inference_steps (`int`): Steps of the solver in each direction.
        model, model_revision (`str`): The diffusion model, and its commit or fingerprint.
        transform (`dict`): Crop and resize of the photo, see
            [`~datasets_script.utils.photos.SourceTransform.as_dict`].
        artifacts (`tuple[Artifact, ...]`): All artifacts of `flawed`.
        clean_noise, flawed_noise (`np.ndarray` of shape `(channels, height, width)`, *optional*): Noise that `clean`
            and `flawed` were inverted to by the model, solver and steps above, as float16 latents at the highest noise
            level; `None` unless the run stores it.
    """

    pair_id: str
    source_id: str
    variant: int
    source: Image.Image
    clean: Image.Image
    flawed: Image.Image
    caption: str
    clean_description: str
    explanation: str
    explanation_source: str
    grid: tuple[int, int]
    seed: int
    solver: str
    num_inference_steps: int
    model: str
    model_revision: str
    transform: dict[str, Any]
    artifacts: tuple[Artifact, ...]
    clean_noise: np.ndarray | None = None
    flawed_noise: np.ndarray | None = None


@dataclass(frozen=True)
class Rejection:
    """
    A photo, pair or artifact that was left out of the dataset, and why.

    Attributes:
        source_id (`str`): Id of the source photo.
        stage (`str`): Stage that rejected it: `"read"`, `"perceive"`, `"plan"`, `"inject"`, `"curation"`,
            `"invert"`, `"explain"`, or `"edits"` if a person did.
        reason (`str`): In words, with the measured value and the threshold if there are any.
        pair_id (`str`): The pair, if a single artifact was rejected; else empty.
        type, tool, kernel, entity, part (`str`): Fields of the artifact; else empty.
        scores (`ArtifactScores`): Measures of the artifact.
        raw (`str`): Answer of a vision-language model, if that was the reason.
        traceback (`str`): Traceback of an unexpected error.
    """

    source_id: str
    stage: str
    reason: str
    pair_id: str = ""
    type: str = ""
    tool: str = ""
    kernel: str = ""
    entity: str = ""
    part: str = ""
    scores: ArtifactScores = field(default_factory=ArtifactScores)
    raw: str = ""
    traceback: str = ""
