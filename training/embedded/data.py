"""
Make the images that the embedded model is trained on: random crops of photos, some with emoji renders pasted in.

    python -m training.embedded.data --photos PHOTOS --renders RENDERS --out work/crops.npy --num-crops 12000

`PHOTOS` holds the folders `clic2025/` and `cid22/`; `RENDERS` the `assets/` folder of the npm package
`@lobehub/fluent-emoji-3d` (`npm pack @lobehub/fluent-emoji-3d`, then unpack). `data.json` beside this file
lists the sources with their licences, the files left out and why, and the photos held out for measurement.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image, ImageEnhance
from tqdm import tqdm

from datasets_script.utils.errors import UserError
from training.script import run_script


SIZE = 256
LISTING = json.loads(Path(__file__).with_suffix(".json").read_text())


def list_photos(root: Path, held_out: bool) -> list[Path]:
    """
    List the photos for training or the held-out ones, without the graphics among them.

    Args:
        root (`Path`): Folder with `clic2025/` and `cid22/`, which hold `.jpg` files.
        held_out (`bool`): Whether to list the held-out photos.

    Raises:
        UserError: The folder does not exist, or holds no photo.
    """
    if not root.is_dir():
        raise UserError(f"--photos must be a folder with clic2025/ and cid22/, got '{root}'")
    excluded, reserved = set(LISTING["excluded"]), set(LISTING["held_out"])
    names = sorted(str(path.relative_to(root)) for path in root.glob("*/*.jpg"))
    if not names:
        raise UserError(f"--photos must hold <folder>/<name>.jpg, found none under '{root}'")
    return [root / name for name in names if name not in excluded and (name in reserved) == held_out]


def centre_crop(photo: Image.Image) -> Image.Image:
    """Crop to the largest centred square and resize it to 256×256 px, as held-out photos are measured."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def random_crop(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop a random square, resize it to 256×256 px, and mirror it and change its colours at random."""
    side = min(photo.size) * rng.uniform(0.4, 1.0)
    left, top = rng.uniform(0, photo.width - side), rng.uniform(0, photo.height - side)
    crop = photo.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        crop = enhancer(crop).enhance(rng.uniform(0.8, 1.2))
    return crop


def paste_renders(image: Image.Image, renders: list[Path], rng: np.random.Generator) -> None:
    """Paste one to four renders of people, animals and things in place, to train on sharp objects of many sizes."""
    for _ in range(rng.integers(1, 5)):
        render = Image.open(renders[rng.integers(len(renders))]).convert("RGBA")
        side = int(SIZE * rng.uniform(0.2, 0.8))
        render = render.resize((side, side), Image.Resampling.LANCZOS).rotate(
            rng.uniform(-25, 25), Image.Resampling.BICUBIC
        )
        if rng.random() < 0.5:
            render = render.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left, top = rng.integers(-side // 4, SIZE - 3 * side // 4, 2).tolist()
        image.paste(render, (left, top), render)


def make_crop(index: int, photos: list[Path], renders: list[Path], render_share: float, seed: int) -> np.ndarray:
    """
    Make one training image.

    Args:
        index (`int`): Number of the image; with `seed` it determines the photo and all random choices.
        photos, renders (`list[Path]`): Files to choose from.
        render_share (`float`): Probability of pasting renders, in [0, 1].
        seed (`int`): Seed of all images.

    Returns:
        `np.ndarray` of shape `(256, 256, 3)`, `uint8`.
    """
    rng = np.random.default_rng([seed, index])
    with Image.open(photos[index % len(photos)]) as photo:
        photo.draft("RGB", (768, 768))
        crop = random_crop(photo.convert("RGB"), rng)
    if rng.random() < render_share:
        paste_renders(crop, renders, rng)
    return np.asarray(crop)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.embedded.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder with clic2025/ and cid22/")
    parser.add_argument("--renders", type=Path, required=True, help="folder of RGBA renders (.webp)")
    parser.add_argument("--out", type=Path, required=True, help=".npy file to write, uint8 (crops, 256, 256, 3)")
    parser.add_argument("--num-crops", type=int, default=12000, help="number of crops to make (default: %(default)s)")
    parser.add_argument(
        "--render-share", type=float, default=0.3, help="share of crops with renders pasted in (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the crops (default: %(default)s)")
    args = parser.parse_args(arguments)
    photos, renders = list_photos(args.photos, held_out=False), sorted(args.renders.glob("*.webp"))
    if not renders:
        raise UserError(f"--renders must be a folder of .webp files, found none in '{args.renders}'")
    print(f"{len(photos)} photos, {len(renders)} renders")
    make = partial(make_crop, photos=photos, renders=renders, render_share=args.render_share, seed=args.seed)
    partial_path = args.out.with_name(args.out.name + ".incomplete")
    crops = open_memmap(partial_path, mode="w+", dtype=np.uint8, shape=(args.num_crops, SIZE, SIZE, 3))
    with ProcessPoolExecutor() as pool:
        for i, crop in enumerate(tqdm(pool.map(make, range(args.num_crops), chunksize=32), total=args.num_crops)):
            crops[i] = crop
    crops.flush()
    partial_path.replace(args.out)


if __name__ == "__main__":
    run_script(main)
