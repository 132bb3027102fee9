"""Predictions scored on a benchmark: sections, protocols, what is missing, and the command with its report."""

import io
import json

import datasets
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from datasets_script.cli.evaluate import scoring_settings
from datasets_script.cli.main import build_parser, main
from datasets_script.evaluation.protocol_masks import truth_region
from datasets_script.evaluation.published import published_tables
from datasets_script.evaluation.report import write_evaluation
from datasets_script.evaluation.scores import MISSING, ScoringSettings, evaluate_predictions
from datasets_script.evaluation.tables import SCORE_NAMES, evaluation_text, paper_table
from datasets_script.schema.image import BENCHMARK_FEATURES, BenchmarkImage, Region, image_to_row
from datasets_script.schema.prediction import Prediction
from evaluate_metrics.functional.detection import artifact_detection
from evaluate_metrics.functional.intervals import Bootstrap
from evaluate_metrics.functional.miou import PROTOCOLS


SIZE = (40, 30)
QUICK = Bootstrap(n_resamples=20)
HAND, EAR = (4.0, 4.0, 14.0, 14.0), (20.0, 10.0, 30.0, 20.0)


def png(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def flawed(name, *boxes, kinds=("duplication", "fusion"), explanation="the hand has six fingers"):
    regions = tuple(Region("box", box, name=kind) for box, kind in zip(boxes, kinds, strict=False))
    return BenchmarkImage(name, png(), SIZE, True, regions, explanation=explanation)


def clean(name):
    return BenchmarkImage(name, png(), SIZE, False)


IMAGES = [flawed("a", HAND), flawed("b", HAND, EAR), clean("c"), clean("d")]
ANSWERS = {
    "a": Prediction("a", True, (HAND,), explanation="a hand with six fingers"),
    "b": Prediction("b", True, ((4.0, 4.0, 14.0, 9.0),), explanation="nothing of the kind"),
    "c": Prediction("c", False, ()),
    "d": Prediction("d", True, (EAR,), explanation="an ear too many"),
}


def evaluated(images=IMAGES, predictions=ANSWERS, **settings):
    return evaluate_predictions(images, predictions, ScoringSettings(bootstrap=QUICK, **settings))


def test_every_section_that_the_predictions_speak_of_is_scored():
    evaluation = evaluated()
    assert evaluation.n == 4 and not evaluation.failures
    assert set(evaluation.sections) == {"detection", "localization", "rouge"}
    assert evaluation.score("detection.accuracy") == 0.75
    # 1 for `a`; `b` finds 11 × 6 of 2 × 11 × 11 pixels, as boxes hold their maxima under ArtiAgent's protocol.
    assert evaluation.score("localization.miou") == pytest.approx((1 + 66 / 242) / 2)
    assert evaluation.sections["rouge"]["n"] == 2
    assert evaluation.ious_by_class() == {"duplication": [1.0, 66 / 242], "fusion": [66 / 242]}
    assert [located.area for located in evaluation.located] == [121 / 1200, 242 / 1200]


@pytest.mark.parametrize("cases", [0, 1, 3, 9])
def test_the_worst_and_best_images_are_kept_in_the_one_pass(cases):
    images = [flawed(f"image {number}", HAND) for number in range(7)]
    predictions = {
        image.id: Prediction(image.id, True, ((4.0, 4.0, 14.0, 4.0 + (3 * number) % 7),) if number else ())
        for number, image in enumerate(images)
    }
    settings = ScoringSettings(bootstrap=QUICK)
    evaluation = evaluate_predictions(iter(images), predictions, settings, cases)
    ranked = sorted(evaluation.located, key=lambda entry: (entry.iou, not entry.is_predicted, entry.id))
    assert [kept.located for kept in evaluation.worst] == ranked[:cases]
    assert [kept.located for kept in evaluation.best] == ranked[::-1][:cases]
    for kept in (*evaluation.worst, *evaluation.best):
        assert kept.image in images and kept.image.id == kept.located.id == kept.prediction.id
    assert not evaluated().worst and evaluation.sections == evaluated(images, predictions).sections


def test_the_same_masks_give_four_different_mious_each_under_its_name():
    scores = {protocol: evaluated(protocol=protocol).sections["localization"] for protocol in PROTOCOLS}
    assert {name: section["protocol"] for name, section in scores.items()} == {name: name for name in PROTOCOLS}
    assert len({section["miou"] for section in scores.values()}) == len(PROTOCOLS) == 4
    # Pixels of the whole set: 150 right, 100 too many (on `d`), 150 missed.
    assert scores["x_aigd"]["miou"] == pytest.approx(150 / 400)


def test_a_model_that_always_says_no_scores_as_an_untrained_one_is_published():
    predictions = {image.id: Prediction(image.id, False, ()) for image in IMAGES}
    evaluation = evaluated(predictions=predictions)
    assert evaluation.score("detection.accuracy") == 0.5
    assert evaluation.score("detection.macro_f1") == pytest.approx(1 / 3)
    assert evaluation.score("localization.miou") == evaluation.score("localization.f1") == 0.0


def test_boxes_are_scored_by_instances_under_the_protocol_of_x_aigd():
    assert "instances" not in evaluated().sections
    section = evaluated(protocol="x_aigd").sections["instances"]
    # `a` and one of two of `b` are found; the box of `d` is false, as is one that leads out of its image.
    assert section["counts"] == {"found": 2, "missed": 1, "false": 1}
    out = Prediction("c", False, (), failures=("boxes: [0, 0, 99, 9]: it reaches out of the image",))
    evaluation = evaluated(predictions={**ANSWERS, "c": out}, protocol="x_aigd")
    assert evaluation.sections["instances"]["counts"]["false"] == 2
    assert "instance F1" in evaluation_text(evaluation, "mine", "set", None, ScoringSettings(protocol="x_aigd"))


def test_published_accuracies_and_f1_are_of_whole_answers_by_our_definition():
    """Every published pair is what some count of right and wrong answers to 500 + 500 images gives."""
    table = published_tables()["artibench"]
    columns = [list(table.columns).index(f"detection.{name}") for name in ("accuracy", "macro_f1")]
    pairs = {name: tuple(row[column] for column in columns) for name, row in table.rows.items()}
    for name, (accuracy, macro_f1) in pairs.items():
        if accuracy is None:
            continue
        answers = next(
            answers
            for hits in range(501)
            if 0 <= (false := 500 + hits - round(accuracy * 1000)) <= 500
            and round(_macro_f1(answers := _answers(hits, false)), 3) == macro_f1
        )
        result = artifact_detection(answers, [1] * 500 + [0] * 500, bootstrap=Bootstrap(n_resamples=0))
        assert (round(result["accuracy"], 3), round(result["macro_f1"], 3)) == (accuracy, macro_f1), name


def _answers(hits, false):
    return [1] * hits + [0] * (500 - hits) + [1] * false + [0] * (500 - false)


def _macro_f1(answers):
    hits, false = sum(answers[:500]), sum(answers[500:])
    right_no, said_no = 500 - false, 1000 - hits - false
    return (2 * hits / (500 + hits + false) + 2 * right_no / (500 + said_no)) / 2


def test_a_missing_prediction_is_a_failure_and_no_silent_no():
    evaluation = evaluated(predictions={name: ANSWERS[name] for name in "ab"})
    assert evaluation.failures == (("c", MISSING), ("d", MISSING))
    assert evaluation.score("detection.parse_failure_rate") == 0.5
    assert evaluation.score("detection.accuracy") == 0.5


def test_a_detector_that_gives_only_masks_has_no_detection_score(tmp_path):
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
    mask[4:15, 4:15] = 200
    Image.fromarray(mask).save(tmp_path / "map.png")
    predictions = {image.id: Prediction(image.id, mask=tmp_path / "map.png") for image in IMAGES}
    evaluation = evaluated(predictions=predictions)
    assert set(evaluation.sections) == {"localization"}
    assert [located.iou for located in evaluation.located] == [1.0, 0.5]
    strict = evaluated(predictions=predictions, threshold=0.9)
    assert strict.score("localization.miou") == 0.0


@pytest.mark.parametrize("question", ["detection", "localization", "explanation"])
def test_what_was_asked_is_scored_even_if_every_answer_fails_and_nothing_else_is(question):
    predictions = {image.id: Prediction(image.id, failures=(f"{question}: no",)) for image in IMAGES[:3]}
    evaluation = evaluated(predictions=predictions)
    assert set(evaluation.sections) == {"rouge" if question == "explanation" else question}
    scores = ("detection.accuracy", "localization.miou", "rouge.rougeL")
    assert {evaluation.score(name) for name in scores} == {0.0, None}
    assert len(evaluation.failures) == 4


def test_classes_of_another_vocabulary_are_told_and_not_scored():
    predictions = {**ANSWERS, "a": Prediction("a", True, (HAND,), classes=("Omitted components",))}
    evaluation = evaluated(predictions=predictions)
    assert "classification" not in evaluation.sections and evaluation.unscored_classes == ("fusion",)
    text = evaluation_text(evaluation, "mine", "set", None, ScoringSettings(bootstrap=QUICK))
    assert "Classes are not scored" in text and evaluated().unscored_classes == ()


@pytest.mark.parametrize(
    ("benchmark", "options", "threshold"),
    [
        ("richhf", (), 0.5),
        ("richhf", ("--protocol", "artiagent"), 0.3),
        ("richhf", ("--truth-threshold", "0.4"), 0.4),
        ("x_aigd", (), 0.5),
    ],
)
def test_the_heat_maps_of_a_benchmark_are_cut_as_its_protocol_does(benchmark, options, threshold):
    args = build_parser().parse_args(["evaluate", "p.jsonl", "--benchmark", benchmark, *options])
    assert scoring_settings(args).truth_threshold == threshold


@pytest.mark.parametrize("threshold, expected", [(0.3, 1.0), (0.5, 0.5)])
def test_a_true_heat_map_has_a_threshold_of_its_own(threshold, expected):
    heat = np.zeros((SIZE[1], SIZE[0]), dtype=np.float32)
    heat[4:14, 4:9], heat[4:14, 9:14] = 0.6, 0.4
    image = BenchmarkImage("a", png(), SIZE, None, (Region("heat_map", HAND, mask=heat),))
    evaluation = evaluated([image], {"a": ANSWERS["a"]}, truth_threshold=threshold, protocol="menn")
    assert [located.iou for located in evaluation.located] == [expected]
    assert "detection" not in evaluation.sections


def test_regions_of_several_shapes_are_one_truth():
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
    mask[20:25, 0:10] = True
    polygon = (20.0, 10.0, 30.0, 10.0, 30.0, 20.0, 20.0, 20.0)
    regions = (Region("box", HAND), Region("polygon", EAR, (polygon,)), Region("mask", (0, 20, 10, 25), mask=mask))
    image = BenchmarkImage("a", png(), SIZE, True, regions)
    given = Prediction("a", True, (HAND, EAR, (0.0, 20.0, 10.0, 25.0)))
    assert evaluated([image], {"a": given}, protocol="menn").score("localization.miou") == 1.0


def test_images_without_places_are_left_out_of_localization():
    images = [*IMAGES, BenchmarkImage("e", png(), SIZE, True)]
    evaluation = evaluated(images, {**ANSWERS, "e": Prediction("e", True, (EAR,))})
    assert evaluation.score("localization.miou") == evaluated().score("localization.miou")
    assert evaluation.sections["detection"]["n"] == 5


def test_a_mask_of_another_size_is_refused_by_name_or_resized_if_asked(tmp_path):
    Image.new("L", (20, 15), 255).save(tmp_path / "map.png")
    predictions = {"a": Prediction("a", mask=tmp_path / "map.png")}
    with pytest.raises(ValueError, match="image 'a'"):
        evaluated(IMAGES[:1], predictions)
    evaluation = evaluated(IMAGES[:1], predictions, resize="prediction")
    assert evaluation.score("localization.miou") == pytest.approx(121 / 1200)


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        evaluated([])


def test_the_papers_table_ends_with_the_model_scored():
    table = published_tables()["artibench"]
    lines = paper_table(evaluated(), "mine", "artibench", table).splitlines()
    assert len(lines) == 2 + len(table.rows) + 1 and len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[:5] == ["**mine**", "0.750", "0.733", "0.636", "0.714"] and cells[6] == "–"
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["ArtiBench", *table.columns.values()]


def test_every_published_column_is_a_score_that_exists():
    for table in published_tables().values():
        assert set(table.columns) <= set(SCORE_NAMES)
        assert {len(row) for row in table.rows.values()} == {len(table.columns)}
        values = [value for row in table.rows.values() for value in row if value is not None]
        assert all(0 <= value <= 1 for value in values)


def test_scores_of_another_protocol_are_said_not_to_compare():
    table = published_tables()["artibench"]
    for protocol, compares in (("artiagent", True), ("legion", False)):
        settings = ScoringSettings(protocol=protocol, bootstrap=QUICK)
        text = evaluation_text(evaluate_predictions(IMAGES, ANSWERS, settings), "mine", "artibench", table, settings)
        assert ("Not comparable" in text) is not compares


@pytest.fixture
def benchmark(tmp_path):
    folder = tmp_path / "set"
    rows = [image_to_row(image) for image in IMAGES]
    (folder / "data").mkdir(parents=True)
    Dataset.from_list(rows, features=BENCHMARK_FEATURES).to_parquet(folder / "data" / "test-00000.parquet")
    return folder


@pytest.fixture
def predictions(tmp_path):
    path = tmp_path / "predictions.jsonl"
    lines = [
        {"id": "a", "has_artifact": True, "boxes": [HAND], "explanation": "a hand with six fingers"},
        {"id": "b", "answer": "Yes, there is an artifact at [4, 4, 14, 9]."},
        {"id": "c", "answer": "Perhaps."},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_command_prints_the_table_and_writes_a_report(benchmark, predictions, tmp_path, capsys):
    report = tmp_path / "report.md"
    arguments = ["evaluate", str(predictions), "--benchmark", str(benchmark), "--css-model", "none"]
    assert main([*arguments, "--out", str(report), "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "**predictions**" in printed and "ROUGE-L" in printed and "`d`: there is no prediction" in printed
    text = report.read_text()
    assert printed.startswith(text.split("\n\n![")[0])
    numbers = json.loads(report.with_suffix(".json").read_text())
    assert numbers["scores"]["detection"]["confusion"]["clean"]["unparsable"] == 2
    assert numbers["settings"]["bootstrap"] == {"n_resamples": 50, "confidence": 0.95, "seed": 0}
    for name in ("classes", "reliability", "worst", "best"):
        assert f"(report_{name}.png)" in text
        assert Image.open(tmp_path / f"report_{name}.png").width > 300
    assert sorted(path.name for path in tmp_path.glob("report*")) == sorted(
        ["report.md", "report.json", *(f"report_{name}.png" for name in ("classes", "reliability", "worst", "best"))]
    )


def test_the_command_without_a_sentence_model_says_what_to_do(benchmark, predictions, capsys):
    assert main(["evaluate", str(predictions), "--benchmark", str(benchmark)]) == 2
    assert "paraphrase-MiniLM-L6-v2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "1"], "--threshold must lie between 0 and 1, got 1.0"),
        (["--limit", "0"], "--limit must be at least 1, got 0"),
        (["--resamples", "-1"], "--resamples must be at least 0, got -1"),
        (
            ["--transform", "resize256-crop224"],
            "--transform must come with --protocol x_aigd, got the protocol artiag",
        ),
        (["--out", "report.pdf"], "--out must end in .md, got 'report.pdf'"),
        (["--split", "validation"], "got 'validation'"),
    ],
)
def test_wrong_options_are_named(options, message, benchmark, predictions, capsys):
    assert main(["evaluate", str(predictions), "--benchmark", str(benchmark), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_benchmark_that_is_not_prepared_says_how_to_get_it(predictions, capsys, tmp_path, monkeypatch):
    # Tests before this one may have prepared it.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert main(["evaluate", str(predictions), "--benchmark", "artibench"]) == 2
    error = capsys.readouterr().err
    assert "artiagent prepare artibench" in error and "KRAFTON/ArtiBench" in error


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_scores_the_first_images_alone(limit, benchmark, tmp_path, capsys):
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"id": name, "boxes": [HAND]}) + "\n" for name in "ab"[:limit]))
    options = ["--benchmark", str(benchmark), "--limit", str(limit)]
    assert main(["evaluate", str(path), *options]) == 0
    assert "could not be used" not in capsys.readouterr().out


def test_polygons_are_drawn_with_their_outlines_under_the_protocol_of_x_aigd():
    # As COCO fills them, 4.9 is cut off and 60 lies outside: 10 × 10 pixels with the outline, in an image 40 wide.
    polygons = ((4.9, 4.0, 13.9, 4.0, 13.9, 13.9, 4.9, 13.9), (38.0, 0.0, 60.0, 0.0, 60.0, 3.0, 38.0, 3.0))
    image = BenchmarkImage("a", png(), SIZE, True, (Region("polygon", (4.9, 0.0, 40.0, 13.9), polygons),))
    [drawn] = truth_region(image, 0.5, "x_aigd")
    assert drawn[4:14, 4:14].all() and drawn[:4, 38:].all() and drawn.sum() == 100 + 8
    assert truth_region(image, 0.5, "artiagent") == list(polygons)
    found = {"a": Prediction("a", True, (HAND,))}
    assert evaluated([image], found, protocol="x_aigd").score("localization.miou") == pytest.approx(100 / 108)


def test_regions_are_drawn_as_legions_script_does_under_its_protocol():
    # Its polygons end at the border of the image, 40 × 30; moved there, the tip at (60, 2) would make a triangle.
    polygons = ((38.5, 0.0, 60.0, 2.0, 38.5, 4.9),)
    image = BenchmarkImage("a", png(), SIZE, True, (Region("polygon", (38.5, 0.0, 40.0, 4.9), polygons),))
    [drawn] = truth_region(image, 0.5, "legion")
    assert drawn[:5, 38].all() and drawn[1:4, 39].all() and drawn.sum() == 5 + int(drawn[:, 39].sum())
    assert truth_region(image, 0.5, "x_aigd")[0].sum() < drawn.sum()
    # Corners of a box are cut to whole numbers, and its maxima belong to it.
    boxed = BenchmarkImage("a", png(), SIZE, True, (Region("box", (4.9, 4.9, 8.2, 8.9)),))
    assert truth_region(boxed, 0.5, "legion") == [(4, 4, 9, 9)]


def test_boxes_hold_the_pixels_of_their_maxima_under_artiagents_protocol_alone():
    rng = np.random.default_rng(0)
    for _ in range(20):
        (x0, y0), (u0, v0) = rng.integers(0, 15, (2, 2)).tolist()
        (w, h), (s, t) = rng.integers(1, 25, (2, 2)).tolist()
        truth, found = (x0, y0, min(x0 + w, 40), min(y0 + h, 30)), (u0, v0, min(u0 + s, 40), min(v0 + t, 30))
        image = BenchmarkImage("a", png(), SIZE, True, (Region("box", truth),))
        predictions = {"a": Prediction("a", True, (found,))}
        for protocol, last in (("artiagent", 1), ("menn", 0)):
            pixels = [
                {(x, y) for x in range(box[0], min(box[2] + last, 40)) for y in range(box[1], min(box[3] + last, 30))}
                for box in (truth, found)
            ]
            expected = len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])
            assert evaluated([image], predictions, protocol=protocol).score("localization.miou") == expected


@pytest.mark.parametrize(("name", "side", "crop"), [("resize256-crop224", 256, 224), ("resize518-crop518", 518, 518)])
@pytest.mark.parametrize("size", [(640, 400), (300, 450)])
def test_what_x_aigds_detectors_see_is_compared(name, side, crop, size, tmp_path):
    width, height = size
    truth = np.zeros((height, width), dtype=bool)
    truth[60:171, 70:211] = True
    box = (90.0, 100.0, 260.0, 290.0)
    # Each pixel of the crop, looked up one by one.
    seen = np.zeros((2, crop, crop), dtype=bool)
    new_width, new_height = (side, side) if side == 256 else (side * w // min(size) for w in size)
    for y in range(crop):
        for x in range(crop):
            old_x = int((x + (new_width - crop) // 2) * width / new_width)
            old_y = int((y + (new_height - crop) // 2) * height / new_height)
            seen[:, y, x] = truth[old_y, old_x], 90 <= old_x < 260 and 100 <= old_y < 290
    expected = float((seen[0] & seen[1]).sum() / (seen[0] | seen[1]).sum())

    polygon = (70.6, 60.0, 210.9, 60.0, 210.9, 170.2, 70.6, 170.2)
    content = io.BytesIO()
    Image.new("RGB", size).save(content, format="PNG")
    image = BenchmarkImage(
        "a", content.getvalue(), size, True, (Region("polygon", polygon[:2] + polygon[4:6], (polygon,)),)
    )
    settings = {"protocol": "x_aigd", "transform": name}
    of_boxes = evaluated([image], {"a": Prediction("a", True, (box,))}, **settings)
    assert (
        of_boxes.score("localization.miou")
        == expected
        != evaluated([image], {"a": Prediction("a", True, (box,))}, protocol="x_aigd").score("localization.miou")
    )
    # Masks of the whole image, and masks that the detector gave for what it saw.
    whole = np.zeros((height, width), dtype=np.uint8)
    whole[100:290, 90:260] = 255
    for number, mask in enumerate((whole, seen[1].astype(np.uint8) * 255)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(mask).save(path)
        given = {"a": Prediction("a", mask=path)}
        assert evaluated([image], given, **settings).score("localization.miou") == expected
    Image.new("L", (10, 10)).save(path)
    with pytest.raises(ValueError, match=f"{width}x{height} px, got a map of 10x10"):
        evaluated([image], given, **settings)


@pytest.mark.parametrize(
    "options", [{"resize": "prediction"}, {"protocol": "x_aigd", "transform": "resize256-crop224"}]
)
def test_sheets_show_the_regions_that_were_compared(options, tmp_path):
    Image.new("L", (224, 224), 255).save(tmp_path / "map.png")
    settings = ScoringSettings(bootstrap=QUICK, **options)
    evaluation = evaluate_predictions(IMAGES[:1], {"a": Prediction("a", mask=tmp_path / "map.png")}, settings, cases=1)
    write_evaluation(tmp_path / "report.md", "text", evaluation, {}, settings)
    assert (tmp_path / "report_worst.png").is_file()
    said = "compared after the transform `resize256-crop224`" in evaluation_text(evaluation, "m", "b", None, settings)
    assert said is ("transform" in options)


def test_the_table_says_where_rouge_reads_nothing():
    images = [flawed("a", HAND, explanation="多了一根手指"), flawed("b", HAND, EAR)]
    evaluation = evaluated(images)
    text = evaluation_text(evaluation, "mine", "set", None, ScoringSettings())
    assert "**ROUGE is no measure here**" in text and "1 of 2 references are mostly in another script" in text
    assert "no measure" not in evaluation_text(evaluated(), "mine", "set", None, ScoringSettings())
