"""Compare ways to make a pair: evaluations, speed, faithfulness outside the artifact, strength inside.

    python tests/benchmarks/injection.py --json injection.json
    python tests/benchmarks/injection.py --sweep --photos 6 --json sweep.json --picture tests/benchmarks/pareto.png

    python tests/benchmarks/injection.py --count --json count.json

Photos, annotations and model are the demo's, with the same artifacts for every way, planned with seed 0:

- `published`: for every pair, 25 Euler steps of inversion with cached values, 25 of denoising, and both again for the
  clean image, one image at a time; the paper's injection settings on FLUX.1-dev's sigma grid;
- `paper`: the same in FireFlow steps, with one inversion for both images;
- `published_our_settings`: as `published`, with the injection settings and the sigma grid of `ours_3`;
- `ours_3`, `ours_8`: what `artiagent` does with the embedded model for 3 and 8 artifacts of a photo: one inversion,
  then the clean image and all artifacts together, each at its target alone;
- `full_3`, `full_8`: the same with `compute="full"`, which computes all of every artifact image.

The ways alternate on each photo, so that the machine's load meets all of them. `speedup_3` and `speedup_8` are
medians, with range, of the ratios of pairs a second to `published` on the same photo. The ways that go one artifact at
a time do so for the first artifacts of each photo only (`--slow-pairs`), because every pair of theirs costs the same.

`nfe_per_flawed` counts transformer evaluations per artifact image, each once for every row of its batch;
`token_evaluations` counts tokens through the transformer per artifact image, padding included, divided by the tokens
of an image. `pairs_per_second` counts wall time from photos as PIL images to pairs of PIL images. `overhead` is the
wall time of inversion and denoising, divided by that of their evaluations as bare forward passes at the same numbers
of rows and tokens, timed in between. `peak_memory` is the memory of the process above the loaded model, in MiB, on the
first photo. PSNR, SSIM and `stlpips` outside compare everything but the target patches with the clean image,
`psnr_outside_source` with the photo. `copy_distance` is the distance of duplications from their original, divided by
the distance at that place in the clean image. All are medians over pairs.

`--count` needs no model: it counts multiplications and additions of the linear layers and of attention in FLUX.1-dev's
transformer, for square targets of `--target-share` of the image.
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
from dataclasses import dataclass, field, replace
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
from diffusers_artifact.target_rows import TargetRows


SIDE = 256
ARTIFACTS = (3, 8)
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
    evaluations: Counter[tuple[int, int]]
    """Forward passes by rows and tokens of a row."""
    loop_seconds: float
    cache_bytes: int


def plan_works(num_photos: int, variants: int, patch_size: int) -> list[Work]:
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
            perception, _ = filter_perception(apply_to_perception(perception, transform), patch_size)
            scene, generator = Scene.of(perception, patch_size), torch.Generator().manual_seed(derive_seed(0, name))
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
            made.evaluations[1, clean.shape[1]] += loop.num_function_evaluations
            made.cache_bytes = max(made.cache_bytes, state.cache_bytes)
        made.loop_seconds += time.perf_counter() - start
        for result, kept in zip(results, (made.flawed, made.cleans), strict=True):
            decoded = family.decode_latents(family.unpack(result, artifact.mapping.grid))
            kept += pipe.image_processor.postprocess(decoded, output_type="pil")
    return made


def in_one_batch(injector: Injector, work: Work) -> Made:
    """Make pairs our way: one inversion, then the clean image and all artifact images in one batch."""
    output = injector.run([work.photo], [[artifact.mapping for artifact in work.artifacts]])
    mappings = [artifact.mapping for artifact in work.artifacts]
    scheduler = SOLVERS[injector.settings.solver].from_config(injector.pipeline.scheduler.config)
    scheduler.set_timesteps(injector.num_inference_steps, mu=0.0, inverse=True)
    inverting = len(scheduler.timesteps)
    denoising = injector.pipeline.num_timesteps - inverting
    family, grid = injector.pipeline.family, mappings[0].grid
    tokens = grid[0] * grid[1]
    if injector.settings.compute == "full":
        evaluations = Counter({(1, tokens): inverting, (1 + len(mappings), tokens): denoising})
    else:
        targets = TargetRows(mappings, [0] * len(mappings), 1, family.target_row_multiple(grid)).tokens
        rows, length = targets.shape
        evaluations = Counter({(1, tokens): inverting + denoising, (rows, length): denoising})
    return Made(
        [output.reconstructions[index] for index in output.image_indices],
        output.images,
        evaluations,
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
def bare_forward_seconds(pipe: ArtifactInjectionPipeline, rows: int, num_tokens: int) -> float:
    """Measure one forward pass of the transformer with its stock processors."""
    tokens = torch.randn(rows, num_tokens, pipe.transformer.config.in_channels)
    condition = pipe.family.encode_prompt("", torch.device("cpu"), None).expand(rows)
    start = time.perf_counter()
    pipe.family.velocity(tokens, torch.tensor(500.0), condition, torch.ones(rows), (1, num_tokens))
    return time.perf_counter() - start


@dataclass
class Way:
    """A way to make pairs, and what it has cost so far."""

    scheduler: FlowMatchEulerDiscreteScheduler
    make: Callable[[Work], Made]
    num_artifacts: int
    """Artifacts that it makes of each photo."""
    scores: list[dict[str, float]] = field(default_factory=list)
    evaluations: Counter[tuple[int, int]] = field(default_factory=Counter)
    bare: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    """Pairs a second on each photo."""
    seconds: float = 0.0
    loop_seconds: float = 0.0
    cache_bytes: int = 0
    peak_memory: int = 0

    def figures(self, num_tokens: int) -> dict[str, float]:
        """Return all figures of the module's docstring."""
        expected = sum(count * statistics.mean(self.bare[size]) for size, count in self.evaluations.items())
        pairs = len(self.scores)
        figures = {
            "nfe_per_flawed": sum(rows * count for (rows, _), count in self.evaluations.items()) / pairs,
            "token_evaluations": sum(rows * n * count for (rows, n), count in self.evaluations.items())
            / num_tokens
            / pairs,
            "pairs_per_second": pairs / self.seconds,
            "overhead": self.loop_seconds / expected,
            "peak_memory": self.peak_memory / 2**20,
            "cache_bytes": self.cache_bytes,
        }
        for key in ("psnr_outside", "ssim_outside", "stlpips_outside", "psnr_outside_source", "change_inside"):
            figures[key] = statistics.median(row[key] for row in self.scores)
        figures["psnr_outside_mean"] = statistics.mean(row["psnr_outside"] for row in self.scores)
        copies = [row["copy_distance"] for row in self.scores if "copy_distance" in row]
        figures["copy_distance"] = statistics.median(copies) if copies else float("nan")
        return figures


@torch.no_grad()
def run_ways(pipe: ArtifactInjectionPipeline, works: list[Work], ways: dict[str, Way]) -> None:
    """Measure several ways, which take turns on every photo."""
    metric = load_perceptual_metric("stlpips")
    for way in ways.values():
        pipe.register_modules(scheduler=way.scheduler)
        with watch_memory() as memory:  # a separate warm-up: first calls are slower, and so is memory just returned
            way.make(Work(works[0].photo, works[0].artifacts[: way.num_artifacts]))
        way.peak_memory = memory.peak - memory.base
    for work in tqdm(works, desc=", ".join(ways)):
        for way in ways.values():
            pipe.register_modules(scheduler=way.scheduler)
            artifacts = work.artifacts[: way.num_artifacts]
            start = time.perf_counter()
            made = way.make(Work(work.photo, artifacts))
            seconds = time.perf_counter() - start
            way.rates.append(len(artifacts) / seconds)
            way.seconds += seconds
            way.loop_seconds += made.loop_seconds
            way.evaluations += made.evaluations
            way.cache_bytes = max(way.cache_bytes, made.cache_bytes)
            for size in made.evaluations:
                way.bare.setdefault(size, []).extend(bare_forward_seconds(pipe, *size) for _ in range(4))
            for artifact, clean, flawed in zip(artifacts, made.cleans, made.flawed, strict=True):
                way.scores.append(score(artifact, work.photo, clean, flawed, metric, pipe.patch_size))


def score(
    artifact: Artifact, photo: Image.Image, clean: Image.Image, flawed: Image.Image, metric, patch_size: int
) -> dict[str, float]:
    source, before, after = as_array(photo), as_array(clean), as_array(flawed)
    mask = target_pixels([artifact.mapping], patch_size)
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


def compare(injector: Injector, works: list[Work], slow_pairs: int) -> dict[str, dict[str, float]]:
    """Measure the ways of the module's docstring."""
    pipe, ours = injector.pipeline, injector.preset
    own_grid = pipe.scheduler
    flux_grid = FlowMatchEulerDiscreteScheduler.from_config(own_grid.config, **FLUX_GRID)
    strong = replace(ours, num_inference_steps=25)
    whole = Injector("embedded", InjectionSettings(compute="full"))
    whole.pipeline = pipe
    alone = {
        "published": (flux_grid, lambda work: one_at_a_time(pipe, work, "euler", PRESETS["paper"], False)),
        "paper": (flux_grid, lambda work: one_at_a_time(pipe, work, "fireflow", PRESETS["paper"], True)),
        "published_our_settings": (own_grid, lambda work: one_at_a_time(pipe, work, "euler", strong, False)),
    }
    ways = {name: Way(grid, make, slow_pairs) for name, (grid, make) in alone.items()}
    for number in ARTIFACTS:
        ways[f"ours_{number}"] = Way(own_grid, lambda work: in_one_batch(injector, work), number)
    for number in ARTIFACTS:
        ways[f"full_{number}"] = Way(own_grid, lambda work: in_one_batch(whole, work), number)
    run_ways(pipe, works, ways)
    results = {name: way.figures((SIDE // pipe.patch_size) ** 2) for name, way in ways.items()}
    for number in ARTIFACTS:
        pairs = zip(ways[f"ours_{number}"].rates, ways["published"].rates, strict=True)
        ratios = [fast / slow for fast, slow in pairs]
        results[f"speedup_{number}"] = {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "greatest": max(ratios),
        }
    return results


def sweep(works: list[Work]) -> dict[str, dict[str, float]]:
    """Measure our way with every solver and number of steps."""
    results = {}
    for solver in SWEEP_SOLVERS:
        for steps in SWEEP_STEPS:
            other = Injector("embedded", InjectionSettings(num_inference_steps=steps, solver=solver))
            pipe = other.pipeline
            way = Way(pipe.scheduler, lambda work: in_one_batch(other, work), ARTIFACTS[0])  # noqa: B023
            run_ways(pipe, works, {f"{solver} {steps}": way})
            results[f"{solver} {steps}"] = way.figures((SIDE // pipe.patch_size) ** 2)
    return results


def count_operations(rows: int, image: int, text: int, keys: int) -> int:
    """
    Count multiplications and additions of one forward pass of FLUX.1-dev's transformer: of the linear layers of its 19
    double- and 38 single-stream blocks, and of attention. Modulation and embeddings, below 1 %, are left out.

    Args:
        rows (`int`): Rows of the batch.
        image, text (`int`): Image and text tokens of a row, which go through the layers.
        keys (`int`): Tokens that each of them attends to.
    """
    width, blocks = 3072, 19 + 38
    # Double: queries, keys, values and output 4, MLP 8. Single: 3, 4 and 5. Both are 12 times the width squared.
    linear = 12 * width**2 * (image + text)
    attention = 2 * width * (image + text) * keys
    return 2 * rows * blocks * (linear + attention)


def count(target_share: float) -> dict[str, dict[str, float]]:
    """
    Count operations for FLUX.1-dev, in 10^12 per artifact image, with the paper's 25 steps and with 8. `published` is
    as in the module's docstring, `full` and `target` are values of `compute`.
    """
    results = {}
    text = 512
    for side in (512, 1024):
        image = (side // 16) ** 2
        whole = count_operations(1, image, text, image + text)
        # A square target, and one patch around it.
        target = -(-((round((target_share * image) ** 0.5) + 2) ** 2) // 16) * 16
        short = count_operations(1, target, 0, image + text)
        for artifacts in (3, 8, 16):
            for steps in (25, 8):
                evaluations = steps + 1  # of FireFlow, in each direction
                costs = {
                    "published": 100.0 * whole,
                    "full": evaluations * (2 + artifacts) / artifacts * whole,
                    "target": evaluations * (2 * whole / artifacts + short),
                }
                results[f"{side} px, {artifacts} artifacts, {steps} steps"] = {
                    **{name: cost / 1e12 for name, cost in costs.items()},
                    "token_evaluations": evaluations * (2 / artifacts + target / image),
                    "published / target": costs["published"] / costs["target"],
                    "full / target": costs["full"] / costs["target"],
                    # Keys and values of all blocks for the clean row, in bfloat16.
                    "kept_gib": 57 * 2 * (image + text) * 3072 * 2 / 2**30,
                }
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
        "--slow-pairs",
        type=int,
        default=1,
        help="artifacts for each photo that are made one at a time (default: %(default)s)",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--sweep", action="store_true", help="measure solvers and steps of our way instead of the ways")
    mode.add_argument(
        "--count", action="store_true", help="count operations of FLUX.1-dev's transformer instead of measuring"
    )
    parser.add_argument(
        "--target-share",
        type=float,
        default=0.05,
        help="share of the image that the target of an artifact covers, for --count (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--picture", type=Path, help="PNG file to write the plot of the sweep to")
    args = parser.parse_args()
    if args.picture and not args.sweep:
        parser.error("--picture needs --sweep, got none; add it")
    if args.count:
        results = count(args.target_share)
    else:
        injector = Injector("embedded", InjectionSettings())
        works = plan_works(args.photos, ARTIFACTS[0 if args.sweep else -1], injector.pipeline.patch_size)
        results = sweep(works) if args.sweep else compare(injector, works, args.slow_pairs)
    for speedups in (False, True):
        rows = {name: row for name, row in results.items() if name.startswith("speedup") == speedups}
        if rows:
            print(table(rows) + "\n")
    if args.sweep:
        print("Pareto front, outside against the photo:", ", ".join(pareto_front(results)))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.picture:
        draw(results, args.picture)


if __name__ == "__main__":
    main()
