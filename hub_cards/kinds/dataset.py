"""Push a dataset written by `artiagent synthesize` or `artiagent prepare`."""

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
from datasets_script.schema.run_record import RUN_FILE, RunRecord
from datasets_script.utils.data_cards import patterns_of
from datasets_script.utils.errors import UserError

from ..checks import check_license, parse_card, read_json
from ..payload import CARD, LICENSE, Kind, Payload, SentFile, divide, replaced


if TYPE_CHECKING:
    from huggingface_hub import RepoCard


_RUN_SHARDS = "data/pairs-*.parquet"
# Number of folders above an image in a prepared dataset.
_IMAGE_DEPTH = 3
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.parquet")


def dataset_payload(folder: Path, repo_id: str, license: str | None) -> Payload:
    """
    Collect the files to send of a dataset: shards, images, settings, counts and rejections, the contact sheet, and the
    card.

    Args:
        folder (`Path`): Folder of the dataset.
        repo_id (`str`): Repository of the dataset, `owner/name`.
        license (`str`, *optional*): Hub identifier of the licence. If not given, that of the folder's card.

    Returns:
        `Payload`: The files.

    Raises:
        UserError: The dataset is incomplete, has no licence, or holds something that must not be published.
    """
    from ..cards import dataset_card

    files, left_out = divide(KIND, folder)
    shards = [file for file in files if file.path.endswith(".parquet")]
    if not shards or not (folder / CARD).is_file():
        raise UserError(
            f"PATH must be a folder with shards and a {CARD}, as written by `artiagent synthesize` or `artiagent "
            f"prepare --out`, got '{folder}'"
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
        raise UserError(f"'{folder / CARD}' must list the files of each split in `configs`, got no `configs`")
    return card


def _license(card: RepoCard, license: str | None) -> str:
    """Choose the given licence, or else that of the card."""
    written = card.data.to_dict().get("license", "unknown")
    if license is None and written == "unknown":
        raise UserError(
            "--license must be given, since the images are derived from photos and from the output of a model; use "
            "the Hub identifier of a licence that theirs permit"
        )
    return license or written


def _configs(card: RepoCard, names: Mapping[str, int]) -> dict[str, list[str]]:
    """Find the files of each configuration, the default one first."""
    configs: dict[str, list[str]] = {}
    for config in sorted(card.data.to_dict()["configs"], key=lambda config: not config.get("default")):
        patterns = patterns_of(config)
        configs[config["config_name"]] = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    return configs


def _foreign(card: RepoCard, names: Mapping[str, int]) -> list[str]:
    """Find files that no configuration names."""
    configs = _configs(card, names)
    if empty := [config for config, files in configs.items() if not files]:
        raise UserError(f"PATH must have files of configuration {empty[0]}, got none; prepare the dataset again")
    named = {name for files in configs.values() for name in files}
    return [name for name in names if name not in named]


def _check_parts(names: Mapping[str, int]) -> None:
    """Raise an error if a shard is missing, e.g. one of two named `x-00000-of-00002.parquet`."""
    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for name in names:
        if match := _PART.fullmatch(name):
            found[match["stem"], int(match["count"])].add(int(match["number"]))
    for (stem, count), numbers in found.items():
        if missing := sorted(set(range(count)) - numbers):
            raise UserError(
                f"PATH must have all {count} shards of {stem}, but {stem}-{missing[0]:05d}-of-{count:05d}.parquet is "
                "missing; prepare the dataset again"
            )


def _unnamed_images(folder: Path, shards: Iterable[str], paths: Sequence[str]) -> list[str]:
    """Find images that no row names, after checking that all named images exist."""
    from datasets_script.pairs.named_images import named_files

    images = {path for path in paths if path.count("/") == _IMAGE_DEPTH}
    named = set[str]().union(*(named_files(folder / shard) for shard in shards))
    if missing := sorted(named - images):
        raise UserError(
            f"PATH must have all images of its rows, but {missing[0]} is missing; prepare the dataset again"
        )
    return sorted(images - named)


def _check_run(folder: Path, rows: Mapping[str, int]) -> None:
    if not (folder / RUN_FILE).is_file():
        raise UserError(f"PATH must be a dataset with {RUN_FILE} or prepared.json, got '{folder}' with neither")
    run = RunRecord.read(folder)
    if not run.is_complete:
        raise UserError(
            f"PATH must be a complete run, got one with status '{run.status}'; repeat the command that began it "
            f"(`artiagent status {folder}` shows its progress)"
        )
    from datasets_script.engine.shards import SOURCES_FILE, Shards

    recorded = (folder / SOURCES_FILE).exists()
    count = (
        len(Shards.read(folder, run.settings)) if recorded else -(-run.sources["count"] // run.settings["shard_size"])
    )
    for shard in range(count):
        marker = folder / "shards" / f"{shard:05d}.json"
        if f"data/pairs-{shard:05d}.parquet" not in rows or not marker.is_file():
            raise UserError(
                f"PATH must be a complete run, got shard {shard} of {count} unfinished; repeat the command that began "
                "the run"
            )
        if read_json(marker)["fingerprint"] != run.fingerprint:
            raise UserError(
                f"PATH must hold a single run, got another fingerprint in shard {shard}; remove the shards of other "
                "runs"
            )
    if len(rows) != count or sum(rows.values()) != run.pairs:
        raise UserError(
            f"PATH must have {run.pairs} pairs in {count} shards according to {RUN_FILE}, got {sum(rows.values())} in "
            f"{len(rows)}; restore the files that the run wrote"
        )


def _count_rows(path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(path).num_rows
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"'{path}' must be a complete Parquet file, got an error: {error}") from error


def _fingerprint(folder: Path, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _without_traces(file: SentFile) -> bytes | None:
    """Remove the tracebacks of rejections, which hold local paths and say nothing about the dataset."""
    if file.path != "rejected.jsonl":
        return None
    records: list[dict[str, Any]] = [json.loads(line) for line in file.read().decode().split("\n") if line]
    for record in records:
        record.pop("traceback", None)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


KIND = Kind(
    name="dataset",
    repo_type="dataset",
    help="a dataset written by `artiagent synthesize` or `artiagent prepare --out`",
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
    marks=((RUN_FILE, "prepared.json"),),
    build=dataset_payload,
    options=(LICENSE,),
)
