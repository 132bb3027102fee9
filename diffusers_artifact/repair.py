"""
Repair of regions of images: a region is inpainted so that everything else stays the image's, to the bit.

```python
import numpy as np
from PIL import Image
from diffusers_artifact import EMBEDDED_MODEL, ArtifactInjectionPipeline, DenoisingInpainter, RegionRepairer

repair = RegionRepairer(DenoisingInpainter(ArtifactInjectionPipeline.from_pretrained(EMBEDDED_MODEL)))
image = Image.open("portrait.png")
mask = np.zeros((image.height, image.width), dtype=bool)
mask[96:144, 80:128] = True
repair(image, mask, seeds=[0, 1]).images[0].save("repaired.png")
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from .repair_denoising import DenoisingInpainter
from .repair_inpainting import StockInpainter, find_recipe
from .repair_regions import FADE, Window, box_of, composite, grown_to_cells, window_around


class Inpainter(Protocol):
    """
    A model that draws a region of a picture anew, such as [`StockInpainter`] and [`DenoisingInpainter`].

    Attributes:
        side, multiple, cell (`int`): Side in pixels of pictures that it draws, pixels of which their sides are
            multiples, and side of the smallest square that it can repair.
        takes_prompts (`bool`): Whether it can be told what to draw.
        evaluations (`float`): Pictures that went through its network so far, 0 if that is not known.
    """

    side: int
    multiple: int
    cell: int
    takes_prompts: bool
    evaluations: float

    def __call__(
        self, image: Image.Image, mask: np.ndarray, prompt: str, strength: float, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """
        Repair a region.

        Args:
            image (`PIL.Image.Image`): RGB, with sides that are multiples of `multiple`.
            mask (`np.ndarray` of shape `(height, width)`, `bool`): The region, of whole cells.
            prompt (`str`): The scene as it should be; empty if that is not known.
            strength (`float`): From above 0, little change, to 1, nothing of the region is kept.
            seeds (`Sequence[int]`): Seeds of repairs that differ.

        Returns:
            `list[PIL.Image.Image]`: A picture of the same size for each seed. Outside the region, it may differ.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return what its repairs depend on besides the model, JSON-serialisable."""
        ...


@dataclass(frozen=True, eq=False)
class Repair:
    """
    Repairs of a region.

    Attributes:
        images (`list[PIL.Image.Image]`): RGB, of the image's size, one for each seed.
        mask (`np.ndarray` of shape `(height, width)`, `bool`): What was repaired: the region, grown to whole cells.
            All other pixels are the image's.
        window (`Window`): What the model saw.
    """

    images: list[Image.Image]
    mask: np.ndarray
    window: Window


class RegionRepairer:
    """
    Repairer of regions of images of any size, with a model that draws pictures of its own size.

    The model sees a window around the region, enlarged if the region is small, and its picture is put back so that
    pixels outside the repaired region are the image's, to the bit.

    Args:
        inpainter (`Inpainter`): The model.
        crops (`bool`, *optional*, defaults to `True`): Cut out small regions with what is around them. `False`: the
            model always sees the whole image, for models that know only whole scenes.
    """

    def __init__(self, inpainter: Inpainter, crops: bool = True) -> None:
        self.inpainter, self.crops = inpainter, crops

    def __call__(
        self,
        image: Image.Image,
        mask: np.ndarray,
        prompt: str = "",
        strength: float = 1.0,
        seeds: Sequence[int] = (0,),
        margin: int | None = None,
    ) -> Repair:
        """
        Repair a region.

        Args:
            image (`PIL.Image.Image`): The image, RGB.
            mask (`np.ndarray` of shape `(height, width)`, `bool`): The region.
            prompt (`str`, *optional*, defaults to `""`): The scene as it should be. Models that take no prompt do not
                see it.
            strength (`float`, *optional*, defaults to 1.0): From above 0 to 1; see [`Inpainter`].
            seeds (`Sequence[int]`, *optional*, defaults to `(0,)`): Seeds of repairs that differ.
            margin (`int`, *optional*): Pixels by which the region is grown first; by default 1/32 of the window, at
                least `FADE`.

        Returns:
            `Repair`: The repairs, with the mask of what was repaired.

        Raises:
            ValueError: An argument is not as described.
        """
        if mask.shape != (image.height, image.width) or mask.dtype != bool:
            raise ValueError(
                f"`mask` must be a bool array of shape {(image.height, image.width)}, the image's, got {mask.dtype} "
                f"of shape {mask.shape}"
            )
        box_of(mask)  # refuses an empty one
        if not 0 < strength <= 1:
            raise ValueError(f"`strength` must be above 0 and at most 1, got {strength}")
        if not seeds:
            raise ValueError("`seeds` must hold at least one seed, got none")
        model = self.inpainter
        window = self._window(mask)
        if margin is None:
            margin = max(FADE, (window.box[2] - window.box[0]) // 32)
        grown = grown_to_cells(mask, 1, margin)
        window = self._window(grown)
        # Cells are the model's: the region is grown to them in its picture, and back to whole pixels of the image.
        cells = grown_to_cells(window.cut_mask(grown), model.cell)
        inside = np.zeros_like(mask)
        left, top, right, bottom = window.box
        back = Image.fromarray(cells.astype(np.uint8) * 255).resize(
            (right - left, bottom - top), Image.Resampling.NEAREST
        )
        inside[top:bottom, left:right] = np.asarray(back) > 0
        pictures = model(window.cut(image), cells, prompt if model.takes_prompts else "", strength, seeds)
        images = [composite(image, window.paste(picture, image), inside) for picture in pictures]
        return Repair(images, inside, window)

    def _window(self, mask: np.ndarray) -> Window:
        shown = mask if self.crops else np.ones_like(mask)
        return window_around(shown, self.inpainter.side, self.inpainter.multiple)


def find_inpainter(
    pipeline: Any,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    few_steps: bool = False,
) -> StockInpainter | DenoisingInpainter:
    """
    Return the inpainter of a pipeline: by its inpainting class where diffusers has one, else by re-denoising.

    Args:
        pipeline (`~diffusers.DiffusionPipeline`): A stock pipeline or an [`ArtifactInjectionPipeline`].
        num_inference_steps (`int`, *optional*): Steps; by default the inpainter's.
        guidance_scale (`float`, *optional*): Guidance scale; by default the inpainter's.
        few_steps (`bool`, *optional*, defaults to `False`): Whether the model was distilled to few steps.

    Raises:
        ValueError: The model can neither inpaint nor be inverted.
    """
    if find_recipe(pipeline) is not None:
        return StockInpainter(pipeline, num_inference_steps, guidance_scale, few_steps)
    return DenoisingInpainter(
        pipeline,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        allow_distilled=few_steps,
    )
