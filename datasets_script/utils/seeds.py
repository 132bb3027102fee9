"""Seeds of samples, derived from the seed of a run."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, sample_id: str) -> int:
    """Derive a seed in [0, 2^63) from the run's seed and a sample's id."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()[:8], "big") >> 1
