"""Push a dataset, as `artiagent synthesize` or `artiagent prepare` leaves it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets_script.pairs.configurations import IMAGE_FOLDERS
from datasets_script.utils.errors import UserError

from ..checks import check_license, parse_card, read_json
from ..payload import CARD, LICENSE, Kind, Payload, SentFile, divide, replaced


if TYPE_CHECKING:
    from huggingface_hub import RepoCard


_RUN_SHARDS = "data/pairs-*.parquet"
# Folders above an image of a prepared folder.
_IMAGE_DEPTH = 3
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.parquet")


def dataset_payload(folder: Path, repo_id: str, license: str | None) -> Payload:
    """
    Collect what is sent of a dataset: shards, settings, counts and rejections, the contact sheet, and its card.

    Raises:
        UserError: it is not whole, has no licence, or holds something that must not be published.
    """
    from ..cards import dataset_card

    files, left_out = divide(KIND, folder)
    shards = [file for file in files if file.path.endswith(".parquet")]
    if not shards or not (folder / CARD).is_file():
        raise UserError(
            f"PATH must be a folder written by `artiagent synthesize` or `artiagent prepare --out`, with shards and a "
            f"{CARD}, got '{folder}'"
        )
    rows = {file.path: _count_rows(folder / file.path) for file in shards}
    card = _read_card(folder)
    if (folder / "prepared.json").is_file():
        foreign = _foreign(card, rows)
        _check_parts(rows)
        foreign += _unnamed_images(folder, rows, [file.path for file in files])
    else:
        foreign = [name for name in rows if not fnmatchcase(name, _RUN_SHARDS)]
        _check_run(folder, {name: count for name, count in rows.items() if name not in foreign})
    files = [file for file in files if file.path not in foreign]
    kept = {name: count for name, count in rows.items() if name not in foreign}
    license = check_license(_license(card, license))
    matching = _configs(card, kept)
    counts = {name: sum(kept[file] for file in matching[name]) for name in matching}
    facts = {
        "fingerprint": f"sha256 {_fingerprint(folder, sorted(kept))} over the shards",
        "rows": counts,
        "files": len(files) + 1,
    }
    text = dataset_card(repo_id, card.text, card.data, facts, next(iter(counts.values())), license)
    files = list(replaced(files, _without_traces))
    return Payload.of(KIND, repo_id, folder, files, text, [*left_out, *foreign])


def _read_card(folder: Path) -> RepoCard:
    card = parse_card((folder / CARD).read_text(encoding="utf-8"), "dataset")
    if not card.data.to_dict().get("configs"):
        raise UserError(f"'{folder / CARD}' must say in `configs` which files are which split")
    return card


def _license(card: RepoCard, license: str | None) -> str:
    """What is asked for comes before what the card says, where that says anything."""
    written = card.data.to_dict().get("license", "unknown")
    if license is None and written == "unknown":
        raise UserError(
            "--license is needed: the images derive from photos and from a model's output; give the Hub's "
            "identifier of a licence that theirs allow"
        )
    return license or written


def _configs(card: RepoCard, names: Mapping[str, int]) -> dict[str, list[str]]:
    """The files of each configuration, the first the default."""
    configs: dict[str, list[str]] = {}
    for config in sorted(card.data.to_dict()["configs"], key=lambda config: not config.get("default")):
        paths = [entry["path"] for entry in config["data_files"]]
        patterns = [pattern for path in paths for pattern in ([path] if isinstance(path, str) else path)]
        configs[config["config_name"]] = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    return configs


def _foreign(card: RepoCard, names: Mapping[str, int]) -> list[str]:
    """Files that no configuration names."""
    configs = _configs(card, names)
    if empty := [config for config, files in configs.items() if not files]:
        raise UserError(f"PATH must be whole, but the configuration {empty[0]} has no file: prepare it again")
    named = {name for files in configs.values() for name in files}
    return [name for name in names if name not in named]


def _check_parts(names: Mapping[str, int]) -> None:
    """Of `x-00000-of-00002.parquet` there must be two."""
    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for name in names:
        if match := _PART.fullmatch(name):
            found[match["stem"], int(match["count"])].add(int(match["number"]))
    for (stem, count), numbers in found.items():
        if missing := sorted(set(range(count)) - numbers):
            raise UserError(f"PATH must be whole, but {stem}-{missing[0]:05d}-of-{count:05d}.parquet is missing")


def _unnamed_images(folder: Path, shards: Iterable[str], paths: Sequence[str]) -> list[str]:
    """The images that no row names; those that rows name must all be there."""
    from datasets_script.pairs.named_images import named_files

    images = {path for path in paths if path.count("/") == _IMAGE_DEPTH}
    named = set[str]().union(*(named_files(folder / shard) for shard in shards))
    if missing := sorted(named - images):
        raise UserError(f"PATH must be whole, but {missing[0]} is missing")
    return sorted(images - named)


def _check_run(folder: Path, rows: Mapping[str, int]) -> None:
    path = folder / "run.json"
    if not path.is_file():
        raise UserError(f"PATH must be a dataset with its run.json or prepared.json, found neither in '{folder}'")
    run = read_json(path)
    if run.get("status") != "complete":
        raise UserError(
            f"PATH must be a complete run, this one is '{run.get('status')}': `artiagent status {folder}` tells how "
            "far it is, and the command that began it continues it"
        )
    count = -(-run["sources"]["count"] // run["settings"]["shard_size"])
    for shard in range(count):
        marker = folder / "shards" / f"{shard:05d}.json"
        if f"data/pairs-{shard:05d}.parquet" not in rows or not marker.is_file():
            raise UserError(f"PATH must be a complete run, but shard {shard} of {count} is not finished")
        if read_json(marker)["fingerprint"] != run["fingerprint"]:
            raise UserError(f"PATH must be one run, but shard {shard} is of another: its fingerprint differs")
    if len(rows) != count or sum(rows.values()) != run["pairs"]:
        raise UserError(
            f"PATH must be as its run left it: run.json says {run['pairs']} pairs in {count} shards, there are "
            f"{sum(rows.values())} in {len(rows)}"
        )


def _count_rows(path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(path).num_rows
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"'{path}' is no whole Parquet file: {error}") from error


def _fingerprint(folder: Path, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _without_traces(file: SentFile) -> bytes | None:
    """A rejection's traceback tells the paths of the machine it happened on, and nothing of the dataset."""
    if file.path != "rejected.jsonl":
        return None
    records: list[dict[str, Any]] = [json.loads(line) for line in file.read().decode().split("\n") if line]
    for record in records:
        record.pop("traceback", None)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


KIND = Kind(
    name="dataset",
    repo_type="dataset",
    help="a dataset, a folder of `artiagent synthesize` or `artiagent prepare --out`",
    path_help="folder of the dataset",
    examples=('dataset out me/pairs --license cc-by-4.0            then: load_dataset("me/pairs")',),
    allowed=(
        "run.json",
        "prepared.json",
        "rejected.jsonl",
        "skipped.jsonl",
        "contact_sheet.png",
        "*.parquet",
        "*/*.parquet",
        *(f"{folder}/*/*/*.png" for folder in IMAGE_FOLDERS),
    ),
    build=dataset_payload,
    options=(LICENSE,),
)
