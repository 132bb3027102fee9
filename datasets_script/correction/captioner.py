"""The caption that a repair is drawn by: the scene as it should be."""

from __future__ import annotations

from typing import Any

from PIL import Image

from ..vlm.base import VLM
from ..vlm.conventions import BoxFormat
from .questions import caption_request
from .regions import Region


class VLMCaptioner:
    """
    A vision-language model that describes the scene as it would be without the flaw (ArtiAgent, Alg. 6).

    Args:
        vlm (`VLM`): The model.
        form (`BoxFormat`): How it reads boxes.
    """

    def __init__(self, vlm: VLM, form: BoxFormat) -> None:
        self.vlm, self.form = vlm, form

    def __call__(self, image: Image.Image, region: Region) -> tuple[str, str]:
        """
        Describe the scene.

        Args:
            image (`PIL.Image.Image`): The image with the flaw.
            region (`Region`): Where the flaw is.

        Returns:
            `tuple[str, str]`: The caption, and why there is none; one of both is empty.
        """
        box, meaning = self.form(region.box, image.size), self.form.convention.meaning
        (answer,) = self.vlm.ask([caption_request(image, box, meaning, region.label)])
        if answer.value is None:
            return "", f"no caption: {answer.error}"
        return " ".join(answer.value["caption"].split()), ""

    def identity(self) -> dict[str, Any]:
        """Return everything that captions depend on."""
        return {**self.vlm.identity(), **self.form.record()}
