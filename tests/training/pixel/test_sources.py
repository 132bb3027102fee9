"""Sources of labelled images: what becomes a label, what is left out, and what is held out together."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from datasets_script.schema.image import BENCHMARK_FEATURES, BenchmarkImage, Region, image_to_row
from datasets_script.utils.errors import UserError
from tests.helpers.made_pairs import write_run
from tests.helpers.visible_pairs import visible_pair, write_visible_run
from training.pixel.data import AugmentationPolicy, Mixture
from training.pixel.hard_cases import HardCases
from training.pixel.sources.registry import parse_sources, read_source
from training.pixel.sources.spec import SourceSpec

from ...helpers.benchmark_sources import encode


SIZE = (12, 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_visible_run(tmp_path_factory.mktemp("pairs") / "run", 6)


def read(*values, seed=0):
    return [read_source(spec, seed) for spec in parse_sources(values)]


def write_benchmark(folder, images):
    """Write images as `artiagent prepare --out` does, in one Parquet file."""
    import datasets

    (folder / "data").mkdir(parents=True)
    rows = [image_to_row(image) for image in images]
    datasets.Dataset.from_list(rows, features=BENCHMARK_FEATURES).to_parquet(folder / "data" / "train.parquet")
    return folder


def benchmark_image(name, regions=(), has_artifact=None, **metadata):
    pixels = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return BenchmarkImage(name, encode(pixels), SIZE, has_artifact, regions, metadata=metadata)


def heat(value):
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=np.float32)
    mask[2:5, 3:7] = value
    mask[5:7, 3:7] = 1 / 3
    return Region("heat_map", (3, 2, 7, 7), mask=mask)


def test_pairs_have_the_union_of_masks_and_a_clean_half(run):
    (source,) = read(f"pairs={run}")
    assert len(source.units) == 6 and not source.skipped
    for unit in source.units:
        pair = visible_pair(int(unit["photo"].removeprefix("photo").removesuffix(".png")))
        union = np.logical_or.reduce([artifact.mask for artifact in pair.artifacts])
        assert np.array_equal(np.asarray(unit["labels"][0]) == 255, union) and unit["labels"][1] is None
        assert np.array_equal(np.asarray(unit["images"][0]), np.asarray(pair.flawed))
        assert np.array_equal(np.asarray(unit["images"][1]), np.asarray(pair.clean))
        assert unit["provenance"] == ["pairs", "clean"]


def test_corruptions_are_told_apart_and_unchanged_regions_are_none(tmp_path):
    pairs = [visible_pair(index, tool="corruption") for index in range(3)]
    first, *others = pairs[0].artifacts
    assert not others
    pairs[0] = replace(pairs[0], artifacts=(replace(first, scores={**first.scores, "unchanged": 1.0}),))
    (source,) = read(f"pairs={write_run(tmp_path / 'run', pairs, shards=1)}")
    assert source.units["provenance"][:] == [["corruption", "clean"]] * 2
    assert source.skipped == {"no artifact that changed the image": 1}


def test_marks_of_a_benchmark_become_labels(tmp_path):
    images = [
        benchmark_image("three", (heat(2 / 3),), three_annotators=True),
        benchmark_image("one", (heat(1.0),), three_annotators=False),
        benchmark_image("clean", has_artifact=False),
        benchmark_image("unknown"),
        benchmark_image("box", (Region("box", (1, 1, 4, 4)),), has_artifact=True),
        benchmark_image("polygon", (Region("polygon", (1, 1, 5, 5), ((1, 1, 5, 1, 5, 5, 1, 5),)),), has_artifact=True),
    ]
    folder = write_benchmark(tmp_path / "benchmark", images)
    soft, majority, mask = (
        read({"kind": "benchmark", "source": str(folder), "labels": labels})[0]
        for labels in ("soft", "majority", "mask")
    )
    levels = np.asarray(soft.units[0]["labels"][0])
    assert levels[3, 4] == 170 and levels[6, 4] == 85
    assert soft.units["id"][:] == mask.units["id"][:] == ["three", "one", "clean", "polygon"]
    assert majority.units["id"][:] == ["three", "clean", "polygon"]
    assert majority.skipped["not of three annotators"] == 1
    assert mask.skipped == {"not said whether it has an artifact": 1, "an artifact without a mask": 1}
    # Two of three annotators: the pixels that one of them marked are clean.
    label = np.asarray(majority.units[0]["labels"][0])
    assert label[2:5, 3:7].all() and label.sum() == 12 * 255
    assert np.asarray(mask.units[3]["labels"][0])[1:5, 1:5].all()
    assert mask.units["provenance"][:] == [["human"], ["human"], ["clean"], ["human"]]


def test_photos_are_negatives(tmp_path):
    (tmp_path / "street").mkdir()
    Image.new("RGB", (70, 80), "red").save(tmp_path / "street" / "a.jpg")
    (tmp_path / "notes.txt").write_text("no photo")
    (source,) = read(f"photos={tmp_path}")
    assert source.units["id"][:] == ["street/a.jpg"] and source.units["category"][:] == ["street"]
    assert source.units[0]["labels"] == [None] and source.units["provenance"][:] == [["clean"]]
    assert sum(source.skipped.values()) == 1


def test_a_limit_chooses_by_the_seed(run):
    chosen = {seed: read(f"pairs={run},limit=3", seed=seed)[0].units["id"][:] for seed in (0, 0, 1)}
    assert len(chosen[0]) == 3 and chosen[0] != chosen[1]
    assert read(f"pairs={run},limit=3", seed=0)[0].units["id"][:] == chosen[0]


def test_a_mixture_counts_what_it_draws(run, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (70, 80), "red").save(photos / "a.png")
    mixture = Mixture(read(f"pairs={run},weight=3", f"photos={photos}"))
    drawn = mixture.train(40, AugmentationPolicy(share=0))
    record = mixture.record(drawn)
    assert record["drawn"] == {"pairs": 30, "clean": 40}
    assert record["provenance"]["train"] == {"pairs": 6, "clean": 7}
    assert record["units"] == {"train": 7, "test": 0} and record["pairs"] == {"train": 6, "test": 0}
    assert str(tmp_path) not in json.dumps(record) and str(run.parent) not in json.dumps(record)
    shares = [float((label == 1).float().mean()) for place in range(7) for _, label in drawn[place]]
    assert 0 < mixture.prior() < 1 and mixture.prior() == pytest.approx(np.mean(shares), abs=0.02)


def test_clean_images_can_be_left_out_of_the_training(run, tmp_path):
    mixture = Mixture(read(f"pairs={run}"), test_share=0.4, clean_images=False)
    drawn, held_out = mixture.train(12), mixture.test()
    assert held_out is not None
    for units, images in ((drawn, 1), (held_out, 2)):
        assert {len(units[place]) for place in range(len(units))} == {images}
    assert all(label.max() == 1 for place in range(12) for _, label in drawn[place])
    record = mixture.record(drawn)
    assert record["drawn"] == {"pairs": 12} and set(record["provenance"]["train"]) == {"pairs"}
    assert set(record["provenance"]["test"]) == {"pairs", "clean"}
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (70, 80), "red").save(photos / "a.png")
    with pytest.raises(UserError, match="must have artifact images for --clean_images false, got none in"):
        Mixture(read(f"pairs={run}", f"photos={photos}"), clean_images=False).train(4)


def test_units_of_a_photo_are_held_out_together(tmp_path):
    views = [replace(visible_pair(index), source_id=f"{index % 2}/photo{index // 2}.png") for index in range(12)]
    run = write_run(tmp_path / "run", views, shards=1)
    for seed in range(3):
        mixture = Mixture(read(f"pairs={run},photos_by=name"), test_share=0.5, seed=seed)
        train, test = (
            {name.rpartition("/")[2] for units in mixture.units(role) for name in units["photo"][:]}
            for role in ("train", "test")
        )
        assert not train & test and len(train | test) == 6
        held_out, first = mixture.test(), mixture.test(limit=1)
        assert held_out and first and len(held_out) == mixture.count("test") and len(first) == 1


def test_other_data_have_another_fingerprint(run):
    assert Mixture(read(f"pairs={run}")).fingerprint == Mixture(read(f"pairs={run}")).fingerprint
    assert Mixture(read(f"pairs={run}")).fingerprint != Mixture(read(f"pairs={run},limit=5")).fingerprint


def test_hard_categories_must_occur(run):
    cases = HardCases({"street": 0.9, "sky": 0.1, "tree": 0.1, "sea": 0.1})
    with pytest.raises(UserError, match="--hard_cases must have hard categories .* got street"):
        Mixture(read(f"pairs={run}"), hard_cases=cases).train(4)


def test_pairs_are_no_benchmark(run):
    with pytest.raises(UserError, match="--sources must name pairs as kind 'pairs', got .* as 'benchmark'"):
        read(f"benchmark={run}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("runs/demo", "--sources must be KIND=SOURCE, such as"),
        ("pairs=runs/demo,test", "--sources must be KIND=SOURCE, such as"),
        ("movies=runs/demo", "--sources must have a kind among pairs, benchmark, photos, got 'movies'"),
        ("pairs=a,role=validation", "--sources must have a role among train, test, got 'validation'"),
        ("pairs=a,weight=0", "--sources must have weights above 0, got 0.0 for 'a'"),
        ("pairs=a,limit=many", "--sources must have a number as limit, got 'many'"),
        ("pairs=a,colour=red", "--sources must have entries with .*, got 'colour'"),
        ({"kind": "pairs"}, "--sources must have entries with kind and source, got one without source"),
    ],
)
def test_mistakes_are_told(value, message):
    with pytest.raises(UserError, match=message):
        parse_sources([value])


def test_a_source_without_labels_is_told(tmp_path):
    folder = write_benchmark(tmp_path / "benchmark", [benchmark_image("unknown")])
    with pytest.raises(UserError, match="--sources must give labelled images, got none in .*: .*not said whether"):
        read(f"benchmark={folder}")
    with pytest.raises(UserError, match="--sources must name a folder with photos"):
        read(f"photos={tmp_path / 'none'}")


def test_only_what_differs_from_defaults_is_recorded():
    assert SourceSpec("pairs", "a", weight=2.0).to_dict() == {"kind": "pairs", "source": "a", "weight": 2.0}
