"""
Measure the correction of images. Runs on a CPU.

    python tests/benchmarks/correct.py --pairs runs/heldout --json correct.json
    python tests/benchmarks/correct.py --generator runs/creatures/middle --only creatures --json correct.json

`pairs`, of photos that the embedded detector was not trained on (`--pairs RUN`, made by `artiagent synthesize`), with
the embedded model:

- `given`: the artifacts' masks are given, so that repair alone is measured. `nearer_share`: share of pairs whose
  corrected image is nearer to the clean image inside the masks than the artifact image was (PSNR), and the median
  PSNR before and after; `outside_equal`: whether every pixel outside the repaired regions is the input's.
- `detected`: the whole loop with the embedded detector, which also verifies. `changed_share`: share of artifact images
  that were changed; `nearer_share` and `worse_share` of all of them: nearer to the clean image over the whole picture,
  or farther from it.
- `clean_changed_share`: share of clean images that were changed, by mistake.
- `independent` with `--independent DETECTOR`, one that took no part: share of the images that it calls clean, of the
  artifact images, of what became of them in each loop, and of the clean images.

`creatures`, pictures with artifacts that a generator draws by itself, judged by the oracle (`--generator FOLDER`):

- `loop`: the oracle says which part is wrong and verifies, as a perfect judge would. `fixed_share`: artifact images
  in which it sees nothing wrong afterwards; `worse_share`: with more faults than before; `clean_changed`: pictures
  without faults that were changed.
- `single`: one repair of the same region at the first round's strength, whatever it looks like: what the loop saves
  from. The same two shares.

Medians of rounds, and of CPU seconds an image, are of the loop.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from tqdm import tqdm


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.correction.agent import CorrectionAgent
from datasets_script.correction.regions import Region, given_region
from datasets_script.correction.repairers import load_repairer
from datasets_script.correction.settings import CorrectionSettings
from datasets_script.detection.pixel.detector import PixelDetector
from datasets_script.pairs.storage import read_pairs
from datasets_script.schema.correction import Verdict
from datasets_script.schema.pair import Pair
from datasets_script.utils.files import write_json
from diffusers_artifact.repair_regions import FADE
from evaluate_metrics.functional.versions import versions
from tests.benchmarks.creatures.bodies import neutral_scene
from tests.benchmarks.creatures.oracle import judge
from tests.benchmarks.creatures.reading import Reading
from tests.benchmarks.creatures.renderer import render_scene
from tests.benchmarks.creatures.words import Words
from tests.benchmarks.creatures.world import World
from tests.benchmarks.intervals_by_photo import mean_of, with_interval
from training.script import run_script


PARTS = ("pairs", "creatures")
LOOPS = ("given", "detected", "clean")
SHEET_HEIGHT = 256
# Pixels of 64 by which a creature's part may be from where it is in an average one.
_NEAR = 4


def psnr(image: Image.Image, clean: Image.Image, where: np.ndarray) -> float:
    difference = (np.asarray(image, float) - np.asarray(clean, float))[where] / 255
    return float(-10 * np.log10(max(1e-12, (difference**2).mean())))


def share(values: Sequence[bool]) -> dict[str, Any]:
    if not values:
        return {"n": 0, "share": None}
    value, interval = with_interval([str(index) for index in range(len(values))], mean_of(list(map(float, values))))
    return {"n": len(values), "share": round(value, 4), "interval": [round(bound, 4) for bound in interval]}


def measure_pairs(
    pairs: Sequence[Pair],
    settings: CorrectionSettings,
    sheet: Path | None,
    loops: Sequence[str],
    independent: PixelDetector | None = None,
) -> dict[str, Any]:
    """Correct artifact images and clean images of pairs with the embedded models, as far as `loops` says."""
    agent = CorrectionAgent.from_names(device="cpu", settings=settings)
    judged: dict[str, list[Image.Image]] = defaultdict(list)
    rows: list[list[Image.Image]] = []
    given: list[dict[str, Any]] = []
    gains: list[float] = []
    clean: list[bool] = []
    for pair in tqdm(pairs, desc="pairs"):
        mask = np.any([artifact.mask for artifact in pair.artifacts], axis=0)
        rows.append([pair.clean, marked(pair.flawed, mask)])
        judged["clean"].append(pair.clean)
        judged["artifact"].append(pair.flawed)
        if "given" in loops:
            measured, image = measure_given(agent, pair, mask, settings)
            given.append(measured)
            rows[-1].append(image)
            judged["given"].append(image)
        if "detected" in loops:
            found, everywhere = agent(pair.flawed, name=pair.pair_id), np.ones_like(mask)
            gains.append(psnr(found.image, pair.clean, everywhere) - psnr(pair.flawed, pair.clean, everywhere))
            rows[-1].append(found.image)
            judged["detected"].append(found.image)
        if "clean" in loops:
            clean.append(agent(pair.clean, name=pair.pair_id).changed)
        if sheet:
            draw(rows, sheet)
    figures: dict[str, Any] = {"given": summarise(given)} if given else {}
    if gains:
        figures["detected"] = {
            "changed_share": share([gain != 0 for gain in gains]),
            "nearer_share": share([gain > 0 for gain in gains]),
            "worse_share": share([gain < 0 for gain in gains]),
        }
    if independent is not None:
        figures["independent"] = {
            name: share([not found.has_artifact for found in independent.stream(images)])
            for name, images in judged.items()
        }
    return figures | ({"clean_changed_share": share(clean)} if clean else {})


def measure_given(
    agent: CorrectionAgent, pair: Pair, mask: np.ndarray, settings: CorrectionSettings
) -> tuple[dict[str, Any], Image.Image]:
    """Correct the artifacts of a pair, whose masks are given."""
    regions = [given_region(pair.flawed.size, mask=artifact.mask) for artifact in pair.artifacts]
    begun = time.process_time()
    told = agent(pair.flawed, regions, name=pair.pair_id)
    return {
        "before": psnr(pair.flawed, pair.clean, mask),
        "after": psnr(told.image, pair.clean, mask),
        "changed": told.changed,
        "far": far_from(told.image, pair.flawed, regions, settings, len(told.regions)),
        "rounds": sum(len(region.rounds) for region in told.regions),
        "seconds": time.process_time() - begun,
        "types": [artifact.type for artifact in pair.artifacts],
    }, told.image


def summarise(given: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarise corrections of given masks."""
    return {
        "nearer_share": share([one["after"] > one["before"] for one in given]),
        "worse_share": share([one["after"] < one["before"] for one in given]),
        "kept_share": share([one["changed"] for one in given]),
        "psnr_before": round(median(one["before"] for one in given), 2),
        "psnr_after": round(median(one["after"] for one in given), 2),
        "outside_equal": not any(one["far"] for one in given),
        "rounds": median(one["rounds"] for one in given),
        "cpu_seconds": round(median(one["seconds"] for one in given), 1),
        "by_type": {
            kind: share([one["after"] > one["before"] for one in given if kind in one["types"]])
            for kind in sorted({kind for one in given for kind in one["types"]})
        },
    }


def far_from(
    image: Image.Image, before: Image.Image, regions: Sequence[Region], settings: CorrectionSettings, treated: int
) -> int:
    """Count pixels that changed farther from the regions than any round may reach."""
    mask = np.any([region.mask for region in regions[:treated]], axis=0)
    longest = max(max(region.box[2] - region.box[0], region.box[3] - region.box[1]) for region in regions)
    reach = settings.max_rounds * max(6, round(settings.margin * longest)) + 2 * 8
    far = ndimage.distance_transform_cdt(~mask, "chessboard") > reach
    return int((np.asarray(image) != np.asarray(before)).any(axis=2)[far].sum())


def marked(image: Image.Image, mask: np.ndarray) -> Image.Image:
    outline = mask & ~ndimage.binary_erosion(mask)
    return Image.fromarray(np.where(outline[..., None], np.array([255, 30, 30], dtype=np.uint8), np.asarray(image)))


def draw(rows: Sequence[Sequence[Image.Image]], path: Path) -> None:
    """Write a sheet with a row for each image, enlarged or reduced to one height."""
    sized = [
        [
            one.resize((round(one.width * SHEET_HEIGHT / one.height), SHEET_HEIGHT), Image.Resampling.BICUBIC)
            for one in row
        ]
        for row in rows
    ]
    sheet = Image.new("RGB", (max(sum(one.width for one in row) for row in sized), SHEET_HEIGHT * len(rows)), "white")
    for number, row in enumerate(sized):
        left = 0
        for one in row:
            sheet.paste(one, (left, number * SHEET_HEIGHT))
            left += one.width
    sheet.save(path)


class OracleJudge:
    """The oracle as a detector that is told the words, and as a verifier of the whole picture."""

    def __init__(self, words: Words) -> None:
        self.words = words

    def __call__(self, images: Sequence[Image.Image], region: Region) -> list[Verdict]:
        faults = [judge(np.asarray(image), self.words).faults for image in images]
        return [Verdict(bool(some), min(1.0, len(some) / 8), ", ".join(one.part for one in some)) for some in faults]

    def identity(self) -> dict[str, Any]:
        return {"kind": "oracle"}

    def region(self, image: Image.Image) -> Region | None:
        """Return where the parts that are wrong are, and where they should be; `None` if nothing is wrong."""
        faults = judge(np.asarray(image), self.words).faults
        if not faults:
            return None
        kinds = {"eye" if fault.part == "pupil" else fault.part for fault in faults}
        return given_region(image.size, mask=self._places(np.asarray(image), kinds))

    def _places(self, image: np.ndarray, kinds: set[str]) -> np.ndarray:
        reading, expected = Reading(image), dict(self._expected())
        mask = np.zeros(image.shape[:2], dtype=bool)
        for kind in kinds:
            places = [*reading.pieces(kind)] if kind != "body" else []
            places += [expected["ear" if kind == "inner_ear" else kind]] if kind in (*expected, "inner_ear") else []
            for place in places:
                mask |= ndimage.binary_dilation(place, iterations=_NEAR)
        if "body" in kinds or not mask.any():
            mask |= ndimage.binary_dilation(np.any(list(expected.values()), axis=0), iterations=_NEAR)
        return mask

    def _expected(self) -> dict[str, np.ndarray]:
        """Return where the parts of each kind are in an average creature of these words."""
        places: dict[str, np.ndarray] = {}
        for part, mask in render_scene(neutral_scene(self.words)).parts:
            places[part.name] = places.get(part.name, np.zeros_like(mask)) | mask
        return places


def measure_creatures(world: World, settings: CorrectionSettings, sheet: Path | None) -> dict[str, Any]:
    """Correct the pictures of a generator with the generator itself, judged by the oracle."""
    repairer = load_repairer(
        str(world.generator), method="denoise", num_inference_steps=world.steps, crops=False, device="cpu"
    )
    pictures, strength = world.pictures("base"), settings.strength_of(1, repairer.strengths)
    rows, loop, single, clean_changed = [], [], [], 0
    for index, (pixels, words) in enumerate(zip(tqdm(pictures, desc="creatures"), world.words, strict=True)):
        oracle, image = OracleJudge(words), Image.fromarray(pixels)
        region = oracle.region(image)
        agent = CorrectionAgent(repairer, oracle, settings=settings)
        if region is None:
            clean_changed += agent(image, [], words.prompt, str(index)).changed
            continue
        begun = time.process_time()
        done = agent(image, [region], words.prompt, str(index))
        seconds = time.process_time() - begun
        repaired = repairer(image, region.mask, words.prompt, strength, [index], FADE).images[0]
        counts = [len(judge(np.asarray(one), words).faults) for one in (image, done.image, repaired)]
        rounds = sum(len(one.rounds) for one in done.regions)
        loop.append({"before": counts[0], "after": counts[1], "rounds": rounds, "seconds": seconds})
        single.append({"before": counts[0], "after": counts[2]})
        rows.append([marked(image, region.mask), done.image, repaired])
        if sheet and len(rows) <= 40:
            draw(rows, sheet)
    return {
        "pictures": len(pictures),
        "with_artifacts": len(loop),
        "loop": {**shares_of(loop), "clean_changed": clean_changed},
        "single": shares_of(single),
        "rounds": median(one["rounds"] for one in loop) if loop else None,
        "cpu_seconds": round(median(one["seconds"] for one in loop), 1) if loop else None,
    }


def shares_of(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "fixed_share": share([one["after"] == 0 for one in counts]),
        "worse_share": share([one["after"] > one["before"] for one in counts]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts (default: those whose folder is given)")
    parser.add_argument("--pairs", type=Path, help="run of photos that the embedded detector was not trained on")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS, help="what of the pairs (default: all)")
    parser.add_argument("--independent", help="pixel detector that judges the pairs and takes no part")
    parser.add_argument("--generator", type=Path, help="folder of a generator of creatures")
    parser.add_argument("--work", type=Path, default=Path("runs/correct"), help="folder of the creatures drawn")
    parser.add_argument("--number", type=int, default=60, help="pairs, and creatures (default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=4, help="repairs of each round (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=28, help="steps of a creature (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--sheets", type=Path, help="folder to write pictures to")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    args = parser.parse_args(arguments)
    parts = args.only or [part for part in PARTS if (args.pairs if part == "pairs" else args.generator)]
    if not parts or ("pairs" in parts and not args.pairs) or ("creatures" in parts and not args.generator):
        parser.error("give --pairs RUN, --generator FOLDER, or both")
    torch.set_num_threads(args.threads)
    settings = CorrectionSettings(candidates=args.candidates)
    figures: dict[str, Any] = {"candidates": args.candidates, "max_rounds": settings.max_rounds}
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
    if "pairs" in parts:
        pairs = list(islice(read_pairs(args.pairs), args.number))
        independent = PixelDetector.from_pretrained(args.independent) if args.independent else None
        sheet = args.sheets and args.sheets / "pairs.png"
        figures["pairs"] = measure_pairs(pairs, settings, sheet, args.loops, independent)
    if "creatures" in parts:
        world = World(args.generator, args.work, args.number, args.steps, 0)
        figures["creatures"] = measure_creatures(world, settings, args.sheets and args.sheets / "creatures.png")
    figures["versions"] = versions("torch", "diffusers", "transformers")
    print(json.dumps(figures, indent=1))
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    run_script(main)
