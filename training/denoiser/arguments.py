"""Arguments that the scripts that fine-tune denoisers have in common, besides those of the loop."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from datasets_script.engine.settings import DTYPES, LoadSettings
from datasets_script.utils.errors import ArgumentError, UserError, check_at_least
from training.denoiser.guards import BANDS, Band
from training.denoiser.lora import ATTENTION, LoraSettings
from training.denoiser.rollout import SamplingSettings


NONE = "none"
_SIZE = re.compile(r"(\d+)x(\d+)")
_BAND = re.compile(r"(\w+)=([-+.\de]*):([-+.\de]*)")


@dataclass
class DenoiserArguments:
    """
    Arguments of the model that is trained and of how it draws.

    Args:
        model_name_or_path (`str`): Folder, or id on the Hub, of a FLUX.1, Stable Diffusion 3 or 3.5, SDXL, Stable
            Diffusion 1.5 or 2, or Kolors pipeline; `embedded` for the model of this package.
        model_revision (`str`, *optional*): Branch, tag or commit of the model.
        dtype (`str`, *optional*): Precision of its weights; by default bfloat16 on an accelerator, else float32.
        vae_dtype (`str`, *optional*, defaults to `"float32"`): Precision of the autoencoder.
        num_inference_steps, guidance_scale, negative_prompt, max_sequence_length, start_sigma: See
            [`~training.denoiser.rollout.SamplingSettings`].
        size (`str`): Width and height in pixels, such as `512x512`: that of images as they will be drawn.
        start_photos (`str`, *optional*): Folder of photos to start from with `start_sigma`, for models without text,
            or of which pure noise is no useful start.
        base_lora (`str`, *optional*): LoRA, such as one of DreamBooth, that stays as it is beneath the trained one.
        lora_rank, lora_alpha, lora_target_modules: See [`~training.denoiser.lora.LoraSettings`].
        gradient_checkpointing (`bool`, *optional*, defaults to `True`): Compute activations of model and autoencoder
            again for the gradient.
        prompts (`str`, *optional*): File of prompts, one a line, or JSON Lines or CSV with a column `prompt`.
        prompt_limit (`int`, *optional*): Number of prompts to use. Defaults to all.
    """

    model_name_or_path: str = field(
        default="", metadata={"help": "Folder or Hub id of a text-to-image pipeline, or embedded."}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    dtype: str | None = field(
        default=None,
        metadata={"help": "Precision of the model. Default: bfloat16 on a GPU, else float32.", "choices": [*DTYPES]},
    )
    vae_dtype: str = field(
        default="float32",
        metadata={"help": "Precision of the autoencoder.", "choices": ["float32", "bfloat16"]},
    )
    num_inference_steps: int = field(default=20, metadata={"help": "Steps of a rollout."})
    guidance_scale: float = field(default=1.0, metadata={"help": "Guidance scale; at most 1: no guidance."})
    negative_prompt: str | None = field(default=None, metadata={"help": "What guidance leads away from."})
    max_sequence_length: int | None = field(
        default=None, metadata={"help": "Number of text tokens. Default: the pipeline's."}
    )
    size: str = field(default="512x512", metadata={"help": "Width and height in pixels, as WxH."})
    start_photos: str | None = field(default=None, metadata={"help": "Folder of photos to start from."})
    start_sigma: float | None = field(
        default=None, metadata={"help": "Noise level in (0, 1] that the start photos are noised to."}
    )
    base_lora: str | None = field(
        default=None, metadata={"help": "LoRA that stays as it is beneath the trained one, such as DreamBooth's."}
    )
    lora_rank: int = field(default=16, metadata={"help": "Rank of the LoRA."})
    lora_alpha: int | None = field(default=None, metadata={"help": "Alpha of the LoRA. Default: its rank."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: list(ATTENTION), metadata={"help": "Endings of the names of the layers with a LoRA."}
    )
    gradient_checkpointing: bool = field(
        default=True, metadata={"help": "Compute activations again for the gradient, which saves memory."}
    )
    prompts: str | None = field(
        default=None, metadata={"help": "File of prompts: one a line, or JSON Lines or CSV with a column prompt."}
    )
    prompt_limit: int | None = field(default=None, metadata={"help": "Number of prompts to use. Default: all."})

    def check(self, has_own_items: bool = False) -> None:
        """
        Check the values.

        Args:
            has_own_items (`bool`, *optional*, defaults to `False`): Whether the script itself knows what is drawn, so
                that neither prompts nor start photos are taken.

        Raises:
            UserError: One is missing or out of range.
        """
        if not self.model_name_or_path:
            raise UserError("--model_name_or_path must be set, got none; give it in the recipe or on the command line")
        if not has_own_items:
            self._check_items()
        check_at_least("prompt_limit", self.prompt_limit)
        self.sampling(), self.lora()

    def _check_items(self) -> None:
        if (self.start_photos is None) != (self.start_sigma is None):
            raise UserError("--start_photos and --start_sigma must be given together, got one of them")
        if self.prompts is None and self.start_photos is None:
            raise UserError("--prompts must be given, a file with a prompt on each line, got none")
        if self.prompts is not None and self.start_photos is not None:
            raise UserError("--prompts must be left out with --start_photos, which bring their own, got both")

    def sampling(self) -> SamplingSettings:
        """Return how images are drawn."""
        match = _SIZE.fullmatch(self.size)
        if match is None:
            raise UserError(f"--size must be width and height in pixels, such as 512x512, got '{self.size}'")
        return SamplingSettings(
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            height=int(match[2]),
            width=int(match[1]),
            negative_prompt=self.negative_prompt,
            max_sequence_length=self.max_sequence_length,
            start_sigma=self.start_sigma,
        )

    def lora(self) -> LoraSettings:
        """Return the form of the LoRA."""
        return LoraSettings(self.lora_rank, self.lora_alpha, tuple(self.lora_target_modules))

    def loading(self) -> LoadSettings:
        """Return how the model is loaded."""
        return LoadSettings(dtype=self.dtype)  # type: ignore[arg-type]


@dataclass
class GuardArguments:
    """
    Arguments of the guards.

    Args:
        guard_detector (`list[str]`): Pixel detectors that are never trained against, of another trunk and other data;
            folders, ids on the Hub, or `embedded`; or `none`.
        real_images (`str`): Folder of real images like those that the model was trained on, for its own loss on them,
            with their texts in `metadata.jsonl` (columns `file_name`, and `prompt` or `text`) if there are any; or
            `none`.
        real_limit (`int`, *optional*, defaults to 256): Number of real images to use.
        guard_images (`int`, *optional*, defaults to 16): Number of them that only guard, and are not trained on.
        pickscore (`str`, *optional*): Folder, or id on the Hub, of PickScore.
        guard_bands (`list[str]`, *optional*): Bands in place of the usual ones, as `NAME=LOW:HIGH`, relative to the
            value before training: `sharpness=-0.05:0.05`, `denoising_loss=:0.01`.
        held_out (`int`, *optional*, defaults to 8): Number of prompts, or start photos, that pictures are drawn of and
            that are not trained on.
        pictures_per_prompt (`int`, *optional*, defaults to 2): Pictures of each; diversity needs at least 2.
        picture_batch_size (`int`, *optional*, defaults to 4): Pictures drawn at a time.
    """

    guard_detector: list[str] = field(
        default_factory=list,
        metadata={"help": "Pixel detectors that are never trained against: folders, Hub ids or embedded; or none."},
    )
    real_images: str = field(
        default="", metadata={"help": "Folder of real images for the model's own loss on them; or none."}
    )
    real_limit: int = field(default=256, metadata={"help": "Number of real images to use."})
    guard_images: int = field(default=16, metadata={"help": "Number of them that guard and are not trained on."})
    pickscore: str | None = field(default=None, metadata={"help": "Folder or Hub id of PickScore."})
    guard_bands: list[str] = field(
        default_factory=list,
        metadata={"help": f"Bands in place of the usual ones: NAME=LOW:HIGH, of {', '.join(BANDS)}."},
    )
    held_out: int = field(default=8, metadata={"help": "Number of prompts that are held out for pictures."})
    pictures_per_prompt: int = field(default=2, metadata={"help": "Number of pictures of each of them."})
    picture_batch_size: int = field(default=4, metadata={"help": "Number of pictures drawn at a time."})

    def check(self) -> None:
        """
        Check the values.

        Raises:
            UserError: One is missing or out of range.
        """
        if not self.guard_detector:
            raise UserError(
                "--guard_detector must name a pixel detector that is never trained against, got none; a detector that "
                "is trained against is silenced and can judge nothing. Give 'none' to train without"
            )
        if not self.real_images:
            raise UserError(
                "--real_images must name a folder of real images, by which the model's own loss tells when images "
                "fall apart, got none. Give 'none' to train without"
            )
        for name in ("real_limit", "guard_images", "held_out", "pictures_per_prompt", "picture_batch_size"):
            check_at_least(name, getattr(self, name))
        self.bands()

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors."""
        return [name for name in self.guard_detector if name != NONE]

    @property
    def has_real_images(self) -> bool:
        return self.real_images != NONE

    def bands(self, usual: Mapping[str, Band] = BANDS) -> Mapping[str, Band]:
        """Return the bands of the guards: those that are given in place of the `usual` ones."""
        return {**usual, **_parsed(self.guard_bands)}


def _parsed(texts: Sequence[str]) -> dict[str, Band]:
    bands = {}
    for text in texts:
        match = _BAND.fullmatch(text)
        if match is None or match[1] not in BANDS:
            raise UserError(f"--guard_bands must be NAME=LOW:HIGH with a name of {', '.join(BANDS)}, got '{text}'")
        try:
            low, high = (float(end) if end else None for end in match.groups()[1:])
        except ValueError as error:
            raise ArgumentError(f"--guard_bands must hold numbers, got '{text}'") from error
        bands[match[1]] = replace(BANDS[match[1]], low=low, high=high)
    return bands
