"""Regions to corrupt: blobs at random, what a pixel detector finds, and who may take them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from datasets_script.agents.perception import Perception, PerceptionSpec
from datasets_script.agents.perception.backends import NAMED, RegionOptions, regions_spec
from datasets_script.agents.perception.detected_regions import DetectedRegions
from datasets_script.agents.perception.random_regions import RandomRegions, blob
from datasets_script.schema.perception import UNNAMED
from datasets_script.utils.errors import ArgumentError

from ...helpers.tiny_detectors import red_detector, square


PHOTO = Image.new("RGB", (160, 120))


def masks(seed: int = 0, source_id: str = "a.png", shares: tuple[float, float] = (0.01, 0.06)) -> np.ndarray:
    perception = RandomRegions(RegionOptions(shares, seed=seed)).perceive(PHOTO, source_id)
    assert {entity.name for entity in perception.entities} == {UNNAMED}
    assert len({entity.instance_id for entity in perception.entities}) == len(perception.entities)
    return np.stack([entity.mask for entity in perception.entities])


def test_random_regions_depend_on_the_seed_and_the_photo_alone():
    assert np.array_equal(masks(), masks())
    assert not np.array_equal(masks(), masks(seed=1)) and not np.array_equal(masks(), masks(source_id="b.png"))


@pytest.mark.parametrize("seed", range(6))
def test_a_blob_is_connected_roundish_and_of_its_share(seed):
    generator = torch.Generator().manual_seed(seed)
    for share in (0.002, 0.02, 0.2):
        mask = blob((160, 120), share, generator)
        assert mask.shape == (120, 160) and ndimage.label(mask)[1] == 1
        assert mask.mean() == pytest.approx(share, rel=0.15)
        rows, columns = np.nonzero(mask)
        sides = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(sides) < 2.2 * min(sides) and mask.sum() > 0.4 * sides[0] * sides[1]


def test_a_blob_that_does_not_fit_is_smaller_and_still_there():
    generator = torch.Generator().manual_seed(0)
    assert 0 < blob((400, 12), 0.5, generator).mean() < 0.5
    assert blob((4, 4), 1e-6, generator).sum() >= 1


def test_sizes_lie_within_the_shares():
    shares = masks(shares=(0.03, 0.04)).mean(axis=(1, 2))
    assert (shares > 0.025).all() and (shares < 0.047).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shares": (0.2, 0.1)}, "`region_shares` must be two rising numbers between 0 and 1, got 0.2,0.1"),
        ({"shares": (0.2,)}, "`region_shares` must be two rising numbers .*, got 0.2"),
        ({"shares": (0.0, 0.1)}, "`region_shares` must be two rising numbers"),
        ({"threshold": 1.0}, "`threshold` must lie between 0 and 1, got 1"),
        ({"min_share": -0.1}, "`min_region_share` must be at least 0 and below 1, got -0.1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        RegionOptions(**options)


def test_regions_choose_their_backend():
    assert regions_spec("random").name == "random" and regions_spec("detector", detector="d").detector == "d"
    assert regions_spec("perception").name == "people"
    assert regions_spec("perception", "sam3", segmenter="s") == PerceptionSpec("sam3", segmenter="s")
    for regions, options, message in (
        ("walls", {}, "`regions` must be among annotations, perception, detector, random, got 'walls'"),
        ("random", {"annotations": "a.json"}, "`regions` must be annotations with `annotations`, got 'random'"),
        ("random", {"detector": "d"}, "`regions` must be perception or detector with `detector`, got 'random'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            regions_spec(regions, **options)
    for regions, given, message in (
        ("annotations", RegionOptions((0.02, 0.06)), "`regions` must be random with `region_shares`, got 'annota"),
        ("random", RegionOptions(threshold=0.4), "`regions` must be detector with `threshold`, got 'random'"),
        ("random", RegionOptions(min_share=0.1), "`regions` must be detector with `min_region_share`, got 'random'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            regions_spec(regions, None, given)
    with pytest.raises(ArgumentError, match="`regions` must be perception with `perception`, got 'random'"):
        regions_spec("random", "people")
    with pytest.raises(ArgumentError, match=f"`perception` must be among {', '.join(NAMED)}, got 'random'"):
        regions_spec("perception", "random")


def test_a_detectors_regions_are_where_its_map_is_high(tmp_path):
    box = (20, 12, 44, 36)
    red_detector().save_pretrained(tmp_path)
    agent = PerceptionSpec("detector", detector=str(tmp_path)).load(tmp_path, device="cpu")
    (found,) = agent.perceive(square(box), "a.png").entities
    assert agent.identity()["detector"]["model"] == tmp_path.name, "another path to the folder continues a run"
    expected = np.zeros(found.mask.shape, dtype=bool)
    expected[box[1] : box[3], box[0] : box[2]] = True
    assert found.name == UNNAMED and 0.5 < found.score <= 1
    assert (found.mask & expected).sum() / (found.mask | expected).sum() > 0.5
    first, second = agent.perceive_batch([square(None), square(box)], ["b.png", "a.png"])
    assert isinstance(first, Perception) and not first.entities
    assert isinstance(second, Perception) and np.array_equal(second.entities[0].mask, found.mask)


def test_a_detector_that_is_none_is_named_as_the_runs_argument(tmp_path):
    with pytest.raises(ArgumentError, match="`detector` must be a folder or a repository on the Hub of a pixel det"):
        PerceptionSpec("detector", detector=str(tmp_path)).load(tmp_path, device="cpu")


def test_threshold_and_least_size_of_a_detectors_regions_can_be_set():
    image, sizes = square((20, 12, 44, 36)), []
    for threshold in (0.2, 0.9):
        agent = DetectedRegions(red_detector(), RegionOptions(threshold=threshold))
        assert agent.identity()["regions"] == {"high": threshold, "low": threshold, "minimum_area": 0.005}
        sizes.append(sum(entity.mask.sum() for entity in agent.perceive(image, "a.png").entities))
    assert sizes[0] > sizes[1]
    assert not DetectedRegions(red_detector(), RegionOptions(min_share=0.9)).perceive(image, "a.png").entities
