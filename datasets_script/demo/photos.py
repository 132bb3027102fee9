"""
Photos of the demo: square crops of images that ship with scikit-image, matplotlib and scikit-learn, so that nothing is
downloaded. `annotations.json` lists their sources, licences and crops next to the outlines of entities and parts.
"""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from ..utils.photos import open_source


ANNOTATIONS = Path(__file__).with_name("annotations.json")


def write_demo_photos(folder: Path) -> list[Path]:
    """
    Write the demo's photos, several crops of each source, as RGB PNG files at their native resolution.

    Args:
        folder (`pathlib.Path`): Folder to write; created if it does not exist.

    Returns:
        `list[pathlib.Path]`: The files, in the order of `images` in the annotations.

    Raises:
        ImportError: A package that holds photos is not installed.
        ValueError: A package holds another image than the annotated one.
    """
    document = _document()
    photos = {source["name"]: open_source(_locate(source)) for source in document["info"]["sources"]}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for entry in document["images"]:
        path = folder / entry["file_name"]
        photos[entry["source"]].crop(entry["crop"]).save(path)
        paths.append(path)
    return paths


def demo_photo_names() -> list[str]:
    """Return the names of the demo's photos, sorted; empty if a package that holds some of them is not installed."""
    document = _document()
    packages = {source["file"].partition("/")[0] for source in document["info"]["sources"]}
    if any(find_spec(package) is None for package in packages):
        return []
    return sorted(entry["file_name"] for entry in document["images"])


def open_demo_photo(name: str) -> Image.Image:
    """
    Open one of the demo's photos at its native resolution.

    Args:
        name (`str`): One of [`demo_photo_names`].

    Raises:
        ImportError, ValueError: See [`write_demo_photos`].
    """
    document = _document()
    entry = next(entry for entry in document["images"] if entry["file_name"] == name)
    source = next(source for source in document["info"]["sources"] if source["name"] == entry["source"])
    return open_source(_locate(source)).crop(entry["crop"])


def _document() -> dict[str, Any]:
    return json.loads(ANNOTATIONS.read_text(encoding="utf-8"))


def _locate(source: dict[str, Any]) -> Path:
    """Return the file of a source, whose `file` is `<package>/<path inside it>`."""
    package = source["file"].partition("/")[0]
    # Importing scikit-learn and matplotlib would take longer than everything done here.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"the demo's photos need the package {package!r}, which is not installed; "
            "run `pip install artiagent[demo]`",
            name=package,
        )
    path = Path(spec.origin).parent.parent / source["file"]
    # scikit-image once replaced its `camera`; the outlines would not fit another image of the same name.
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != source["sha256"]:
        raise ValueError(
            f"{source['file']} must be the photo that was annotated (SHA-256 {source['sha256'][:12]}…), got "
            "another or none; run `pip install artiagent[demo]` with the versions in constraints.txt"
        )
    return path
