"""
Best of 2^r: draw ever more noises for a prompt, score the images, and keep the best.

Round r = 0, 1, … draws 2^r fresh noises, and the best image so far is kept (ArtiAgent, Appendix C.1). `best_of` is the
number of the last round, so `best_of=32` draws 1 + 2 + 4 + 8 + 16 + 32 = 63 images.

Works with every text-to-image pipeline of diffusers, since it only calls it with `prompt`, `generator` and
`num_images_per_prompt`, and with every scorer, a function from images to numbers of which higher ones are better.

```python
from diffusers import DiffusionPipeline
from diffusers_artifact import best_of_n

pipe = DiffusionPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell").to("cuda")
found = best_of_n(pipe, ["a hand holding a cup"], scorer, best_of=8, batch_size=4, num_inference_steps=4)
found[0].image, found[0].seed, found[0].curve
```

The score that chooses an image cannot judge the result: it rises by construction. Judge by another detector or reward.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image


Scorer = Callable[[list[Image.Image]], Sequence[float] | np.ndarray | torch.Tensor]
"""A function from images to as many finite numbers, of which higher ones are better."""

# Set by the search itself.
_OWN_ARGUMENTS = ("prompt", "generator", "num_images_per_prompt", "output_type", "return_dict", "latents")
# Arguments of pipelines that begin from an image.
_OF_OTHER_TASKS = ("strength", "mask_image", "control_image")


class NonFiniteImageError(RuntimeError):
    """Error for an image that holds NaN or infinity. Shown, it would be black, in which detectors find nothing."""


@dataclass(frozen=True)
class Draw:
    """
    A candidate that is to be drawn.

    Attributes:
        id (`str`): Id of the image that it is a candidate for.
        prompt (`str`): What to draw.
        number (`int`): Number among the candidates of this image, from 0.
        seed (`int`): Seed of its noise, in [0, 2^63).
    """

    id: str
    prompt: str
    number: int
    seed: int

    @property
    def round(self) -> int:
        """Return the round that it belongs to, from 0."""
        return round_of(self.number)


@dataclass(frozen=True, eq=False)
class Candidate:
    """
    A candidate that was drawn.

    Attributes:
        draw (`Draw`): What was drawn.
        image (`PIL.Image.Image`): The image, RGB.
        score (`float`, *optional*): Its score; `None` without a scorer, and if it is withheld.
        withheld (`bool`): Whether the pipeline's safety checker put a black image in its place, which is not scored.
    """

    draw: Draw
    image: Image.Image
    score: float | None
    withheld: bool = False

    def rank(self) -> tuple[bool, float, int]:
        """Return its [`rank`]."""
        return rank(self.score, self.draw.number)


@dataclass(frozen=True, eq=False)
class BestOfN:
    """
    Outcome of a search.

    Attributes:
        prompt (`str`): What was drawn.
        image (`PIL.Image.Image`): The best image, RGB.
        seed (`int`): Seed of its noise.
        seeds (`tuple[int, ...]`): Seeds of all candidates, in the order of their numbers.
        scores (`tuple[float | None, ...]`): Their scores; `None` without a scorer or if withheld.
        curve (`tuple[float | None, ...]`): Best score so far after each round.
    """

    prompt: str
    image: Image.Image
    seed: int
    seeds: tuple[int, ...]
    scores: tuple[float | None, ...]
    curve: tuple[float | None, ...]


def best_of_n(
    pipeline: Any,
    prompts: Sequence[str],
    scorer: Scorer,
    *,
    best_of: int = 32,
    seed: int = 0,
    batch_size: int = 1,
    **options: Any,
) -> list[BestOfN]:
    """
    Search the best image of each prompt.

    To keep what is done when a long search is interrupted, iterate over [`draw_candidates`] instead.

    Args:
        pipeline ([`~diffusers.DiffusionPipeline`]): A text-to-image pipeline.
        prompts (`Sequence[str]`): What to draw. Equal prompts are drawn from different noises.
        scorer (`Callable[[list[PIL.Image.Image]], Sequence[float]]`): Scores images; higher is better.
        best_of (`int`, *optional*, defaults to 32): Candidates of the last round, a power of two; `2 * best_of - 1` in
            all rounds.
        seed (`int`, *optional*, defaults to 0): Seed that those of the candidates derive from, with the prompt's
            index.
        batch_size (`int`, *optional*, defaults to 1): Candidates drawn and scored together. The images are those of
            one by one, up to rounding.
        options: Further arguments of each call, such as `num_inference_steps`, `height` or `callback_on_step_end`.

    Returns:
        `list[BestOfN]`: For each prompt, in order. Of equal scores, the first candidate's is the best.

    Raises:
        ValueError: A value is out of range, the pipeline does not take an option, or the scorer does not return a
            finite number for each image.
        TypeError: `pipeline` is no text-to-image pipeline, or `prompts` is a single text.
        NonFiniteImageError: The pipeline's numbers overflowed.
    """
    if isinstance(prompts, str):
        raise TypeError(f"`prompts` must be a list of texts, got the text {prompts!r}; put it into a list")
    named = {str(index): prompt for index, prompt in enumerate(prompts)}
    best: dict[str, Candidate] = {}
    scores: dict[str, list[float | None]] = {name: [] for name in named}
    draws = [draw for name, prompt in named.items() for draw in plan_draws(name, prompt, best_of, seed)]
    for batch in draw_candidates(pipeline, draws, scorer, batch_size=batch_size, **options):
        for candidate in batch:
            name = candidate.draw.id
            scores[name].append(candidate.score)
            best[name] = max(best.get(name, candidate), candidate, key=Candidate.rank)
    return [
        BestOfN(
            prompt=prompt,
            image=best[name].image,
            seed=best[name].draw.seed,
            seeds=tuple(draw.seed for draw in plan_draws(name, prompt, best_of, seed)),
            scores=tuple(scores[name]),
            curve=curve_of(scores[name]),
        )
        for name, prompt in named.items()
    ]


def plan_draws(name: str, prompt: str, best_of: int, seed: int) -> list[Draw]:
    """
    List the candidates for an image. Those of a longer search begin with those of a shorter one.

    Args:
        name (`str`): Id of the image; equal ids give equal noises.
        prompt (`str`): What to draw.
        best_of (`int`): Candidates of the last round, a power of two.
        seed (`int`): Seed of all images.

    Raises:
        ValueError: `best_of` is no power of two.

    Example:

    ```python
    >>> [(draw.number, draw.round) for draw in plan_draws("cup", "a cup", best_of=4, seed=0)]
    [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2)]

    ```
    """
    check_best_of(best_of)
    return [Draw(name, prompt, number, candidate_seed(seed, name, number)) for number in range(2 * best_of - 1)]


def draw_candidates(
    pipeline: Any, draws: Iterable[Draw], scorer: Scorer | None = None, *, batch_size: int = 1, **options: Any
) -> Iterator[list[Candidate]]:
    """
    Draw and score candidates, batch by batch. Each has a generator of its own, so that any batch gives the same image,
    and a search that was interrupted continues with the draws that are left.

    Args:
        pipeline, batch_size, options: See [`best_of_n`].
        draws (`Iterable[Draw]`): What to draw, in order.
        scorer (`Callable`, *optional*): See [`best_of_n`]; without one, candidates have no score.

    Yields:
        `list[Candidate]`: A batch, in the order of `draws`.

    Raises:
        ValueError, TypeError, NonFiniteImageError: See [`best_of_n`].
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    check_text_to_image(pipeline, options)
    waiting = iter(draws)
    while batch := list(islice(waiting, batch_size)):
        images, withheld = _draw(pipeline, batch, options)
        shown = [image for image, is_withheld in zip(images, withheld, strict=True) if not is_withheld]
        scores = iter(_score(scorer, shown) if scorer and shown else ())
        yield [
            Candidate(draw, image, None if is_withheld or not scorer else next(scores), is_withheld)
            for draw, image, is_withheld in zip(batch, images, withheld, strict=True)
        ]


def rank(score: float | None, number: int) -> tuple[bool, float, int]:
    """Return what the best candidate has most of: its score, if any; of equal scores, the lowest number."""
    return score is not None, score or 0.0, -number


def curve_of(scores: Sequence[float | None]) -> tuple[float | None, ...]:
    """
    Compute the best score so far after each complete round.

    Args:
        scores (`Sequence[float | None]`): Scores of candidates, in the order of their numbers.

    Example:

    ```python
    >>> curve_of([0.1, 0.4, 0.2, 0.3, 0.3, 0.9, 0.0])
    (0.1, 0.4, 0.9)

    ```
    """
    ends = ((2 << number) - 1 for number in range((len(scores) + 1).bit_length() - 1))
    return tuple(max((score for score in scores[:end] if score is not None), default=None) for end in ends)


def round_of(number: int) -> int:
    """Return the round, from 0, of the candidate of a number, from 0."""
    return (number + 1).bit_length() - 1


def candidate_seed(seed: int, name: str, number: int) -> int:
    """
    Derive the seed of a candidate's noise.

    Args:
        seed (`int`): Seed of all images.
        name (`str`): Id of the image.
        number (`int`): Number of the candidate, from 0.

    Returns:
        `int`: In [0, 2^63).
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}:{number}".encode()).digest()[:8], "big") >> 1


def check_best_of(best_of: int) -> None:
    """Raise `ValueError` unless the number of candidates of a last round is a power of two."""
    if best_of < 1 or best_of & (best_of - 1):
        raise ValueError(
            f"`best_of` must be a power of two (1, 2, 4, 8, …), the number that the last round draws, got {best_of}"
        )


def check_text_to_image(pipeline: Any, options: Iterable[str] = ()) -> None:
    """
    Check that a pipeline draws images from texts, and takes some arguments.

    Args:
        pipeline: The pipeline.
        options (`Iterable[str]`): Names of the arguments.

    Raises:
        TypeError: It does not.
        ValueError: It does not take one of the arguments, or the search sets it itself.
    """
    name, taken = type(pipeline).__name__, inspect.signature(pipeline.__call__).parameters
    lacks_one = any(argument not in taken for argument in ("prompt", "generator", "num_images_per_prompt"))
    if lacks_one or any(argument in taken for argument in _OF_OTHER_TASKS):
        raise TypeError(f"`pipeline` must draw images from `prompt` alone, as FluxPipeline does, got {name}")
    for option in options:
        if option in _OWN_ARGUMENTS:
            raise ValueError(f"`{option}` must be left to the search, which sets it for each candidate; leave it out")
        if option not in taken:
            raise ValueError(f"`{option}` must be an argument of {name}, which takes {', '.join(taken)}")


def _draw(pipeline: Any, draws: Sequence[Draw], options: dict[str, Any]) -> tuple[list[Image.Image], list[bool]]:
    """Draw a batch; return the images, and whether the safety checker withheld each."""
    output = pipeline(
        prompt=[draw.prompt for draw in draws],
        # On the CPU, so that a seed means the same noise on every device.
        generator=[torch.Generator().manual_seed(draw.seed) for draw in draws],
        num_images_per_prompt=1,
        output_type="np",
        # Some pipelines want a negative prompt for each prompt.
        **{
            name: [value] * len(draws) if name.startswith("negative_prompt") and isinstance(value, str) else value
            for name, value in options.items()
        },
    )
    for draw, pixels in zip(draws, output.images, strict=True):
        if not np.isfinite(pixels).all():
            raise NonFiniteImageError(
                f"numbers overflowed in the model: the image of seed {draw.seed} for {draw.prompt!r} is not finite, "
                f"on {pipeline.device} in {pipeline.dtype}; load the model in bfloat16 or float32"
            )
    images = [Image.fromarray((pixels * 255).round().astype(np.uint8)) for pixels in output.images]
    return images, [bool(flag) for flag in getattr(output, "nsfw_content_detected", None) or [False] * len(draws)]


def _score(scorer: Scorer, images: list[Image.Image]) -> list[float]:
    returned = scorer(images)
    try:
        scores = [float(score) for score in returned]
    except TypeError as error:
        raise ValueError(f"`scorer` must return a sequence of numbers, got {returned!r}") from error
    if len(scores) != len(images):
        raise ValueError(f"`scorer` must return a number for each of {len(images)} images, got {len(scores)} numbers")
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"`scorer` must return finite numbers, got {scores}; a NaN can be neither best nor worst")
    return scores
