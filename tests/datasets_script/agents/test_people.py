"""People found by MediaPipe's models, compared to regions and points annotated in the photos."""

import json
import pickle
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import cbook
from PIL import Image, ImageDraw, ImageOps
from skimage import data

from datasets_script.agents.perception import (
    AnnotationPerception,
    PerceptionError,
    PerceptionModelError,
    apply_to_perception,
    filter_perception,
)
from datasets_script.agents.perception.blaze import BlazeDetection, ModelFile, Roi, suppress
from datasets_script.agents.perception.people import PeoplePerception
from datasets_script.agents.perception.people_landmarks import MODELS
from datasets_script.agents.perception.people_parts import Landmarks, hand_regions, hull, limb_regions
from datasets_script.agents.planning import Scene
from datasets_script.demo.photos import ANNOTATIONS, write_demo_photos
from datasets_script.utils.photos import fit
from diffusers_artifact.mapping import PatchMapping
from diffusers_artifact.tools import fuse


needs_models = pytest.mark.skipif(
    find_spec("mediapipe") is None or find_spec("ai_edge_litert") is None,
    reason="needs the extra `people` and the wheel with its models",
)

coordinates = st.floats(-50, 150)
points = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=8).map(np.array)


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


def parts_named(entity, name):
    return [part for part in entity.parts if part.name == name]


def middle(part):
    rows, columns = np.nonzero(part.mask)
    return np.array([columns.mean(), rows.mean()]) + 0.5


class TestRoi:
    def test_turns_clockwise_about_its_center(self):
        roi = Roi((10.0, 20.0), 4.0, np.pi / 2)
        assert np.allclose(roi.corners(), [[12, 18], [12, 22], [8, 22], [8, 18]])

    def test_crops_what_it_covers(self):
        photo = Image.fromarray(data.astronaut())
        box = (100, 40, 228, 168)
        cropped = np.asarray(Roi((164.0, 104.0), 128.0).crop(photo, 128), dtype=int)
        assert np.abs(cropped - np.asarray(photo.crop(box), dtype=int)).max() <= 1

    @pytest.mark.parametrize("turns", [1, 2, 3])
    def test_a_turned_region_shows_the_image_turned_back(self, turns):
        photo = Image.fromarray(data.astronaut())
        straight = np.asarray(Roi((256.0, 256.0), 512.0).crop(photo, 256), dtype=int)
        turned = np.asarray(Roi((256.0, 256.0), 512.0, turns * np.pi / 2).crop(photo, 256), dtype=int)
        assert np.abs(np.rot90(straight, turns) - turned).max() <= 1

    def test_is_black_where_it_leaves_the_image(self):
        white = Image.new("RGB", (100, 100), "white")
        assert not np.asarray(Roi((300.0, 300.0), 50.0).crop(white, 32)).any()
        half = np.asarray(Roi((100.0, 50.0), 60.0).crop(white, 60))
        assert half[:, :29].min() == 255 and not half[:, 31:].any()

    @given(angle=st.floats(-3, 3), side=st.floats(20, 80))
    def test_paste_puts_a_map_back_where_it_was_cropped(self, angle, side):
        roi = Roi((60.0, 50.0), side, angle)
        pasted = roi.paste(np.ones((32, 32)), (120, 100)) > 0.5
        drawn = hull((100, 120), roi.corners())
        # A polygon's outline is drawn, half a pixel or more beyond it.
        assert overlap(pasted, drawn) > 1 - 5 / side

    @given(points=points.filter(lambda points: np.ptp(points, axis=0).max() > 1), angle=st.floats(-3, 3))
    def test_around_holds_all_points_and_no_more(self, points, angle):
        roi = Roi.around(points, np.array([np.cos(angle), np.sin(angle)]), 1.0)
        inside = (points - roi.center) @ np.linalg.inv(roi.axes) + 0.5
        assert inside.min() > -1e-6 and inside.max() < 1 + 1e-6
        assert np.ptp(inside, axis=0).max() == pytest.approx(1)


def detection(score, x, y=0.0):
    return BlazeDetection(score, np.array([x, y, x + 10, y + 10]), np.full((2, 2), x))


def test_suppression_averages_what_overlaps_by_score():
    kept = suppress([detection(0.5, 2), detection(0.9, 100), detection(0.75, 0)])
    assert [one.score for one in kept] == [0.9, 0.75]
    assert kept[1].box[0] == pytest.approx(0.8) and kept[1].keypoints[0, 0] == pytest.approx(0.8)


class TestHull:
    @given(points=points, radius=st.floats(1, 20))
    def test_holds_every_disc_and_nothing_beyond_their_box(self, points, radius):
        mask = hull((100, 100), points, radius)
        rows, columns = np.nonzero(mask)
        low, high = points.min(axis=0) - radius, points.max(axis=0) + radius
        assert not mask.any() or (columns.min() >= low[0] - 1.5 and rows.max() <= high[1] + 1.5)
        for x, y in points:
            if 0 <= x < 100 and 0 <= y < 100:
                assert mask[int(y), int(x)]

    def test_of_one_point_is_a_disc(self):
        assert hull((100, 100), np.array([[50.0, 50.0]]), 20).sum() == pytest.approx(np.pi * 20**2, rel=0.1)


def stick_figure():
    """A body that faces the camera, its left arm stretched out to the right of the image, the right one hanging."""
    points, seen = np.full((33, 2), 500.0), np.zeros(33)
    places = {11: (120, 60), 12: (80, 60), 13: (150, 60), 14: (80, 90), 15: (180, 60), 16: (80, 115)}
    places |= {23: (112, 120), 24: (88, 120), 25: (114, 150), 26: (86, 150), 27: (116, 180), 28: (84, 180)}
    for joint, place in places.items():
        points[joint], seen[joint] = place, 0.99
    return Landmarks(points, 1.0, seen)


class TestLimbs:
    def test_are_parts_of_the_person_about_their_bones(self):
        person = np.ones((200, 200), dtype=bool)
        person[:, :70] = False
        limbs = limb_regions(stick_figure(), person, 0.8)
        assert sorted(limb.name for limb in limbs) == ["arm", "arm", "forearm", "forearm", "leg", "leg"]
        left_arm, left_forearm = limbs[0].mask, limbs[1].mask
        assert left_arm[60, 135] and left_forearm[60, 165] and not left_arm[60, 165]
        assert all(not (limb.mask & ~person).any() for limb in limbs)
        assert np.sum([limb.mask for limb in limbs], axis=0).max() == 1

    def test_are_left_out_where_a_joint_is_hidden_or_outside(self):
        body = stick_figure()
        body.visibility[27] = 0.3
        body.points[15] = (250, 60)
        names = [limb.name for limb in limb_regions(body, np.ones((200, 200), dtype=bool), 0.8)]
        assert sorted(names) == ["arm", "arm", "forearm", "leg"]

    def test_an_elbow_is_not_believed_without_a_wrist_that_should_be_seen(self):
        body = stick_figure()
        body.visibility[15] = 0.3
        names = [limb.name for limb in limb_regions(body, np.ones((200, 200), dtype=bool), 0.8)]
        assert sorted(names) == ["arm", "forearm", "leg", "leg"]


def test_a_hand_holds_its_thumb_and_four_fingers():
    points = np.array([(50, 95), *((10 + 4 * i, 80 - 8 * i) for i in range(4))], dtype=float)
    fingers = [(30 + 14 * finger, 60 - 15 * joint) for finger in range(4) for joint in range(4)]
    hand, *digits = hand_regions(Landmarks(np.array([*points, *fingers], dtype=float), 0.9, np.ones(21)), (100, 100))
    assert [digit.name for digit in digits] == ["thumb", "finger", "finger", "finger", "finger"]
    assert all(
        (digit.mask & ~hand.mask).sum() == 0 and 30 < digit.mask.sum() < hand.mask.sum() / 3 for digit in digits
    )
    assert hand.mask[75, 50] and not hand.mask[5, 5]


class TestModelFiles:
    def test_without_the_wheel_both_commands_are_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mediapipe", None)
        with pytest.raises(ImportError, match=r"'artiagent\[people\]' and pip install --no-deps mediapipe==0.10.21"):
            MODELS["hand"].locate()

    @needs_models
    def test_without_the_runtime_both_commands_are_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        with pytest.raises(ImportError, match=r"needs ai-edge-litert.*--no-deps mediapipe==0.10.21"):
            PeoplePerception()

    @needs_models
    @pytest.mark.parametrize(
        ("path", "found"), [(MODELS["hand"].path, MODELS["hand"].sha256), ("no.tflite", "no file")]
    )
    def test_another_release_is_refused(self, path, found):
        with pytest.raises(PerceptionModelError, match=f"must be that of mediapipe==0.10.21.*got {found}"):
            ModelFile(path, "0" * 64).locate()

    @needs_models
    def test_the_wheel_itself_is_never_imported(self):
        PeoplePerception()
        assert "mediapipe" not in sys.modules


@pytest.fixture(scope="module")
def agent():
    return PeoplePerception()


@pytest.fixture(scope="module")
def astronaut():
    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="module")
def perceived(agent, astronaut):
    return agent.perceive(astronaut, "astronaut.png")


@needs_models
class TestPeople:
    def test_parts_lie_on_what_they_name(self, perceived):
        (person,) = perceived.entities
        eyes = sorted(middle(eye)[0] for eye in parts_named(person, "eye"))
        assert eyes == pytest.approx([204, 247.5], abs=3)
        assert middle(parts_named(person, "eye")[0])[1] == pytest.approx(102, abs=3)
        for name, place in {"nose": (223, 120), "mouth": (224, 146), "face": (224, 118)}.items():
            (part,) = parts_named(person, name)
            assert middle(part) == pytest.approx(place, abs=4), name
        assert all((eye.mask & ~parts_named(person, "face")[0].mask).sum() == 0 for eye in parts_named(person, "eye"))

    def test_parts_belong_to_their_person(self, perceived):
        (person,) = perceived.entities
        assert perceived.caption == "a photograph of a person"
        assert len({part.instance_id for part in person.parts} | {person.instance_id}) == len(person.parts) + 1
        for part in person.parts:
            assert part.parent == person.instance_id and 0.8 <= part.score <= 1
            assert part.mask.dtype == bool and not (part.mask & ~person.mask).any()
        assert {part.name: part.level for part in person.parts} == {
            "face": "intermediate",
            "eye": "peripheral",
            "eyebrow": "intermediate",
            "nose": "peripheral",
            "mouth": "intermediate",
        }

    def test_masks_agree_with_outlines_drawn_by_hand(self, agent, tmp_path):
        write_demo_photos(tmp_path / "demo")
        drawn = AnnotationPerception(ANNOTATIONS)
        for name in ("astronaut.png", "cameraman.png"):
            image = Image.open(tmp_path / "demo" / name).convert("RGB")
            by_hand = max(drawn.perceive(image, name).entities, key=lambda entity: entity.mask.sum())
            (person,) = agent.perceive(image, name).entities
            assert overlap(person.mask, by_hand.mask) > 0.85, name

    @pytest.mark.parametrize("turns", [2, 3])
    def test_somebody_turned_is_found_turned(self, agent, astronaut, perceived, turns):
        turned = Image.fromarray(np.rot90(np.asarray(astronaut), turns))
        (person,) = agent.perceive(turned, "turned.png").entities
        (upright,) = perceived.entities
        assert overlap(person.mask, np.rot90(upright.mask, turns)) > 0.8
        for name in ("face", "nose", "mouth"):
            (part,), (expected,) = parts_named(person, name), parts_named(upright, name)
            assert overlap(part.mask, np.rot90(expected.mask, turns)) > 0.5, name

    def test_people_who_touch_meet_at_a_border_and_can_be_fused(self, agent):
        admiral = Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
        width, height = admiral.size
        couple = Image.new("RGB", (2 * width - 40, height))
        couple.paste(ImageOps.mirror(admiral), (width - 40, 0))
        couple.paste(admiral.crop((0, 0, width - 20, height)), (0, 0))
        perception = agent.perceive(couple, "couple.png")
        assert perception.caption == "a photograph of two people"
        first, second = perception.entities
        assert not (first.mask & second.mask).any() and first.mask.sum() >= second.mask.sum()
        model_view = apply_to_perception(perception, fit(couple.size, (256, 256)))
        scene = Scene.of(filter_perception(model_view)[0], 16)
        mapping = fuse(
            *(scene.patches[entity.instance_id] for entity in scene.perception.entities),
            band_radius=1,
            generator=torch.Generator().manual_seed(0),
        )
        assert isinstance(mapping, PatchMapping)

    def test_a_small_person_in_grey_is_found(self, agent, astronaut):
        photo = Image.new("L", (1200, 900), 130)
        photo.paste(astronaut.convert("L").resize((256, 256)), (700, 500))
        (person,) = agent.perceive(photo.convert("RGB"), "small.png").entities
        assert middle(parts_named(person, "nose")[0]) == pytest.approx((700 + 111.5, 500 + 60), abs=4)

    def test_masks_of_a_large_photo_are_those_of_a_small_one(self, agent, astronaut, perceived):
        large = astronaut.resize((2400, 2400), Image.Resampling.LANCZOS)
        (person,) = agent.perceive(large, "large.png").entities
        small = Image.fromarray(person.mask).resize((512, 512))
        assert person.mask.shape == (2400, 2400)
        assert overlap(np.asarray(small), perceived.entities[0].mask) > 0.85
        assert middle(parts_named(person, "nose")[0]) / 2400 * 512 == pytest.approx((223, 120), abs=4)
        box = parts_named(person, "mouth")[0].bbox
        rows, columns = np.nonzero(parts_named(person, "mouth")[0].mask)
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)

    def test_a_cartoon_body_without_a_face_is_nobody(self, agent):
        drawing = Image.new("RGB", (400, 400), "white")
        draw = ImageDraw.Draw(drawing)
        draw.ellipse((170, 40, 230, 100), outline="black", width=4)
        draw.line((200, 100, 200, 250, 150, 360), fill="black", width=4)
        draw.line((120, 150, 280, 150), fill="black", width=4)
        with pytest.raises(PerceptionError):
            agent.perceive(drawing, "drawing.png")

    def test_repeats_and_travels_between_processes(self, agent, astronaut, perceived):
        copy = pickle.loads(pickle.dumps(agent))
        assert copy.identity() == agent.identity()
        (again,), (first,) = copy.perceive(astronaut, "").entities, perceived.entities
        assert np.array_equal(again.mask, first.mask) and again.score == first.score
        for part, same in zip(again.parts, first.parts, strict=True):
            assert part.name == same.name and np.array_equal(part.mask, same.mask) and part.score == same.score

    def test_nobody_is_seen_in_a_cat(self, agent, astronaut, perceived):
        seen, unseen = agent.perceive_batch([astronaut, Image.fromarray(data.chelsea())], ["a", "b"])
        assert np.array_equal(seen.entities[0].mask, perceived.entities[0].mask)
        assert isinstance(unseen, PerceptionError) and str(unseen) == "no person found"

    def test_identity_tells_models_and_thresholds(self):
        identity = PeoplePerception(max_people=3, min_score=0.6).identity()
        assert json.loads(json.dumps(identity)) == identity
        assert identity["backend"] == "people" and identity["max_people"] == 3 and identity["min_score"] == 0.6
        assert len(identity["models"]) == 8
