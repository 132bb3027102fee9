"""The demo's photos and their outlines: what is written fits what is annotated, and all of it can be used."""

import copy
import json
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from datasets_script.agents.perception import AnnotationPerception, apply_to_perception, filter_perception
from datasets_script.demo import photos as demo_photos
from datasets_script.demo.photos import ANNOTATIONS, write_demo_photos
from datasets_script.utils.photos import fit, list_sources


PATCH, SIDE = 16, 256
MIN_SHARED, MAX_CONTAINMENT = 6, 0.7


@pytest.fixture(scope="module")
def document():
    return json.loads(ANNOTATIONS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "photos"
    write_demo_photos(folder)
    return folder


@pytest.fixture(scope="module")
def perceived(folder, document):
    """Per view, what was annotated, in the pixels of the view and in those of the embedded model's input."""
    agent = AnnotationPerception(ANNOTATIONS)
    views = {}
    for entry in document["images"]:
        with Image.open(folder / entry["file_name"]) as image:
            native = agent.perceive(image, entry["file_name"])
            views[entry["file_name"]] = native, apply_to_perception(native, fit(image.size, (SIDE, SIDE)))
    return views


def patches(mask):
    return mask.reshape(SIDE // PATCH, PATCH, SIDE // PATCH, PATCH).any(axis=(1, 3))


def can_be_fused(first, second):
    shared = (first & second).sum()
    return shared >= MIN_SHARED and max(shared / first.sum(), shared / second.sum()) < MAX_CONTAINMENT


def test_files_are_those_listed(folder, document):
    assert list_sources(folder) == sorted(entry["file_name"] for entry in document["images"])
    for entry in document["images"]:
        with Image.open(folder / entry["file_name"]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (entry["width"], entry["height"]))


def test_returned_paths_follow_the_annotations(tmp_path, document):
    assert write_demo_photos(tmp_path) == [tmp_path / entry["file_name"] for entry in document["images"]]


def test_views_are_square_and_cut_without_enlarging(document):
    for entry in document["images"]:
        x_min, y_min, x_max, y_max = entry["crop"]
        assert x_max - x_min == y_max - y_min == entry["width"] == entry["height"] >= 180
        assert entry["caption"]


def test_at_least_eight_photos_each_with_licence_and_credit(document):
    sources = {source["name"]: source for source in document["info"]["sources"]}
    assert {entry["source"] for entry in document["images"]} == set(sources)
    assert len(sources) >= 8
    assert all(source["licence"] and source["credit"] and source["url"] for source in sources.values())


def test_polygons_lie_inside_the_image(document):
    sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in document["images"]}
    for annotation in document["annotations"]:
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in annotation["segmentation"]])
        assert (points >= 0).all() and (points <= sizes[annotation["image_id"]]).all(), annotation["id"]
        assert annotation["bbox"] == [*points.min(axis=0), *np.ptp(points, axis=0)], annotation["id"]


def test_area_is_that_of_the_pixels(document, perceived):
    areas = {annotation["id"]: annotation["area"] for annotation in document["annotations"]}
    for view, _ in perceived.values():
        for entity in view.entities:
            for region in (entity, *entity.parts):
                # Two rasterisations of one outline differ along its border.
                assert region.mask.sum() == pytest.approx(areas[region.instance_id], rel=0.15), region.name


def test_parts_lie_inside_their_entity(perceived):
    for name, (view, _) in perceived.items():
        for entity in view.entities:
            for part in entity.parts:
                assert entity.mask[part.mask].mean() >= 0.9, (name, part.name)


def test_categories_agree_with_the_annotations(document):
    categories = {category["id"]: category for category in document["categories"]}
    annotations = {annotation["id"]: annotation for annotation in document["annotations"]}
    assert {annotation["category_id"] for annotation in annotations.values()} == set(categories)
    for annotation in annotations.values():
        category = categories[annotation["category_id"]]
        assert ("parent_id" in annotation) == ("level" in category)
        if "parent_id" in annotation:
            parent = annotations[annotation["parent_id"]]
            assert parent["image_id"] == annotation["image_id"]
            assert categories[parent["category_id"]]["name"] == category["supercategory"]


def test_everything_can_carry_an_artifact(perceived):
    for name, (_, view) in perceived.items():
        assert filter_perception(view, max_part_share=0.25)[1] == [], name


def test_there_is_enough_for_each_tool(perceived):
    levels = [[part.level for entity in view.entities for part in entity.parts] for _, view in perceived.values()]
    assert sum(map(len, levels)) >= 45
    assert sum({"peripheral", "intermediate"} <= set(view) for view in levels) >= 8
    fusible = [
        any(can_be_fused(patches(a.mask), patches(b.mask)) for a, b in combinations(view.entities, 2))
        for _, view in perceived.values()
    ]
    assert sum(fusible) >= 5


@pytest.fixture
def with_source(tmp_path, monkeypatch, document):
    """Has the module read annotations whose first source has other fields."""

    def change(**fields):
        changed = copy.deepcopy(document)
        changed["info"]["sources"][0].update(fields)
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(changed), encoding="utf-8")
        monkeypatch.setattr(demo_photos, "ANNOTATIONS", path)

    return change


def test_missing_package_names_the_extra(with_source, tmp_path):
    with_source(file="no_such_package/photo.png")
    with pytest.raises(ImportError, match=r"'no_such_package'.*pip install artiagent\[demo\]"):
        write_demo_photos(tmp_path / "photos")
    assert not (tmp_path / "photos").exists()


@pytest.mark.parametrize("fields", [{"sha256": "0" * 64}, {"file": "skimage/data/no_such_photo.png"}])
def test_another_image_than_the_annotated_one_is_refused(with_source, tmp_path, fields):
    with_source(**fields)
    with pytest.raises(ValueError, match="must be the photo that was annotated"):
        write_demo_photos(tmp_path / "photos")
