"""Images before and after their correction as pairs, to train on what a generator draws wrong by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from diffusers_artifact.mapping import PatchMapping
from diffusers_artifact.tools import bbox_of_mask, patches_of_mask
from diffusers_artifact.visible_change import MIN_AREA, THRESHOLD, change_map

from ..detection.images import upright
from ..pairs.storage import PairWriter
from ..schema.correction import CORRECTIONS_FILE, CorrectionRecord
from ..schema.pair import Artifact, Pair
from ..schema.pair_id import PairId
from ..utils.errors import ArgumentError, UserError
from ..utils.files import replacing
from .folder import IMAGES_FOLDER, CorrectionFolder, check_images, read_corrections


DRAWN = "none"
"""Tool of an artifact that nothing put in: a generator drew it by itself."""

PAIRS_FILE = "pairs.parquet"
"""File of the pairs in the folder of a run."""

# A multiple of the sides that diffusion models draw, px.
_PATCH = 8


def check_before(out: Path, images: Mapping[str, Path]) -> None:
    """
    Check that images, and those of earlier calls that are done, can be halves of pairs.

    Args:
        out (`Path`): Folder of the run, or one that is not there yet.
        images (`Mapping` of `Path` by id): Image files of this call.

    Raises:
        ArgumentError: A side is no multiple of 8 px.
        UserError: An image of an earlier call is not there any more.
        RunMismatchError: It is another file.
    """
    done = read_corrections(out) if (out / CORRECTIONS_FILE).is_file() else []
    earlier = {image.id: Path(image.source) for image in done if image.id not in images}
    for name, path in earlier.items():
        if not path.is_file():
            raise UserError(
                f"`pairs` must find the images of earlier calls where they were, got no file '{path}' for '{name}'; "
                "put it back, or leave out `pairs`"
            )
    check_images(out, earlier, None)
    for path in (*images.values(), *earlier.values()):
        width, height = upright(path).size
        if width % _PATCH or height % _PATCH:
            raise ArgumentError(
                f"`pairs` must be asked of images whose sides are multiples of {_PATCH} px, as diffusion models draw "
                f"them, got '{path}' of {width}x{height} px; leave out `pairs`, or that image"
            )


def write_correction_pairs(folder: CorrectionFolder, record: CorrectionRecord) -> int:
    """
    Write the images of a run whose regions all came out clean as pairs, into `pairs.parquet`, atomically.

    Args:
        folder (`CorrectionFolder`): Folder of the run.
        record (`CorrectionRecord`): Its record.

    Returns:
        `int`: Number of pairs.
    """
    repairer = record.models["repairer"]
    number = 0
    with replacing(folder.out / PAIRS_FILE) as temporary, PairWriter(temporary) as writer:
        for image in folder.done.values():
            if not image.regions or any(region.outcome != "clean" for region in image.regions):
                continue
            pair = correction_pair(
                upright(image.source),
                Image.open(folder.out / IMAGES_FOLDER / f"{image.id}.png").convert("RGB"),
                image.id,
                prompt=image.regions[0].prompt,
                patch=_PATCH,
                model=repairer["model"],
                model_revision=repairer["revision"],
                num_inference_steps=repairer.get("num_inference_steps", 0),  # an endpoint does not say
            )
            if pair is not None:
                writer.write([pair])
                number += 1
    return number


def correction_pair(
    before: Image.Image,
    after: Image.Image,
    source_id: str,
    *,
    prompt: str,
    patch: int,
    model: str,
    model_revision: str,
    num_inference_steps: int,
) -> Pair | None:
    """
    Return the corrected image as the clean image of a pair, and the image before as its artifact image. The one
    artifact, of type `"corruption"`, is where they visibly differ.

    Args:
        before, after (`PIL.Image.Image`): The image before and after, RGB of one size.
        source_id (`str`): Id of the image.
        prompt (`str`): What it shows.
        patch (`int`): Side of a patch of the generator, of which the image's sides are multiples, px.
        model, model_revision, num_inference_steps (`str`, `str`, `int`): What drew the image again.

    Returns:
        `Pair`: The pair, without noise; `None` if fewer than `MIN_AREA` pixels visibly differ.
    """
    mask = change_map(np.asarray(after), np.asarray(before)) > THRESHOLD
    if mask.sum() < MIN_AREA:
        return None
    touched = patches_of_mask(mask, patch)
    grid, own = (touched.shape[0], touched.shape[1]), [(index, index) for index in np.flatnonzero(touched).tolist()]
    artifact = Artifact(
        type="corruption",
        tool=DRAWN,
        entity="",
        part="",
        fused_entity="",
        mapping=PatchMapping.from_pairs(own, grid, "corruption"),
        mask=mask,
        bbox=bbox_of_mask(mask),
        part_mask=mask,
        label="artifact of the generator",
    )
    return Pair(
        pair_id=str(PairId(source_id, 0)),
        source_id=source_id,
        variant=0,
        source=before,
        clean=after,
        flawed=before,
        caption=prompt,
        clean_description="",
        explanation="",
        explanation_source="template",
        grid=grid,
        seed=0,
        solver="",
        num_inference_steps=num_inference_steps,
        model=model,
        model_revision=model_revision,
        transform={},
        artifacts=(artifact,),
    )
