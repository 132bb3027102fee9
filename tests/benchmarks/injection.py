"""Compare ways to make a pair: evaluations, speed, faithfulness outside the artifact, strength inside.

    python tests/benchmarks/injection.py --json injection.json
    python tests/benchmarks/injection.py --sweep --photos 6 --json sweep.json --picture tests/benchmarks/pareto.png

Photos, annotations and model are the demo's, with the same artifacts for every way, planned with seed 0:

- `published`: for every pair, 25 Euler steps of inversion with cached values, 25 of denoising, and both again for the
  clean image, one image at a time; the paper's injection settings on FLUX.1-dev's sigma grid;
- `paper`: the same in FireFlow steps, with one inversion for both images;
- `published_our_settings`: as `published`, with the injection settings and the sigma grid of `ours`;
- `ours`: what `artiagent` does with the embedded model; all artifact images of a photo in one batch with its
  clean image.

`nfe_per_flawed` counts transformer evaluations per artifact image, each once for every row of its batch.
`pairs_per_second` counts wall time from photos as PIL images to pairs of PIL images. `overhead` is the wall time of
inversion and denoising, divided by that of their evaluations as bare forward passes at the same batch size, timed in
between. `peak_memory` is the memory of the process above the loaded model, in MiB, on the first photo. PSNR, SSIM and
`stlpips` outside compare everything but the target patches with the clean image, `psnr_outside_source` with the photo.
`copy_distance` is the distance of duplications from their original, divided by the distance at that place in the clean
image. All are medians over pairs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from skimage.metrics import structural_similarity
from tqdm import tqdm

from datasets_script.agents.curation.measures import as_array, change_inside, measure, psnr_outside, target_pixels
from datasets_script.agents.curation.perceptual import load_perceptual_metric
from datasets_script.agents.perception import AnnotationPerception, apply_to_perception, filter_perception
from datasets_script.agents.planning import Choice, Scene, plan_artifacts
from datasets_script.demo.settings import DEMO_SETTINGS, prepare_demo
from datasets_script.engine.injector import Injector
from datasets_script.engine.settings import InjectionSettings
from datasets_script.schema.pair import Artifact
from datasets_script.utils.photos import fit, open_source
from datasets_script.utils.seeds import derive_seed
from diffusers_artifact import SOLVERS, ArtifactInjectionPipeline, PatchMapping
from diffusers_artifact.denoising_loop import DenoisingLoop
from diffusers_artifact.injection import InjectionState, default_position_blocks, default_value_blocks
from diffusers_artifact.inputs import preprocess_images
from diffusers_artifact.presets import PRESETS, InjectionPreset


SIDE = 256
SWEEP_STEPS = (4, 6, 8, 10, 15, 25)
SWEEP_SOLVERS = ("euler", "midpoint", "fireflow", "uni_inv")
QUALITY = "psnr_outside_source"
FLUX_GRID = {"base_shift": 0.5, "max_shift": 1.15}


@dataclass
class Work:
    """A photo and the artifacts to make in it."""

    photo: Image.Image
    artifacts: list[Artifact]


@dataclass
class Made:
    """The pairs of one photo, and what they cost."""

    cleans: list[Image.Image]
    flawed: list[Image.Image]
    evaluations: Counter[int]
    """Forward passes by batch size."""
    loop_seconds: float
    cache_bytes: int


def plan_works(num_photos: int, variants: int) -> list[Work]:
    """Plan exactly `variants` artifacts for each of the demo's photos. Photos with fewer legal ones are left out."""
    works: list[Work] = []
    made: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        names = prepare_demo(Path(folder))
        perception_agent = AnnotationPerception(Path(folder) / "annotations.json")
        for name in names:
            image = open_source(Path(folder) / name)
            perception = perception_agent.perceive(image, name)
            left, top, right, bottom = zip(*(entity.bbox for entity in perception.entities), strict=True)
            transform = fit(image.size, (SIDE, SIDE), (min(left), min(top), max(right), max(bottom)))
            perception, _ = filter_perception(apply_to_perception(perception, transform), 16)
            scene, generator = Scene.of(perception, 16), torch.Generator().manual_seed(derive_seed(0, name))
            artifacts: list[Artifact] = []
            for _ in range(variants):
                avoid = frozenset(Choice.of(artifact).with_any_kernel for artifact in artifacts)
                share = DEMO_SETTINGS.max_target_share
                artifacts += plan_artifacts(scene, DEMO_SETTINGS.tools, 1, made, generator, share, avoid)[0]
                made.update(artifact.type for artifact in artifacts[-1:])
            if len(artifacts) == variants:
                works.append(Work(transform.apply(image), artifacts))
    # Spread over the sorted names, because several views of one photo are adjacent.
    return [works[index] for index in np.linspace(0, len(works) - 1, min(num_photos, len(works))).round().astype(int)]


def one_at_a_time(
    pipe: ArtifactInjectionPipeline, work: Work, solver: str, preset: InjectionPreset, share_inversion: bool
) -> Made:
    """
    Make pairs by the published procedure at batch size 1, with the parts of our pipeline: inversion with cached
    values, denoising with injection, and the clean image by itself, from an inversion of its own unless
    `share_inversion`.
    """
    family, steps = pipe.family, preset.num_inference_steps
    made = Made([], [], Counter(), 0.0, 0)
    for artifact in work.artifacts:
        latents = family.encode_images(preprocess_images(work.photo, pipe.patch_size), None)
        clean, condition = family.pack(latents), family.encode_prompt("", torch.device("cpu"), None)
        arguments = family.timestep_arguments(steps, clean.shape[1], pipe.scheduler)
        one = torch.ones(1)
        results: list[torch.Tensor] = []
        start = time.perf_counter()
        for mapping in (artifact.mapping, PatchMapping.empty(artifact.mapping.grid)):
            inversion, denoising = (SOLVERS[solver].from_config(pipe.scheduler.config) for _ in range(2))
            inversion.set_timesteps(**arguments, inverse=True)
            denoising.set_timesteps(**arguments)
            state = InjectionState(
                [mapping],
                [0],
                steps,
                default_position_blocks(family.num_blocks),
                range(family.num_blocks) if preset.value_in_all_blocks else default_value_blocks(family.num_blocks),
                None if preset.position_share is None else round(preset.position_share * steps),
                None if preset.value_share is None else round(preset.value_share * steps),
                value_source="inversion",
            )
            loop = DenoisingLoop(family, mapping.grid, condition, observer=state)
            with family.injecting(state):
                if not (results and share_inversion):
                    noise = loop.invert(inversion, clean, condition, one, lambda _, tokens: tokens)
                begin = noise.clone()
                if preset.transfer_noise:
                    begin[0, list(mapping.targets)] = noise[0, list(mapping.references)]
                results.append(loop.denoise(denoising, begin, condition, one, lambda _, tokens: tokens))
            made.evaluations[1] += loop.num_function_evaluations
            made.cache_bytes = max(made.cache_bytes, state.cache_bytes)
        made.loop_seconds += time.perf_counter() - start
        for result, kept in zip(results, (made.flawed, made.cleans), strict=True):
            decoded = family.decode_latents(family.unpack(result, artifact.mapping.grid))
            kept += pipe.image_processor.postprocess(decoded, output_type="pil")
    return made


def in_one_batch(injector: Injector, work: Work) -> Made:
    """Make pairs our way: one inversion, then the clean image and all artifact images in one batch."""
    output = injector.run([work.photo], [[artifact.mapping for artifact in work.artifacts]])
    rows = 1 + len(work.artifacts)
    scheduler = SOLVERS[injector.settings.solver].from_config(injector.pipeline.scheduler.config)
    scheduler.set_timesteps(injector.num_inference_steps, mu=0.0, inverse=True)
    inverting = len(scheduler.timesteps)
    denoising = injector.pipeline.num_timesteps - inverting
    return Made(
        [output.reconstructions[index] for index in output.image_indices],
        output.images,
        Counter({1: inverting, rows: denoising}),
        output.timings["invert"] + output.timings["denoise"],
        output.cache_bytes,
    )


class PeakMemory(threading.Thread):
    """Peak of the process's resident memory in bytes, above that at the start."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        # Return freed memory to the system first; else one way would reuse the memory of another.
        ctypes.CDLL(None).malloc_trim(0)
        self.done = threading.Event()
        self.base = self.peak = resident_bytes()

    def run(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, resident_bytes())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def watch_memory() -> Iterator[PeakMemory]:
    memory = PeakMemory()
    memory.start()
    try:
        yield memory
    finally:
        memory.done.set()
        memory.join()


@torch.no_grad()
def bare_forward_seconds(pipe: ArtifactInjectionPipeline, batch: int) -> float:
    """Measure one forward pass of the transformer with its stock processors."""
    grid = (SIDE // pipe.patch_size,) * 2
    tokens = torch.randn(batch, grid[0] * grid[1], pipe.transformer.config.in_channels)
    condition = pipe.family.encode_prompt("", torch.device("cpu"), None).expand(batch)
    start = time.perf_counter()
    pipe.family.velocity(tokens, torch.tensor(500.0), condition, torch.ones(batch), grid)
    return time.perf_counter() - start


@torch.no_grad()
def run_way(
    pipe: ArtifactInjectionPipeline, works: list[Work], make: Callable[[Work], Made], label: str
) -> dict[str, float]:
    """Measure one way over all photos."""
    metric = load_perceptual_metric("stlpips")
    with watch_memory() as memory:
        make(works[0])  # a separate warm-up: first calls are slower, and so is memory that was just returned
    scores: list[dict[str, float]] = []
    evaluations: Counter[int] = Counter()
    bare: dict[int, list[float]] = {}
    seconds = loop_seconds = 0.0
    cache_bytes = 0
    for work in tqdm(works, desc=label):
        start = time.perf_counter()
        made = make(work)
        seconds += time.perf_counter() - start
        loop_seconds += made.loop_seconds
        evaluations += made.evaluations
        cache_bytes = max(cache_bytes, made.cache_bytes)
        for batch in made.evaluations:
            bare.setdefault(batch, []).extend(bare_forward_seconds(pipe, batch) for _ in range(4))
        for artifact, clean, flawed in zip(work.artifacts, made.cleans, made.flawed, strict=True):
            scores.append(score(artifact, work.photo, clean, flawed, metric))
    expected = sum(count * statistics.mean(bare[batch]) for batch, count in evaluations.items())
    figures = {
        "nfe_per_flawed": sum(batch * count for batch, count in evaluations.items()) / len(scores),
        "pairs_per_second": len(scores) / seconds,
        "overhead": loop_seconds / expected,
        "peak_memory": (memory.peak - memory.base) / 2**20,
        "cache_bytes": cache_bytes,
    }
    for key in ("psnr_outside", "ssim_outside", "stlpips_outside", "psnr_outside_source", "change_inside"):
        figures[key] = statistics.median(row[key] for row in scores)
    figures["psnr_outside_mean"] = statistics.mean(row["psnr_outside"] for row in scores)
    copies = [row["copy_distance"] for row in scores if "copy_distance" in row]
    figures["copy_distance"] = statistics.median(copies)
    return figures


def score(artifact: Artifact, photo: Image.Image, clean: Image.Image, flawed: Image.Image, metric) -> dict[str, float]:
    source, before, after = as_array(photo), as_array(clean), as_array(flawed)
    mask = target_pixels([artifact.mapping], 16)
    _, similarity = structural_similarity(before, after, channel_axis=2, data_range=1.0, full=True)
    figures = {
        "psnr_outside": psnr_outside(before, after, mask),
        "psnr_outside_source": psnr_outside(source, after, mask),
        "ssim_outside": float(similarity[~mask].mean()),
        "stlpips_outside": metric(before, np.where(mask[..., None], before, after)),
        "change_inside": change_inside(before, after, mask),
    }
    if artifact.type == "duplication":
        [measured] = measure([artifact], clean, flawed, metric)
        figures["copy_distance"] = measured["reference_distance_after"] / measured["reference_distance_before"]
    return figures


def compare(injector: Injector, works: list[Work]) -> dict[str, dict[str, float]]:
    """Measure the four ways of the module's docstring."""
    pipe, ours = injector.pipeline, injector.preset
    own_grid = pipe.scheduler
    flux_grid = FlowMatchEulerDiscreteScheduler.from_config(own_grid.config, **FLUX_GRID)
    strong = replace(ours, num_inference_steps=25)
    ways: dict[str, tuple] = {
        "published": (flux_grid, lambda work: one_at_a_time(pipe, work, "euler", PRESETS["paper"], False)),
        "paper": (flux_grid, lambda work: one_at_a_time(pipe, work, "fireflow", PRESETS["paper"], True)),
        "published_our_settings": (own_grid, lambda work: one_at_a_time(pipe, work, "euler", strong, False)),
        "ours": (own_grid, lambda work: in_one_batch(injector, work)),
    }
    results = {}
    for name, (scheduler, make) in ways.items():
        pipe.register_modules(scheduler=scheduler)
        results[name] = run_way(pipe, works, make, name)
    return results


def sweep(injector: Injector, works: list[Work]) -> dict[str, dict[str, float]]:
    """Measure our way with every solver and number of steps."""
    results = {}
    for solver in SWEEP_SOLVERS:
        for steps in SWEEP_STEPS:
            settings = InjectionSettings(num_inference_steps=steps, solver=solver)
            other = Injector("embedded", settings)
            label = f"{solver} {steps}"
            results[label] = run_way(other.pipeline, works, lambda work: in_one_batch(other, work), label)  # noqa: B023
    return results


def pareto_front(results: dict[str, dict[str, float]]) -> list[str]:
    """
    Return the results that no other result with as many evaluations or fewer beats in closeness to the photo, sorted
    by evaluations. Closeness to the clean image would mislead: few Euler steps give a washed-out clean image and
    hardly any artifact.
    """
    front: list[str] = []
    for name in sorted(results, key=lambda name: (results[name]["nfe_per_flawed"], -results[name][QUALITY])):
        if not front or results[name][QUALITY] > results[front[-1]][QUALITY]:
            front.append(name)
    return front


def draw(results: dict[str, dict[str, float]], path: Path) -> None:
    """Plot quality against evaluations, one line for each solver, with the Pareto front."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        "psnr_outside": "PSNR outside, artifact image against clean image (dB)",
        "psnr_outside_source": "PSNR outside, artifact image against photo (dB)",
        "change_inside": "change inside the target",
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(15, 4.5), layout="constrained")
    for axis, (quality, title) in zip(axes, panels.items(), strict=True):
        for solver in SWEEP_SOLVERS:
            rows = [(steps, results[f"{solver} {steps}"]) for steps in SWEEP_STEPS]
            axis.plot(
                [row["nfe_per_flawed"] for _, row in rows], [row[quality] for _, row in rows], "o-", label=solver
            )
            for steps, row in rows:
                place = (row["nfe_per_flawed"], row[quality])
                axis.annotate(str(steps), place, xytext=(3, 3), textcoords="offset points", fontsize=7)
        if quality == QUALITY:
            front = [results[name] for name in pareto_front(results)]
            points = [row["nfe_per_flawed"] for row in front], [row[quality] for row in front]
            axis.plot(*points, "k--", lw=0.8, label="Pareto front")
        axis.set(title=title, xlabel="evaluations per artifact image", xscale="log")
        axis.set_xticks([7, 10, 15, 20, 30, 40, 60, 80], labels=["7", "10", "15", "20", "30", "40", "60", "80"])
        axis.minorticks_off()
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def table(results: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(results.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for name, row in results.items():
        lines.append(f"| `{name}` | " + " | ".join(f"{row[column]:.4g}" for column in columns) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=int, default=8, help="number of photos, at most the demo's 22 (default: %(default)s)"
    )
    parser.add_argument(
        "--variants", type=int, default=3, help="number of artifacts for each photo (default: %(default)s)"
    )
    parser.add_argument(
        "--sweep", action="store_true", help="measure solvers and steps of our way instead of the four ways"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--picture", type=Path, help="PNG file to write the plot of the sweep to")
    args = parser.parse_args()
    if args.picture and not args.sweep:
        parser.error("--picture needs --sweep, got none; add it")
    works = plan_works(args.photos, args.variants)
    injector = Injector("embedded", InjectionSettings())
    results = sweep(injector, works) if args.sweep else compare(injector, works)
    print(table(results))
    if args.sweep:
        print("Pareto front, outside against the photo:", ", ".join(pareto_front(results)))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.picture:
        draw(results, args.picture)


if __name__ == "__main__":
    main()
