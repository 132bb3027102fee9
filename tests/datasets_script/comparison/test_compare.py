"""`artiagent compare` on made images of which the answer is known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from datasets_script import PixelDetector, compare
from datasets_script.cli.main import main
from datasets_script.comparison.measures import sharpness
from datasets_script.comparison.scores import Comparison
from datasets_script.comparison.writing import NUMBERS, PAGE, TABLE, VALUES
from datasets_script.schema.generation import CANDIDATES_FILE, GeneratedImage, GenerationRecord, write_images
from datasets_script.utils.errors import UserError

from ...helpers.tiny_detectors import SIZE, red_detector, square
from ...helpers.tiny_pipelines import tiny_sd


BOX = (36, 20, 56, 40)
NUMBER = 12


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "red"
    red_detector().save_pretrained(folder)
    return str(folder)


def save(folder: Path, images: dict[str, Image.Image]) -> Path:
    for name, image in images.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


def squares(numbers: range, seed: int = 0) -> dict[str, Image.Image]:
    """Make images of noise, of which those of some numbers have a red square, which the detector finds."""
    return {f"{n:02d}": square(BOX if n in numbers else None, seed + n) for n in range(NUMBER)}


def generated(
    folder: Path, images: dict[str, Image.Image], scorer: dict[str, Any] | None = None, seed: int = 0, **changes: Any
) -> Path:
    """Write a folder as `artiagent generate` does, with two images of each prompt."""
    save(folder / "images", images)
    prompts = {name: f"prompt {int(name) // 2}" for name in images}
    write_images(
        folder,
        [
            GeneratedImage(f"{name}.png", name, prompt.replace(" ", "-"), prompt, 0, None, ())
            for name, prompt in {**prompts, **changes.pop("prompts", {})}.items()
        ],
    )
    (folder / CANDIDATES_FILE).touch()
    GenerationRecord({"seed": seed}, "", scorer, {}, **{"status": "complete", **changes}).write(folder)
    return folder


def run(folders: list[Path], out: Path, detector: str, **changes: Any) -> Comparison:
    return compare(folders, out, device="cpu", **{"detectors": (detector,), "diversity": "none", **changes})


def test_a_blurred_copy_is_less_sharp(tmp_path, detector):
    images = squares(range(NUMBER))
    blurred = {name: image.filter(ImageFilter.GaussianBlur(1)) for name, image in images.items()}
    out = tmp_path / "out"
    comparison = run([save(tmp_path / "sharp", images), save(tmp_path / "blurred", blurred)], out, detector)
    (change,) = comparison.score("sharpness").changes
    assert change.difference_interval[1] < 0 and change.is_certain and change.relative < -0.5
    assert comparison.score("sharpness").mean == pytest.approx(np.mean([sharpness(of) for of in images.values()]))


def test_equal_folders_do_not_differ(tmp_path, detector):
    images = squares(range(4))
    folders = [save(tmp_path / name, images) for name in ("a", "b")]
    for scores in run(folders, tmp_path / "out", detector).scores:
        assert scores.changes[0].difference == 0 and not scores.changes[0].is_certain


def test_artifacts_that_vanish_are_counted(tmp_path, detector):
    base, fixed = save(tmp_path / "base", squares(range(10))), save(tmp_path / "fixed", squares(range(1)))
    worse = save(tmp_path / "worse", squares(range(12)))
    comparison = run([base, fixed, worse], tmp_path / "out", detector)
    frequency = comparison.score("red.artifact_frequency")
    assert frequency.mean == pytest.approx(10 / 12)
    better, worsened = frequency.changes
    assert better.mean == pytest.approx(1 / 12) and better.difference_interval[1] < 0
    assert better.relative == pytest.approx(-0.9) and better.is_certain
    assert worsened.difference == pytest.approx(2 / 12)
    area = comparison.score("red.artifact_area")
    true = 400 / (SIZE[0] * SIZE[1])
    assert area.changes[1].mean == pytest.approx(true, rel=0.4) and area.changes[0].difference_interval[1] < 0


def test_the_files_hold_table_numbers_values_and_pictures(tmp_path, detector):
    base, other = save(tmp_path / "base", squares(range(6))), save(tmp_path / "other", squares(range(3, 9)))
    out = tmp_path / "out"
    comparison = run([base, other], out, detector, pictures=5)
    numbers = json.loads((out / NUMBERS).read_text())
    assert numbers["folders"] == ["base", "other"] and numbers["models"][0]["model"] == "red"
    of_other = next(of for of in numbers["scores"] if of["column"] == "red.artifact_frequency")["folders"]["other"]
    assert of_other["mean"] == 0.5 and len(of_other["difference_interval"]) == 2
    assert comparison.table() in (out / TABLE).read_text()
    values = [json.loads(line) for line in (out / VALUES).read_text().splitlines()]
    assert [of["folders"]["other"]["red.artifact_frequency"] for of in values] == [0.0] * 3 + [1.0] * 6 + [0.0] * 3
    page = (out / PAGE).read_text()
    shown = re.findall(r'<p class="faint">(\d\d)</p>', page)
    assert set(shown[:3]) == {"06", "07", "08"}  # gained an artifact
    assert len(shown) == 5 and not {"00", "01", "02"} & set(shown)  # lost theirs
    # Self-contained, and with what the detector sees below an image that has something.
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count('alt="artifacts in 06 of other"') == 1 and 'alt="artifacts in 06 of base"' not in page


def test_images_of_a_prompt_are_a_group_and_differ(tmp_path, detector):
    varied = {name: image for name, image in squares(range(0)).items() if name < "06"}
    alike = {name: varied[f"{int(name) // 2 * 2:02d}"] for name in varied}
    folders = [generated(tmp_path / "varied", varied), generated(tmp_path / "alike", alike)]
    comparison = run(folders, tmp_path / "out", detector, diversity="stlpips")
    diversity = comparison.score("diversity")
    assert diversity.n == diversity.groups == 3
    assert diversity.mean > 0.01 and diversity.changes[0].mean == 0 and diversity.changes[0].difference_interval[1] < 0
    assert comparison.score("sharpness").groups == 3 and comparison.score("sharpness").n == 6


def test_who_chose_the_images_does_not_judge_them(tmp_path, detector):
    scorer = {"score": "…", "detector": PixelDetector.from_pretrained(detector, device="cpu").identity()}
    folders = [
        generated(tmp_path / "base", squares(range(6))),
        generated(tmp_path / "best", squares(range(1)), scorer),
    ]
    comparison = run(folders, tmp_path / "out", detector)
    assert [of.changes[0].chosen for of in comparison.scores] == [True, True, True, False]
    assert "† This model chose or guided the images" in (tmp_path / "out" / TABLE).read_text()
    assert "† This model chose or guided the images" in (tmp_path / "out" / PAGE).read_text()
    # Nor if they are those that the others are compared with.
    turned = run(folders[::-1], tmp_path / "turned", detector)
    assert [of.chosen for of in turned.scores] == [True, True, True, False]
    page = (tmp_path / "turned" / PAGE).read_text()
    assert "† This model chose or guided the images" in page and '<td class="worse">' not in page
    first = json.loads((tmp_path / "turned" / NUMBERS).read_text())["scores"][0]["folders"]["best"]
    assert first["chosen_or_guided_by_it"] is True


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """Save a tiny CLIP with random weights."""
    folder, tokenizer = tmp_path_factory.mktemp("clip"), tiny_sd().tokenizer
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    vision = {**small, "image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32), tokenizer).save_pretrained(folder)
    return str(folder)


def test_fit_to_the_prompt_is_that_of_clip(tmp_path, detector, clip):
    folders = [generated(tmp_path / "a", squares(range(3))), generated(tmp_path / "b", squares(range(9)))]
    comparison = run(folders, tmp_path / "out", detector, clip=clip, pickscore=clip, batch_size=5)
    model, processor = CLIPModel.from_pretrained(clip), CLIPProcessor.from_pretrained(clip)
    inputs = processor(
        text=[f"prompt {n // 2}" for n in range(NUMBER)],
        images=[Image.open(path) for path in sorted((folders[0] / "images").glob("*.png"))],
        return_tensors="pt",
        padding=True,
    )
    logits = model(**inputs).logits_per_image.diagonal().mean().item()
    assert comparison.score("pickscore").mean == pytest.approx(logits, rel=1e-4)
    assert comparison.score("clip_t").mean == pytest.approx(logits / model.logit_scale.exp().item(), rel=1e-4)


def test_scores_of_other_programs_are_read(tmp_path, detector):
    folders = [save(tmp_path / name, squares(range(2))) for name in ("a", "b")]
    for place, folder in enumerate(folders):
        lines = [{"id": f"{n:02d}", "score": n + place, "model": "v1"} for n in range(NUMBER)]
        (folder / "imagereward.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = run(folders, tmp_path / "out", detector, scores=("imagereward",)).score("imagereward")
    assert scores.mean == 5.5 and scores.changes[0].difference_interval == (1, 1)
    (folders[1] / "imagereward.jsonl").write_text('{"id": "00", "score": null}\n')
    with pytest.raises(UserError, match="a finite number .*, got None for \"id\" '00'"):
        run(folders, tmp_path / "out", detector, scores=("imagereward",))
    with pytest.raises(UserError, match="found no .*hpsv3.jsonl"):
        run(folders, tmp_path / "out", detector, scores=("hpsv3",))
    for text, message in (
        ("[1, 2]", 'must be a JSON object with a text "id"'),
        ('{"id": "00', "must be a JSON object: "),
    ):
        (folders[0] / "imagereward.jsonl").write_text(f"\n{text}\n")
        with pytest.raises(UserError, match=f"`scores`, '.*imagereward.jsonl', line 2: {message}"):
            run(folders, tmp_path / "out", detector, scores=("imagereward",))
    for folder in folders:
        written = [json.dumps({"id": f"{n:02d}", "score": 1}) for n in range(NUMBER)]
        (folder / "sharpness.jsonl").write_text("\n".join(written))
    with pytest.raises(UserError, match="`scores` must have names of their own, got 'sharpness'"):
        run(folders, tmp_path / "out", detector, scores=("sharpness",))


def test_folders_that_do_not_belong_together_are_refused(tmp_path, detector):
    base = generated(tmp_path / "base", squares(range(1)))
    fewer = save(tmp_path / "fewer", {name: image for name, image in squares(range(1)).items() if name < "10"})
    seeded = generated(tmp_path / "seeded", squares(range(1)), seed=4)
    prompted = generated(tmp_path / "prompted", squares(range(1)), prompts={"03": "a cup"})
    running = generated(tmp_path / "running", squares(range(1)), status="running")
    (empty := tmp_path / "empty").mkdir()
    for folders, message in (
        ([base], "at least two, got 1"),
        ([base, fewer], "'.*fewer' lacks 2 of 12 in '.*base': 10, 11; generate both from the same prompts"),
        ([base, seeded], "generated with one --seed, got 0 for '.*base' and 4 for '.*seeded'"),
        ([base, prompted], "same prompts, got 'prompt 1' for '03' in '.*base' and 'a cup' in"),
        ([base, running], "complete runs, got '.*running'"),
        ([base, empty], "must hold images, found none in '.*empty'"),
        ([base, tmp_path / "gone"], "must be folders of images, got '.*gone'"),
    ):
        with pytest.raises(UserError, match=message):
            run(folders, tmp_path / "out", detector)
    plain, other = (save(tmp_path / name, squares(range(2))) for name in ("plain", "other"))
    with pytest.raises(UserError, match="`clip` needs the prompts of the images"):
        run([plain, other], tmp_path / "out", detector, clip="some/clip")
    with pytest.raises(UserError, match="must be different ones, got '.*plain' twice"):
        run([plain, tmp_path / "other" / ".." / "plain"], tmp_path / "out", detector)
    assert not (tmp_path / "out").exists()


def test_repaired_photos_keep_the_prompts_of_the_generated(tmp_path, detector):
    base = generated(tmp_path / "base", squares(range(6)))
    repaired = save(tmp_path / "repaired", squares(range(0)))
    comparison = run([base, repaired], tmp_path / "out", detector)
    assert comparison.score("red.artifact_frequency").changes[0].mean == 0
    assert "prompt 3" in (tmp_path / "out" / PAGE).read_text()


def test_the_command_prints_the_table(tmp_path, detector, capsys):
    folders = [str(save(tmp_path / name, squares(range(number)))) for name, number in (("a", 8), ("b", 2))]
    options = ["--detector", detector, "--to", str(tmp_path / "page"), "--device", "cpu"]
    assert main(["compare", *folders, *options]) == 0
    told = capsys.readouterr().out
    assert "artifact frequency (red)" in told and str(tmp_path / "page" / PAGE) in told
    assert main(["compare", folders[0], *options]) == 2
    assert "FOLDER must be at least two, got 1" in capsys.readouterr().err
    assert main(["compare", *folders, *options, "--detector", "no such"]) == 2
    assert "--detector must be a folder or a repository" in capsys.readouterr().err
