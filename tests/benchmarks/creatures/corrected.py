"""Pairs of the generator's own artifacts: labelled pictures, and what the correction agent made of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets_script.benchmarks.loading import load_benchmark
from datasets_script.correction.agent import CorrectionAgent
from datasets_script.correction.pairs import correction_pair
from datasets_script.correction.regions import given_region
from datasets_script.correction.repairers import load_repairer
from datasets_script.correction.verifiers import Verifier
from datasets_script.pairs.storage import PairWriter
from datasets_script.schema.image import BenchmarkImage
from datasets_script.schema.pair import Pair
from datasets_script.utils.files import replacing
from tests.benchmarks.creatures.generator import TOKEN
from tests.benchmarks.creatures.world import World


def write_corrected(world: World, benchmark: str, verifier: Verifier, path: Path) -> None:
    """
    Correct labelled pictures within the regions that people marked, and write those that come out clean as
    pairs, atomically.

    Args:
        world (`World`): Settings of the run.
        benchmark (`str`): Folder of the labelled pictures.
        verifier (`Verifier`): Judges each repair.
        path (`Path`): Parquet file to write.
    """
    flawed = [image for image in load_benchmark(benchmark) if image.has_artifact]
    repairer = load_repairer(str(world.generator), method="denoise", num_inference_steps=world.steps, crops=False)
    agent = CorrectionAgent(repairer, verifier)
    with replacing(path) as temporary, PairWriter(temporary) as writer:
        for image in tqdm(flawed, desc="corrections"):
            writer.write(_pairs(agent, image, repairer.revision, world.steps))


def _pairs(agent: CorrectionAgent, image: BenchmarkImage, revision: str, steps: int) -> list[Pair]:
    before = Image.open(io.BytesIO(image.image)).convert("RGB")
    mask = np.any([region.mask for region in image.regions if region.mask is not None], axis=0)
    done = agent(before, [given_region(before.size, mask=mask)], image.caption, image.id)
    if any(region.outcome != "clean" for region in done.regions):
        return []
    pair = correction_pair(
        before,
        done.image,
        image.id,
        prompt=image.caption,
        patch=TOKEN,
        model="creatures",
        model_revision=revision,
        num_inference_steps=steps,
    )
    return [] if pair is None else [pair]
