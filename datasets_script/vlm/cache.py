"""Cache of answers on disk, so that repeated and continued runs do not pay twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from PIL import Image

from ..utils.files import write_json
from .base import VLM, VLMAnswer, VLMRequest


if TYPE_CHECKING:
    from torch import nn


def default_cache_folder() -> Path:
    """Return `$ARTIAGENT_CACHE/vlm`, where the variable defaults to `~/.cache/artiagent`."""
    return Path(os.environ.get("ARTIAGENT_CACHE") or Path.home() / ".cache" / "artiagent") / "vlm"


class CachedVLM(VLM):
    """
    A model with a cache of its usable answers. The key is made of the model's identity, the task, the prompt and its
    version, the schema, the maximum length, and the pixels of the images.

    Args:
        vlm (`VLM`): Model that answers requests which are not cached.
        folder (`Path`): Folder of answers, which several processes may share.
    """

    def __init__(self, vlm: VLM, folder: Path) -> None:
        super().__init__(vlm.model, vlm.revision)
        self.vlm, self.folder, self.usage = vlm, folder, vlm.usage

    @property
    def coordinates(self) -> str:
        return self.vlm.coordinates

    @property
    def pixel_bounds(self) -> tuple[int, int]:
        return self.vlm.pixel_bounds

    @property
    def is_remote(self) -> bool:
        return self.vlm.is_remote

    def cancel(self) -> None:
        self.vlm.cancel()

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.vlm.networks

    def identity(self) -> dict[str, Any]:
        return self.vlm.identity()

    def ask(self, requests: Sequence[VLMRequest]) -> list[VLMAnswer]:
        keys = [self._key(request) for request in requests]
        questions = dict(zip(keys, requests, strict=True))
        stored = {key: self._read(key, request) for key, request in questions.items()}
        known = {key: answer for key, answer in stored.items() if answer is not None}
        self.usage.add(cache_hits=sum(key in known for key in keys))
        unknown = {key: request for key, request in questions.items() if key not in known}
        for key, answer in zip(unknown, self.vlm.ask(list(unknown.values())), strict=True):
            known[key] = answer
            if not answer.error:
                write_json(self._path(key), asdict(answer), shared=True)
        return [known[key] for key in keys]

    def _key(self, request: VLMRequest) -> str:
        parts = [self.identity(), request.task, request.version, request.prompt, request.max_new_tokens]
        content = json.dumps([*parts, request.schema, [_hash(image) for image in request.images]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _read(self, key: str, request: VLMRequest) -> VLMAnswer | None:
        try:
            answer = VLMAnswer(**json.loads(self._path(key).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # missing or incomplete: ask again
            return None
        if request.schema is None:
            return answer if answer.value is None and not answer.error and isinstance(answer.raw, str) else None
        return answer if Draft202012Validator(request.schema).is_valid(answer.value) else None


def _hash(image: Image.Image) -> str:
    return hashlib.sha256(repr(image.size).encode() + image.convert("RGB").tobytes()).hexdigest()
