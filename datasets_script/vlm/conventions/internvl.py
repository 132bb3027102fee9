"""InternVL: thousandths of width and height, in tags."""

from __future__ import annotations

from collections.abc import Sequence

from .base import BoxConvention


class InternVL(BoxConvention):
    """Thousandths of width and height, as `<box>[[x, y, x, y]]</box>` (InternVL's documentation)."""

    name = "internvl"
    meaning = "thousandths of width and height, within <box> tags"
    question = (
        "Answer with a line for each region: <ref>what is wrong there</ref><box>[[x_min, y_min, x_max, y_max]]</box>. "
        "Coordinates are whole numbers from 0 to 1000, relative to the image's width and height."
    )
    families = ("internvl",)

    def write_box(self, values: str) -> str:
        return f"<box>[[{values}]]</box>"

    def write_regions(self, regions: Sequence[tuple[str, str]]) -> str:
        return "\n".join(f"<ref>{label}</ref>{box}" for box, label in regions)
