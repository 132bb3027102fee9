"""
The demo's photos: square views cut from images that ship inside scikit-image, matplotlib and scikit-learn, so
that nothing is downloaded. `annotations.json` lists sources, licences and crops beside the outlines.
"""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..utils.photos import open_source


ANNOTATIONS = Path(__file__).with_name("annotations.json")


def write_demo_photos(folder: Path) -> list[Path]:
    """
    Writes the demo's photos, several views of each, as RGB PNG files at their native resolution.

    Args:
        folder (`pathlib.Path`): Where to; made if it is not there.

    Returns:
        `list[pathlib.Path]`: The files, in the order of the annotations' `images`.

    Raises:
        ImportError: a package that holds photos is not installed.
        ValueError: a package holds another image than the one that was annotated.
    """
    document = json.loads(ANNOTATIONS.read_text(encoding="utf-8"))
    photographs = {source["name"]: open_source(_locate(source)) for source in document["info"]["sources"]}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for entry in document["images"]:
        path = folder / entry["file_name"]
        photographs[entry["source"]].crop(entry["crop"]).save(path)
        paths.append(path)
    return paths


def _locate(source: dict[str, Any]) -> Path:
    """The file of a photo, whose `file` is `<package>/<path inside it>`."""
    package = source["file"].partition("/")[0]
    # Found, not imported: importing scikit-learn and matplotlib takes longer than everything done here.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"the demo's photos need the package {package!r}, which is not installed; "
            "run `pip install artiagent[demo]`",
            name=package,
        )
    path = Path(spec.origin).parent.parent / source["file"]
    # Another image under the same name (scikit-image replaced `camera` once) would leave the outlines beside it.
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != source["sha256"]:
        raise ValueError(
            f"{source['file']} must be the photo that was annotated (SHA-256 {source['sha256'][:12]}…), got "
            "another or none; run `pip install artiagent[demo]` with the versions in constraints.txt"
        )
    return path
