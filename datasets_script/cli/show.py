"""`artiagent show`: draw a data set, or what a perception backend sees."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ..agents.perception import (
    Perception,
    PerceptionAgent,
    PerceptionError,
)
from ..engine.ledger import read_totals
from ..engine.summary import acceptance_table, summary_table
from ..figures.sheets import contact_sheet, perception_sheet
from ..pairs.storage import read_pairs
from ..schema.pair import Pair
from ..utils.errors import UserError
from ..utils.files import replacing
from ..utils.photos import SourceError, list_sources, open_source
from .options import (
    add_perception_options,
    add_vlm_options,
    at_least,
    make_perception,
    make_vlm,
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "show",
        help="contact sheet and tables of a data set, or what a perception backend sees",
        epilog="examples: artiagent show out/; artiagent show photos/ --perception people --sheet seen.png",
    )
    parser.add_argument("folder", type=Path, help="folder written by `artiagent synthesize`, or one of photographs")
    parser.add_argument("--max-pairs", type=int, default=64, help="most pairs on the sheet (default: 64)")
    parser.add_argument("--pairs", help="comma-separated pair ids to show instead, e.g. astronaut.png:0,cat.png:1")
    parser.add_argument("--sheet", type=Path, help="picture to write (default: contact_sheet.png, or perception.png)")
    parser.add_argument("--max-images", type=int, default=24, help="most photographs to perceive (default: 24)")
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    add_perception_options(parser)
    add_vlm_options(parser)
    parser.set_defaults(run=run, perception=None)


def run(args: argparse.Namespace) -> int:
    if args.perception:
        return show_perception(args)
    out = args.folder
    if not (out / "run.json").is_file():
        raise UserError(
            f"FOLDER must be written by `artiagent synthesize`, found no run.json in '{out}'; "
            "with --perception it may be one of photographs"
        )
    if not any((out / "data").glob("*.parquet")):
        raise UserError(f"'{out}' holds no pairs yet")
    sheet = args.sheet or out / "contact_sheet.png"
    check_picture_name(sheet)
    pairs: Iterable[Pair] = read_pairs(out)
    if args.pairs:
        wanted = args.pairs.split(",")
        found = {pair.pair_id: pair for pair in pairs if pair.pair_id in wanted}
        missing = [pair_id for pair_id in wanted if pair_id not in found]
        if missing:
            raise UserError(f"--pairs must be ids of pairs in '{out}', got '{missing[0]}'")
        pairs = [found[pair_id] for pair_id in wanted]
    save_picture(contact_sheet(pairs, max_pairs=at_least("--max-pairs", args.max_pairs)), sheet)
    totals = read_totals(out)
    print(f"{summary_table(totals)}\n\n{acceptance_table(totals)}\npictures in {sheet}")
    return 0


def show_perception(args: argparse.Namespace) -> int:
    if not args.folder.is_dir():
        raise UserError(f"FOLDER must be a folder of photographs, got '{args.folder}'")
    sheet = args.sheet or Path("perception.png")
    check_picture_name(sheet)
    vlm = make_vlm(args)
    agent = make_perception(args, args.folder, vlm)
    names = [name for name in list_sources(args.folder) if not name.endswith(".json")]
    names = names[: at_least("--max-images", args.max_images)]
    if not names:
        raise UserError(f"FOLDER must hold photographs, found no file in '{args.folder}'")
    save_picture(perception_sheet(perceived(agent, args.folder, tqdm(names, unit="photo"))), sheet)
    print(f"pictures in {sheet}")
    return 0


def perceived(
    agent: PerceptionAgent, folder: Path, names: Iterable[str]
) -> Iterator[tuple[str, Image.Image, Perception | PerceptionError]]:
    for name in names:
        try:
            image = open_source(folder / name)
        except SourceError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        yield name, image, agent.perceive_batch([image], [name])[0]


def check_picture_name(path: Path) -> None:
    if path.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"--sheet must end as a picture's name does (.png, .jpg, .webp), got '{path}'")


def save_picture(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])
