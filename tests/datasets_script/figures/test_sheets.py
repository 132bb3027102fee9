"""The contact sheet of pairs, the sheet of perceived photos, and the summary of a run."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest
from PIL import Image
from skimage import data

from datasets_script.agents.perception.base import PerceptionError
from datasets_script.engine.ledger import Totals
from datasets_script.engine.summary import acceptance_table, summary_table
from datasets_script.figures.sheets import (
    MAX_PAGE_HEIGHT,
    contact_sheets,
    draw_artifacts,
    perception_sheet,
    save_pages,
)
from datasets_script.figures.style import TYPE_COLORS
from datasets_script.schema.pair import Artifact, Pair, Rejection
from datasets_script.schema.perception import Entity, Part, Perception
from diffusers_artifact.mapping import ArtifactType, PatchMapping


BOX = (16.0, 32.0, 64.0, 80.0)


def box_mask(size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return mask


def make_artifact(kind: ArtifactType, size: tuple[int, int], inside: float = 0.1, words: int = 3) -> Artifact:
    return Artifact(
        type=kind,
        tool="add",
        entity="cat",
        part="ear",
        fused_entity="",
        mapping=PatchMapping.from_pairs([(0, 1)], (size[1] // 16, size[0] // 16), kind),
        mask=box_mask(size, BOX),
        bbox=BOX,
        part_mask=box_mask(size, BOX),
        label=f"{kind} of ear",
        explanation="word " * words,
        scores={"change_inside": inside, "change_outside": 0.005, "psnr_outside": 40.0},
    )


def make_pair(*artifacts: Artifact, size: tuple[int, int] = (128, 128)) -> Pair:
    clean = Image.fromarray(data.chelsea()).resize(size)
    flawed = clean.copy()
    flawed.paste(clean.crop((64, 32, 112, 80)), (16, 32))
    return Pair(
        pair_id="cat.png:0",
        source_id="cat.png",
        variant=0,
        source=clean,
        clean=clean,
        flawed=flawed,
        caption="a cat",
        clean_description="A whole cat.",
        explanation="",
        explanation_source="template",
        grid=(size[1] // 16, size[0] // 16),
        seed=0,
        solver="fireflow",
        num_inference_steps=25,
        model="embedded",
        model_revision="",
        transform={},
        artifacts=artifacts,
    )


def contains(image: Image.Image, color: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image) == color).all(axis=-1).any())


def one_sheet(pairs, **options):
    [page] = contact_sheets(pairs, **options)
    return page


class TestContactSheet:
    def test_two_pairs_stand_beside_each_other_and_the_rest_below(self):
        pair = make_pair(make_artifact("duplication", (128, 128)))
        one, two, three = (one_sheet([pair] * count) for count in (1, 2, 3))
        assert two.width > one.width and two.height == one.height
        assert three.width == two.width and three.height > two.height
        assert one_sheet([pair] * 2, columns=1).width == one.width

    def test_only_as_many_pairs_as_asked_are_taken(self):
        taken = []

        def endless():
            while True:
                taken.append(make_pair(make_artifact("fusion", (128, 128))))
                yield taken[-1]

        one_sheet(endless(), max_pairs=3)
        assert len(taken) == 3

    def test_long_texts_and_several_artifacts_get_lines_of_their_own(self):
        short = make_artifact("omission", (128, 128))
        plain = one_sheet([make_pair(short)])
        assert one_sheet([make_pair(short, short)]).height > plain.height
        long = one_sheet([make_pair(make_artifact("omission", (128, 128), words=60))])
        assert long.height > plain.height and long.width == plain.width

    def test_the_legend_has_all_types_and_upright_images_keep_their_shape(self):
        size = (96, 160)
        sheet = one_sheet([make_pair(make_artifact("distortion", size), size=size)])
        assert all(contains(sheet, color) for color in TYPE_COLORS.values())
        assert sheet.getpixel((0, sheet.height - 1)) == (255, 255, 255)

    def test_further_pages_begin_where_a_sheet_would_be_too_high(self, tmp_path):
        pair = make_pair(make_artifact("duplication", (128, 128)))
        pages = list(contact_sheets([pair] * 40))
        assert len(pages) > 1 and all(page.height <= MAX_PAGE_HEIGHT for page in pages)
        assert pages[0].height + (one_sheet([pair] * 4).height - one_sheet([pair] * 2).height) > MAX_PAGE_HEIGHT
        files = save_pages(pages, tmp_path / "sheet.png")
        assert [path.name for path in files][:2] == ["sheet.png", "sheet-2.png"]
        assert save_pages(pages[:1], tmp_path / "sheet.png") == [tmp_path / "sheet.png"] == list(tmp_path.iterdir())

    def test_no_pair_is_refused(self):
        with pytest.raises(ValueError, match="at least one pair"):
            one_sheet([])


def test_artifacts_are_drawn_where_they_are_and_nowhere_else():
    artifact = make_artifact("fusion", (128, 128))
    image = make_pair(artifact).flawed
    drawn = np.asarray(draw_artifacts(image, [artifact], (256, 256)))
    plain = np.asarray(image.resize((256, 256), Image.Resampling.LANCZOS))
    changed = (drawn != plain).any(axis=-1)
    ys, xs = np.nonzero(changed)
    # The box at twice the size, and the one white pixel around it.
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (31, 63, 129, 161)
    assert changed[64:160, 32:128].mean() > 0.95
    assert tuple(drawn[64, 32]) == TYPE_COLORS["fusion"]


class TestPerceptionSheet:
    @pytest.fixture
    def photo(self):
        return Image.fromarray(data.chelsea()).resize((128, 96))

    @pytest.fixture
    def cat(self):
        eye_box, face_box, cat_box = (40.0, 40.0, 60.0, 60.0), (30.0, 30.0, 90.0, 80.0), (16.0, 24.0, 100.0, 90.0)
        eye = Part("eye", 3, eye_box, box_mask((128, 96), eye_box), 1.0, 1, "peripheral")
        face = Part("face", 2, face_box, box_mask((128, 96), face_box), 1.0, 1, "intermediate")
        return Perception((Entity("cat", 1, cat_box, box_mask((128, 96), cat_box), 1.0, (face, eye)),))

    def test_shows_the_level_of_each_part(self, photo, cat):
        # Alone on its sheet the photo starts at (28, 100) and is 420 pixels wide.
        sheet = np.asarray(perception_sheet([("cat.png", photo, cat)]), dtype=float)
        plain = np.asarray(photo.resize((420, 315), Image.Resampling.LANCZOS), dtype=float)
        change = sheet[100:415, 28:448] - plain
        eye, face, coat, outside = (
            change[int(y * 3.28), int(x * 3.28)] for x, y in [(50, 50), (80, 70), (95, 28), (110, 10)]
        )
        assert eye[2] > eye[0] and face[0] > face[2]
        assert 0 < np.abs(coat).max() < max(np.abs(eye).max(), np.abs(face).max()) and not outside.any()

    def test_fades_what_was_not_perceived(self, photo, cat):
        seen, unseen = (
            np.asarray(perception_sheet([("cat.png", photo, outcome)]), dtype=float)
            for outcome in (cat, PerceptionError("no person found"))
        )
        assert unseen[100:415, 28:448].mean() > seen[100:415, 28:448].mean() + 40
        # The reason is the line under the name.
        assert (unseen[442:460, 28:448].min(axis=-1) < 128).any()

    def test_takes_no_more_than_it_shows(self, photo, cat):
        numbers = count()
        five = perception_sheet(((f"{number}.png", photo, cat) for number in numbers), max_images=5)
        assert next(numbers) == 5
        assert five.width == 1372 and five.height > perception_sheet([("cat.png", photo, cat)]).height

    def test_needs_a_photo(self):
        with pytest.raises(ValueError, match="`items` must hold at least one photo"):
            perception_sheet([])


def rejection(stage: str, kind: str = "", pair_id: str = "", kernel: str = "") -> Rejection:
    return Rejection("cat.png", stage, "why", pair_id, kind, "add" if kind else "", kernel)


class TestSummary:
    def test_counts_and_medians_by_type(self):
        size = (128, 128)
        totals = Totals()
        totals.count(
            [
                make_pair(make_artifact("duplication", size, inside=0.1), make_artifact("fusion", size, inside=0.3)),
                make_pair(make_artifact("duplication", size, inside=0.2)),
            ],
            [rejection("curation", "duplication", "cat.png:1"), rejection("curation", "omission", "cat.png:1")],
        )
        totals.count([], [rejection("plan", "fusion"), rejection("read")])
        lines = summary_table(totals).splitlines()
        rows = {line.split()[0]: line.split()[1:] for line in lines[1:6]}
        assert rows == {
            "duplication": ["3", "2", "1", "0.150", "0.0050", "30.0", "40.0"],
            "omission": ["1", "0", "1", "-", "-", "-", "-"],
            "distortion": ["0", "0", "0", "-", "-", "-", "-"],
            "fusion": ["1", "1", "0", "0.300", "0.0050", "60.0", "40.0"],
            "all": ["5", "3", "2", "0.200", "0.0050", "40.0", "40.0"],
        }
        assert len({len(line) for line in lines[:6]}) == 1

    def test_acceptance_is_told_by_type_tool_and_kernel(self):
        totals = Totals()
        totals.count(
            [make_pair(make_artifact("duplication", (128, 128)))],
            [
                rejection("curation", "duplication", "cat.png:0"),
                rejection("curation", "distortion", "cat.png:0", "strip"),
            ],
        )
        assert [line.split() for line in acceptance_table(totals).splitlines()[1:]] == [
            ["distortion", "add", "strip", "1", "0", "0%"],
            ["duplication", "add", "-", "2", "1", "50%"],
        ]

    def test_totals_survive_the_way_through_a_marker(self):
        totals, read = Totals(), Totals()
        totals.count([make_pair(make_artifact("duplication", (128, 128)))], [rejection("read")])
        read.add(json.loads(json.dumps(totals.as_dict())))
        assert read.as_dict() == totals.as_dict() and summary_table(read) == summary_table(totals)
