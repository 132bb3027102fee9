"""Plant artifacts in creatures: of all four types, of random place and size, large enough to be seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from tests.benchmarks.creatures.bodies import make_scene
from tests.benchmarks.creatures.renderer import Render, render_scene, seed_of, words_of
from tests.benchmarks.creatures.scene import Layer, Part, Scene
from tests.benchmarks.creatures.shapes import Oval
from tests.benchmarks.creatures.words import BACKGROUNDS, Words


# An artifact must change so many pixels by so much (RGB distance), or another one is drawn.
_VISIBLE_PIXELS, _VISIBLE_CHANGE = 15, 60
_TRIALS = 50


@dataclass(frozen=True)
class Planted:
    """
    A picture with a planted artifact.

    Args:
        image (`np.ndarray` of shape `(64, 64, 3)`, `uint8`): RGB.
        words (`Words`): What it was asked to show.
        type (`str`): Type of the artifact.
        name (`str`): How it was planted.
    """

    image: np.ndarray
    words: Words
    type: str
    name: str


def third_eye(scene: Scene, generator: np.random.Generator) -> Scene:
    """Add an eye in the lower half of the face."""
    eye = _any(scene, "eye", generator).scaled(generator.uniform(0.75, 1.1))
    x, y = scene.centre[0] + generator.uniform(-9, 9), scene.centre[1] + generator.uniform(6, 12)
    return replace(scene, parts=(*scene.parts, _moved_to(eye, x, y)))


def third_ear(scene: Scene, generator: np.random.Generator) -> Scene:
    """Add an ear in the middle above the head, or below another."""
    ear = _any(scene, "ear", generator)
    x, y = ear.centre
    if generator.random() < 0.5:
        extra = _moved_to(ear, scene.centre[0] + generator.uniform(-2, 2), y - generator.uniform(5, 8))
    else:
        outwards = np.sign(x - scene.centre[0])
        extra = ear.moved(outwards * generator.uniform(2, 6), generator.uniform(14, 18))
    return replace(scene, parts=(extra, *scene.parts))


def further_horn(scene: Scene, generator: np.random.Generator) -> Scene:
    """Show one horn more than the words say."""
    other = make_scene(replace(scene.words, horns=min(scene.words.horns + 1, 2)), generator)
    if scene.words.horns == 2:
        horn = other.named("horn")[1]
        other = replace(other, parts=(*other.parts, horn.moved(generator.uniform(6, 8), generator.uniform(0, 3))))
    return replace(other, words=scene.words)


def second_nose(scene: Scene, generator: np.random.Generator) -> Scene:
    """Add a nose beside the nose."""
    nose = scene.named("nose")[0]
    sideways = generator.choice((-1, 1)) * generator.uniform(7.5, 10)
    return replace(scene, parts=(*scene.parts, nose.moved(sideways, generator.uniform(-1, 3))))


def second_mouth(scene: Scene, generator: np.random.Generator) -> Scene:
    """Add a smaller mouth above the mouth and beside the nose."""
    mouth = scene.named("mouth")[0].scaled(generator.uniform(0.6, 0.8))
    sideways = generator.choice((-1, 1)) * generator.uniform(7, 9)
    return replace(scene, parts=(*scene.parts, mouth.moved(sideways, -generator.uniform(5, 7))))


def without_pupil(scene: Scene, generator: np.random.Generator) -> Scene:
    """Leave an eye without its pupil."""
    eye = _any(scene, "eye", generator)
    return scene.exchanged(eye, replace(eye, layers=eye.layers[:1]))


def without(name: str) -> Callable[[Scene, np.random.Generator], Scene]:
    """Leave out a part of a kind."""
    return lambda scene, generator: scene.without(_any(scene, name, generator))


def eyes_together(scene: Scene, generator: np.random.Generator) -> Scene:
    """Let the eyes grow into one with two pupils."""
    return _grown_together(scene, "eye", generator.uniform(0.45, 0.8), 0)


def ears_together(scene: Scene, generator: np.random.Generator) -> Scene:
    """Let the ears grow into one above the middle of the head."""
    return _grown_together(scene, "ear", generator.uniform(0.2, 0.5), -generator.uniform(5, 7))


def horns_together(scene: Scene, generator: np.random.Generator) -> Scene:
    """Let two horns grow into one."""
    return _grown_together(scene, "horn", generator.uniform(0.3, 0.6), 0)


def other_size(name: str) -> Callable[[Scene, np.random.Generator], Scene]:
    """Make a part much larger or smaller."""

    def planted(scene: Scene, generator: np.random.Generator) -> Scene:
        part = _any(scene, name, generator)
        factor = generator.uniform(1.5, 1.9) if generator.random() < 0.5 else generator.uniform(0.4, 0.6)
        return scene.exchanged(part, part.scaled(factor))

    return planted


def displaced(name: str) -> Callable[[Scene, np.random.Generator], Scene]:
    """Move a part away from its place."""

    def planted(scene: Scene, generator: np.random.Generator) -> Scene:
        part, angle, way = _any(scene, name, generator), generator.uniform(0, 2 * np.pi), generator.uniform(4.5, 8)
        return scene.exchanged(part, part.moved(way * np.cos(angle), way * np.sin(angle)))

    return planted


def stretched_eye(scene: Scene, generator: np.random.Generator) -> Scene:
    """Make an eye wide and flat, or narrow and tall."""
    eye, factor = _any(scene, "eye", generator), generator.uniform(1.4, 1.7)
    wide, tall = (factor, 1 / factor) if generator.random() < 0.5 else (1 / factor, factor)

    def stretched(layer: Layer) -> Layer:
        assert isinstance(layer.shape, Oval)
        return replace(
            layer, shape=replace(layer.shape, radii=(layer.shape.radii[0] * wide, layer.shape.radii[1] * tall))
        )

    return scene.exchanged(eye, replace(eye, layers=tuple(stretched(layer) for layer in eye.layers)))


def dented_head(scene: Scene, generator: np.random.Generator) -> Scene:
    """Take a bite out of the head."""
    angle, radius = generator.uniform(0.1, np.pi - 0.1), generator.uniform(5, 8)
    head = scene.named("head")[0].layers[0].shape
    assert isinstance(head, Oval)
    at = (head.centre[0] + 0.95 * head.radii[0] * np.cos(angle), head.centre[1] + 0.95 * head.radii[1] * np.sin(angle))
    bite = Layer("bite", Oval(at, (radius, radius)), BACKGROUNDS[scene.words.background])
    return replace(scene, parts=(*scene.parts, Part("head", "middle", (bite,))))


def torn(name: str) -> Callable[[Render, np.random.Generator], np.ndarray]:
    """Shift half of a part sideways."""

    def planted(render: Render, generator: np.random.Generator) -> np.ndarray:
        rows, columns = _box(render, name, generator)
        image, middle = render.image.copy(), (rows[0] + rows[1]) // 2
        half = slice(rows[0] - 1, middle) if generator.random() < 0.5 else slice(middle, rows[1] + 1)
        way = int(generator.choice((-1, 1)) * generator.integers(4, 8))
        window = slice(max(0, columns[0] - 8), columns[1] + 8)
        image[half, window] = np.roll(image[half, window], way, axis=1)
        return image

    return planted


def smeared(name: str) -> Callable[[Render, np.random.Generator], np.ndarray]:
    """Blur a part and what is around it beyond recognition."""

    def planted(render: Render, generator: np.random.Generator) -> np.ndarray:
        rows, columns = _box(render, name, generator)
        window = slice(max(0, rows[0] - 2), rows[1] + 2), slice(max(0, columns[0] - 2), columns[1] + 2)
        image, spread = render.image.copy(), generator.uniform(2.5, 4)
        image[window] = ndimage.gaussian_filter(render.image.astype(float), (spread, spread, 0))[window]
        return image

    return planted


def _any(scene: Scene, name: str, generator: np.random.Generator) -> Part:
    parts = scene.named(name)
    return parts[int(generator.integers(len(parts)))]


def _moved_to(part: Part, x: float, y: float) -> Part:
    return part.moved(x - part.centre[0], y - part.centre[1])


def _grown_together(scene: Scene, name: str, distance: float, dy: float) -> Scene:
    """Move a pair to the middle, to a distance in widths of its innermost part, and leave no line between."""
    left, right = scene.named(name)
    inner = (left.layers[-1] if name == "ear" else left.layers[0]).shape
    middle = (left.centre[0] + right.centre[0]) / 2
    apart = distance * 2 * (inner.radii[0] if isinstance(inner, Oval) else inner.reach / 2)
    moved = (
        _moved_to(left, middle - apart / 2, left.centre[1] + dy),
        _moved_to(right, middle + apart / 2, right.centre[1] + dy),
    )
    behind = tuple(part.layers[0] for part in moved)
    filled = tuple(replace(layer, outlined=False) for layer in behind)
    layers = behind + filled + tuple(layer for part in moved for layer in part.layers[1:])
    return scene.without(right).exchanged(left, Part(left.name, "middle", layers))


def _box(render: Render, name: str, generator: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    masks = [mask for part, mask in render.parts if part.name == name]
    mask = masks[int(generator.integers(len(masks)))]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


IN_SCENES: dict[str, dict[str, Callable[[Scene, np.random.Generator], Scene]]] = {
    "duplication": {
        "third eye": third_eye,
        "third ear": third_ear,
        "further horn": further_horn,
        "second nose": second_nose,
        "second mouth": second_mouth,
    },
    "omission": {
        **{f"no {name}": without(name) for name in ("eye", "ear", "nose", "mouth", "horn")},
        "no pupil": without_pupil,
    },
    "fusion": {
        "eyes grown together": eyes_together,
        "ears grown together": ears_together,
        "horns grown together": horns_together,
    },
    "distortion": {
        **{f"{name} of another size": other_size(name) for name in ("eye", "ear", "nose", "mouth", "horn")},
        **{f"{name} displaced": displaced(name) for name in ("eye", "nose", "mouth")},
        "stretched eye": stretched_eye,
        "dented head": dented_head,
    },
}
IN_IMAGES: dict[str, Callable[[Render, np.random.Generator], np.ndarray]] = {
    **{f"torn {name}": torn(name) for name in ("eye", "ear", "mouth")},
    **{f"smeared {name}": smeared(name) for name in ("eye", "mouth", "nose")},
}


def ways(scene: Scene) -> dict[str, list[str]]:
    """Return the ways of planting an artifact that a creature has the parts for, by type."""
    counts = {name: len(scene.named(name)) for name in ("eye", "ear", "nose", "mouth", "horn")}

    def possible(way: str) -> bool:
        if way == "further horn":
            return True
        needed = 2 if "together" in way else 1
        return all(count >= needed for name, count in counts.items() if name in way.replace("eyes", "eye"))

    found = {kind: [way for way in those if possible(way)] for kind, those in IN_SCENES.items()}
    found["distortion"] += [way for way in IN_IMAGES if possible(way)]
    return found


def plant(index: int, seed: int, name: str) -> Planted:
    """
    Plant an artifact in a random creature, each type with the same probability.

    Args:
        index (`int`): Number of the picture.
        seed (`int`): Seed of all pictures.
        name (`str`): Name of the set of pictures, which tells sets of one seed apart.
    """
    generator = np.random.default_rng(seed_of(index, seed, f"planted:{name}"))
    words = words_of(index, seed, f"planted:{name}")
    scene = make_scene(words, generator)
    clean = render_scene(scene)
    possible = ways(scene)
    kind = sorted(possible)[index % len(possible)]
    for _ in range(_TRIALS):
        way = possible[kind][int(generator.integers(len(possible[kind])))]
        if way in IN_IMAGES:
            image = IN_IMAGES[way](clean, generator)
        else:
            image = render_scene(IN_SCENES[kind][way](scene, generator)).image
        if _is_visible(image, clean.image):
            return Planted(image, words, kind, way)
    raise RuntimeError(f"no visible {kind} in {_TRIALS} trials for picture {index} of '{name}'; choose another seed")


def _is_visible(image: np.ndarray, clean: np.ndarray) -> bool:
    change = np.linalg.norm(image.astype(float) - clean, axis=2)
    return int((change > _VISIBLE_CHANGE).sum()) >= _VISIBLE_PIXELS
