"""
List of the perception backends. A new backend is a file in this folder, with a function `load`, and a line in
`BACKENDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...utils.errors import ArgumentError, check_choice


if TYPE_CHECKING:
    from ...vlm.base import VLM
    from .base import PerceptionAgent


MAX_LONG_SIDE = 1024
"""Long side in pixels that photos are reduced to by default before a VLM or a detector sees them."""

_NO_ANNOTATIONS = """\
No annotations for '{source}'. Describe the photos in a COCO-format file: pass it as `annotations`, or put it into the
folder as annotations.json. COCO, PACO and PartImageNet files work as they are. In your own file, give every entity
(person, cat, car) a polygon or RLE mask, and every part (hand, ear, wheel) another with "parent_id", the id of its
entity. `artiagent demo` writes an example, runs/demo/photos/annotations.json.
To go without annotations, `perception` people finds people by itself, and `perception` grounded-sam finds whatever a
VLM names."""


@dataclass(frozen=True)
class Backend:
    """
    Entry of a perception backend in the list.

    Args:
        module (`str`): The file in this folder. Its function `load(spec, source, vlm, device)` takes a
            [`PerceptionSpec`], the folder of photos, the vision-language model or `None`, and the default device, and
            returns a [`PerceptionAgent`].
        help (`str`): What it finds, in a line.
        needs_vlm (`bool`, *optional*, defaults to `False`): Whether a vision-language model names what is in a photo.
        has_checkpoints (`bool`, *optional*, defaults to `False`): Whether it loads models that can be chosen. The file
            then also has a function `checkpoints(spec)`, which returns their names by argument.
        needs_annotations (`bool`, *optional*, defaults to `False`): Whether it reads a COCO-format file.
        unnamed (`bool`, *optional*, defaults to `False`): Whether it finds regions without names, which can be
            corrupted, but are no parts that a tool could work on.
    """

    module: str
    help: str
    needs_vlm: bool = False
    has_checkpoints: bool = False
    needs_annotations: bool = False
    unnamed: bool = False


BACKENDS = {
    "annotations": Backend("annotations", "a COCO-format file", needs_annotations=True),
    "people": Backend("people", "persons and their parts, offline on a CPU"),
    "grounded-sam": Backend(
        "grounded", "names from a VLM, Grounding DINO and SAM", needs_vlm=True, has_checkpoints=True
    ),
    "sam3": Backend("sam3", "names from a VLM, SAM 3", needs_vlm=True, has_checkpoints=True),
    "random": Backend("random_regions", "blobs at random places", unnamed=True),
    "detector": Backend(
        "detected_regions", "what a pixel detector takes for artifacts", has_checkpoints=True, unnamed=True
    ),
}
NAMED = tuple(name for name, backend in BACKENDS.items() if not backend.unnamed)
"""Backends that find things with names, which tools can work on."""


@dataclass(frozen=True)
class RegionOptions:
    """
    Options of the backends that find regions without names.

    Args:
        shares (`tuple[float, float]`, *optional*, defaults to `(0.01, 0.06)`): Least and greatest share of the photo
            that a random region covers, in (0, 1).
        threshold (`float`, *optional*): Value of a detector's map, in (0, 1), from which it is part of a region; by
            default the detector's own.
        min_share (`float`, *optional*, defaults to 0.005): Least share of the photo that a detected region covers.
        seed (`int`, *optional*, defaults to 0): Seed of random regions. A run takes its own.

    Raises:
        ArgumentError: A share or the threshold is out of range.
    """

    shares: tuple[float, float] = (0.01, 0.06)
    threshold: float | None = None
    min_share: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.shares) != 2 or not 0 < self.shares[0] <= self.shares[1] < 1:
            shown = ",".join(f"{share:g}" for share in self.shares)
            raise ArgumentError(f"`region_shares` must be two rising numbers between 0 and 1, got {shown}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ArgumentError(f"`threshold` must lie between 0 and 1, got {self.threshold:g}")
        if not 0 <= self.min_share < 1:
            raise ArgumentError(f"`min_region_share` must be at least 0 and below 1, got {self.min_share:g}")


REGIONS = ("annotations", "perception", "detector", "random")
"""Where the regions to corrupt come from."""

# Regions that take an option.
_TAKE = {
    "perception": ("perception",),
    "annotations": ("annotations",),
    "detector": ("perception", "detector"),
    "segmenter": ("perception",),
    "region_shares": ("random",),
    "threshold": ("detector",),
    "min_region_share": ("detector",),
}


@dataclass(frozen=True)
class PerceptionSpec:
    """
    A perception backend with its options, not loaded yet.

    Args:
        name (`str`, *optional*, defaults to `"people"`): One of `BACKENDS`.
        annotations (`pathlib.Path`, *optional*): COCO-format file for `"annotations"`; by default `annotations.json`
            in the folder of photos.
        detector (`str`, *optional*): Detection model of `"grounded-sam"`, or pixel detector of `"detector"`, a folder
            or Hub id.
        segmenter (`str`, *optional*): SAM or SAM 2 model of `"grounded-sam"`, or SAM 3 model of `"sam3"`.
        device (`str`, *optional*): Device of its models; by default the run's.
        max_long_side (`int`, *optional*, defaults to 1024): Long side in pixels of what a VLM and its detectors see.
            A run takes its own.
        regions (`RegionOptions`, *optional*): Options of `"random"` and `"detector"`.

    Raises:
        ArgumentError: There is no such backend.
    """

    name: str = "people"
    annotations: Path | None = None
    detector: str | None = None
    segmenter: str | None = None
    device: str | None = None
    max_long_side: int = MAX_LONG_SIDE
    regions: RegionOptions = RegionOptions()

    def __post_init__(self) -> None:
        check_choice("perception", self.name, tuple(BACKENDS))

    @property
    def backend(self) -> Backend:
        """Return the backend's entry in the list."""
        return BACKENDS[self.name]

    def annotations_file(self, source: Path) -> Path | None:
        """
        Find the annotations of a folder of photos.

        Args:
            source (`pathlib.Path`): The folder.

        Returns:
            `pathlib.Path`: The file, or `None` if the backend reads none.

        Raises:
            ArgumentError: There is no such file.
        """
        if not self.backend.needs_annotations:
            return None
        path = self.annotations or source / "annotations.json"
        if path.is_file():
            return path
        if self.annotations:
            raise ArgumentError(f"`annotations` must be a file, got '{self.annotations}'")
        raise ArgumentError(_NO_ANNOTATIONS.format(source=source))

    def check(self, source: Path, has_vlm: bool) -> None:
        """
        Check what can be checked before a model is loaded.

        Args:
            source (`pathlib.Path`): Folder of photos.
            has_vlm (`bool`): Whether there is a vision-language model.

        Raises:
            ArgumentError: The annotations or the vision-language model are missing.
        """
        self.annotations_file(source)
        if self.backend.needs_vlm and not has_vlm:
            raise ArgumentError(f"`perception` {self.name} needs `vlm`, which names what is in the photos")

    def checkpoints(self) -> dict[str, str]:
        """Return the models that the backend loads, folders or Hub ids, by the argument that chooses them."""
        if not self.backend.has_checkpoints:
            return {}
        return import_module(f".{self.backend.module}", __package__).checkpoints(self)

    def load(self, source: Path, vlm: VLM | None = None, device: str | None = None) -> PerceptionAgent:
        """
        Load the backend with its models.

        Args:
            source (`pathlib.Path`): Folder of photos.
            vlm (`VLM`, *optional*): Vision-language model, for backends that need one.
            device (`str`, *optional*): Device of the models, unless the backend has one of its own.

        Returns:
            `PerceptionAgent`: The backend.

        Raises:
            UserError: The annotations, the vision-language model or one of the backend's own models are missing.
            ImportError: The extra that it needs is not installed.
        """
        self.check(source, vlm is not None)
        return import_module(f".{self.backend.module}", __package__).load(self, source, vlm, self.device or device)


def regions_spec(
    regions: str, perception: str | None = None, options: RegionOptions = RegionOptions(), /, **others: Any
) -> PerceptionSpec:
    """
    Return the backend that finds the regions to corrupt.

    Args:
        regions (`str`): One of `REGIONS`.
        perception (`str`, *optional*): Backend for `"perception"`, one of those that find things with names; by
            default `"people"`.
        options (`RegionOptions`, *optional*): Options of `"random"` and `"detector"`.
        others: Further arguments of [`PerceptionSpec`]; `None` stands for their defaults.

    Raises:
        ArgumentError: A name is unknown, or an option is given that the regions do not take.
    """
    check_choice("regions", regions, REGIONS)
    set_options = {
        "perception": perception is not None,
        **{name: value is not None for name, value in others.items()},
        "region_shares": options.shares != RegionOptions.shares,
        "threshold": options.threshold is not None,
        "min_region_share": options.min_share != RegionOptions.min_share,
    }
    for name, takers in _TAKE.items():
        if set_options.get(name) and regions not in takers:
            raise ArgumentError(
                f"`regions` must be {' or '.join(takers)} with `{name}`, got '{regions}'; leave out `{name}`"
            )
    backend = (perception or "people") if regions == "perception" else regions
    if regions == "perception":
        check_choice("perception", backend, NAMED)
    given = {name: value for name, value in others.items() if value is not None}
    return PerceptionSpec(backend, regions=options, **given)
