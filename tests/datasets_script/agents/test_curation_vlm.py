"""The curation agent with a vision-language model that answers by script, and the images it is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image
from skimage import data

from datasets_script.agents.curation.curator import Curator, ExplanationError
from datasets_script.agents.curation.measures import as_array, target_pixels
from datasets_script.agents.curation.perceptual import PerceptualMetric, load_perceptual_metric
from datasets_script.agents.curation.thresholds import CurationSettings
from datasets_script.agents.curation.triplets import close_up, context_box, cover, make_triplet
from datasets_script.agents.curation.variant import PairTexts, Variant
from datasets_script.agents.prompts import describe, explain, verify
from datasets_script.schema.pair import Artifact
from datasets_script.vlm import VLM, VLMAnswer, VLMRequest, VLMUnavailable
from diffusers_artifact.mapping import ArtifactType, PatchMapping
from diffusers_artifact.visible_change import definition


GRID = (16, 16)
SIZE = 256
# Two rows of two patches each, which borrow from five columns further right.
TARGETS = {"duplication": (66, 67, 82, 83), "omission": (120, 121, 136, 137), "fusion": (200, 201, 216, 217)}
OFFSET = 5


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(data.astronaut()).crop((128, 0, 384, 256))


@pytest.fixture(scope="module")
def stlpips() -> PerceptualMetric:
    return load_perceptual_metric("stlpips")


def make_artifact(kind: ArtifactType = "duplication", targets: Sequence[int] = ()) -> Artifact:
    targets = targets or TARGETS[kind]
    mapping = PatchMapping.from_pairs([(target, target + OFFSET) for target in targets], GRID, kind)
    mask = target_pixels([mapping], 16)
    ys, xs = np.nonzero(mask)
    return Artifact(
        type=kind,
        tool={"duplication": "add", "omission": "remove", "distortion": "distort", "fusion": "fuse"}[kind],
        entity="astronaut",
        part="" if kind == "fusion" else "eye",
        fused_entity="rocket" if kind == "fusion" else "",
        mapping=mapping,
        mask=mask,
        bbox=(float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)),
        part_mask=mask,
    )


def inject(photo: Image.Image, artifacts: Sequence[Artifact]) -> Image.Image:
    """`photo` with reference patches pasted on targets."""
    flawed = photo.copy()
    for artifact in artifacts:
        for target, reference in zip(artifact.mapping.targets, artifact.mapping.references, strict=True):
            (row, column), (from_row, from_column) = divmod(target, 16), divmod(reference, 16)
            patch = photo.crop((from_column * 16, from_row * 16, from_column * 16 + 16, from_row * 16 + 16))
            flawed.paste(patch, (column * 16, row * 16))
    return flawed


def candidate(photo: Image.Image, *artifacts: Artifact, flawed: Image.Image | None = None) -> Variant:
    return Variant(0, "an astronaut", photo, flawed or inject(photo, artifacts), artifacts)


def make_variant(photo: Image.Image, *kinds: ArtifactType, number: int = 0) -> Variant:
    artifacts = tuple(make_artifact(kind) for kind in kinds)
    return Variant(number, "an astronaut", photo, inject(photo, artifacts), artifacts)


Reply = dict[str, Any] | str | Callable[[VLMRequest], dict[str, Any]]


@dataclass
class ScriptedVLM(VLM):
    """Answers by task; a string stands for an answer that is no JSON."""

    replies: dict[str, Reply] = field(default_factory=dict)
    batches: list[list[VLMRequest]] = field(default_factory=list)

    def ask(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        self.batches.append(list(requests))
        return [self._answer(request) for request in requests]

    def _answer(self, request: VLMRequest) -> VLMAnswer:
        reply = self.replies[request.task]
        if isinstance(reply, str):
            return VLMAnswer(None, reply, "the answer is no JSON")
        value = reply(request) if callable(reply) else reply
        assert request.schema is not None
        Draft202012Validator(request.schema).validate(value)
        return VLMAnswer(value, json.dumps(value))

    def tasks(self) -> list[list[str]]:
        return [[request.task for request in batch] for batch in self.batches]


class UnreachableVLM(VLM):
    """A server that is down."""

    def ask(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        raise VLMUnavailable("no server at localhost")


LOCAL: dict[str, Any] = {"explanation": "An eye sits on the cheek.", "label": "eye on cheek"}
GLOBAL: dict[str, Any] = {"explanation": "The astronaut has an eye too many. It sits on her cheek."}
CLEAN: dict[str, Any] = {"description": "An astronaut smiles; she is whole and as she should be."}
TEXTS: dict[str, Reply] = {"explain_local": LOCAL, "explain_global": GLOBAL, "describe_clean": CLEAN}


def scripted(**replies: Reply) -> ScriptedVLM:
    return ScriptedVLM("scripted/vlm", replies={**TEXTS, **replies})


class TestTriplet:
    def test_the_scene_is_covered_at_the_targets_alone(self, photo):
        made = make_artifact("omission")
        scene, _, _ = make_triplet(made, photo, inject(photo, [made]))
        targets = target_pixels([made.mapping], 16)
        assert (np.asarray(scene)[targets] == 128).all()
        np.testing.assert_array_equal(np.asarray(scene)[~targets], np.asarray(photo)[~targets])

    def test_close_ups_show_the_same_place_without_and_with_the_artifact(self, photo):
        made = make_artifact("omission")
        flawed = inject(photo, [made])
        _, before, after = make_triplet(made, photo, flawed)
        # The box is 32 px wide and high, and so is the margin on each side.
        box = (128 - 32, 112 - 32, 160 + 32, 144 + 32)
        assert before.size == after.size == (512, 512)
        for enlarged, image in ((before, photo), (after, flawed)):
            shrunk = enlarged.resize((96, 96), Image.Resampling.BOX)
            assert np.abs(as_array(shrunk) - as_array(image.crop(box))).mean() < 0.02

    def test_a_duplication_is_shown_with_what_was_copied(self, photo):
        made = make_artifact("duplication")
        marked = cover(photo, target_pixels([made.mapping], 16))
        column, row = (made.mapping.references[-1] % 16) * 16, (made.mapping.references[-1] // 16) * 16
        marked.paste((255, 0, 255), (column, row, column + 16, row + 16))
        _, before, after = make_triplet(made, photo, marked)
        pixels = np.asarray(after).astype(int)
        assert after.size == before.size
        assert ((pixels == 128).all(axis=-1)).mean() > 0.01
        assert ((pixels - (255, 0, 255)) ** 2 == 0).all(axis=-1).mean() > 0.01

    def test_other_artifacts_are_not_covered(self, photo):
        first, second = make_artifact("omission"), make_artifact("fusion")
        scene, _, _ = make_triplet(first, photo, inject(photo, [first, second]))
        others = target_pixels([second.mapping], 16)
        np.testing.assert_array_equal(np.asarray(scene)[others], np.asarray(photo)[others])

    @given(st.data())
    def test_context_lies_in_the_image_and_holds_the_box(self, drawn):
        width, height = drawn.draw(st.integers(16, 2000)), drawn.draw(st.integers(16, 2000))
        x_min, y_min = drawn.draw(st.floats(0, width - 1)), drawn.draw(st.floats(0, height - 1))
        x_max, y_max = drawn.draw(st.floats(x_min + 1, width)), drawn.draw(st.floats(y_min + 1, height))
        left, top, right, bottom = context_box((x_min, y_min, x_max, y_max), (width, height))
        assert 0 <= left <= x_min and x_max <= right <= width
        assert 0 <= top <= y_min and y_max <= bottom <= height
        assert (left == 0 or x_min - left >= 32) and (right == width or right - x_max >= 32)
        assert (top == 0 or y_min - top >= 32) and (bottom == height or bottom - y_max >= 32)

    @pytest.mark.parametrize(
        ("bbox", "box"),
        [
            ((400, 500, 600, 540), (300, 468, 700, 572)),
            ((0, 0, 20, 20), (0, 0, 52, 52)),
            ((400.5, 990.0, 600.5, 1000.0), (300, 958, 701, 1000)),
        ],
    )
    def test_context_is_half_the_box_and_at_least_32_pixels(self, bbox, box):
        assert context_box(bbox, (1000, 1000)) == box

    @pytest.mark.parametrize(
        ("box", "size"), [((0, 0, 64, 32), (512, 256)), ((10, 0, 90, 240), (171, 512)), ((0, 0, 800, 700), (800, 700))]
    )
    def test_small_crops_are_enlarged_and_large_ones_kept(self, box, size):
        assert close_up(Image.new("RGB", (900, 900)), box).size == size


class TestVerdicts:
    def test_without_a_model_the_measures_decide(self, photo, stlpips):
        flawed = candidate(photo, make_artifact(), make_artifact("omission"))
        [verdicts] = Curator(CurationSettings(), stlpips).judge([flawed])
        assert [verdict.kept for verdict in verdicts] == [True, True]
        assert "visible copy" in verdicts[0].reason
        scores = verdicts[0].artifact.scores
        assert "vlm_has_artifact" not in scores and scores["change_inside"] > 0.03

    def test_one_question_batch_for_artifacts_of_many_images(self, photo, stlpips):
        vlm = scripted(
            verify_duplication={"has_artifact": True},
            verify_omission={"has_artifact": False},
            verify_fusion={"has_artifact": True},
        )
        other = Image.fromarray(data.chelsea()).crop((100, 20, 356, 276))
        batch = [
            candidate(photo, make_artifact(), make_artifact("omission")),
            candidate(other, make_artifact("fusion")),
        ]
        first, second = Curator(CurationSettings(), stlpips, vlm).judge(batch)
        verdicts = [*first, *second]
        assert vlm.tasks() == [["verify_duplication", "verify_omission", "verify_fusion"]]
        assert [verdict.kept for verdict in verdicts] == [True, False, True]
        assert [verdict.artifact.scores["vlm_has_artifact"] for verdict in verdicts] == [1.0, 0.0, 1.0]
        assert verdicts[1].reason.startswith("the triplet check found no omission (visible: change inside")
        assert not verdicts[1].raw and verdicts[1].artifact.scores["psnr_outside"] > 0

    def test_the_model_sees_the_triplet_and_the_names(self, photo, stlpips):
        vlm = scripted(verify_fusion={"has_artifact": True})
        made = make_artifact("fusion")
        variant = candidate(photo, made)
        Curator(CurationSettings(), stlpips, vlm).judge([variant])
        [[request]] = vlm.batches
        assert "the astronaut and the rocket" in request.prompt
        for shown, expected in zip(request.images, make_triplet(made, photo, variant.flawed), strict=True):
            np.testing.assert_array_equal(np.asarray(shown), np.asarray(expected))

    def test_what_the_measures_reject_is_not_asked(self, photo, stlpips):
        vlm = scripted()
        [verdicts] = Curator(CurationSettings(), stlpips, vlm).judge(
            [candidate(photo, make_artifact(), make_artifact("omission"), flawed=photo)]
        )
        assert not any(verdict.kept for verdict in verdicts) and verdicts[0].reason == "no visible change"
        assert vlm.tasks() == [[]]

    def test_distortions_are_left_to_their_band(self, photo, stlpips):
        face = tuple(16 * row + column for row in range(4, 9) for column in range(5, 10))
        vlm = scripted()
        [[kept]] = Curator(CurationSettings(stlpips_band=(-10, 10)), stlpips, vlm).judge(
            [candidate(photo, make_artifact("distortion", face))]
        )
        assert kept.kept and "1 - stlpips" in kept.reason and vlm.tasks() == [[]]

    def test_an_answer_that_is_no_answer_rejects_and_is_kept_on_record(self, photo, stlpips):
        vlm = scripted(verify_duplication="I would say yes.", verify_omission={"has_artifact": True})
        [[first, second]] = Curator(CurationSettings(), stlpips, vlm).judge(
            [candidate(photo, make_artifact(), make_artifact("omission"))]
        )
        assert not first.kept and first.raw == "I would say yes."
        assert first.reason == "no usable answer to the triplet check: the answer is no JSON"
        assert "vlm_has_artifact" not in first.artifact.scores and "change_inside" in first.artifact.scores
        assert second.kept

    def test_an_unreachable_model_is_nobodys_verdict(self, photo, stlpips):
        curator = Curator(CurationSettings(), stlpips, UnreachableVLM("down"))
        with pytest.raises(VLMUnavailable):
            curator.judge([candidate(photo, make_artifact())])

    def test_what_concerns_the_image_is_measured_once_for_all_its_artifacts(self, photo, stlpips):
        variant = candidate(photo, make_artifact(), make_artifact("omission"), make_artifact("fusion"))
        [verdicts] = Curator(CurationSettings(), stlpips).judge([variant])
        scores = [verdict.artifact.scores for verdict in verdicts]
        for name in ("change_outside", "psnr_outside"):
            assert len({of_artifact[name] for of_artifact in scores}) == 1
        assert len({of_artifact["change_inside"] for of_artifact in scores}) == 3

    def test_the_explanation_shows_the_images_of_the_check(self, photo, stlpips):
        vlm = scripted(verify_duplication={"has_artifact": True})
        curator = Curator(CurationSettings(stlpips_band=(-10, 10)), stlpips, vlm)
        face = tuple(16 * row + column for row in range(8, 10) for column in range(5, 10))
        variant = candidate(photo, make_artifact(), make_artifact("distortion", face))
        [verdicts] = curator.judge([variant])
        curator.explain([variant.judged(verdicts)])
        [checked], (shown, unchecked, _), _ = vlm.batches
        assert all(one is other for one, other in zip(checked.images, shown.images, strict=True))
        assert len(unchecked.images) == 3, "a distortion was not shown before"


class TestTexts:
    def test_templates_without_a_model(self, photo, stlpips):
        [pair] = Curator(CurationSettings(), stlpips).explain([make_variant(photo, "duplication", "fusion")])
        assert isinstance(pair, PairTexts)
        assert [artifact.label for artifact in pair.artifacts] == ["duplicated eye", "fused astronaut and rocket"]
        assert "extra eye" in pair.artifacts[0].explanation and pair.explanation.startswith("The image has two flaws")
        assert pair.clean_description.startswith("An astronaut. No part is")
        assert pair.explanation_source == "template"

    def test_two_batches_for_all_texts_and_one_description_for_each_photo(self, photo, stlpips):
        vlm = scripted()
        pairs = [make_variant(photo, "duplication", "omission"), make_variant(photo, "fusion", number=1)]
        explained = Curator(CurationSettings(), stlpips, vlm).explain(pairs)
        assert vlm.tasks() == [[*["explain_local"] * 3, "describe_clean"], ["explain_global"] * 2]
        for before, after in zip(pairs, explained, strict=True):
            assert isinstance(after, PairTexts)
            expected = PairTexts(
                artifacts=after.artifacts,
                clean_description=CLEAN["description"],
                explanation=GLOBAL["explanation"],
                explanation_source="scripted/vlm",
            )
            assert vars(after) == vars(expected)
            for old, new in zip(before.artifacts, after.artifacts, strict=True):
                assert vars(new) == vars(replace(old, **LOCAL))

    def test_every_artifact_gets_its_own_text_and_the_whole_is_told_of_all(self, photo, stlpips):
        def local(request: VLMRequest) -> dict[str, Any]:
            artifact = request.prompt.partition("with a flaw: ")[2].partition(".\n")[0]
            return {"explanation": f"Look: {artifact}.", "label": artifact[-12:]}

        vlm = scripted(explain_local=local)
        variant = make_variant(photo, "duplication", "omission")
        [pair] = Curator(CurationSettings(), stlpips, vlm).explain([variant])
        assert isinstance(pair, PairTexts)
        texts = [artifact.explanation for artifact in pair.artifacts]
        assert texts == ["Look: the astronaut has an extra eye.", "Look: the astronaut's eye is missing."]
        [request] = vlm.batches[1]
        assert f"- 12% to 25% from the left, 25% to 38% from the top: {texts[0]}\n- 50%" in request.prompt
        assert request.images == (variant.flawed,) and texts[1] in request.prompt

    @pytest.mark.parametrize(
        ("reply", "reason", "raw"),
        [
            (
                "An eye.",
                "no usable local explanation: the answer is no JSON",
                "An eye.",
            ),
            (
                {"explanation": "The third image has an eye on the cheek.", "label": "eye on cheek"},
                "no usable local explanation: `explanation` must not refer to the images of the question, "
                "got 'third image'",
                '{"explanation": "The third image has an eye on the cheek.", "label": "eye on cheek"}',
            ),
        ],
    )
    def test_an_unusable_local_explanation_costs_its_own_pair_alone(self, photo, stlpips, reply, reason, raw):
        class FailsOnOmissions(ScriptedVLM):
            def _answer(self, request: VLMRequest) -> VLMAnswer:
                if "eye is missing" in request.prompt and request.task == "explain_local":
                    return ScriptedVLM("", replies={"explain_local": reply})._answer(request)
                return super()._answer(request)

        vlm = FailsOnOmissions("scripted/vlm", replies=TEXTS)
        pairs = [make_variant(photo, "duplication", "omission"), make_variant(photo, "fusion", number=1)]
        failure, pair = Curator(CurationSettings(), stlpips, vlm).explain(pairs)
        assert isinstance(failure, ExplanationError) and str(failure) == reason and failure.raw == raw
        assert isinstance(pair, PairTexts) and pair.artifacts[0].type == "fusion" and pair.explanation
        assert vlm.tasks()[1] == ["explain_global"]

    @pytest.mark.parametrize(
        ("task", "what"),
        [("explain_global", "global explanation"), ("describe_clean", "description of the clean image")],
    )
    def test_no_template_stands_in_for_a_missing_text(self, photo, stlpips, task, what):
        vlm = scripted(**{task: "<html>"})
        [failure] = Curator(CurationSettings(), stlpips, vlm).explain([make_variant(photo, "omission")])
        assert isinstance(failure, ExplanationError)
        assert str(failure) == f"no usable {what}: the answer is no JSON" and failure.raw == "<html>"

    def test_what_is_asked_of_a_pair_does_not_depend_on_its_batch(self, photo, stlpips):
        other = Image.fromarray(data.chelsea()).crop((100, 20, 356, 276))
        pairs = [make_variant(photo, "duplication", "fusion"), make_variant(other, "omission", number=1)]
        together = scripted()
        Curator(CurationSettings(), stlpips, together).explain(pairs)
        alone = [scripted(), scripted()]
        for vlm, pair in zip(alone, pairs, strict=True):
            Curator(CurationSettings(), stlpips, vlm).explain([pair])
        for number in (0, 1):
            expected = sorted(request.prompt for vlm in alone for request in vlm.batches[number])
            assert sorted(request.prompt for request in together.batches[number]) == expected


class TestIdentity:
    def test_it_names_the_model_and_the_versions_of_the_prompts(self, stlpips):
        identity = Curator(CurationSettings(), stlpips, scripted()).identity()
        assert json.loads(json.dumps(identity)) == {
            "metric": "stlpips",
            "visible_change": definition(),
            "detector": None,
            "vlm": {"model": "scripted/vlm", "revision": ""},
            "prompts": {"verify": verify.VERSION, "explain": explain.VERSION, "describe": describe.VERSION},
        }

    def test_without_a_model(self, stlpips):
        expected = {"metric": "stlpips", "visible_change": definition(), "detector": None, "vlm": None}
        assert Curator(CurationSettings(), stlpips).identity() == expected
