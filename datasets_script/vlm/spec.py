"""A vision-language model by name and options, before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.errors import UserError, check_at_least


if TYPE_CHECKING:
    from .base import VLM
    from .local import Quantization


@dataclass(frozen=True)
class VLMSpec:
    """
    A vision-language model by name and options, not loaded yet.

    Args:
        model (`str`): A Hub id or a folder to run on this machine, or the model's name at `endpoint`.
        endpoint (`str`, *optional*): URL of an OpenAI-compatible server, e.g. `"http://localhost:8000/v1"`.
        revision (`str`, *optional*): Branch, tag or commit of a Hub model.
        device (`str`, *optional*): Device of a local model; by default the run's.
        quantization (`str`, *optional*): `"4bit"` or `"8bit"` for a local model, with bitsandbytes.
        batch_size (`int`, *optional*, defaults to 4): Questions to a local model at once.
        concurrency (`int`, *optional*, defaults to 8): Requests to an endpoint at once.
        timeout (`float`, *optional*, defaults to 120.0): Maximum duration of an endpoint's answer in seconds.
        cache (`pathlib.Path`, *optional*): Folder of cached answers; by default in the user's cache.

    Raises:
        UserError: `endpoint` is not a URL, or a number is below 1.
    """

    model: str
    endpoint: str | None = None
    revision: str | None = None
    device: str | None = None
    quantization: Quantization | None = None
    batch_size: int = 4
    concurrency: int = 8
    timeout: float = 120.0
    cache: Path | None = None

    def __post_init__(self) -> None:
        # Checked here, because the client would only fail at each question.
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise UserError(f"the endpoint must begin with http:// or https://, got '{self.endpoint}'")
        check_at_least("batch_size", self.batch_size)
        check_at_least("concurrency", self.concurrency)

    def load(self, device: str | None = None) -> VLM:
        """
        Load the model, or connect to its endpoint.

        Args:
            device (`str`, *optional*): Device of a local model without a device of its own.

        Returns:
            `VLM`: The model, behind a cache of its answers.

        Raises:
            VLMUnavailable: The model cannot be loaded.
        """
        from .cache import CachedVLM, default_cache_folder
        from .endpoint import EndpointVLM
        from .local import LocalVLM

        vlm: VLM
        if self.endpoint:
            vlm = EndpointVLM(
                self.model, base_url=self.endpoint, max_concurrency=self.concurrency, timeout=self.timeout
            )
        else:
            vlm = LocalVLM(
                self.model,
                revision=self.revision,
                device=self.device or device,
                quantization=self.quantization,
                batch_size=self.batch_size,
            )
        return CachedVLM(vlm, self.cache or default_cache_folder())
