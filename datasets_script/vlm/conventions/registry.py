"""List of the box conventions, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .base import BoxConvention
from .internvl import InternVL
from .llava import Llava
from .normalized import Normalized
from .pixel import Pixel
from .qwen2_5 import Qwen2_5
from .qwen3 import Qwen3


# A new family is a file beside this one and a line here. If a model's name fits two, the first counts.
_REGISTERED: tuple[type[BoxConvention], ...] = (
    Pixel,
    Normalized,
    Qwen2_5,
    Qwen3,
    InternVL,
    Llava,
)
_BY_NAME: Mapping[str, BoxConvention] = {kind.name: kind() for kind in _REGISTERED}

CONVENTIONS: tuple[str, ...] = tuple(_BY_NAME)


def find_convention(name: str) -> BoxConvention:
    """
    Return a convention by its name.

    Args:
        name (`str`): One of `CONVENTIONS`.

    Raises:
        ValueError: There is no such convention.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"`convention` must be one of {', '.join(CONVENTIONS)}, got {name!r}")
    return _BY_NAME[name]


def convention_for(*names: str) -> str:
    """
    Return the name of the convention that a model's family is trained on.

    Args:
        names (`str`): Names that may tell the family: a `model_type` of transformers, an id on the Hub. The first that
            does counts.

    Returns:
        `str`: One of `CONVENTIONS`; `"normalized"` if no name tells the family.

    Example:

    ```python
    >>> convention_for("OpenGVLab/InternVL3_5-8B-HF"), convention_for("idefics3", "mine")
    ('internvl', 'normalized')

    ```

    """
    for name in names:
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        for convention in _BY_NAME.values():
            if any(family in plain for family in convention.families):
                return convention.name
    return Normalized.name
