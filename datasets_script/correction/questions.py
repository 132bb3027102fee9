"""Questions of a correction: is there still an artifact in a box, and what should the scene be (ArtiAgent, Alg. 6)."""

from __future__ import annotations

from PIL import Image

from ..vlm.base import VLMRequest


VERSION = "1"

_VERIFY = """\
Task: verify.
Look only at the region {box} of this image. {meaning}
Does that region show a visual artifact: a thing or part that is duplicated, missing, deformed, fused or otherwise
impossible, or an edit that does not fit what is around it?
Answer with one word: Yes or No."""

_CAPTION = """\
Task: caption.
The region {box} of this image is drawn wrongly{label}. {meaning}
Describe the whole scene as it would be without that flaw, in one phrase of eight to twenty-five words: what is there,
how many, where, and how the region should look. Do not mention the flaw, artifacts or the image itself.
Answer with JSON only: {{"caption": "..."}}"""

CAPTION_SCHEMA = {
    "type": "object",
    "properties": {"caption": {"type": "string", "minLength": 1, "maxLength": 400}},
    "required": ["caption"],
    "additionalProperties": False,
}


def verify_request(image: Image.Image, box: str, meaning: str) -> VLMRequest:
    """
    Ask whether there is an artifact in a box.

    Args:
        image (`PIL.Image.Image`): The image.
        box (`str`): The box as the model writes boxes.
        meaning (`str`): What its values are, in words.
    """
    return VLMRequest("verify_region", VERSION, _VERIFY.format(box=box, meaning=_meant(meaning)), (image,), None, 64)


def caption_request(image: Image.Image, box: str, meaning: str, label: str) -> VLMRequest:
    """Ask for a caption of the scene as it should be; `label` says what is wrong, if that is known."""
    told = f" ({label})" if label else ""
    prompt = _CAPTION.format(box=box, meaning=_meant(meaning), label=told)
    return VLMRequest("caption_as_it_should_be", VERSION, prompt, (image,), CAPTION_SCHEMA, 160)


def _meant(meaning: str) -> str:
    return f"The numbers are {meaning.rstrip('.')}."
