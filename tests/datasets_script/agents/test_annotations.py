import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from datasets_script.agents.perception import (
    AnnotationError,
    AnnotationPerception,
    Entity,
    NoAnnotation,
    Part,
    Perception,
    apply_to_perception,
    filter_perception,
)
from datasets_script.agents.perception.annotations import part_level
from datasets_script.agents.perception.backends import PerceptionSpec
from datasets_script.agents.perception.masks import decode_segmentation, disc
from datasets_script.utils.photos import SourceTransform
from diffusers_artifact.tools import bbox_of_mask


WIDTH, HEIGHT = 120, 100
SHAPE = (HEIGHT, WIDTH)


def rectangle(x_min, y_min, x_max, y_max):
    return [[x_min, y_min, x_max, y_min, x_max, y_max, x_min, y_max]]


def pixels(x_min, y_min, x_max, y_max):
    mask = np.zeros(SHAPE, bool)
    mask[y_min:y_max, x_min:x_max] = True
    return mask


def annotation(identifier, category, box=None, **fields):
    """`category` by name; [`perceive`] turns it into an id."""
    segmentation = {"segmentation": rectangle(*box)} if box else {}
    return {"id": identifier, "image_id": 1, "category": category, **segmentation, **fields}


def write(tmp_path, annotations, categories, **image):
    """A file with one image, `a/photo.jpg`; categories are names or whole records without `id`."""
    records = [{"id": i, **({"name": c} if isinstance(c, str) else c)} for i, c in enumerate(categories, 1)]
    ids = {record["name"]: record["id"] for record in records}
    annotations = [{"category_id": ids[a["category"]], **a} for a in annotations]
    entry = {"id": 1, "file_name": "a/photo.jpg", "width": WIDTH, "height": HEIGHT, **image}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": [entry], "annotations": annotations, "categories": records}))
    return path


def perceive(tmp_path, annotations, categories, **image):
    path = write(tmp_path, annotations, categories, **image)
    return AnnotationPerception(path).perceive(Image.new("RGB", (WIDTH, HEIGHT)), "a/photo.jpg")


def parts_of(entity):
    return {part.name: part for part in entity.parts}


def test_own_file_with_parents(tmp_path):
    perception = perceive(
        tmp_path,
        [
            annotation(7, "ear", (10, 10, 20, 20), parent_id=3),
            annotation(3, "cat", (10, 10, 60, 90)),
            annotation(9, "face", (10, 10, 40, 40), parent_id=3),
            annotation(11, "eye", (20, 20, 25, 25), parent_id=9),
        ],
        ["cat", {"name": "ear", "level": "intermediate", "optional": True}, {"name": "face"}, {"name": "eye"}],
        caption="a cat on a sofa",
    )
    (cat,) = perception.entities
    assert perception.caption == "a cat on a sofa"
    assert (cat.name, cat.instance_id, cat.bbox, cat.score) == ("cat", 3, (10.0, 10.0, 60.0, 90.0), 1.0)
    assert np.array_equal(cat.mask, pixels(10, 10, 60, 90))
    assert [(p.name, p.instance_id, p.parent, p.level) for p in cat.parts] == [
        ("ear", 7, 3, "intermediate"),
        ("face", 9, 3, "intermediate"),
        ("eye", 11, 3, "peripheral"),
    ]
    assert [part.optional for part in cat.parts] == [True, False, False]
    assert np.array_equal(parts_of(cat)["ear"].mask, pixels(10, 10, 20, 20))


def test_paco_links_parts_to_their_object(tmp_path):
    categories = [
        {"name": "car_(automobile)", "supercategory": "OBJECT"},
        {"name": "car_(automobile):wheel", "supercategory": "PART"},
        {"name": "car_(automobile):door_handle", "supercategory": "PART"},
    ]
    whole, wheel, handle = (category["name"] for category in categories)
    perception = perceive(
        tmp_path,
        [
            annotation(1, whole, (0, 0, 50, 50), obj_ann_id=1),
            annotation(2, whole, (60, 0, 110, 50), obj_ann_id=2),
            annotation(3, wheel, (0, 40, 10, 50), obj_ann_id=2),  # the link counts, not the place
            annotation(4, handle, (5, 5, 10, 10), obj_ann_id=1),
        ],
        categories,
    )
    first, second = perception.entities
    assert first.name == second.name == "car"
    assert [(p.name, p.level, p.parent) for p in first.parts] == [("door handle", "peripheral", 1)]
    assert [(p.name, p.level, p.parent) for p in second.parts] == [("wheel", "peripheral", 2)]
    assert perception.caption == "a photo of car"


def test_parts_without_a_link_go_to_the_instance_that_holds_nine_tenths(tmp_path):
    perception = perceive(
        tmp_path,
        [
            annotation(1, "dog", (0, 0, 50, 50)),
            annotation(2, "dog", (20, 0, 120, 50)),
            annotation(3, "cat", (0, 0, 120, 100)),
            annotation(4, "dog:ear", (41, 0, 51, 10)),  # 0.9 in the first, all in the second
            annotation(5, "dog:paw", (11, 40, 21, 50)),  # all in the first, 0.1 in the second
            annotation(6, "dog:tail", (30, 45, 40, 55)),  # half in either, all in the cat
            annotation(7, "dog:leg", (25, 10, 35, 20)),  # all in both: the smaller
        ],
        ["dog", "cat", "dog:ear", "dog:paw", "dog:tail", "dog:leg"],
    )
    first, second, cat = perception.entities
    assert sorted(parts_of(first)) == ["leg", "paw"]
    assert sorted(parts_of(second)) == ["ear"]
    assert not cat.parts
    assert perception.caption == "a photo of dog and cat"


@pytest.mark.parametrize(("overhang", "kept"), [(1, True), (2, False)])
def test_containment_counts_the_share_of_the_part(tmp_path, overhang, kept):
    ear = (30, 10, 40, 20)
    perception = perceive(
        tmp_path,
        [annotation(1, "dog", (0, 0, 40 - overhang, 90)), annotation(2, "dog:ear", ear)],
        ["dog", "dog:ear"],
    )
    assert bool(perception.entities[0].parts) == kept


def test_partimagenet_entity_is_the_union_of_its_parts(tmp_path):
    names = ["Quadruped Head", "Quadruped Tail", "Car Tier", "Car Side Mirror"]
    categories = [{"name": name, "supercategory": name.split()[0]} for name in names]
    perception = perceive(
        tmp_path,
        [
            annotation(1, "Quadruped Head", (0, 0, 20, 20)),
            annotation(2, "Quadruped Tail", (50, 0, 60, 10)),
            annotation(3, "Car Tier", (60, 60, 90, 90)),
            annotation(4, "Car Side Mirror", (90, 60, 100, 70)),
        ],
        categories,
    )
    animal, car = perception.entities
    assert (animal.name, car.name) == ("quadruped", "car")
    assert np.array_equal(animal.mask, pixels(0, 0, 20, 20) | pixels(50, 0, 60, 10))
    assert animal.bbox == (0.0, 0.0, 60.0, 20.0)
    assert {name: part.level for name, part in parts_of(animal).items()} == {
        "head": "intermediate",
        "tail": "peripheral",
    }
    assert {name: part.level for name, part in parts_of(car).items()} == {
        "tire": "peripheral",
        "side mirror": "peripheral",
    }
    everything = [animal, car, *animal.parts, *car.parts]
    assert len({region.instance_id for region in everything}) == 6
    assert all(part.parent == entity.instance_id for entity in (animal, car) for part in entity.parts)


def test_a_coco_name_that_begins_with_its_supercategory_stays_an_entity(tmp_path):
    categories = [{"name": "sports ball", "supercategory": "sports"}, {"name": "kite", "supercategory": "sports"}]
    perception = perceive(tmp_path, [annotation(1, "sports ball", (0, 0, 50, 50))], categories)
    assert [(entity.name, entity.parts) for entity in perception.entities] == [("sports ball", ())]


def test_keypoints_become_discs(tmp_path):
    person = {"name": "person", "keypoints": ["nose", "left_eye", "right_eye", "left_shoulder", "left_wrist"]}
    perception = perceive(
        tmp_path,
        [
            annotation(
                1,
                "person",
                (10, 0, 60, 100),
                keypoints=[30, 20, 2, 35, 15, 1, 0, 0, 0, 50, 40, 2, 10, 60, 2],
                num_keypoints=4,
            ),
            annotation(2, "nose", (28, 18, 34, 24), parent_id=1),
        ],
        [person, "nose"],
    )
    (entity,) = perception.entities
    parts = parts_of(entity)
    assert sorted(parts) == ["left shoulder", "left wrist", "nose"]
    assert (parts["left shoulder"].level, parts["left wrist"].level) == ("intermediate", "peripheral")
    assert parts["nose"].instance_id == 2  # has a mask of its own, so no disc
    radius = 0.08 * np.sqrt(50 * 100)
    assert parts["left shoulder"].mask.sum() == pytest.approx(np.pi * radius**2, rel=0.05)
    assert np.array_equal(parts["left wrist"].mask, disc(SHAPE, (10, 60), radius) & entity.mask)
    assert len({part.instance_id for part in entity.parts} | {1}) == 4


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("left ear", "peripheral"),
        ("wheels", "peripheral"),
        ("l f paw", "peripheral"),
        ("door", "intermediate"),
        ("root of tail", "peripheral"),
        ("ear pads", "intermediate"),
    ],
)
def test_level_by_the_last_word(name, level):
    assert part_level(name) == level


def test_crowds_and_boxes_without_pixels_are_skipped(tmp_path):
    crowd = {"segmentation": {"size": list(SHAPE), "counts": [0, WIDTH * HEIGHT]}, "iscrowd": 1}
    perception = perceive(
        tmp_path,
        [
            annotation(1, "dog", **crowd),
            annotation(2, "dog:ear", (0, 0, 10, 10), parent_id=1),
            annotation(3, "dog:eye", (0, 0, 5, 5), parent_id=2),
            annotation(4, "dog", bbox=[0, 0, 10, 10], segmentation=[]),
            annotation(5, "dog", bbox=[0, 0, 10, 10]),
            annotation(6, "dog:ear", (50, 50, 60, 60), parent_id=5),
            annotation(7, "dog", (-50, -50, -10, -10)),
        ],
        ["dog", "dog:ear", "dog:eye"],
    )
    (dog,) = perception.entities
    assert dog.instance_id == 5
    assert np.array_equal(dog.mask, pixels(50, 50, 60, 60))


polygons = st.lists(st.floats(-20, 140).map(lambda value: round(value, 2)), min_size=6, max_size=16).filter(
    lambda values: len(values) % 2 == 0
)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
@settings(max_examples=60, deadline=None)
@given(shapes=st.lists(polygons, min_size=1, max_size=3))
def test_all_three_encodings_give_the_same_pixels(shapes):
    mask = decode_segmentation(shapes, SHAPE)
    union = np.zeros(SHAPE, bool)
    for encoded in coco_mask.frPyObjects(shapes, *SHAPE):
        union |= coco_mask.decode(encoded).astype(bool)
    assert mask.dtype == bool and np.array_equal(mask, union)
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    runs = np.diff([0, *edges, flat.size]).tolist() if edges.size else [flat.size]
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(decode_segmentation({"size": list(SHAPE), "counts": runs}, SHAPE), mask)
    assert np.array_equal(decode_segmentation({"size": list(SHAPE), "counts": compressed}, SHAPE), mask)


@pytest.mark.parametrize("far", [1e4, 1e7, 1e9, 1e12, 1e300, -1e9, 10**100])
def test_polygons_far_outside_the_image_are_cut(far):
    # pycocotools takes memory for the whole outline, and the process crashes at 1e9.
    triangle = decode_segmentation([[0, 0, far, 0, far, far]], SHAPE)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (columns > rows) if far > 0 else np.zeros(SHAPE, bool)
    clear = np.abs(columns - rows) > 2  # pixels that the rounding of the edge cannot reach
    assert np.array_equal(triangle[clear], inside[clear])
    everything = [[-abs(far), -abs(far), abs(far), -abs(far), abs(far), abs(far), -abs(far), abs(far)]]
    assert decode_segmentation(everything, SHAPE).all()
    beside = [[5, abs(far), 90, abs(far), 90, 2 * abs(far)]]
    assert not decode_segmentation(beside, SHAPE).any()
    assert decode_segmentation([*beside, *rectangle(0, 0, 9, 9)], SHAPE).sum() == 81


def test_an_outline_that_would_take_gigabytes_is_refused_by_annotation(tmp_path):
    zigzag = [coordinate for x in range(30_000) for coordinate in (x % 2 * 1000, x % 100)]
    with pytest.raises(
        AnnotationError, match="annotation 42: the outline of a polygon must be at most 4000000 pixels"
    ):
        perceive(tmp_path, [annotation(42, "dog", segmentation=[zigzag])], ["dog"])


def test_keypoints_far_outside_the_image_are_no_parts(tmp_path):
    (dog,) = perceive(
        tmp_path,
        [annotation(1, "dog", (0, 0, 50, 50), keypoints=[1e300, 1e9, 2])],
        [{"name": "dog", "keypoints": ["nose"]}],
    ).entities
    assert not dog.parts


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[0, 0, 9, 0, 9, 10**400]], "list of numbers"),
        ({"size": list(SHAPE), "counts": [10**30]}, "whole numbers from 0 to 12000, got"),
        ({"size": list(SHAPE), "counts": [2**64, 12000]}, "whole numbers from 0 to 12000, got"),
        ("polygon", "list of polygons or an RLE object, got 'polygon'"),
        ([1, 2, 3, 4, 5, 6], "list of numbers .* got 1"),
        ([[1, 2, 3, 4]], "3 corners or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "3 corners or more"),
        ([[1, 2, 3, 4, 5, "6"]], "list of numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "list of numbers"),
        ({"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}, r"\[100, 120\], got \[120, 100\]"),
        ({"size": list(SHAPE), "counts": [5, 5]}, "add up to 12000 pixels, got 10"),
        ({"size": list(SHAPE), "counts": [-5, 12005]}, "whole numbers from 0"),
        ({"size": list(SHAPE), "counts": "0"}, "add up to 12000 pixels, got 0"),
        ({"size": list(SHAPE), "counts": "~"}, "characters from '0' to 'o', got '~'"),
        ({"size": list(SHAPE), "counts": "o"}, "truncated"),
        ({"size": list(SHAPE)}, "`counts` must be .* got None"),
    ],
)
def test_malformed_segmentations_name_file_and_annotation(tmp_path, segmentation, message):
    with pytest.raises(AnnotationError, match=message) as raised:
        perceive(tmp_path, [annotation(42, "dog", segmentation=segmentation)], ["dog"])
    assert "annotations.json, annotation 42: " in str(raised.value)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([annotation(1, "dog", (0, 0, 9, 9), category_id=99)], "annotation 1: `category_id` .* got 99"),
        ([annotation(1.5, "dog", (0, 0, 9, 9))], "annotation 1.5: `id` must be int or str, got 1.5"),
        ([annotation(1, "dog", (0, 0, 9, 9)), annotation(1, "dog", (0, 0, 9, 9))], "annotation 1: .* twice"),
        ([annotation(1, "ear", (0, 0, 9, 9), parent_id=5)], "annotation 1: the parent .* same image, got 5"),
        ([annotation(1, "ear", (0, 0, 9, 9), parent_id="5")], "annotation 1: the parent .* same image, got '5'"),
        ([annotation(1, "ear", (0, 0, 9, 9), parent_id=[5])], r"annotation 1: `parent_id` .* got \[5\]"),
        ([annotation(1, "dog", (0, 0, 9, 9)), annotation("1", "dog", (0, 0, 9, 9))], "annotation 1: .* twice"),
        ([annotation(1, "ear", (0, 0, 9, 9))], "annotation 1: .* part category 'ear' .* `parent_id`"),
        (
            [annotation(1, "ear", (0, 0, 9, 9), parent_id=2), annotation(2, "ear", (0, 0, 9, 9), parent_id=1)],
            "annotation 1: .* circle",
        ),
        ([annotation(1, "dog", (0, 0, 9, 9), keypoints=[1, 2, 2])], r"annotation 1: .* 6 numbers.* got \[1, 2, 2\]"),
    ],
)
def test_malformed_annotations_say_what_is_wrong(tmp_path, annotations, message):
    categories = [{"name": "dog", "keypoints": ["nose", "tail"]}, {"name": "ear", "level": "peripheral"}]
    with pytest.raises(AnnotationError, match=message):
        perceive(tmp_path, annotations, categories)


def test_one_malformed_annotation_is_left_out_by_its_id(tmp_path):
    perception = perceive(
        tmp_path,
        [
            annotation(1, "cat", (10, 10, 60, 90)),
            annotation(2, "ear", (10, 10, 20, 20), parent_id=1),
            annotation(3, "ear", parent_id=1, segmentation=[[10, 10, 40, 10]]),
            annotation(4, "ear", parent_id=1, segmentation=[[]]),
            annotation(5, "eye", parent_id=1, segmentation=[*rectangle(30, 30, 40, 40), [1, 1, 2, 2]]),
            annotation(6, "cat", segmentation="polygon"),
            annotation(7, "ear", (70, 10, 80, 20), parent_id=6),
            annotation(8, "ear", (10, 10, 20, 20), parent_id=99),
            annotation(9, "cat", (70, 10, 90, 90), category_id=77),
        ],
        ["cat", "ear", "eye"],
    )
    (cat,) = perception.entities
    assert [(part.name, part.instance_id) for part in cat.parts] == [("ear", 2), ("eye", 5)]
    assert np.array_equal(parts_of(cat)["eye"].mask, pixels(30, 30, 40, 40))
    assert [note.split(":")[0] for note in perception.notes] == [f"annotation {i}" for i in (3, 4, 5, 6, 8, 9, 7)]
    assert perception.notes[0] == (
        "annotation 3: a polygon must have 3 corners or more, two numbers each, got 4: [10, 10, 40, 10]"
    )
    assert "malformed annotation" in perception.notes[-1]


@pytest.mark.parametrize("text", ["image_id", "category_id", "id", "parent_id", "all"])
def test_ids_may_be_texts_here_and_numbers_there(tmp_path, text):
    path = write(
        tmp_path,
        [annotation(3, "cat", (10, 10, 60, 90)), annotation(7, "ear", (10, 10, 20, 20), parent_id=3)],
        ["cat", "ear"],
    )
    document = json.loads(path.read_text())
    for record in document["annotations"]:
        record.update({key: str(record[key]) for key in record if text in (key, "all") and key != "segmentation"})
    path.write_text(json.dumps(document))
    (cat,) = AnnotationPerception(path).perceive(Image.new("RGB", (WIDTH, HEIGHT)), "a/photo.jpg").entities
    assert (cat.instance_id, [(part.instance_id, part.parent) for part in cat.parts]) == (3, [(7, 3)])


def test_texts_that_are_no_numbers_get_numbers(tmp_path):
    perception = perceive(
        tmp_path,
        [
            annotation("u-1", "cat", (10, 10, 60, 90)),
            annotation("u-2", "ear", (10, 10, 20, 20), parent_id="u-1"),
            annotation(5, "cat", (70, 10, 90, 90)),
            annotation("07", "ear", (70, 10, 80, 20), parent_id="5"),
            annotation("u-3", "cat", segmentation="polygon"),
        ],
        ["cat", "ear"],
    )
    assert [(e.instance_id, [p.instance_id for p in e.parts]) for e in perception.entities] == [(6, [7]), (5, [8])]
    assert [note.split(":")[0] for note in perception.notes] == ["annotation u-3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "got no JSON"),
        ("[]", "`images` must be a list of objects, got None"),
        ('{"images": [], "annotations": {}, "categories": []}', "`annotations` must be a list of objects, got {}"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            r"images\[0\]: `file_name` must be str, got None",
        ),
        (
            '{"images": [], "annotations": [{"id": 4}], "categories": []}',
            r"annotations\[0\]: `image_id` must be int or str",
        ),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', r"categories\[0\]: `name` must be str"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            r"categories\[1\]: `id` must be unique, got 1",
        ),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog:"}]}', "'entity:part', got 'dog:'"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a", "level": "far"}]}',
            r"`level` must be among .* got 'far'",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a", "keypoints": 5}]}',
            r"categories\[0\]: `keypoints` must be a list of names, got 5",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a", "keypoints": ["nose", ""]}]}',
            r"categories\[0\]: `keypoints` must be a list of names",
        ),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"images": ' * 100_000, "nested too deeply"),
        (
            '{"version": "5.4.1", "flags": {}, "shapes": [{"label": "cat", "points": []}], "imagePath": "cat.png"}',
            "got a labelme file.* labelme2coco",
        ),
        ('{"_via_settings": {}, "_via_img_metadata": {}}', r"VIA 2 .*; .*\(COCO format\)"),
        ('{"cat.png90402": {"filename": "cat.png", "size": 90402, "regions": []}}', "VIA 2 .VGG Image Annotator"),
        (
            '{"project": {}, "config": {}, "attribute": {}, "file": {}, "metadata": {}, "view": {}}',
            "VIA 3 .*COCO format",
        ),
        (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version></annotations>',
            "CVAT XML file; .*COCO 1.0",
        ),
        ("<annotation><folder>photos</folder></annotation>", "Pascal VOC XML file, .*COCO format"),
        ('[{"id": 1, "data": {"image": "cat.png"}, "annotations": []}]', "Label Studio .* format COCO"),
        ('[{"image": "cat.png", "id": 1, "annotation_id": 2, "label": []}]', "Label Studio .* format COCO"),
        ('[{"image_id": 1, "category_id": 1, "segmentation": []}]', "list of COCO results.* `annotations`"),
    ],
)
def test_malformed_files_are_refused_at_the_door(tmp_path, content, message):
    path = tmp_path / "annotations.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=message) as raised:
        AnnotationPerception(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_all_encodings_of_json_are_read(tmp_path, encoding):
    path = write(tmp_path, [annotation(1, "chat", (0, 0, 9, 9))], ["chat"], caption="CAPTION")
    path.write_bytes(path.read_text().replace("CAPTION", "un chat gâté").encode(encoding))
    perception = AnnotationPerception(path).perceive(Image.new("RGB", (WIDTH, HEIGHT)), "a/photo.jpg")
    assert perception.caption == "un chat gâté"


def test_null_means_that_a_field_is_not_given(tmp_path):
    dog = annotation(1, "dog", (0, 0, 9, 9), keypoints=None, parent_id=None, iscrowd=None)
    perception = perceive(tmp_path, [dog], [{"name": "dog", "keypoints": None}], width=None, height=None, caption=None)
    assert [entity.name for entity in perception.entities] == ["dog"]


@pytest.mark.parametrize("supercategory", [None, 5, "car"])
def test_a_name_is_read_by_its_own_supercategory(tmp_path, supercategory):
    parts = [{"name": f"{supercategory} {part}", "supercategory": supercategory} for part in ("door", "wheel")]
    plain = {"name": "car door ajar"}
    perception = perceive(tmp_path, [annotation(1, "car door ajar", (0, 0, 9, 9))], [*parts, plain])
    assert [entity.name for entity in perception.entities] == ["car door ajar"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AnnotationError, match="absent.json: must be a COCO-format JSON file, got no such file"):
        AnnotationPerception(tmp_path / "absent.json")


def test_unknown_images_tell_how_to_provide_annotations(tmp_path):
    agent = AnnotationPerception(write(tmp_path, [], ["dog"]))
    image = Image.new("RGB", (WIDTH, HEIGHT))
    with pytest.raises(NoAnnotation, match="other.jpg: no entry in .*annotations.json; add an image entry") as raised:
        agent.perceive(image, "other.jpg")
    assert raised.value.source_id == "other.jpg"
    with pytest.raises(NoAnnotation, match="no annotations in .* add at least one"):
        agent.perceive(image, "a/photo.jpg")


def test_boxes_alone_tell_that_pixels_are_missing(tmp_path):
    with pytest.raises(NoAnnotation, match="no usable one among its 1 annotations .*`segmentation`"):
        perceive(tmp_path, [annotation(1, "dog", bbox=[0, 0, 9, 9])], ["dog"])


def test_a_photo_of_another_size_is_refused(tmp_path):
    path = write(tmp_path, [annotation(1, "dog", (0, 0, 9, 9))], ["dog"])
    with pytest.raises(AnnotationError, match=r"image 1: .* turned upright, \(100, 120\), got \(120, 100\)"):
        AnnotationPerception(path).perceive(Image.new("RGB", (HEIGHT, WIDTH)), "a/photo.jpg")


def test_images_are_found_by_path_then_by_unambiguous_name(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "train\\y.jpg", "./z.jpg", "twice.jpg", "twice.jpg"]
    document = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 0, "segmentation": rectangle(0, 0, 10 + i, 10)}
            for i in range(len(names))
        ],
        "categories": [{"id": 0, "name": "dog"}],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(document))
    agent = AnnotationPerception(path)
    image = Image.new("RGB", (WIDTH, HEIGHT))

    def found(source_id):
        return agent.perceive(image, source_id).entities[0].instance_id

    assert [found(source_id) for source_id in ("a/x.jpg", "b/x.jpg", "train/y.jpg", "y.jpg", "z.jpg")] == [
        0,
        1,
        2,
        2,
        3,
    ]
    for ambiguous in ("x.jpg", "c/x.jpg", "twice.jpg"):
        with pytest.raises(AnnotationError, match=f"must match {ambiguous}, got 2"):
            found(ambiguous)


def write_entries(folder, entries):
    """A file with one dog for each entry, of which `id` tells the entry, and a photo folder to look names up in."""
    document = {
        "images": [{"id": i, "file_name": name} for i, name in entries],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 0, "segmentation": rectangle(0, 0, 10, 10)} for i in dict(entries)
        ],
        "categories": [{"id": 0, "name": "dog"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def found_entry(agent, source_id):
    return agent.perceive(Image.new("RGB", (WIDTH, HEIGHT)), source_id).entities[0].instance_id


def make_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_an_entry_whose_own_path_exists_belongs_to_that_photo_alone(tmp_path):
    make_files(tmp_path, ["2019/x.jpg", "2020/x.jpg"])
    agent = AnnotationPerception(write_entries(tmp_path, [(1, "2019/x.jpg")]), tmp_path)
    with pytest.raises(NoAnnotation, match="2020/x.jpg: no entry"):
        found_entry(agent, "2020/x.jpg")
    assert found_entry(agent, "2019/x.jpg") == 1


def test_an_entry_that_two_photos_claim_is_refused_by_name(tmp_path):
    make_files(tmp_path, ["2019/x.jpg", "2020/x.jpg", "2020/y.jpg"])
    agent = AnnotationPerception(write_entries(tmp_path, [(1, "x.jpg"), (2, "elsewhere/y.jpg")]), tmp_path)
    for photo, other in (("2019/x.jpg", "2020/x.jpg"), ("2020/x.jpg", "2019/x.jpg")):
        with pytest.raises(AnnotationError, match=f"image 1: .* one photo, got 'x.jpg' for {photo} and {other}"):
            found_entry(agent, photo)
    assert found_entry(agent, "2020/y.jpg") == 2


def test_paths_of_another_machine_are_looked_up_by_name_inside(tmp_path):
    make_files(tmp_path, ["2019/x.jpg", "2020/x.jpg", "y.jpg", "z.jpg", "2021/x.jpg"])
    entries = [
        (1, "/cluster/photos/2019/x.jpg"),
        (2, "C:\\photos\\2020\\x.jpg"),
        (3, "../../y.jpg"),
        (4, "/data/z.jpg"),
    ]
    agent = AnnotationPerception(write_entries(tmp_path, entries), tmp_path)
    photos = ["2019/x.jpg", "2020/x.jpg", "y.jpg", "z.jpg"]
    assert [found_entry(agent, photo) for photo in photos] == [1, 2, 3, 4]
    with pytest.raises(NoAnnotation, match="2021/x.jpg: no entry"):
        found_entry(agent, "2021/x.jpg")


def test_an_id_of_two_images_is_refused_for_those_images(tmp_path):
    agent = AnnotationPerception(write_entries(tmp_path, [(1, "x.jpg"), (1, "y.jpg"), (2, "z.jpg")]))
    for photo in ("x.jpg", "y.jpg"):
        with pytest.raises(AnnotationError, match=r"must be unique, got 2: x.jpg \(id 1\), y.jpg \(id 1\); give each"):
            found_entry(agent, photo)
    assert found_entry(agent, "z.jpg") == 2


def test_what_the_annotations_allow_is_said_at_the_start(tmp_path, caplog):
    person = {"name": "person", "keypoints": ["nose", "left_shoulder"]}
    cases = {
        "2 entities in 1 image, without any part, so that only fusions of two entities": [
            annotation(1, "dog", (0, 0, 9, 9)),
            annotation(2, "dog", (9, 9, 19, 19)),
        ],
        "1 entity in 1 image, without an intermediate part": [
            annotation(1, "dog", (0, 0, 9, 9)),
            annotation(2, "ear", (0, 0, 9, 9), parent_id=1),
        ],
        "without a peripheral part": [annotation(1, "person", (0, 0, 9, 9), keypoints=[1, 1, 1, 2, 2, 2])],
        "": [annotation(1, "person", (0, 0, 9, 9), keypoints=[1, 1, 2, 2, 2, 2]), annotation(2, "dog", iscrowd=1)],
    }
    for message, annotations in cases.items():
        caplog.clear()
        path = write(tmp_path, annotations, ["dog", "ear", person, "dog:paw"])
        PerceptionSpec("annotations", path).load(tmp_path)
        assert bool(caplog.text) == bool(message)
        assert message in caplog.text
    summary = AnnotationPerception(path).summary()
    assert (summary.images, summary.entities, dict(summary.parts)) == (1, 1, {"peripheral": 1, "intermediate": 1})


def region(kind, identifier, mask, parts=()):
    if kind is Entity:
        return Entity("dog", identifier, bbox_of_mask(mask), mask, 1.0, tuple(parts))
    return Part("ear", identifier, bbox_of_mask(mask), mask, 1.0, parent=1, level="peripheral")


def block(x_min, y_min, x_max, y_max):
    mask = np.zeros((128, 128), bool)
    mask[y_min:y_max, x_min:x_max] = True
    return mask


def test_filter_keeps_what_can_carry_an_artifact():
    parts = {
        10: block(0, 0, 32, 17),  # 544 px on 2x2 patches
        11: block(0, 0, 32, 16),  # 512 px
        12: block(0, 0, 128, 65),  # over half of the image
        13: block(0, 0, 128, 64),  # half of it
        14: block(0, 0, 16, 64),  # one column of patches
        15: block(8, 0, 24, 64),  # as large, but astride two columns
    }
    large = region(Entity, 1, block(0, 0, 128, 128), [region(Part, i, mask) for i, mask in parts.items()])
    edge = region(Entity, 2, block(0, 0, 16, 11))  # 1.07 % of the image
    small = region(Entity, 3, block(0, 0, 16, 10), [region(Part, 30, parts[10])])  # 0.98 %
    kept, reasons = filter_perception(Perception((large, edge, small), "two dogs"))
    assert kept.caption == "two dogs"
    assert [entity.instance_id for entity in kept.entities] == [1, 2]
    assert [part.instance_id for part in kept.entities[0].parts] == [10, 13, 15]
    assert reasons == [
        "dog #1, ear #11: 512 px, not over 512",
        "dog #1, ear #12: 51% of the image, over 50%",
        "dog #1, ear #14: 4x1 patches, under 2x2",
        "dog #3: 0.98% of the image, under 1%",
    ]


def test_the_least_size_of_a_part_goes_with_the_patches():
    parts = [region(Part, number, block(0, 0, *size)) for number, size in ((10, (16, 9)), (11, (16, 8)))]
    perception = Perception((region(Entity, 1, block(0, 0, 128, 128), parts),), "a dog")
    kept, reasons = filter_perception(perception, 8)
    assert [part.instance_id for part in kept.entities[0].parts] == [10]
    assert reasons == ["dog #1, ear #11: 128 px, not over 128"]
    assert filter_perception(perception, 8, min_part_patches=1)[1] == ["dog #1, ear #11: 1x2 patches, under 2x2"]


def test_transform_moves_masks_and_boxes_and_drops_what_vanishes():
    entity = region(
        Entity,
        1,
        block(0, 0, 128, 64),
        [region(Part, 10, block(60, 0, 80, 20)), region(Part, 11, block(0, 0, 20, 20))],
    )
    outside = region(Entity, 2, block(0, 0, 32, 128))
    transform = SourceTransform((128, 128), (64, 0, 128, 64), (128, 128))
    moved = apply_to_perception(Perception((entity, outside), "a dog"), transform)
    assert moved.caption == "a dog"
    assert [e.instance_id for e in moved.entities] == [1]
    assert moved.entities[0].bbox == (0.0, 0.0, 128.0, 128.0)
    (part,) = moved.entities[0].parts
    assert part.bbox == (0.0, 0.0, 32.0, 40.0)
    assert part.mask.shape == (128, 128) and part.mask.sum() == 32 * 40


def test_box_of_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match=r"empty one of shape \(100, 120\)"):
        bbox_of_mask(np.zeros(SHAPE, bool))
