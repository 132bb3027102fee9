"""Repairs by an image-editing model behind an OpenAI-compatible server (`/v1/images/edits`)."""

from __future__ import annotations

import base64
import binascii
import io
import json
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx2
import numpy as np
from huggingface_hub import constants
from PIL import Image

from ..utils.errors import StoppedError
from ..vlm.answers import shorten
from ..vlm.endpoint import api_key, endpoint_url, error_in, retry_after


_SIDE, _MULTIPLE = 1024, 16
_MAX_BYTES = 100_000_000
_RETRIED = (408, 429)
_REFUSED_KEY = (401, 403)
_CHECK = "check the URL, the name of the model, and that it edits images with a mask"
_MAX_PAUSE = 60.0
_PROMPT = (
    "Redraw only the masked region, so that it is free of visual artifacts and fits everything around it. Keep all "
    "else as it is."
)


class EditUnavailable(StoppedError):
    """The editing endpoint gave no picture. Finished rounds are kept, and the same command continues."""


class EndpointInpainter:
    """
    Inpainter on a server. The picture is sent as PNG with a mask whose transparent pixels are to be drawn anew; a
    picture of another size that comes back is resized. Status 408, 429, 5xx, timeouts and broken connections are
    retried after growing pauses. The API key is that of [`~datasets_script.vlm.EndpointVLM`].

    Servers take no strength and no seed: equal requests may give other pictures.

    Args:
        model (`str`): Name of a model on the server.
        base_url (`str`): URL of the server, e.g. `"https://api.openai.com/v1"`.
        timeout (`float`, *optional*, defaults to 300.0): Maximum duration of an answer in seconds.
        max_retries (`int`, *optional*, defaults to 6): Maximum number of retries of a request.
        base_delay (`float`, *optional*, defaults to 1.0): Maximum first pause in seconds; it doubles each time.

    Attributes:
        requests (`int`): Requests that were answered.
        side, multiple, cell, takes_prompts, evaluations: See [`~diffusers_artifact.repair.Inpainter`].
    """

    side, multiple, cell = _SIDE, _MULTIPLE, 1
    takes_prompts = True
    evaluations = 0.0

    def __init__(
        self, model: str, base_url: str, timeout: float = 300.0, max_retries: int = 6, base_delay: float = 1.0
    ) -> None:
        self.model, self.base_url, self.timeout = model, base_url, timeout
        self.max_retries, self.base_delay = max_retries, base_delay
        self.requests = 0
        self._jitter = random.Random(0)

    def __call__(
        self, image: Image.Image, mask: np.ndarray, prompt: str, strength: float, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """
        Repair a region; see [`~diffusers_artifact.repair.Inpainter`].

        Raises:
            EditUnavailable: The server refuses the request, or gives no picture in all attempts.
        """
        if constants.is_offline_mode():
            raise EditUnavailable(
                f"{self.base_url} must not be called while HF_HUB_OFFLINE is set; unset it. Finished rounds are kept"
            )
        opaque = Image.fromarray(np.where(mask, 0, 255).astype(np.uint8))
        masked = image.convert("RGBA")
        masked.putalpha(opaque)
        files = {
            "image": ("image.png", _png(image), "image/png"),
            "mask": ("mask.png", _png(masked), "image/png"),
        }
        fields = {"model": self.model, "prompt": f"{prompt}. {_PROMPT}" if prompt else _PROMPT, "n": "1"}
        return [self._edited(files, fields, image.size) for _ in seeds]

    def identity(self) -> dict[str, Any]:
        """Return what a run records of the server."""
        return {"inpainter": "image edits", "endpoint": True}

    def _edited(self, files: dict[str, Any], fields: dict[str, str], size: tuple[int, int]) -> Image.Image:
        key = api_key(self.base_url)
        headers = {"Authorization": f"Bearer {key or 'none'}"}
        problem = ""
        for attempt in range(self.max_retries + 1):
            pause = 0.0
            try:
                with httpx2.Client(headers=headers, timeout=self.timeout, follow_redirects=True) as client:
                    response = client.post(endpoint_url(self.base_url, "/images/edits"), data=fields, files=files)
            except httpx2.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                content = response.content[:_MAX_BYTES]
                told = error_in(content) if response.is_success else None
                status = response.status_code if told is None else told[0]
                if response.is_success and told is None:
                    self.requests += 1
                    return self._read(content, size)
                words = content.decode(errors="replace") if told is None else told[1]
                problem = f"HTTP {status}: {shorten(words.replace(key, '[key]') if key else words)}"
                if status not in _RETRIED and status < 500:
                    todo = "set ARTIAGENT_API_KEY to a key it accepts" if status in _REFUSED_KEY else _CHECK
                    raise EditUnavailable(
                        f"{self.base_url} refuses the request: {problem}; {todo}. Finished rounds are kept"
                    )
                pause = retry_after(response.headers.get("Retry-After", ""))
            if attempt < self.max_retries:
                growing = min(_MAX_PAUSE, self.base_delay * 2**attempt) * self._jitter.uniform(0.5, 1.0)
                time.sleep(max(pause, growing))
        raise EditUnavailable(
            f"{self.base_url} gave no picture in {self.max_retries + 1} attempts, the last time: {problem}. Once it "
            "is available again, the same command continues. Finished rounds are kept"
        )

    def _read(self, content: bytes, size: tuple[int, int]) -> Image.Image:
        try:
            encoded = json.loads(content)["data"][0]["b64_json"]
            picture = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))).convert("RGB")
        except (ValueError, TypeError, KeyError, IndexError, binascii.Error, OSError) as error:
            told = shorten(content.decode(errors="replace"))
            raise EditUnavailable(
                f"{self.base_url} must answer with a picture in `data[0].b64_json`, got {told} ({error!r}); "
                f"{_CHECK}. Finished rounds are kept"
            ) from error
        return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
