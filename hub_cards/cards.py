"""Cards from templates, filled only with recorded facts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCard, EvalResult, ModelCard, ModelCardData, SpaceCard, SpaceCardData

from datasets_script.benchmarks.registry import BENCHMARKS
from datasets_script.detection.questions import question
from datasets_script.schema.training_record import BaseModel, TrainingRecord
from datasets_script.utils.markdown import markdown_table
from datasets_script.vlm.conventions import find_convention
from diffusers_artifact.presets import EMBEDDED
from evaluate_metrics.functional.versions import versions
from training.reward.report_table import report_table

from .records import EvaluationReport


if TYPE_CHECKING:
    # Not imported at run time: it loads torch, which other cards do without.
    from datasets_script.detection.pixel.record import PixelRecord
    from datasets_script.detection.reward.record import RewardRecord


TEMPLATES = Path(__file__).parent / "templates"
MARK = "artiagent-card"
"""Tag of generated model cards, which a later push may replace."""

_TASK = "image-text-to-text"
_MAP_TASK = "image-segmentation"
_SCORE_TASK = "image-classification"
_DRAWING_TASK = "text-to-image"
_LOSSES_SHOWN = 12
# How a denoiser draws in training where its recipe does not say; defaults of `DenoiserArguments`, which loads torch.
_DRAWN = {"num_inference_steps": 20, "guidance_scale": 1.0, "size": "512x512"}
# Facts about data that are lists of mappings.
_LISTS = ("runs", "sources", "guards", "frequencies")
# Ids of metrics at https://hf.co/metrics that have other names here.
_METRIC_IDS = {"rougeL": "rouge", "macro_f1": "f1", "positive_f1": "f1"}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


def model_card(
    repo_id: str, record: TrainingRecord, reports: Sequence[EvaluationReport], license: str, is_adapter: bool
) -> str:
    """
    Render the card of a trained vision-language model.

    Args:
        repo_id (`str`): Repository of the model, `owner/name`.
        record (`TrainingRecord`): Record of the training.
        reports (`Sequence[EvaluationReport]`): Evaluations of the model.
        license (`str`): Hub identifier of the licence.
        is_adapter (`bool`): Whether the weights are only those of an adapter.

    Returns:
        `str`: The card, with metadata.
    """
    name = repo_id.rpartition("/")[2]
    return _render(
        ModelCard,
        "model.md",
        _model_data(name, record, reports, license, is_adapter),
        name=name,
        is_adapter=is_adapter,
        boxes=find_convention(record.data["coordinates"]).meaning,
        usage=_model_usage(repo_id, record, is_adapter),
        **_training_facts(record, reports, license),
    )


def detector_card(
    repo_id: str,
    record: TrainingRecord,
    detector: PixelRecord,
    architecture: str,
    reports: Sequence[EvaluationReport],
    license: str,
    examples: Sequence[str] = (),
) -> str:
    """
    Render the card of a trained pixel detector.

    Args:
        repo_id (`str`): Repository of the detector, `owner/name`.
        record (`TrainingRecord`): Record of the training.
        detector (`PixelRecord`): Its preprocessing, thresholds and calibration.
        architecture (`str`): Class of its network.
        reports (`Sequence[EvaluationReport]`): Evaluations of the detector.
        license (`str`): Hub identifier of the licence.
        examples (`Sequence[str]`, *optional*): Paths of overlays in the repository, which the card shows.

    Returns:
        `str`: The card, with metadata.
    """
    name = repo_id.rpartition("/")[2]
    settings = {**detector.to_dict(), "architecture": architecture}
    shown = ("architecture", "trunk", "preprocessing", "thresholds", "calibration")
    return _render(
        ModelCard,
        "detector.md",
        _trained_data(
            name, record, reports, license, _MAP_TASK, "transformers", "finetune", ("artifact-map", "pixel-detector")
        ),
        name=name,
        architecture=architecture,
        usage=_detector_usage(repo_id),
        settings=markdown_table(["setting", "value"], _flat({key: settings[key] for key in shown})),
        examples="\n\n".join(f"![{Path(path).stem}]({path})" for path in examples),
        **_training_facts(record, reports, license),
        trunk_license=detector.license,
    )


def reward_card(
    repo_id: str,
    record: TrainingRecord,
    reward: RewardRecord,
    network: Mapping[str, Any],
    report: Mapping[str, Any] | None,
    license: str,
) -> str:
    """
    Render the card of a trained reward model.

    Args:
        repo_id (`str`): Repository of the model, `owner/name`.
        record (`TrainingRecord`): Record of the training.
        reward (`RewardRecord`): Its preprocessing and origin.
        network (`Mapping[str, Any]`): Content of its `config.json`.
        report (`Mapping[str, Any]`, *optional*): Content of its `reward_report.json`.
        license (`str`): Hub identifier of the licence.

    Returns:
        `str`: The card, with metadata.
    """
    name = repo_id.rpartition("/")[2]
    architecture = network["trunk"]["model_type"]
    settings = {"trunk": reward.trunk or architecture, "preprocessing": reward.preprocessing.to_dict()}
    return _render(
        ModelCard,
        "reward.md",
        _trained_data(name, record, (), license, _SCORE_TASK, "transformers", "finetune", ("reward-model",)),
        name=name,
        architecture=architecture,
        head=network["head"]["kind"],
        usage=_code("python", _REWARD_USAGE.format(repo_id=repo_id)),
        settings=markdown_table(["setting", "value"], _flat({**settings, "head": network["head"]})),
        **{**_training_facts(record, (), license), "scores": _reward_scores(report)},
        trunk_license=reward.license,
    )


def lora_card(repo_id: str, record: TrainingRecord, pictures: Sequence[str], license: str) -> str:
    """
    Render the card of a LoRA of a text-to-image model.

    Args:
        repo_id (`str`): Repository of the LoRA, `owner/name`.
        record (`TrainingRecord`): Record of its training.
        pictures (`Sequence[str]`): Paths of pictures in the repository, which the card shows.
        license (`str`): Hub identifier of the licence.

    Returns:
        `str`: The card, with metadata.
    """
    name = repo_id.rpartition("/")[2]
    data = _trained_data(name, record, (), license, _DRAWING_TASK, "diffusers", "adapter", ("lora", "diffusers"))
    data.tags = [tag for tag in data.tags or [] if tag != "artifact-detection"]
    return _render(
        ModelCard,
        "lora.md",
        data,
        name=name,
        usage=_code("python", _lora_usage(repo_id, record)),
        frequencies=_frequencies(record.data.get("frequencies", ())),
        drawn_with=_drawn_with(record.data),
        guards=_guards(record.data.get("guards", ())),
        ending=_ending(record),
        pictures="\n\n".join(f"![{Path(path).stem} training]({path})" for path in pictures),
        **_training_facts(record, (), license),
    )


def dataset_card(repo_id: str, text: str, metadata: Any, facts: Mapping[str, Any], rows: int, license: str) -> str:
    """
    Render the card of a dataset from that of its folder, adding the licence, the repository, and facts about the copy.

    Args:
        repo_id (`str`): Repository of the dataset, `owner/name`.
        text (`str`): Text of the folder's card.
        metadata (`DatasetCardData`): Metadata of the folder's card, which is modified.
        facts (`Mapping[str, Any]`): Facts about the published copy.
        rows (`int`): Number of rows of the default configuration.
        license (`str`): Hub identifier of the licence.

    Returns:
        `str`: The card, with metadata.
    """
    metadata.license = license
    metadata.size_categories = next((size for limit, size in _SIZES if rows < limit), "n>10M")
    metadata.language = metadata.language or ["en"]
    return _render(
        DatasetCard,
        "dataset.md",
        metadata,
        text=_published_text(text, repo_id, license),
        facts=markdown_table(["fact", "value"], _flat(facts)),
    )


def pipeline_card(repo_id: str, files: Iterable[tuple[str, str]], has_block: bool) -> str:
    """
    Render the card of a repository for `custom_pipeline=`.

    Args:
        repo_id (`str`): Repository of the pipeline, `owner/name`.
        files (`Iterable[tuple[str, str]]`): Name of each module and first line of its docstring.
        has_block (`bool`): Whether the repository also holds the Modular Diffusers block.

    Returns:
        `str`: The card, with metadata.
    """
    data = ModelCardData(
        license="apache-2.0",
        library_name="diffusers",
        pipeline_tag="image-to-image",
        tags=["artifact-injection", "artiagent", "custom-pipeline"],
    )
    table = markdown_table(["file", "content"], files)
    return _render(
        ModelCard,
        "pipeline.md",
        data,
        repo_id=repo_id,
        version=_own_version(),
        files=table,
        has_block=has_block,
    )


def space_card(repo_id: str, text: str, metadata: Mapping[str, Any]) -> str:
    """
    Render the card of a metric's Space from that of its folder, adding how to load the metric from the Space.

    Args:
        repo_id (`str`): Space of the metric, `owner/name`.
        text (`str`): Text of the folder's card.
        metadata (`Mapping[str, Any]`): Metadata of the folder's card.

    Returns:
        `str`: The card, with metadata.
    """
    data = SpaceCardData(**{"license": "apache-2.0", **metadata})
    return _render(SpaceCard, "space.md", data, text=text.strip(), repo_id=repo_id, version=_own_version())


def app_card(
    data: str | None, queue: str | None, models: Mapping[str, str], sdk_version: str, python_version: str
) -> str:
    """
    Render the card of a Space that serves the app.

    Args:
        data, queue (`str`, *optional*): Folders in the Space for kept pairs, and of the annotation queue.
        models (`Mapping[str, str]`): The app's `model`, `detector` and `repairer`.
        sdk_version, python_version (`str`): Versions of gradio and Python.

    Returns:
        `str`: The card, with metadata.
    """
    ids = sorted({name for name in models.values() if name not in ("", EMBEDDED)})
    data_of_card = SpaceCardData(
        title="ArtiAgent",
        emoji="🎨",
        colorFrom="yellow",
        colorTo="red",
        sdk="gradio",
        sdk_version=sdk_version,
        python_version=python_version,
        app_file="app.py",
        license="apache-2.0",
        short_description="Make, find and correct artifacts in images",
        models=ids or None,
        tags=["artifact-detection", "artifact-injection", "artiagent"],
        pinned=False,
    )
    used = [f"{name} is `{model}`" for name, model in models.items() if model]
    return _render(
        SpaceCard,
        "app.md",
        data_of_card,
        version=_own_version(),
        makes=bool(models["model"]),
        detects=bool(models["detector"]),
        kept=data,
        queue=queue,
        models=f"Models: {', '.join(used)}." if used else "",
        licences=f"Those of {', '.join(ids)} apply to what they make." if ids else "",
    )


def _render(card_class: Any, template: str, data: Any, **facts: Any) -> str:
    # Jinja2 drops the final line break.
    return str(card_class.from_template(data, template_path=str(TEMPLATES / template), **facts)).rstrip() + "\n"


def _model_data(
    name: str, record: TrainingRecord, reports: Sequence[EvaluationReport], license: str, is_adapter: bool
) -> ModelCardData:
    library, relation = ("peft", "adapter") if is_adapter else ("transformers", "finetune")
    return _trained_data(name, record, reports, license, _TASK, library, relation, ("sft", *(["lora"] * is_adapter)))


def _training_facts(record: TrainingRecord, reports: Sequence[EvaluationReport], license: str) -> dict[str, Any]:
    """Return what the cards of all trained models state."""
    return {
        "base_text": _base_text(record.base),
        "of_pairs": record.is_of_pairs,
        "scores": "\n\n".join(map(_report_text, reports)) or "No scores are on record.",
        "training": _training_table(record),
        "script": record.script,
        "recipe": _code("yaml", "\n".join(f"{key}: {json.dumps(value)}" for key, value in record.recipe.items())),
        "data_facts": markdown_table(["fact", "value"], _data_facts(record.data)),
        "loss": _losses(record),
        "versions": _listed(record.versions),
        "not_validated": _not_validated(reports),
        "licence": _model_licence(record, license),
    }


def _trained_data(
    name: str,
    record: TrainingRecord,
    reports: Sequence[EvaluationReport],
    license: str,
    task: str,
    library: str,
    relation: str,
    tags: Sequence[str],
) -> ModelCardData:
    results = list(_eval_results(reports, task))
    base = record.base.on_hub
    return ModelCardData(
        license=license,
        language=["en"] if task == _TASK else None,
        library_name=library,
        pipeline_tag=task,
        base_model=base.id if base else None,
        base_model_relation=relation if base else None,
        datasets=list(record.dataset_ids) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=["artifact-detection", "artiagent", "image-artifacts", *tags, MARK],
        model_name=name if results else None,
        eval_results=results or None,
    )


def _eval_results(reports: Sequence[EvaluationReport], task: str) -> Iterator[EvalResult]:
    for report in reports:
        for score in report.scores:
            key = score.key.rpartition(".")[2]
            yield EvalResult(
                task_type=task,
                task_name="artifact detection",
                dataset_type=report.benchmark,
                dataset_name=report.benchmark,
                dataset_split=report.split,
                dataset_args=None if report.limit is None else {"limit": report.limit},
                metric_type=_METRIC_IDS.get(key, key),
                metric_name=score.name,
                metric_value=score.value,
                metric_args={
                    "protocol": score.protocol,
                    "n": score.n,
                    **({} if score.interval is None else {"interval": list(score.interval)}),
                },
            )


def _base_text(base: BaseModel) -> str:
    if base.is_on_hub:
        return f"[{base.id}](https://huggingface.co/{base.id})"
    before = f", trained from {_base_text(base.base)}" if base.base else ""
    return f"`{base.id}` (a folder, not on the Hub{before})"


def _model_usage(repo_id: str, record: TrainingRecord, is_adapter: bool) -> str:
    base = record.base.id if record.base.is_on_hub else f"path/to/{record.base.id}"
    if is_adapter:
        load = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
            f'base = AutoModelForImageTextToText.from_pretrained("{base}")\n'
            f'model = PeftModel.from_pretrained(base, "{repo_id}")\n'
        )
    else:
        load = (
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
            f'model = AutoModelForImageTextToText.from_pretrained("{repo_id}")\n'
        )
    code = f'''\
from PIL import Image
{load}processor = AutoProcessor.from_pretrained("{repo_id}")

question = """{question("detection" if record.is_of_pairs else "classification", "pixel")}"""
content = [{{"type": "image", "image": Image.open("image.png")}}, {{"type": "text", "text": question}}]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": content}}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)
answer = model.generate(**inputs, max_new_tokens=256, do_sample=False)
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))'''
    parts = [_code("python", code)]
    if record.is_of_pairs and (not is_adapter or record.base.is_on_hub):
        parts.insert(0, _code("bash", f"artiagent detect image.png --model {repo_id}"))
        parts.insert(
            1, "This prints boxes and sentences and draws an image; it needs `artiagent`. With transformers only:"
        )
    return "\n\n".join(parts)


def _detector_usage(repo_id: str) -> str:
    code = f"""\
from datasets_script import PixelDetector

detector = PixelDetector.from_pretrained("{repo_id}")
found = detector("image.png")
print(found.score, [(region.box, region.score) for region in found.regions])
found.artifact_map  # (height, width), in [0, 1]"""
    return "\n\n".join([_code("bash", f"artiagent detect image.png --model {repo_id}"), _code("python", code)])


_REWARD_USAGE = """\
from datasets_script import RewardModel

reward = RewardModel.from_pretrained("{repo_id}")
print(reward(["first.png", "second.png"]))  # higher for fewer artifacts
scores = reward.score(images)  # images: (batch, 3, height, width) in [0, 1]; has a gradient"""


def _lora_usage(repo_id: str, record: TrainingRecord) -> str:
    recipe = record.recipe
    if record.base.id == EMBEDDED:
        return (
            "from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline\n\n"
            "pipe = ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL)\n"
            f'pipe.load_lora_weights("{repo_id}")'
        )
    base = record.base.id if record.base.is_on_hub else f"path/to/{record.base.id}"
    drawn = {**_DRAWN, **{name: value for name, value in recipe.items() if value is not None}}
    width, height = str(drawn["size"]).split("x")
    names = ("num_inference_steps", "guidance_scale", "max_sequence_length")
    told = {name: drawn[name] for name in names if name in drawn} | {"width": width, "height": height}
    options = "".join(f", {name}={value}" for name, value in told.items())
    return (
        "import torch\n"
        "from diffusers import DiffusionPipeline\n\n"
        f'pipe = DiffusionPipeline.from_pretrained("{base}", dtype=torch.bfloat16).to("cuda")\n'
        f'pipe.load_lora_weights("{repo_id}")\n'
        f'image = pipe("a portrait"{options}).images[0]'
    )


def _drawn_with(data: Mapping[str, Any]) -> str:
    """Say with which scheduler pictures were drawn, if it is not the pipeline's, whose images are others."""
    drawn, own = data.get("scheduler"), data.get("pipeline_scheduler")
    if drawn == own:
        return ""
    return (
        f"\nPictures, those of the guards too, were drawn with `{drawn}`, as in training, and not with the pipeline's "
        f"`{own}`, which draws other images.\n"
    )


def _frequencies(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return "No frequencies are on record."
    rows = [
        (
            one["detector"],
            "trained against" if one["trained_against"] else "judge",
            f"{one['frequency']['first']:.1%}",
            f"{one['frequency']['second']:.1%}",
            _interval(one["frequency"]["difference"], one["frequency"]["difference_interval"]),
            f"{one['mean_map']['first']:.4f}",
            f"{one['mean_map']['second']:.4f}",
            one["frequency"]["n"],
        )
        for one in found
    ]
    head = ["detector", "role", "frequency before", "after", "difference", "mean map before", "after", "pictures"]
    return markdown_table(head, rows)


def _interval(value: float, ends: Sequence[float | None]) -> str:
    low, high = ends
    return f"{value:+.3f}" + ("" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})")


def _guards(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return "No guards are on record."
    rows = [(one["guard"], one["band"], f"{one['before']:.4g}", f"{one['after']:.4g}") for one in found]
    return markdown_table(["guard", "allowed change", "before", "after"], rows)


def _ending(record: TrainingRecord) -> str:
    if "kept_step" not in record.data:
        return ""
    kept = f"The weights are those of step {record.data['kept_step']} of {record.steps}"
    stopped = record.data.get("stopped")
    return f"{kept}, where training was stopped: {stopped}." if stopped else f"{kept}; all guards held."


def _reward_scores(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return "No scores are on record."
    return f"On held-out pairs. Scored with {_listed(report['versions'])}\n\n{report_table(report)}"


def _report_text(report: EvaluationReport) -> str:
    where = ", ".join([f"`{report.benchmark}`", *([f"split `{report.split}`"] if report.split else [])])
    first = "" if report.limit is None else f" (the first {report.limit})"
    rows = [
        (score.name, f"{score.value:.3f}", score.interval_text, f"`{score.protocol}`", score.n)
        for score in report.scores
    ]
    table = markdown_table(["score", "value", f"{report.confidence:.0%} interval", "protocol", "n"], rows)
    return (
        f"{report.n} images of {where}{first}. Unusable answers: {report.failures}.\n\n{table}\n\n"
        f"Intervals are from a bootstrap over images. Scored with {_listed(report.versions)}"
    )


def _training_table(record: TrainingRecord) -> str:
    method = record.method
    trained, all_parameters = method.trainable_parameters, method.parameters
    begun = f", from step {record.resumed_from_step} on" if record.resumed_from_step else ""
    rows = [
        ("base model", f"{_base_text(record.base)}, revision `{record.base.revision}`"),
        ("method", "LoRA" if method.peft else "full fine-tuning"),
        ("frozen", ", ".join(method.frozen) or "nothing"),
        ("parameters trained", f"{trained:,} of {all_parameters:,}"),
        ("steps", f"{record.steps:,}"),
        ("seed", record.seed),
        ("device", record.device if record.devices == 1 else f"{record.devices} x {record.device}"),
        ("time", f"{record.seconds:,.0f} s{begun}"),
    ]
    return markdown_table(["fact", "value"], rows)


def _losses(record: TrainingRecord) -> str:
    parts = [_loss_table("loss", record.loss)] if record.loss else ["No losses are on record."]
    if record.eval_loss:
        parts.append(_loss_table("loss on the test split", record.eval_loss))
    return "\n\n".join(parts)


def _loss_table(name: str, losses: Sequence[tuple[int, float]]) -> str:
    count = min(len(losses), _LOSSES_SHOWN)
    shown = [losses[round(index * (len(losses) - 1) / max(count - 1, 1))] for index in range(count)]
    steps, values = zip(*((str(step), f"{loss:.4f}") for step, loss in shown), strict=True)
    note = "" if count == len(losses) else f"\n\n{count} of the {len(losses)} recorded values."
    return markdown_table(["step", *steps], [(name, *values)]) + note


def _not_validated(reports: Sequence[EvaluationReport]) -> str:
    missing = [name for name in BENCHMARKS if name not in {report.benchmark for report in reports}]
    lines = [
        *([] if reports else ["- No evaluation of this model is on record."]),
        *([f"- It was not evaluated on these published benchmarks: {', '.join(missing)}."] if missing else []),
        "- No training with another seed is on record, so the variation of scores between trainings is unknown.",
    ]
    return "\n".join(lines)


def _data_facts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """List facts about the data, and of its runs only those that tell them apart; `training.json` has the rest."""
    yield from _flat({name: value for name, value in data.items() if name not in _LISTS and value is not None})
    for number, source in enumerate(data.get("sources", ()), start=1):
        yield from _flat({f"source {number}": source})
    for number, run in enumerate(data.get("runs", ()), start=1):
        told = {
            "model": run.get("settings", {}).get("model"),
            "revision of the model": run.get("model_revision"),
            "photos": run.get("sources", {}).get("count"),
            "fingerprint": run.get("fingerprint"),
        }
        yield from _flat({name: value for name, value in told.items() if value is not None}, f"run {number}: ")


def _model_licence(record: TrainingRecord, license: str) -> str:
    data_license = ", ".join(record.data.get("licenses", ())) or "not on record"
    return (
        f"`{license}`, as declared by the publisher. The weights are derived from {_base_text(record.base)} and from "
        f"images (licence: {data_license}), whose licences also apply."
    )


def _published_text(text: str, repo_id: str, license: str) -> str:
    """Replace the placeholders for path and licence in a folder's card."""
    # `prepare` reads only folders, while `load_dataset` also reads repositories.
    download = f"`hf download {repo_id} --repo-type dataset --local-dir pairs`, then\n`artiagent prepare artiagent"
    text = text.replace("`artiagent prepare artiagent --source path/to/this/folder", f"{download} --source pairs")
    # The card of a downloaded folder, or of one prepared from it, still describes the previous publication.
    text = re.sub(r"## This copy\n.*?\n## Not checked\n[^#]*", "", text, flags=re.DOTALL)
    said = r"(?:Set `license` at the top of this file[^.]*|Published under `[^`]*`)\."
    text = re.sub(said, f"Published under `{license}`.", text)
    return text.replace("path/to/this/folder", repo_id).strip()


def _own_version() -> str:
    found = versions().get("artiagent")
    return f"version {found}" if found else "from a checkout"


def _listed(recorded: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in recorded.items()) + "."


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested facts, naming each by the keys that lead to it."""
    for key, value in facts.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}, ")
        elif isinstance(value, (list, tuple, Mapping)):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
