"""Measure the disk space of all configurations of a dataset of pairs, and how fast its conversations are read.

    python tests/benchmarks/disk.py --json disk.json [--run RUN]

- `prepared_ratio`: bytes of the images and rows that `artiagent prepare artiagent --out` writes for all
  configurations, divided by the bytes of the run's Parquet files.
- `cache_ratio`: bytes that `ArtiAgentPairs` stores in the cache of `datasets` for all configurations, divided by the
  same. `conversations_ratio` counts only the configurations of stage 1: vqa, instructions and comparisons.
- `copied_ratio`: the same for these conversations with a copy of the image in each row that shows it.
- `read_speedup`, `collate_speedup`: rows a second of the conversations, divided by those of conversations with copied
  images, in training's shuffled order: of rows with decoded images, and of the collator of TRL's `SFTTrainer` with the
  processor of a small Qwen2.5-VL. Passes alternate; figures are medians over passes.

Without `--run`, pairs have random pixels and a photo of their own each: the worst case, because pairs of the same
photo share its images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import trl
from datasets.table import embed_table_storage


# A script finds its siblings from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datasets_script.pairs.builder import ArtiAgentPairs
from datasets_script.pairs.configurations import IMAGE_FOLDERS, NAMES
from datasets_script.pairs.prepare import prepare_pairs_folder
from datasets_script.pairs.storage import find_shards
from datasets_script.pairs.views.vqa import BoxFormat
from evaluate_metrics.functional.versions import versions
from tests.helpers.made_pairs import make_pair, write_run
from tests.helpers.tiny_vlms import tiny_qwen2_5_vl
from training.preview_vlm import make_collator
from training.vlm.data import PAIR_CONVERSATIONS, Conversations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument(
        "--run", type=Path, help="folder written by `artiagent synthesize` (default: pairs with random pixels)"
    )
    parser.add_argument("--pairs", type=int, default=48, help="number of pairs to make (default: %(default)s)")
    parser.add_argument(
        "--rows", type=int, default=200, help="number of conversations in a pass (default: %(default)s)"
    )
    parser.add_argument("--passes", type=int, default=5, help="number of passes of each kind (default: %(default)s)")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder, "cache")
        run = args.run or make_run(Path(folder, "run"), args.pairs)
        figures = sizes(run, Path(folder)) | speeds(run, Path(folder), args.rows, args.passes)
    figures["versions"] = versions("datasets", "pyarrow", "trl", "transformers")
    text = json.dumps(figures, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


def make_run(folder: Path, pairs: int) -> Path:
    write_run(folder, [make_pair(index) for index in range(pairs)])
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n\n# Pairs of random pixels\n")
    return folder


def sizes(run: Path, folder: Path) -> dict[str, Any]:
    pairs = sum(Path(path).stat().st_size for path in find_shards(run))
    prepared = folder / "prepared"
    prepare_pairs_folder(run, prepared, NAMES)
    for name in NAMES:
        ArtiAgentPairs(config_name=name, source=str(run), cache_dir=str(folder / "all")).download_and_prepare()
    for name in PAIR_CONVERSATIONS:
        ArtiAgentPairs(config_name=name, source=str(run), cache_dir=str(folder / "some")).download_and_prepare()
    images = sum(size(prepared / name) for name in IMAGE_FOLDERS)
    rows = sum(path.stat().st_size for path in prepared.glob("*.parquet"))
    return {
        "pairs_bytes": pairs,
        "prepared_ratio": round((images + rows) / pairs, 3),
        "cache_ratio": round(size(folder / "all") / pairs, 3),
        "conversations_ratio": round(size(folder / "some") / pairs, 3),
    }


def speeds(run: Path, folder: Path, count: int, passes: int) -> dict[str, Any]:
    rows = Conversations(run, PAIR_CONVERSATIONS, BoxFormat("qwen2.5")).load()["train"]
    copied = rows.with_format("arrow").map(embed_table_storage, batched=True, batch_size=16).with_format(None)
    copied.save_to_disk(folder / "copied")
    pairs = sum(Path(path).stat().st_size for path in find_shards(run))
    both = {"named": rows, "copied": datasets.load_from_disk(folder / "copied")}
    both = {name: data.select(range(min(count, len(data)))) for name, data in both.items()}
    processor = tiny_qwen2_5_vl()[1]
    processor.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5_vl.jinja").read_text()
    collator = make_collator(processor)
    read = rates(both, list, passes)
    collated = rates(both, lambda data: [collator([row]) for row in data], passes)
    return {
        "copied_ratio": round(size(folder / "copied") / pairs, 3),
        "read_rows_per_second": {name: round(value, 1) for name, value in read.items()},
        "read_speedup": round(read["named"] / read["copied"], 3),
        "collated_rows_per_second": {name: round(value, 1) for name, value in collated.items()},
        "collate_speedup": round(collated["named"] / collated["copied"], 3),
    }


def rates(both: dict[str, datasets.Dataset], use: Callable[[Iterable[Any]], Any], passes: int) -> dict[str, float]:
    """Return rows per second of CPU time, which other programs disturb least. The first pass warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(passes + 1):
        for name, data in both.items():
            start = time.process_time()
            use(data)
            seconds[name].append(time.process_time() - start)
    return {name: len(both[name]) / statistics.median(times[1:]) for name, times in seconds.items()}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
