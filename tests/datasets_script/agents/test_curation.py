"""Measures, perceptual distances, verdicts and texts of curation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from skimage.metrics import structural_similarity

from datasets_script.agents.curation.explanations import (
    clean_description,
    global_explanation,
    label,
    local_explanation,
    subject,
)
from datasets_script.agents.curation.measures import (
    MAX_PSNR,
    aligned_patches,
    as_array,
    change_inside,
    change_outside,
    inside_outside_ratio,
    measure,
    psnr_outside,
    target_pixels,
    visible_contrast,
)
from datasets_script.agents.curation.perceptual import (
    PerceptualMetric,
    PerceptualMetricUnavailable,
    load_perceptual_metric,
)
from datasets_script.agents.curation.similarity import LUMINANCE, ssim_map
from datasets_script.agents.curation.thresholds import CurationSettings, RegionGates, judge
from datasets_script.agents.prompts import verify
from datasets_script.schema.pair import Artifact
from diffusers_artifact.mapping import PatchMapping
from diffusers_artifact.tools import ARTIFACT_TYPE_OF_TOOL


GRID = (8, 8)
SIZE = 128


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    # The astronaut's face and collar.
    return Image.fromarray(data.astronaut()).crop((128, 0, 384, 256)).resize((SIZE, SIZE))


@pytest.fixture(scope="module")
def stlpips() -> PerceptualMetric:
    return load_perceptual_metric("stlpips")


def artifact(kind="duplication", targets=(9, 10), references=(44, 45), **changes) -> Artifact:
    mapping = PatchMapping.from_pairs(zip(targets, references, strict=True), GRID, kind)
    mask = target_pixels([mapping], 16)
    ys, xs = np.nonzero(mask)
    made = Artifact(
        type=kind,
        tool={made: tool for tool, made in ARTIFACT_TYPE_OF_TOOL.items()}.get(kind, kind),
        entity="cat",
        part="" if kind == "fusion" else "ear",
        fused_entity="dog" if kind == "fusion" else "",
        mapping=mapping,
        mask=mask,
        bbox=(float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)),
        part_mask=mask,
    )
    return replace(made, **changes)


def with_patches(image: Image.Image, mapping: PatchMapping, source: Image.Image) -> Image.Image:
    """`image` with `source`'s reference patches pasted on the targets."""
    pasted = image.copy()
    for target, reference in zip(mapping.targets, mapping.references, strict=True):
        (row, column), (from_row, from_column) = divmod(target, GRID[1]), divmod(reference, GRID[1])
        box = (from_column * 16, from_row * 16, from_column * 16 + 16, from_row * 16 + 16)
        pasted.paste(source.crop(box), (column * 16, row * 16))
    return pasted


class TestMeasures:
    def test_change_is_split_at_the_mask(self):
        clean = np.zeros((4, 4, 3), dtype=np.float32)
        flawed = clean.copy()
        mask = np.zeros((4, 4), dtype=bool)
        mask[:2, :2] = True
        flawed[mask] = 0.5
        flawed[3, 3] = 0.12
        assert change_inside(clean, flawed, mask) == pytest.approx(0.5)
        assert change_outside(clean, flawed, mask) == pytest.approx(0.12 / 12)
        assert psnr_outside(clean, flawed, mask) == pytest.approx(-10 * math.log10(0.12**2 / 12))

    def test_psnr_is_capped_where_nothing_changed(self):
        image = np.zeros((4, 4, 3), dtype=np.float32)
        assert psnr_outside(image, image, np.eye(4, dtype=bool)) == MAX_PSNR

    def test_ratio(self):
        assert inside_outside_ratio(0.2, 0.02) == pytest.approx(10)
        assert inside_outside_ratio(0.2, 0.0) == math.inf

    def test_empty_regions_are_refused(self):
        image = np.zeros((4, 4, 3), dtype=np.float32)
        with pytest.raises(ValueError, match="at least one pixel"):
            change_inside(image, image, np.zeros((4, 4), dtype=bool))
        with pytest.raises(ValueError, match="all targets"):
            change_outside(image, image, np.ones((4, 4), dtype=bool))

    def test_target_pixels_of_all_mappings(self):
        first, second = artifact(targets=(0, 1)).mapping, artifact(targets=(63, 55)).mapping
        pixels = target_pixels([first, second], 16)
        assert pixels.shape == (SIZE, SIZE)
        assert pixels[:16, :32].all() and pixels[96:, 112:].all()
        assert pixels.sum() == 4 * 16 * 16

    @given(
        st.lists(st.integers(0, 63), min_size=1, max_size=10, unique=True).flatmap(
            lambda targets: st.tuples(
                st.just(targets), st.lists(st.integers(0, 63), min_size=len(targets), max_size=len(targets))
            )
        )
    )
    def test_copied_patches_align_with_their_reference(self, pairs):
        mapping = PatchMapping(tuple(pairs[0]), tuple(pairs[1]), GRID)
        image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        clean = Image.fromarray(image)
        flawed = with_patches(clean, mapping, clean)
        reference = aligned_patches(mapping, as_array(clean), mapping.references)
        copied = aligned_patches(mapping, as_array(flawed), mapping.targets)
        np.testing.assert_array_equal(copied, reference)
        grey = (reference == 0.5).all(axis=-1).sum()
        assert grey == reference.shape[0] * reference.shape[1] - 256 * len(mapping)

    def test_scores_of_a_copy(self, photo, stlpips):
        made = artifact()
        flawed = with_patches(photo, made.mapping, photo)
        [scores] = measure([made], photo, flawed, stlpips)
        assert scores["change_inside"] > 0.03
        assert scores["change_outside"] == 0
        assert scores["reference_distance_after"] == pytest.approx(0, abs=1e-6)
        assert scores["reference_distance_before"] > 0.1
        assert scores["closer_to_reference"] == 1
        assert scores["stlpips"] > 0.1 and "lpips" not in scores

    def test_no_change_is_not_closer_and_only_duplications_have_a_reference(self, photo, stlpips):
        assert measure([artifact()], photo, photo, stlpips)[0]["closer_to_reference"] == 0
        [scores] = measure([artifact("omission")], photo, photo, stlpips)
        assert set(scores) == {"change_inside", "change_outside", "psnr_outside", "visible_contrast", "stlpips"}

    def test_contrast_is_change_in_units_of_the_texture(self):
        rng = np.random.default_rng(0)
        mask = np.zeros((128, 128), dtype=bool)
        mask[56:72, 56:72] = True
        contrasts = []
        for deviation in (0.0, 0.1):
            clean = np.repeat(0.5 + deviation * rng.standard_normal((128, 128, 1)), 3, axis=2).astype(np.float32)
            flawed = clean.copy()
            flawed[mask] += 0.2
            contrasts.append(visible_contrast(clean, flawed, mask))
        # Flat ground, then noise of .1: a change of .2 against .02 and, less what the window averages, .12.
        assert contrasts == pytest.approx([10, 0.2 / 0.12], rel=0.05)
        assert visible_contrast(clean, flawed, np.zeros_like(mask)) == 0
        assert visible_contrast(clean, clean, mask) == 0

    def test_an_artifact_without_visible_change_is_measured_at_its_targets(self, photo, stlpips):
        empty = np.zeros((SIZE, SIZE), dtype=bool)
        [scores] = measure([artifact(mask=empty, bbox=(0.0,) * 4)], photo, photo, stlpips)
        assert (scores["visible_contrast"], scores["change_inside"], scores["stlpips"]) == (0, 0, 0)


class TestPerceptual:
    def test_equal_crops_have_distance_zero_and_more_change_is_farther(self, photo, stlpips):
        crop = as_array(photo)[32:96, 32:96]
        distorted = crop.copy()
        distorted[16:48, 16:48] = np.roll(crop[16:48, 16:48], 16, axis=1)
        unrelated = as_array(Image.fromarray(data.coffee()))[100:164, 100:164]
        assert stlpips(crop, crop) == 0
        assert 0.01 < stlpips(crop, distorted) < stlpips(crop, unrelated)

    def test_small_and_oblong_crops_are_enlarged(self, photo, stlpips):
        pixels = as_array(photo)
        assert stlpips(pixels[:16, :48], pixels[16:32, :48]) > 0

    def test_unequal_crops_are_refused(self, photo, stlpips):
        pixels = as_array(photo)
        with pytest.raises(ValueError, match="shape"):
            stlpips(pixels[:64, :64], pixels[:64, :80])

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="'ssim'"):
            load_perceptual_metric("ssim")

    def test_lpips_without_backbone_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        # Nothing listens on port 9, so that the download fails with or without a network.
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(PerceptualMetricUnavailable, match="could not be downloaded.*'stlpips'"):
            load_perceptual_metric("lpips")

    @pytest.mark.filterwarnings("ignore:The parameter 'pretrained'", "ignore:Arguments other than a weight enum")
    def test_lpips_with_a_cached_backbone_gives_the_packages_numbers(self, tmp_path, monkeypatch, photo):
        from lpips import LPIPS

        torch.manual_seed(0)
        reference = LPIPS(net="alex", pnet_rand=True, verbose=False)
        backbone = {"features." + key.split(".", 1)[1]: value for key, value in reference.net.state_dict().items()}
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        checkpoint = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
        checkpoint.parent.mkdir(parents=True)
        torch.save(backbone, checkpoint)
        metric = load_perceptual_metric("lpips")
        first, second = as_array(photo)[:64, :64], as_array(photo)[64:, 64:]
        as_tensor = [torch.from_numpy(crop).permute(2, 0, 1)[None] for crop in (first, second)]
        assert metric.name == "lpips"
        assert metric(first, second) == pytest.approx(reference(*as_tensor, normalize=True).item(), rel=1e-6)


class TestCorruptions:
    """The region must have changed, and nothing else."""

    SCORES = {
        "change_inside": 0.1,
        "change_outside": 0.001,
        "visible_contrast": 0.5,
        "stlpips": 0.3,
        "ssim_inside": 0.4,
        "distance_inside": 0.3,
        "ssim_outside": 0.99,
        "distance_outside": 0.001,
    }

    def test_a_change_is_measured_where_it_is(self, photo, stlpips):
        region = artifact("corruption")
        mask = region.part_mask
        pixels = np.array(photo)
        pixels[mask] = pixels[mask][::-1]
        (scores,) = measure([region], photo, Image.fromarray(pixels), stlpips)
        assert scores["ssim_inside"] < 0.5 and scores["distance_inside"] > 0.05
        assert (scores["ssim_outside"], scores["distance_outside"]) == (pytest.approx(1, abs=1e-6), 0)
        pixels = np.array(photo)
        pixels[~mask] = 255 - pixels[~mask]
        (scores,) = measure([region], photo, Image.fromarray(pixels), stlpips)
        assert scores["ssim_outside"] < 0.5 and scores["distance_outside"] > 0.1

    def test_ssim_is_one_for_equal_images_and_knows_structure_from_brightness(self, photo):
        image = as_array(photo)
        shuffled = image.copy()
        shuffled[32:96, 32:96] = image[32:96, 32:96][::-1]
        assert ssim_map(image, image) == pytest.approx(1, abs=1e-4)
        assert ssim_map(image, np.clip(image + 0.02, 0, 1)).mean() > ssim_map(image, shuffled)[32:96, 32:96].mean()

    def test_ssim_is_that_of_scikit_image(self, photo):
        image = as_array(photo)
        other = np.clip(image + np.random.default_rng(0).normal(0, 0.1, image.shape), 0, 1).astype(np.float32)
        reference = structural_similarity(
            image @ LUMINANCE, other @ LUMINANCE, gaussian_weights=True, use_sample_covariance=False, data_range=1.0
        )
        assert float(ssim_map(image, other).mean()) == pytest.approx(reference, abs=0.005)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"ssim_inside": 0.7}, "unchanged: SSIM in the region 0.70, at most 0.65 needed"),
            ({"distance_inside": 0.01}, "unchanged: stlpips of the region 0.01, at least"),
            ({"ssim_outside": 0.9}, "changed outside the regions: SSIM 0.900, at least 0.95 needed"),
            ({"distance_outside": 0.03}, "changed outside the regions: stlpips 0.030, at most 0.02 allowed"),
            ({"change_outside": 0.07}, "changed all over"),
            ({"visible_contrast": 0.0}, "no visible change"),
        ],
    )
    def test_each_gate_rejects_and_only_hardly_changed_regions_can_be_flagged(self, changes, reason):
        made = artifact("corruption", scores=self.SCORES | changes)
        dropped = judge(made, CurationSettings(), RegionGates())
        assert not dropped.kept and reason in dropped.reason
        flagged = judge(made, CurationSettings(), RegionGates(unchanged="flag"))
        assert flagged.kept is reason.startswith("unchanged") and flagged.reason == dropped.reason
        assert (flagged.artifact.scores.get("unchanged") == 1) is flagged.kept

    def test_a_changed_region_is_kept_and_marked_as_such(self):
        verdict = judge(artifact("corruption", scores=self.SCORES), CurationSettings())
        assert verdict.kept and verdict.artifact.scores["unchanged"] == 0

    def test_lpips_has_thresholds_of_its_own(self):
        scores = {name: value for name, value in self.SCORES.items() if name != "stlpips"} | {"lpips": 0.3}
        gates = RegionGates(min_stlpips_inside=0.9, max_stlpips_outside=0.0)
        assert judge(artifact("corruption", scores=scores), CurationSettings(), gates).kept
        low = artifact("corruption", scores=scores | {"distance_inside": 0.2})
        assert "lpips of the region 0.20, at least 0.25 needed" in judge(low, CurationSettings(), gates).reason

    def test_no_model_is_asked_about_them(self, photo):
        assert verify.TYPES == ("duplication", "omission", "fusion")
        with pytest.raises(ValueError, match="got 'corruption'"):
            verify.request("corruption", "a region", (photo, photo, photo))


class TestVerdicts:
    @pytest.mark.parametrize(
        ("metric", "distance", "kept", "reason"),
        [
            ("lpips", 0.05, False, "hardly visible: 1 - lpips = 0.950"),
            ("lpips", 0.1, True, "visible"),
            ("lpips", 0.5, True, "visible"),
            ("lpips", 0.55, False, "replaced rather than distorted: 1 - lpips = 0.450"),
            ("stlpips", 0.55, True, "visible"),
            ("stlpips", 0.05, False, "hardly visible: 1 - stlpips"),
            ("stlpips", 0.7, False, "replaced"),
        ],
    )
    def test_distortions_must_lie_in_the_band_of_their_metric(self, metric, distance, kept, reason):
        verdict = judge(artifact("distortion", scores={metric: distance}), CurationSettings())
        assert verdict.kept is kept
        assert reason in verdict.reason

    def test_a_distortion_without_a_distance_is_refused(self):
        with pytest.raises(ValueError, match="psnr_outside"):
            judge(artifact("distortion", scores={"psnr_outside": 40.0}), CurationSettings())

    @pytest.mark.parametrize("kind", ["omission", "fusion", "duplication"])
    def test_the_others_need_a_visible_change(self, kind):
        scores = {
            "change_inside": 0.02,
            "reference_distance_before": 0.5,
            "reference_distance_after": 0.2,
            "closer_to_reference": 1.0,
        }
        rejected = judge(artifact(kind, scores=scores), CurationSettings())
        assert not rejected.kept and "0.020, at least 0.030" in rejected.reason
        assert judge(artifact(kind, scores=scores | {"change_inside": 0.05}), CurationSettings()).kept
        assert judge(artifact(kind, scores=scores), CurationSettings(min_change_inside=0.01)).kept

    @pytest.mark.parametrize(
        ("contrast", "reason"),
        [(0.0, "no visible change"), (0.8, "hidden by texture: change in the mask 0.80 times"), (1.0, "visible")],
    )
    @pytest.mark.parametrize("kind", ["omission", "distortion"])
    def test_texture_must_not_hide_the_change(self, kind, contrast, reason):
        scores = {"change_inside": 0.1, "stlpips": 0.3, "visible_contrast": contrast}
        verdict = judge(artifact(kind, scores=scores), CurationSettings())
        assert verdict.reason.startswith(reason)
        assert verdict.kept == (contrast >= 1)
        assert judge(artifact(kind, scores=scores), CurationSettings(min_visible_contrast=0.5)).kept == (contrast > 0)

    def test_a_duplication_must_come_closer_to_its_reference(self):
        scores = {
            "change_inside": 0.1,
            "reference_distance_before": 0.4,
            "reference_distance_after": 0.45,
            "closer_to_reference": 0.0,
        }
        verdict = judge(artifact(scores=scores), CurationSettings())
        assert not verdict.kept and "0.400 before, 0.450 after" in verdict.reason
        assert verdict.artifact.scores == scores and verdict.raw == ""
        assert judge(artifact(scores=scores), CurationSettings(require_closer=False)).kept

    def test_the_band_of_the_stand_in_keeps_shuffles_and_no_blanks(self, photo, stlpips):
        face = tuple(8 * row + column for row in range(1, 6) for column in range(2, 6))
        shuffled = tuple(np.random.default_rng(0).permutation(face).tolist())
        grey = Image.new("RGB", photo.size, (128, 128, 128))
        made = artifact("distortion", targets=face, references=shuffled)
        flawed = {
            "unchanged": photo,
            "shuffled": with_patches(photo, made.mapping, photo),
            "blank": with_patches(photo, made.mapping, grey),
        }
        verdicts = {}
        for name, image in flawed.items():
            [scores] = measure([made], photo, image, stlpips)
            verdicts[name] = judge(replace(made, scores=scores), CurationSettings()).kept
        assert verdicts == {"unchanged": False, "shuffled": True, "blank": False}


class TestExplanations:
    @pytest.mark.parametrize(
        ("made", "name", "sentence"),
        [
            (artifact(), "duplicated ear", "The cat has an extra ear in the upper left of the image."),
            (
                artifact(entity="glasses", part="lens"),
                "duplicated lens",
                "The glasses have an extra lens in the upper left of the image.",
            ),
            (
                artifact("omission", entity="coat", part="buttons", targets=(60,), references=(0,)),
                "missing buttons",
                "The coat's buttons are missing: they should be at the bottom of the image.",
            ),
            (
                artifact("omission", entity="bus", part="left wheel", targets=(36,), references=(0,)),
                "missing left wheel",
                "The bus's left wheel is missing: it should be in the middle of the image.",
            ),
            (
                artifact("distortion", entity="scissors", part="handles", targets=(7,), references=(7,)),
                "distorted handles",
                "The scissors' handles, in the upper right of the image, are distorted: "
                "their pieces do not fit together.",
            ),
            (
                artifact("fusion", targets=(39,), references=(0,)),
                "fused cat and dog",
                "The cat and the dog merge into each other on the right of the image, "
                "with no clear boundary between them.",
            ),
            (
                artifact("fusion", entity="coin", fused_entity="coin", targets=(32,), references=(0,)),
                "fused coins",
                "Two coins merge into each other on the left of the image, with no clear boundary between them.",
            ),
        ],
    )
    def test_label_and_local_explanation(self, made, name, sentence):
        assert label(made) == name
        assert local_explanation(made, (SIZE, SIZE)) == sentence

    def test_global_explanation_names_all_artifacts_and_no_place(self):
        one, two = artifact(), artifact("distortion", part="paws")
        three = artifact("fusion", entity="person", fused_entity="person")
        assert global_explanation([one]) == "The cat has an extra ear."
        assert global_explanation([one, two]) == (
            "The image has two flaws: the cat has an extra ear and the cat's paws are distorted."
        )
        assert global_explanation([one, two, three]) == (
            "The image has three flaws: the cat has an extra ear, the cat's paws are distorted, "
            "and two people merge into each other."
        )

    @pytest.mark.parametrize(
        ("made", "name"),
        [
            (artifact(), "the ear of the cat"),
            (artifact("fusion"), "the cat and the dog"),
            (artifact("fusion", entity="coin", fused_entity="coin"), "two coins"),
            (artifact("fusion", entity="grapes", fused_entity="grapes"), "grapes"),
        ],
    )
    def test_subject(self, made, name):
        assert subject(made) == name

    @pytest.mark.parametrize(
        ("caption", "sentences"),
        [
            ("a cat on a sofa", "A cat on a sofa. No part is"),
            ("A cat sits on a sofa. ", "A cat sits on a sofa. No part is"),
            ("", "No part is"),
        ],
    )
    def test_clean_description_says_what_is_there_and_that_nothing_is_wrong(self, caption, sentences):
        assert clean_description(caption) == f"{sentences} doubled, missing, distorted or merged with another."

    def test_global_explanation_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="at least one artifact"):
            global_explanation([])
