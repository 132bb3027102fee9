"""The report on a dataset of pairs: its numbers, findings and page."""

from __future__ import annotations

import argparse
import base64
import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets.arrow_writer import ParquetWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets_script.cli.main import build_parser
from datasets_script.pairs.report import write_pair_report
from datasets_script.pairs.report.columns import ArtifactFacts, Box, PairFacts, read_facts
from datasets_script.pairs.report.findings import find_biases
from datasets_script.pairs.report.labels import label_agreement
from datasets_script.pairs.report.statistics import GRID, Statistics, best_constant_box, covered_cells, wilson_interval
from datasets_script.schema.features import PAIR_FEATURES, pair_to_row
from datasets_script.schema.pair import Artifact, Pair
from datasets_script.utils.errors import UserError
from diffusers_artifact.mapping import ArtifactType, PatchMapping
from diffusers_artifact.tools import bbox_of_mask
from diffusers_artifact.visible_change import label_masks


SIZE = (96, 48)
TOOL_OF: dict[ArtifactType, str] = {
    "duplication": "add",
    "omission": "remove",
    "distortion": "distort",
    "fusion": "fuse",
}


def make_artifact(
    kind: ArtifactType, bbox: Box, part: str = "ear", inside: float = 0.2, outside: float = 0.01, kernel: str = ""
) -> Artifact:
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
    mask[int(bbox[1]) : int(bbox[3]), int(bbox[0]) : int(bbox[2])] = True
    return Artifact(
        type=kind,
        tool=TOOL_OF[kind],
        entity="cat",
        part=part,
        fused_entity="",
        mapping=PatchMapping.from_pairs([(0, 1)], (3, 6), kind),
        mask=mask,
        bbox=bbox,
        part_mask=mask,
        label=f"{kind} of <ear> & $2 or $3",
        explanation="The cat has <two> ears.",
        scores={"change_inside": inside, "change_outside": outside, "psnr_outside": 40.0},
        kernel=kernel,
    )


def make_pair(number: int, photo: int, *artifacts: Artifact) -> Pair:
    rng = np.random.default_rng(number)
    clean, flawed = (Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)) for _ in range(2))
    return Pair(
        pair_id=f"cat-{photo}.png:{number}",
        source_id=f"cat-{photo}.png",
        variant=number,
        source=clean,
        clean=clean,
        flawed=flawed,
        caption="a cat",
        clean_description="A whole cat.",
        explanation="Something is wrong with this cat.",
        explanation_source="template",
        grid=(3, 6),
        seed=0,
        solver="fireflow",
        num_inference_steps=8,
        model="embedded",
        model_revision="abc",
        transform={"crop": [0, 0, 96, 48], "output_size": list(SIZE), "source_size": [96, 48]},
        artifacts=artifacts,
    )


AT_THE_CORNER = PatchMapping.from_pairs([(0, 1)], (3, 6), "omission")
# Left half, right half, and the upper left quarter: of 96×48 px.
LEFT, RIGHT, CORNER = (0.0, 0.0, 48.0, 48.0), (48.0, 0.0, 96.0, 48.0), (0.0, 0.0, 48.0, 24.0)
PAIRS = [
    make_pair(0, 0, make_artifact("duplication", LEFT), make_artifact("omission", CORNER, "paw")),
    make_pair(1, 0, make_artifact("duplication", LEFT, inside=0.4)),
    make_pair(2, 1, make_artifact("distortion", RIGHT, outside=0.1, kernel="jitter")),
]
RUN: dict[str, Any] = {
    "settings": {"model": "embedded", "seed": 7},
    "perception": {"backend": "annotations"},
    "curation": {"metric": "stlpips", "vlm": None},
    "model_revision": "abc",
    "versions": {"torch": "2.15.0"},
    "sources": {"count": 2, "sha256": "0"},
    "status": "complete",
    "fingerprint": "0123",
    "pairs": 3,
    "acceptance": {
        "distortion/distort/jitter": {"made": 4, "accepted": 1},
        "duplication/add": {"made": 2, "accepted": 2},
        "omission/remove": {"made": 1, "accepted": 1},
    },
}
REJECTED = [
    {"stage": "curation", "reason": "stlpips 0.12 is below 0.4"},
    {"stage": "curation", "reason": "stlpips 0.3 is below 0.4"},
    {"stage": "plan", "reason": "it would take 28% of the image, over 13%"},
]


def write_set(out: Path, pairs: list[Pair], **changes: Any) -> Path:
    (out / "data").mkdir(parents=True)
    for number, shard in enumerate((pairs[:2], pairs[2:])):
        writer = ParquetWriter(features=PAIR_FEATURES, path=str(out / "data" / f"pairs-{number:05d}.parquet"))
        for pair in shard:
            writer.write(pair_to_row(pair))
        writer.finalize()
    (out / "run.json").write_text(json.dumps(RUN | {"pairs": len(pairs)} | changes))
    (out / "rejected.jsonl").write_text("".join(json.dumps(record) + "\n" for record in REJECTED))
    return out


def parse(*arguments: str) -> argparse.Namespace:
    parser = build_parser()
    return parser.parse_args(["report", *arguments])


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    out = write_set(tmp_path_factory.mktemp("sets") / "cats & dogs", PAIRS)
    with redirect_stdout(io.StringIO()) as printed:
        assert (args := parse(str(out))).run(args) == 0
    (out / "printed.txt").write_text(printed.getvalue())
    return out


@pytest.fixture(scope="module")
def content(out) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


class PageParser(HTMLParser):
    """Collects what a page refers to, and checks that what it opens is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.alternatives: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("img", "meta"):
            self._open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action"):
                self.links.append(value or "")
            if name == "alt":
                self.alternatives.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(out) -> PageParser:
    return PageParser((out / "report.html").read_text())


class TestNumbers:
    def test_counts_are_those_of_the_set(self, content):
        numbers = content["numbers"]
        assert (numbers["pairs"], numbers["photographs"], numbers["flaws"]) == (3, 2, 4)
        assert numbers["flaws_per_pair"] == {"1": 2, "2": 1}
        assert numbers["types"] == {"duplication": 2, "omission": 1, "distortion": 1, "fusion": 0}
        assert numbers["tools"] == {"add": 2, "remove": 1, "distort": 1}
        assert numbers["kernels"] == {"jitter": 1}
        assert numbers["entities"] == {"cat": {"duplication": 2, "omission": 1, "distortion": 1}}
        assert numbers["parts"] == {"ear": {"duplication": 2, "distortion": 1}, "paw": {"omission": 1}}
        assert numbers["explanation_sources"] == {"template": 3}
        assert numbers["acceptance"] == RUN["acceptance"]

    def test_reasons_are_counted_without_their_values(self, content):
        assert content["numbers"]["rejections"] == {
            "curation: stlpips … is below …": 2,
            "plan: it would take …% of the image, over …%": 1,
        }

    def test_sizes_and_positions_are_shares_of_the_image(self, content):
        numbers = content["numbers"]
        assert numbers["box_share"]["all"]["q50"] == 0.5 and numbers["box_share"]["omission"]["mean"] == 0.25
        assert numbers["ninths_of_the_image"] == [[1, 0, 0], [2, 0, 1], [0, 0, 0]]
        coverage = np.array(numbers["coverage"]["duplication"])
        assert coverage.shape == (GRID, GRID) and (coverage[:, :12] == 2).all() and not coverage[:, 12:].any()

    def test_the_constant_box_is_the_left_half(self, content):
        # With the two images whose artifacts are there its IoU is 1, with the third 0.
        constant = content["numbers"]["constant_box"]
        assert constant["box"] == [0, 0, 0.5, 1] and constant["n"] == 3
        assert constant["mean_iou"] == pytest.approx(2 / 3)
        assert constant["mean_iou_of_whole_image"] == pytest.approx(0.5)

    def test_changes_and_their_ratios(self, content):
        change = content["numbers"]["change"]
        assert change["duplication"]["inside"]["mean"] == pytest.approx(0.3)
        assert change["duplication"]["inside_outside_ratio"]["q50"] == pytest.approx(30)
        assert change["distortion"]["inside_outside_ratio"]["q50"] == pytest.approx(2)

    def test_labels_are_compared_with_what_changed(self, content, tmp_path):
        # The images of these pairs are unrelated noise, so that everything has changed.
        labels = content["numbers"]["labels"]
        assert labels["distortion"]["box_iou"]["q50"] == labels["distortion"]["mask_iou"]["q50"] == 0.5
        pair = make_pair(4, 0, replace(make_artifact("omission", (0.0, 0.0, 16.0, 16.0)), mapping=AT_THE_CORNER))
        pixels = np.array(pair.clean)
        pixels[2:14, 2:14] ^= 128
        pair = replace(pair, flawed=Image.fromarray(pixels))
        [change] = label_masks(np.asarray(pair.clean), pixels, [AT_THE_CORNER])
        for mask in (change, change & (np.arange(SIZE[0]) < 8)):
            artifact = replace(pair.artifacts[0], mask=mask, bbox=bbox_of_mask(mask))
            out = write_set(tmp_path / str(mask.sum()), [replace(pair, artifacts=(artifact,))])
            statistics = counted(*read_facts(out))
            [agreement] = label_agreement(out, statistics)["omission"]
            assert agreement.mask_iou == pytest.approx(mask.sum() / change.sum())
            assert (agreement.box_iou == 1) == (mask is change) and agreement.box_iou > 0.4
            statistics.agreements = {"omission": [agreement]}
            assert ("labels" in found(statistics)) == (mask is not change)

    def test_words_of_explanations(self, content):
        words = content["numbers"]["explanation_words"]
        assert words["of_flaws"]["q50"] == 5 and words["of_flaws"]["n"] == 4
        assert words["of_images"]["q50"] == 6 and words["of_images"]["n"] == 3

    def test_settings_versions_and_seeds_are_recorded(self, content):
        assert content["run"]["settings"]["seed"] == 7 and content["run"]["versions"] == {"torch": "2.15.0"}
        assert content["report"]["seed"] == 0 and content["report"]["versions"]["matplotlib"]


class TestPage:
    def test_everything_is_embedded(self, page):
        assert page.links and all(link.startswith("data:image/") for link in page.links)
        assert not {"script", "link", "iframe", "object"} & set(page.tags)
        for link in page.links:
            image = Image.open(io.BytesIO(base64.b64decode(link.partition("base64,")[2])))
            image.load()
            assert min(image.size) > 100

    def test_every_image_has_an_alternative_text(self, page):
        assert len(page.alternatives) == len(page.links) and all(page.alternatives)

    def test_shows_three_images_of_each_pair_it_shows(self, page):
        assert page.tags.count("figure") == 9
        for pair in PAIRS:
            assert pair.pair_id in page.text

    def test_texts_of_a_dataset_are_no_markup(self, page):
        assert "The cat has <two> ears." in page.text and "What is in cats & dogs" in page.text

    def test_says_what_was_found(self, page, content):
        assert content["findings"] and all(finding in page.text for finding in content["findings"])

    def test_another_set_has_other_charts(self, page, tmp_path):
        artifact = make_artifact("distortion", (0.0, 0.0, 24.0, 24.0), "tail", inside=0.5, kernel="strip")
        more = replace(make_pair(3, 2, replace(artifact, explanation="Odd.")), explanation="Something odd.")
        kept = RUN["acceptance"] | {"fusion/fuse": {"made": 9, "accepted": 1}}
        write_pair_report(write_set(tmp_path / "set", [*PAIRS, more], acceptance=kept), tmp_path, show_progress=False)
        before, after = (
            [link for link in links if link.startswith("data:image/png")]
            for links in (page.links, PageParser((tmp_path / "report.html").read_text()).links)
        )
        assert len(before) == len(after) == 9 and not set(before) & set(after)


def facts(number: int, *artifacts: ArtifactFacts, photo: str | None = None) -> PairFacts:
    return PairFacts(f"{number}", photo or f"{number}", "model", 20, artifacts, ("a.parquet", number))


def artifact_facts(
    kind: ArtifactType = "duplication", box: Box = (0.4, 0.4, 0.6, 0.6), **changes: Any
) -> ArtifactFacts:
    plain = ArtifactFacts(kind, TOOL_OF[kind], "", "cat", "ear", box, words=9, change_inside=0.2, change_outside=0.01)
    return replace(plain, **changes)


def counted(*pairs: PairFacts, **changes: Any) -> Statistics:
    statistics = Statistics(**changes)
    for pair in pairs:
        statistics.count(pair)
    return statistics


def found(statistics: Statistics, recorded: int | None = None) -> dict[str, list[str]]:
    """The biases by rule."""
    texts: dict[str, list[str]] = {}
    for finding in find_biases(statistics, statistics.pairs if recorded is None else recorded):
        if finding.is_bias:
            texts.setdefault(finding.rule, []).append(finding.text)
    return texts


def even_artifact(number: int, **changes: Any) -> ArtifactFacts:
    """One of a set without bias in type, place, size, part and entity."""
    kind: ArtifactType = list(TOOL_OF)[number % 4]
    x, y, side = number // 4 % 3 / 3 + 0.01, number // 12 % 3 / 3 + 0.01, (0.05, 0.1, 0.3)[number // 36 % 3]
    names = {"part": f"part {number // 4 % 17}", "entity": f"thing {number // 4 % 19}"}
    return artifact_facts(kind, (x, y, x + side, y + side), **(names | changes))


class TestFindings:
    def test_an_even_set_has_no_bias(self):
        pairs = [facts(n, *(even_artifact(n + k) for k in range(1 + n % 2))) for n in range(432)]
        assert found(counted(*pairs)) == {}

    @pytest.mark.parametrize(
        "rule, words, changes",
        [
            ("position", "99% of artifacts have their centre in the middle ninth", {"box": (0.4, 0.4, 0.6, 0.6)}),
            ("constant_box", "reaches a mean IoU of at least 0.99", {"box": (0.375, 0.375, 0.625, 0.625)}),
            ("size", "The median box covers 4.0% of the image", {"box": (0.4, 0.4, 0.6, 0.6)}),
            ("entities", "99% of artifacts are on “person”", {"entity": "person"}),
            ("change", "99% less than 3 times", {"change_outside": 0.1}),
        ],
    )
    def test_a_bias_is_told(self, rule, words, changes):
        pairs = [facts(n, replace(even_artifact(n), **changes)) for n in range(108)]
        texts = found(counted(*pairs, facts(108, even_artifact(108))))[rule]
        assert any(words in text for text in texts)

    def test_types_out_of_balance(self):
        pairs = [facts(n, artifact_facts("duplication" if n < 54 else "omission")) for n in range(100)]
        assert found(counted(*pairs))["type_balance"] == [
            "Duplications are 54% of all artifacts; an even share is 25%.",
            "Omissions are 46% of all artifacts; an even share is 25%.",
            "There are no distortions.",
            "There are no fusions.",
        ]

    def test_a_side_without_artifacts(self):
        pairs = [facts(n, artifact_facts(box=(0.0, 0.0, 0.1 + n / 100, 0.1))) for n in range(20)]
        texts = found(counted(*pairs))["position"]
        assert "Only 0% of artifacts have their centre in the right third; an even spread has 33%." in texts
        assert "Only 0% of artifacts have their centre in the lower third; an even spread has 33%." in texts

    def test_size_and_part_that_tell_the_type(self):
        small = [facts(n, artifact_facts("omission", (0.1, 0.1, 0.2, 0.2))) for n in range(30)]
        large = [facts(n, artifact_facts("fusion", (0.1, 0.1, 0.6, 0.6), part="")) for n in range(30)]
        biases = found(counted(*small, *large))
        assert "fusions covers 25% of the image, that of the other types 1.0%" in biases["size_tells_type"][1]
        assert biases["part_tells_type"] == ["The part gives away the type: 100% of those at “ear” are omissions."]

    def test_a_kind_that_is_seldom_kept(self):
        acceptance = {"fusion/fuse": {"made": 50, "accepted": 5}, "omission/remove": {"made": 100, "accepted": 90}}
        biases = found(counted(facts(0, artifact_facts()), acceptance=acceptance))
        assert biases["acceptance"] == [
            "fusion by fuse: 5 of 50 were kept (10%); the remaining ones are the easy cases."
        ]

    def test_a_second_opinion_that_sees_little(self):
        seen: dict[ArtifactType, bool] = {"duplication": True, "omission": False}
        pairs = [facts(n, artifact_facts(kind, is_detected=seen[kind])) for n in range(30) for kind in seen]
        pairs += [facts(60 + n, artifact_facts("omission", is_detected=False)) for n in range(10)]
        (text,) = found(counted(*pairs))["second_opinion"]
        assert text.startswith("A pixel detector saw 30 of 70 artifacts (43%): duplications 100%, omissions 0%.")
        numbers = counted(*pairs).as_dict()["second_opinion"]
        assert numbers["omission"] == {"asked": 40, "detected": 0}
        unasked = [finding.rule for finding in find_biases(counted(facts(0, artifact_facts())), 1)]
        assert "second_opinion" not in unasked

    def test_the_second_opinion_is_read_from_the_scores(self, tmp_path):
        artifacts = [make_artifact("duplication", LEFT), make_artifact("omission", CORNER)]
        asked = replace(artifacts[0], scores={**artifacts[0].scores, "detector_has_artifact": 1.0})
        (pair,) = read_facts(write_set(tmp_path / "set", [make_pair(0, 0, asked, artifacts[1])]))
        assert [artifact.is_detected for artifact in pair.artifacts] == [True, None]

    def test_pairs_of_one_photo_few_artifacts_and_missing_pairs(self):
        biases = found(
            counted(facts(0, artifact_facts(), photo="a"), facts(1, artifact_facts(), photo="a")), recorded=5
        )
        assert "2 pairs come from 1 photos" in biases["photographs"][0]
        assert biases["few_flaws"][0].startswith("2 artifacts are few")
        assert biases["missing_pairs"] == ["run.json records 5 pairs, but the files hold 2."]


class TestConstantBox:
    def test_of_equal_boxes_is_that_box(self):
        constant = best_constant_box([[(0.25, 0.25, 0.75, 0.5)]] * 3)
        assert constant.box == (0.25, 0.25, 0.75, 0.5) and constant.mean_iou == pytest.approx(1)
        assert constant.mean_iou_of_whole_image == pytest.approx(0.125)

    def test_takes_the_union_of_an_images_boxes(self):
        halves = [[(0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 1.0, 1.0)]]
        assert best_constant_box(halves).box == (0, 0, 1, 1)

    def test_needs_an_image(self):
        with pytest.raises(ValueError, match="`boxes_of_images` must hold at least one image"):
            best_constant_box([])

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(
            st.tuples(*[st.integers(0, GRID - 1)] * 2, *[st.integers(1, GRID)] * 2).filter(
                lambda box: box[0] < box[2] and box[1] < box[3]
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_no_box_of_the_set_is_better(self, boxes):
        def iou(a, b):
            width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
            shared = width * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
            return shared / (area - shared)

        constant = best_constant_box([[tuple(side / GRID for side in box)] for box in boxes])
        answer = [round(side * GRID) for side in constant.box]
        assert constant.mean_iou == pytest.approx(np.mean([iou(answer, box) for box in boxes]), abs=1e-4)
        assert all(np.mean([iou(box, other) for other in boxes]) <= constant.mean_iou + 1e-4 for box in boxes)


def test_cells_hold_the_exact_area_of_a_box():
    cells = covered_cells((0.1, 0.2, 0.43, 0.9))
    assert cells.sum() / GRID**2 == pytest.approx(0.33 * 0.7) and cells.max() <= 1


def test_the_interval_of_a_share_is_wilsons():
    # By the formula of Newcombe's table (1998): 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(5, 5)[1] == 1 and 0 < wilson_interval(5, 5)[0] < 1


def test_the_sample_is_of_fixed_size_and_fair():
    statistics = counted(*(facts(number, artifact_facts()) for number in range(4000)), sample_size=500)
    assert len(statistics.sample) == 500 and statistics.pairs == statistics.photos == 4000
    numbers = [int(pair.pair_id) for pair in statistics.sample]
    assert len(set(numbers)) == 500 and 1850 < np.mean(numbers) < 2150


def test_images_are_not_read(tmp_path):
    out = write_set(tmp_path / "set", PAIRS)
    before = list(read_facts(out))
    path = out / "data" / "pairs-00000.parquet"
    group, content = pq.ParquetFile(path).metadata.row_group(0), bytearray(path.read_bytes())
    for column in (group.column(number) for number in range(group.num_columns)):
        if column.path_in_schema.endswith(".bytes"):
            start = column.dictionary_page_offset or column.data_page_offset
            content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
    with pytest.raises(OSError):
        pq.read_table(path)
    assert list(read_facts(out)) == before and len(before) == 3


class TestMistakes:
    def test_a_folder_that_is_none_of_ours(self, tmp_path):
        with pytest.raises(UserError, match="found no run.json"):
            write_pair_report(tmp_path, tmp_path)

    def test_a_run_that_is_not_complete(self, tmp_path):
        with pytest.raises(UserError, match="not complete.*artiagent status"):
            write_pair_report(write_set(tmp_path / "set", PAIRS, status="running"), tmp_path)

    def test_a_set_without_pairs(self, tmp_path):
        with pytest.raises(UserError, match="must hold at least one pair, got none in .*rejected.jsonl"):
            write_pair_report(write_set(tmp_path / "set", []), tmp_path, show_progress=False)

    def test_a_file_that_is_cut_off(self, tmp_path):
        out = write_set(tmp_path / "set", PAIRS)
        (path := out / "data" / "pairs-00001.parquet").write_bytes(path.read_bytes()[:-9])
        with pytest.raises(UserError, match="pairs-00001.parquet' is not a complete Parquet file"):
            write_pair_report(out, tmp_path, show_progress=False)
        assert not (tmp_path / "report.html").exists()

    def test_a_set_without_its_rejections(self, tmp_path):
        out = write_set(tmp_path / "set", PAIRS)
        (out / "rejected.jsonl").unlink()
        with pytest.raises(UserError, match="`out` must hold rejected.jsonl"):
            write_pair_report(out, tmp_path, show_progress=False)


class TestCommand:
    def test_tells_what_was_found_and_where_it_is(self, out):
        printed = (out / "printed.txt").read_text()
        assert "- 4 artifacts are few" in printed and str(out / "report.html") in printed

    def test_a_file_is_no_folder_to_write_to(self, out):
        args = parse(str(out), "--to", str(out / "run.json"))
        with pytest.raises(UserError, match="--to must be a folder, got the file"):
            args.run(args)
