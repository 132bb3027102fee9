"""The function `correct`, the Python form of `artiagent correct`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diffusers_artifact.presets import EMBEDDED
from evaluate_metrics.functional.versions import recorded_versions

from ..detection.images import upright
from ..detection.scoring import load_reward
from ..engine.loading import usable_device
from ..engine.locks import holding_rank
from ..engine.settings import LoadSettings, Offload
from ..schema.boxes import Box
from ..schema.correction import CorrectedImage, CorrectionRecord
from ..utils.errors import ArgumentError, UserError
from ..utils.image_texts import METADATA, image_texts
from ..vlm.base import VLM
from ..vlm.spec import VLMSpec
from .agent import Correction, CorrectionAgent
from .edit_endpoint import EndpointInpainter
from .folder import CorrectionFolder, begun_with, check_continues, check_images
from .judges import Judge, load_judge
from .pairs import check_before, write_correction_pairs
from .regions import Region, given_region, read_mask
from .repairers import ModelRepairer, RepairMethod, check_method, load_repairer
from .settings import CorrectionSettings


_PACKAGES = ("artiagent", "torch", "diffusers", "transformers", "numpy", "pillow")


def correct(
    images: Mapping[str, str | os.PathLike[str]] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    detector: str = EMBEDDED,
    repairer: str = EMBEDDED,
    verifier: str | None = None,
    reward: str | None = None,
    segmenter: str | None = None,
    box: Box | None = None,
    mask: str | os.PathLike[str] | None = None,
    prompt: str | Mapping[str, str] | None = None,
    settings: CorrectionSettings | None = None,
    revision: str | None = None,
    repair_method: RepairMethod = "auto",
    repairer_endpoint: str | None = None,
    num_inference_steps: int | None = None,
    guidance: float | None = None,
    crops: bool = True,
    vlm: VLMSpec | None = None,
    loading: LoadSettings | None = None,
    offload: Offload = "none",
    device: str | None = None,
    pairs: bool = False,
    show_progress: bool = True,
) -> CorrectionRecord:
    """
    Correct images, and keep every round in a folder.

    A call that was interrupted is continued by the same call, and no round is drawn twice; more images may be added.

    Args:
        images (`Sequence` of paths, or `Mapping` of paths by id): Image files. Ids name files; by default they are the
            files' names without endings.
        out (`str` or `os.PathLike`): Folder to write, new or of the same run.
        detector (`str`, *optional*, defaults to `"embedded"`): What finds artifacts: a pixel detector or a
            vision-language model, a folder or Hub id. Not loaded if a box or mask is given and there is a `verifier`.
        repairer (`str`, *optional*, defaults to `"embedded"`): Diffusion model, see
            [`~datasets_script.correction.repairers.load_repairer`]; or a model's name at `repairer_endpoint`.
        verifier (`str`, *optional*): What judges repairs, as `detector`, which it is by default.
        reward (`str`, *optional*): Reward model that chooses among repairs and refuses those that score less than the
            image.
        segmenter (`str`, *optional*): SAM or SAM 2, which finds the thing in a box that comes without a mask.
        box (`tuple[float, float, float, float]`, *optional*): Region to correct in every image, in place of a
            detector's: `(x_min, y_min, x_max, y_max)`, exclusive maxima, pixels of the upright image.
        mask (`str` or `os.PathLike`, *optional*): The same as an image file, bright where to correct.
        prompt (`str` or `Mapping[str, str]`, *optional*): The scene as it should be, of all images or of each by its
            id; see [`prompts_beside`]. By default a vision-language model's caption, if the detector or the verifier
            is one.
        settings (`CorrectionSettings`, *optional*): Rounds, candidates, strengths and thresholds.
        revision, repair_method, num_inference_steps, guidance, crops, loading, offload (*optional*): Of the repairer;
            see [`~datasets_script.correction.repairers.load_repairer`].
        repairer_endpoint (`str`, *optional*): OpenAI-compatible server with `/images/edits`.
        vlm (`VLMSpec`, *optional*): How vision-language models are run; its `model` does not count.
        device (`str`, *optional*): By default CUDA if available, else the CPU.
        pairs (`bool`, *optional*, defaults to `False`): Also write the images that came out clean, with the images
            before, as pairs to train on, see [`~datasets_script.correction.pairs.write_correction_pairs`].
        show_progress (`bool`, *optional*, defaults to `True`): Show a progress bar.

    Returns:
        `CorrectionRecord`: Record of the complete run.

    Raises:
        ArgumentError, UserError: A value is out of range, or a model cannot be loaded.
        RunMismatchError: `out` holds a run with other settings, or that began an image with another file or prompt.
        RunBusyError: Another process writes to `out`.
    """
    if box is not None and mask is not None:
        raise ArgumentError("`box` and `mask` both name the region, got both; leave out one")
    if verifier is not None and verifier == EMBEDDED == detector:
        verifier = None
    out, settings, device = Path(out), settings or CorrectionSettings(), usable_device(device)
    sources = _by_id(images)
    # All that needs no model comes first, because loading takes minutes.
    if not repairer_endpoint:
        check_method(repairer, repair_method)
    marked = None if mask is None else read_mask(Path(mask))
    for path in sources.values():
        _given(path, box, marked)
    prompts = _prompts(prompt, sources)
    # What each image was told stands with its rounds.
    told = prompt if prompt is None or isinstance(prompt, str) else "of each image"
    given: dict[str, Any] = {"box": None if box is None else list(box), "mask": None, "prompt": told}
    if mask is not None and marked is not None:
        given["mask"] = [Path(mask).name, int(marked.sum()), *marked.shape]
    known: dict[str, Any] = {"settings": asdict(settings), "given": given, "versions": recorded_versions(_PACKAGES)}
    check_continues(out, known)
    check_images(out, sources, prompts)
    if pairs:
        check_before(out, sources)
    found = load_judge(detector, device, vlm)
    judge = found if verifier is None else load_judge(verifier, device, vlm, "verifier")
    repair = (
        ModelRepairer(EndpointInpainter(repairer, repairer_endpoint), repairer, crops=crops)
        if repairer_endpoint
        else load_repairer(
            repairer,
            revision=revision,
            method=repair_method,
            num_inference_steps=num_inference_steps,
            guidance=guidance,
            crops=crops,
            loading=loading,
            device=device,
            offload=offload,
        )
    )
    agent = CorrectionAgent(
        repair,
        judge.verifier(),
        found.detector(),
        judge.captioner() or found.captioner(),
        load_reward(reward, device) if reward else None,
        _load_segmenter(segmenter, device),
        settings,
    )
    current = {**known, "models": {"detector": found.verifier().identity(), **agent.identity()}}
    check_continues(out, current)
    with holding_rank(out, 0, 1):
        folder = CorrectionFolder(out)
        record = CorrectionRecord(**current)
        record.write(out)
        left = {name: path for name, path in sources.items() if name not in folder.done}
        bar = tqdm(
            desc="correcting",
            total=len(sources),
            initial=len(sources) - len(left),
            unit="image",
            disable=not show_progress,
        )
        with bar:
            for name, path in left.items():
                region = _given(path, box, marked)
                image, told = upright(path), prompts.get(name)
                correction = agent(image, region, told, name, folder.store(name, begun_with(path, told)))
                folder.add(_record(name, path, correction), image, correction)
                bar.set_postfix(changed=sum(image.changed for image in folder.done.values()))
                bar.update()
        totals = folder.totals() | _tokens(found, judge)
        if pairs:
            totals["pairs"] = write_correction_pairs(folder, record)
        done = replace(record, status="complete", totals=totals)
        done.write(out)
        return done


def prompts_beside(images: Mapping[str, str | os.PathLike[str]]) -> dict[str, str]:
    """
    Read what images were drawn from, in the `metadata.jsonl` beside each.

    Args:
        images (`Mapping` of paths by id): Image files.

    Returns:
        `dict[str, str]`: The prompt of each image by its id, for [`correct`].

    Raises:
        UserError: An image has none.
    """
    paths = {name: Path(path) for name, path in images.items()}
    texts = {folder: image_texts(folder) for folder in {path.parent for path in paths.values()}}
    if lacking := [path for path in paths.values() if path.name not in texts[path.parent]]:
        raise UserError(
            f"each image must have its prompt in the {METADATA} beside it, as `artiagent generate` writes it, got "
            f"{len(lacking)} of {len(paths)} without, first '{lacking[0]}'; give one prompt for all images instead, "
            "or none"
        )
    return {name: texts[path.parent][path.name] for name, path in paths.items()}


def _prompts(prompt: str | Mapping[str, str] | None, sources: Mapping[str, Path]) -> dict[str, str]:
    if prompt is None:
        return {}
    if isinstance(prompt, str):
        return dict.fromkeys(sources, prompt)
    if lacking := [name for name in sources if name not in prompt]:
        raise ArgumentError(f"`prompt` must hold the prompt of each image by its id, got none for {lacking[0]!r}")
    return dict(prompt)


def _record(name: str, path: Path, correction: Correction) -> CorrectedImage:
    rounds = [one for region in correction.regions for one in region.rounds]
    return CorrectedImage(
        id=name,
        source=os.fspath(path),
        width=correction.image.width,
        height=correction.image.height,
        changed=correction.changed,
        regions=correction.regions,
        evaluations=round(sum(one.evaluations for one in rounds), 3),
        questions=correction.questions,
        seconds=round(sum(one.seconds for one in rounds), 2),
        failures=correction.failures,
    )


def _given(path: Path, box: Box | None, mask: np.ndarray | None) -> list[Region] | None:
    if box is None and mask is None:
        return None
    return [given_region(upright(path).size, box, mask)]


def _by_id(images: Mapping[str, str | os.PathLike[str]] | Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    if isinstance(images, Mapping):
        return {name: Path(path) for name, path in images.items()}
    named: dict[str, Path] = {}
    for path in map(Path, images):
        name, number = path.stem, 2
        while name in named:  # files of several folders may have one name
            name, number = f"{path.stem}.{number}", number + 1
        named[name] = path
    if not named:
        raise ArgumentError("`images` must hold at least one image, got none")
    return named


def _load_segmenter(model: str | None, device: str) -> Any:
    if model is None:
        return None
    from ..agents.perception.grounding import BoxSegmenter

    return BoxSegmenter(model, device=device)


def _tokens(*judges: Judge) -> dict[str, int]:
    """Return the tokens that language models read and wrote in this call."""
    models: dict[int, VLM] = {id(judge.vlm): judge.vlm for judge in judges if judge.vlm is not None}
    return {
        name: sum(getattr(model.usage, name) for model in models.values())
        for name in ("prompt_tokens", "completion_tokens")
        if models
    }
