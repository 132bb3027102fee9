"""Cards from templates, filled from what is on record and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, EvalResult, ModelCard, ModelCardData, SpaceCard, SpaceCardData

from datasets_script.benchmarks.registry import BENCHMARKS
from datasets_script.detection.questions import question
from datasets_script.schema.training_record import BaseModel, TrainingRecord
from datasets_script.utils.markdown import markdown_table
from datasets_script.vlm.conventions import find_convention
from evaluate_metrics.functional.versions import versions

from .records import EvaluationReport


TEMPLATES = Path(__file__).parent / "templates"
MARK = "artiagent-card"
"""Tag of the cards of models that are made here, and may be made anew."""

_TASK = "image-text-to-text"
_LOSSES_SHOWN = 12
# Ids of the same metrics at https://hf.co/metrics; the others go by our own names.
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
    The card of a trained vision-language model.

    Args:
        repo_id (`str`): Where it will be.
        record (`TrainingRecord`): How it was trained.
        reports (`Sequence[EvaluationReport]`): What was measured.
        license (`str`): An identifier of the Hub.
        is_adapter (`bool`): Whether the weights are an adapter's alone.
    """
    name = repo_id.rpartition("/")[2]
    return _render(
        ModelCard,
        "model.md",
        _model_data(name, record, reports, license, is_adapter),
        name=name,
        is_adapter=is_adapter,
        of_pairs=record.is_of_pairs,
        boxes=find_convention(record.data["coordinates"]).meaning,
        base_text=_base_text(record.base),
        usage=_model_usage(repo_id, record, is_adapter),
        scores="\n\n".join(map(_report_text, reports)) or "None is on record.",
        training=_training_table(record),
        script=record.script,
        recipe=_code("yaml", "\n".join(f"{key}: {json.dumps(value)}" for key, value in record.recipe.items())),
        data_facts=markdown_table(["fact", "value"], _data_facts(record.data)),
        loss=_losses(record),
        versions=_listed(record.versions),
        never_run=_model_never_run(reports),
        licence=_model_licence(record, license),
    )


def dataset_card(repo_id: str, text: str, metadata: Any, facts: Mapping[str, Any], rows: int, license: str) -> str:
    """
    The card of a dataset: that of its folder, with the licence, what was sent, and where it is.

    Args:
        repo_id (`str`): Where it will be.
        text (`str`): Of the folder's card.
        metadata (`DatasetCardData`): Of the folder's card.
        facts (`Mapping[str, Any]`): What is on record of this copy.
        rows (`int`): Of its default configuration.
        license (`str`): An identifier of the Hub.
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
    The card of a repository that `custom_pipeline=` names.

    Args:
        repo_id (`str`): Where it will be.
        files (`Iterable[tuple[str, str]]`): Name and first line of the docstring of each module.
        has_block (`bool`): Whether it holds the block of Modular Diffusers as well.
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
    The card of a metric's Space: that of its folder, and what loading it from there needs.

    Args:
        repo_id (`str`): Where it will be.
        text (`str`): Of the folder's card.
        metadata (`Mapping[str, Any]`): Of the folder's card.
    """
    data = SpaceCardData(**{"license": "apache-2.0", **metadata})
    return _render(SpaceCard, "space.md", data, text=text.strip(), repo_id=repo_id, version=_own_version())


def _render(card_class: Any, template: str, data: Any, **facts: Any) -> str:
    # Jinja2 drops the last line break.
    return str(card_class.from_template(data, template_path=str(TEMPLATES / template), **facts)).rstrip() + "\n"


def _model_data(
    name: str, record: TrainingRecord, reports: Sequence[EvaluationReport], license: str, is_adapter: bool
) -> ModelCardData:
    results = list(_eval_results(reports))
    base = record.base.on_hub
    return ModelCardData(
        license=license,
        language=["en"],
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=_TASK,
        base_model=base.id if base else None,
        base_model_relation=("adapter" if is_adapter else "finetune") if base else None,
        datasets=list(record.dataset_ids) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=["artifact-detection", "artiagent", "image-artifacts", "sft", *(["lora"] * is_adapter), MARK],
        model_name=name if results else None,
        eval_results=results or None,
    )


def _eval_results(reports: Sequence[EvaluationReport]) -> Iterator[EvalResult]:
    for report in reports:
        for score in report.scores:
            key = score.key.rpartition(".")[2]
            yield EvalResult(
                task_type=_TASK,
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
    base = repr(record.base.id) if record.base.is_on_hub else f"... the folder of {record.base.id!r} ..."
    if is_adapter:
        load = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
            f"base = AutoModelForImageTextToText.from_pretrained({base.replace(chr(39), chr(34))})\n"
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
        parts.insert(1, "Boxes, sentences and an image, with the package `artiagent`. With transformers alone:")
    return "\n\n".join(parts)


def _report_text(report: EvaluationReport) -> str:
    where = " ".join([f"`{report.benchmark}`", *([f"split `{report.split}`"] if report.split else [])])
    first = "" if report.limit is None else f", the first {report.limit}"
    rows = [
        (score.name, f"{score.value:.3f}", score.interval_text, f"`{score.protocol}`", score.n)
        for score in report.scores
    ]
    table = markdown_table(["score", "value", f"{report.confidence:.0%} interval", "protocol", "n"], rows)
    return (
        f"On {where}: {report.n} images{first}; answers that could not be used: {report.failures}.\n\n{table}\n\n"
        f"Intervals are bootstrap ones over images. Scored with {_listed(report.versions)}"
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
    parts = [_loss_table("loss", record.loss)] if record.loss else ["None is on record."]
    if record.eval_loss:
        parts.append(_loss_table("loss on the test split", record.eval_loss))
    return "\n\n".join(parts)


def _loss_table(name: str, losses: Sequence[tuple[int, float]]) -> str:
    count = min(len(losses), _LOSSES_SHOWN)
    shown = [losses[round(index * (len(losses) - 1) / max(count - 1, 1))] for index in range(count)]
    steps, values = zip(*((str(step), f"{loss:.4f}") for step, loss in shown), strict=True)
    note = "" if count == len(losses) else f"\n\n{count} of the {len(losses)} on record."
    return markdown_table(["step", *steps], [(name, *values)]) + note


def _model_never_run(reports: Sequence[EvaluationReport]) -> str:
    missing = [name for name in BENCHMARKS if name not in {report.benchmark for report in reports}]
    lines = [
        *([] if reports else ["- Any evaluation: no score of this model is on record."]),
        *([f"- These published benchmarks: {', '.join(missing)}."] if missing else []),
        "- Other seeds, as far as is on record: how much scores vary between trainings is not known.",
    ]
    return "\n".join(lines)


def _data_facts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of the data; of the runs that made it what tells them apart, the rest is in `training.json`."""
    yield from _flat({name: value for name, value in data.items() if name != "runs" and value is not None})
    for number, run in enumerate(data.get("runs", ()), start=1):
        told = {
            "model": run.get("settings", {}).get("model"),
            "revision of the model": run.get("model_revision"),
            "photographs": run.get("sources", {}).get("count"),
            "fingerprint": run.get("fingerprint"),
        }
        yield from _flat({name: value for name, value in told.items() if value is not None}, f"run {number}: ")


def _model_licence(record: TrainingRecord, license: str) -> str:
    data_license = ", ".join(record.data.get("licenses", ())) or "not on record"
    return (
        f"`{license}`, as declared by who published it. The weights derive from {_base_text(record.base)} and from "
        f"images (licence: {data_license}), whose licences apply as well."
    )


def _published_text(text: str, repo_id: str, license: str) -> str:
    """A folder's card says where the folder is, and to choose a licence; both are known now."""
    # `prepare` reads folders, `load_dataset` repositories as well.
    download = f"`hf download {repo_id} --repo-type dataset --local-dir pairs`, then\n`artiagent prepare artiagent"
    text = text.replace("`artiagent prepare artiagent --source path/to/this/folder", f"{download} --source pairs")
    # A folder that was downloaded, or prepared from such a one, tells of its last publication.
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
    """Facts of facts, each with the names that lead to it."""
    for key, value in facts.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}, ")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
