"""Cache of attention values, from the inversion until denoising, on the model's device or in host memory."""

from __future__ import annotations

import torch

from .choices import CacheDevice


CacheKey = tuple[int, int, str, str]
"""Denoising step, block index, name of the attention within the block, guidance branch (`"cond"` or `"uncond"`)."""


class ValueCache:
    r"""
    Attention values by evaluation and attention.

    With `device="cpu"` and a model on CUDA, values are copied through pinned memory on a separate stream: to the host
    while the inversion continues, and back one attention before they are read.

    Args:
        device (`str`, *optional*, defaults to `"model"`): `"model"` keeps values on the model's device, `"cpu"` in
            host memory.
    """

    def __init__(self, device: CacheDevice = "model"):
        self._to_host = device == "cpu"
        self._values: dict[CacheKey, torch.Tensor] = {}
        self._ahead: tuple[CacheKey, torch.Tensor] | None = None
        self._following: dict[CacheKey, CacheKey] = {}
        self._stream: torch.cuda.Stream | None = None

    @property
    def num_bytes(self) -> int:
        """Memory that the values take, in bytes, on either device."""
        return sum(value.numel() * value.element_size() for value in self._values.values())

    def store(self, key: CacheKey, value: torch.Tensor) -> None:
        """Store `value`, of any shape, under `key`."""
        if self._to_host:
            value = self._send(value) if value.is_cuda else value.cpu()
        self._values[key] = value

    def load(self, key: CacheKey, device: torch.device) -> torch.Tensor:
        """
        Return the value stored under `key`, on `device`.

        Raises:
            KeyError: No value is stored under `key`.
        """
        if self._values[key].device == device or device.type != "cuda":
            return self._values[key].to(device)
        if self._ahead is None or self._ahead[0] != key:
            self._ahead = (key, self._fetch(key, device))
        value = self._ahead[1]
        stream = torch.cuda.current_stream(device)
        if self._stream is not None:
            stream.wait_stream(self._stream)
        value.record_stream(stream)
        self._ahead = None
        # Only one attention ahead of the model, or the copies of many would fill its memory at once.
        self._copy_stream(device).wait_stream(stream)
        if (following := self._next(key)) is not None:
            self._ahead = (following, self._fetch(following, device))
        return value

    def _next(self, key: CacheKey) -> CacheKey | None:
        """Return the key that is read after `key`: denoising goes through steps, then branches, then blocks."""
        if len(self._following) < len(self._values) - 1:
            order = sorted(self._values, key=lambda k: (k[0], k[3], k[1], k[2]))
            self._following = dict(zip(order, order[1:], strict=False))
        return self._following.get(key)

    def _send(self, value: torch.Tensor) -> torch.Tensor:
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        stream = self._copy_stream(value.device)
        stream.wait_stream(torch.cuda.current_stream(value.device))
        with torch.cuda.stream(stream):
            host.copy_(value, non_blocking=True)
        value.record_stream(stream)  # its memory must not be reused before the copy is done
        return host

    def _fetch(self, key: CacheKey, device: torch.device) -> torch.Tensor:
        # On the stream that sent it, so that the value has reached host memory before it is fetched.
        with torch.cuda.stream(self._copy_stream(device)):
            return self._values[key].to(device, non_blocking=True)

    def _copy_stream(self, device: torch.device) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        return self._stream
