"""`artiagent show`: draw the pairs of a run, or what a perception backend finds in photos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..schema.run_record import RUN_FILE
from ..utils.errors import UserError
from .options import (
    add_filter_options,
    add_perception_options,
    add_vlm_options,
    make_perception,
    make_vlm,
    pair_filter,
)
from .parser import Parser, positive_int


if TYPE_CHECKING:
    from PIL import Image

    from ..agents.perception import Perception, PerceptionAgent, PerceptionError


DESCRIPTION = """\
Draw a contact sheet of a run's pairs, and print how many artifacts were made, accepted and rejected. With
--perception, draw instead what a perception backend finds in photos: entities, their parts, and which of them can get
an artifact. Check that before a long run."""

EPILOG = """\
examples:
  artiagent show out/                                                     draw up to 64 pairs
  artiagent show out/ --pairs astronaut.png:0,cat.png:1 --sheet two.png   draw these two pairs
  artiagent show photos/ --perception people --sheet seen.png             preview perception"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="folder written by `artiagent synthesize`; with --perception, folder of photos",
    )
    parser.add_argument("--max-pairs", type=positive_int, default=64, help="draw at most N pairs (default: 64)")
    parser.add_argument("--pairs", help="draw only these pairs, a comma-separated list of ids, e.g. astronaut.png:0")
    parser.add_argument(
        "--sheet",
        type=Path,
        help="image file to write; further pages get a number (default: contact_sheet.png in FOLDER; with "
        "--perception, FOLDER-perception.png beside FOLDER)",
    )
    parser.add_argument(
        "--max-images", type=positive_int, default=24, help="with --perception, draw at most N photos (default: 24)"
    )
    parser.add_argument("--device", help="device of the models, such as cuda:1 (default: cuda if available, else cpu)")
    add_filter_options(parser)
    add_perception_options(parser, default=None, default_help="none, draw the pairs of a run")
    add_vlm_options(parser)


def run(args: argparse.Namespace) -> int:
    if args.perception:
        return show_perception(args)
    from ..engine.ledger import read_totals
    from ..engine.summary import acceptance_table, summary_table
    from ..figures.sheets import contact_sheets, save_pages
    from ..pairs.storage import read_pairs

    out = args.folder
    if not (out / RUN_FILE).is_file():
        raise UserError(
            f"FOLDER must be written by `artiagent synthesize`, found no {RUN_FILE} in '{out}'; "
            "for a folder of photos, give --perception"
        )
    if not any((out / "data").glob("*.parquet")):
        raise UserError(f"FOLDER must hold pairs, found none in '{out}' yet; wait until its first shard is finished")
    sheet = args.sheet or out / "contact_sheet.png"
    check_image_name(sheet)
    only = pair_filter(args)
    pairs = iter(read_pairs(out, only))
    if args.pairs:
        wanted = args.pairs.split(",")
        found = {pair.pair_id: pair for pair in pairs if pair.pair_id in wanted}
        missing = [pair_id for pair_id in wanted if pair_id not in found]
        if missing:
            raise UserError(f"--pairs must be ids of pairs in '{out}', got '{missing[0]}'")
        pairs = iter([found[pair_id] for pair_id in wanted])
    try:
        files = save_pages(contact_sheets(pairs, max_pairs=args.max_pairs), sheet)
    except ValueError as error:
        raise UserError(f"the filters must keep at least one pair of '{out}', kept none: {only}") from error
    totals = read_totals(out)
    print(f"{summary_table(totals)}\n\n{acceptance_table(totals)}\nimages in {', '.join(map(str, files))}")
    return 0


def show_perception(args: argparse.Namespace) -> int:
    """Draw what a perception backend finds in photos; return the exit status."""
    from tqdm import tqdm

    from ..figures.sheets import perception_sheet
    from ..utils.photos import list_sources

    if not args.folder.is_dir():
        raise UserError(f"FOLDER must be a folder of photos, got '{args.folder}'")
    folder = args.folder.resolve()
    sheet = args.sheet or folder.parent / f"{folder.name}-perception.png"  # in the folder it would be a photo
    check_image_name(sheet)
    vlm = make_vlm(args)
    agent = make_perception(args, args.folder, vlm)
    names = [name for name in list_sources(args.folder) if not name.endswith(".json")]
    names = names[: args.max_images]
    if not names:
        raise UserError(f"FOLDER must hold photos, found no file in '{args.folder}'")
    save_image(perception_sheet(perceived(agent, args.folder, tqdm(names, unit="photo"))), sheet)
    print(f"images in {sheet}")
    return 0


def perceived(
    agent: PerceptionAgent, folder: Path, names: Iterable[str]
) -> Iterator[tuple[str, Image.Image, Perception | PerceptionError]]:
    """
    Perceive photos one by one; report on the standard error those that cannot be opened.

    Args:
        agent (`PerceptionAgent`): Loaded perception backend.
        folder (`Path`): Folder of the photos.
        names (`Iterable[str]`): Photos, relative to the folder.

    Yields:
        `tuple`: Name, photo, and what was found in it or why that failed.
    """
    from ..utils.photos import SourceError, open_source

    for name in names:
        try:
            image = open_source(folder / name)
        except SourceError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        yield name, image, agent.perceive_batch([image], [name])[0]


def check_image_name(path: Path) -> None:
    """
    Check that a file's extension is that of an image format.

    Raises:
        UserError: It is not.
    """
    from PIL import Image

    if path.suffix.lower() not in Image.registered_extensions():
        raise UserError(f"--sheet must end in .png, .jpg, .webp or another image extension, got '{path}'")


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image atomically, in the format of the file's extension."""
    from PIL import Image

    from ..utils.files import replacing

    with replacing(path) as temporary:
        image.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])
