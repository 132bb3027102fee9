"""The code that READMEs and notebooks show to their readers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .paths import ROOT


GUIDES = (
    "README.md",
    *(
        f"{package}/README.md"
        for package in ("diffusers_artifact", "datasets_script", "evaluate_metrics", "training", "hub_cards")
    ),
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """
    A fenced block of a guide.

    Attributes:
        guide (`str`): Path of the file, from the root of the checkout.
        line (`int`): Where its code begins.
        language (`str`): What stands behind the fence, which may be nothing.
        code (`str`): What stands between the fences.
    """

    guide: str
    line: int
    language: str
    code: str

    @property
    def is_session(self) -> bool:
        """Tell whether it is an interactive session, with what Python prints."""
        return self.code.startswith(">>>")


def blocks(guide: str, language: str) -> list[Block]:
    """Return a guide's blocks of a language, in their order."""
    text = (ROOT / guide).read_text(encoding="utf-8")
    return [
        Block(guide, text[: match.start(2)].count("\n") + 1, match[1], match[2])
        for match in _BLOCK.finditer(text)
        if match[1] == language
    ]


def read_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook as nbformat 4 stores it, the source of each cell as one text."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook
