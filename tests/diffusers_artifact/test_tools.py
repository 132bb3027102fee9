"""The artifact tools: hand-drawn examples of each, and properties of every mapping."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffusers_artifact.mapping import ARTIFACT_TYPES, NotApplicable, PatchMapping
from diffusers_artifact.tools import (
    ARTIFACT_TYPE_OF_TOOL,
    DISTORTION_KERNELS,
    add,
    artifact_mask,
    bbox_of_mask,
    distort,
    fuse,
    patches_of_mask,
    remove,
)
from diffusers_artifact.tools.geometry import choose_best, farthest_points, l1_distance, nearest, shift


SEEDS = range(10)
PATCH_SIZE = 4

examples = settings(max_examples=30, derandomize=True, deadline=None)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(drawing, letters):
    """Return the patch set of the characters of `drawing` that are among `letters`."""
    return np.array([[character in letters for character in line] for line in drawing.split()])


def drawing_of(mapping, letter="T"):
    return "\n".join("".join(letter if patch else "." for patch in row) for row in mapping.target_patches())


def assert_drawn(patches, drawing, letters):
    np.testing.assert_array_equal(patches, drawn(drawing, letters))


def mapped(made):
    """Assert that a tool made a mapping, and return it."""
    assert isinstance(made, PatchMapping), made
    return made


def pairs_of(mapping):
    """Return `(target, reference)` pairs, each as (row, column)."""
    columns = mapping.grid[1]
    return [
        (divmod(target, columns), divmod(reference, columns))
        for target, reference in zip(mapping.targets, mapping.references, strict=True)
    ]


# --- hand-drawn examples -------------------------------------------------------------------------------------------


def test_every_tool_makes_the_type_it_is_registered_for():
    part, entity = drawn(EAR, "P"), drawn(EAR, "Pe")
    first, second = drawn(NEIGHBOURS, "a+"), drawn(NEIGHBOURS, "b+")
    made = {
        "add": mapped(add(part, entity, generator=seeded())),
        "remove": mapped(remove(part, entity, generator=seeded())),
        "distort": mapped(distort(part, entity=entity, generator=seeded())),
        "fuse": mapped(fuse(first, second, generator=seeded())),
    }
    assert {tool: set(mapping.types) for tool, mapping in made.items()} == {
        tool: {artifact_type} for tool, artifact_type in ARTIFACT_TYPE_OF_TOOL.items()
    }
    assert set(ARTIFACT_TYPE_OF_TOOL.values()) == set(ARTIFACT_TYPES) - {"corruption"}


EAR = """
    ..........
    ..........
    ..PP......
    ..PP......
    .eeeeeeee.
    .eeeeeeee.
    .eeeeeeee.
"""


def test_add_puts_the_copy_beside_the_part_on_the_entity():
    # As near as without lying on the ear or the head, and touching the head: right of the ear, or left of it.
    right = """
        ..........
        ..........
        ....TT....
        ....TT....
        ..........
        ..........
        ..........
    """
    left = """
        ..........
        ..........
        TT........
        TT........
        ..........
        ..........
        ..........
    """
    part, entity = drawn(EAR, "P"), drawn(EAR, "Pe")
    made = [add(part, entity, generator=seeded(seed)) for seed in SEEDS]
    assert {drawing_of(mapping) for mapping in made} == {"\n".join(p.split()) for p in (left, right)}
    for mapping in made:
        offsets = {(t[0] - r[0], t[1] - r[1]) for t, r in pairs_of(mapping)}
        assert offsets in ({(0, 2)}, {(0, -2)})


def test_add_avoids_other_instances_of_the_part():
    scene = """
        ..........
        ..........
        ..PPSS....
        ..PPSS....
        .eeeeeeee.
        .eeeeeeee.
        .eeeeeeee.
    """
    for seed in SEEDS:
        mapping = mapped(
            add(drawn(scene, "P"), drawn(scene, "PSe"), same_parts=drawn(scene, "S"), generator=seeded(seed))
        )
        assert drawing_of(mapping).split()[2:4] == ["TT........"] * 2


def test_add_takes_the_border_of_the_image_for_an_outline_of_the_part():
    # Were the corner patch taken for one deep inside, the band would begin one patch too far away.
    scene = """
        PP......
        PP......
        eeeeeeee
        eeeeeeee
    """
    for seed in SEEDS:
        mapping = mapped(add(drawn(scene, "P"), drawn(scene, "Pe"), generator=seeded(seed)))
        assert drawing_of(mapping).split()[:2] == ["..TT...."] * 2


def test_add_keeps_a_copy_inside_the_entity_apart_from_the_part():
    # The score alone would slide the eye by one patch, or diagonally onto its own corner.
    face = """
        eeeeeeee
        eeeeeeee
        eeeeeeee
        eeePPeee
        eeePPeee
        eeeeeeee
        eeeeeeee
        eeeeeeee
    """
    for seed in SEEDS:
        mapping = mapped(add(drawn(face, "P"), drawn(face, "Pe"), generator=seeded(seed)))
        assert not (mapping.target_patches() & drawn(face, "P")).any()
        assert l1_distance(drawn(face, "P"))[mapping.target_patches()].max() == 2


def test_add_drops_what_leaves_the_grid_from_targets_and_references():
    scene = """
        ......
        .....e
        .PPP.e
        .PPP.e
        .PPP.e
        .....e
    """
    # Every place but the right one is taken, and that one is cut by the border.
    part, entity = drawn(scene, "P"), drawn(scene, "Pe")
    occupied = drawn(scene, ".") & (np.arange(6) < 4)
    mapping = mapped(add(part, entity, occupied=occupied, generator=seeded()))
    assert_drawn(
        mapping.target_patches(),
        """
        ......
        ......
        ....TT
        ....TT
        ....TT
        ......
        """,
        "T",
    )
    assert_drawn(
        mapping.reference_patches(),
        """
        ......
        ......
        .RR...
        .RR...
        .RR...
        ......
        """,
        "R",
    )
    mask = artifact_mask(mapping, np.kron(part, np.ones((PATCH_SIZE,) * 2, dtype=bool)), PATCH_SIZE)
    assert bbox_of_mask(mask) == (4 * PATCH_SIZE, 2 * PATCH_SIZE, 6 * PATCH_SIZE, 5 * PATCH_SIZE)


def test_add_says_why_not():
    part, entity = drawn(EAR, "P"), drawn(EAR, "Pe")
    nothing = np.zeros_like(part)
    assert add(nothing, entity, generator=seeded()) == NotApplicable("the part covers no patch")
    assert add(part, entity, occupied=part, generator=seeded()) == NotApplicable(
        "another artifact uses patches of the part"
    )
    everywhere_else = add(part, entity, occupied=~part, generator=seeded())
    far_away = add(part, drawn(".........e " * 7, "e"), generator=seeded())
    no_place = NotApplicable("no free place beside the part where a copy would touch the entity")
    assert everywhere_else == far_away == no_place


def test_remove_fills_an_ear_from_the_background():
    part, entity = drawn(EAR, "P"), drawn(EAR, "Pe")
    for seed in SEEDS:
        mapping = mapped(remove(part, entity, generator=seeded(seed)))
        pairs = dict(pairs_of(mapping))
        assert_drawn(mapping.target_patches(), EAR, "P")
        assert not (mapping.reference_patches() & entity).any()
        # The upper patches have two nearest ones each, the lower ones only the one beside them.
        assert pairs[2, 2] in ((1, 2), (2, 1)) and pairs[2, 3] in ((1, 3), (2, 4))
        assert pairs[3, 2] == (3, 1) and pairs[3, 3] == (3, 4)


def test_remove_fills_an_eye_from_the_face_but_not_from_the_other_eye():
    face = """
        ........
        .eeeeee.
        .ePSSee.
        .ePSSee.
        .eeeeee.
        .eeeeee.
        ........
    """
    part, other, entity = drawn(face, "P"), drawn(face, "S"), drawn(face, "PSe")
    for seed in SEEDS:
        mapping = mapped(remove(part, entity, same_parts=other, generator=seeded(seed)))
        assert_drawn(mapping.target_patches(), face, "P")
        pairs = dict(pairs_of(mapping))
        assert pairs[2, 2] in ((1, 2), (2, 1)) and pairs[3, 2] in ((4, 2), (3, 1))


def test_remove_says_why_not():
    part, entity = drawn(EAR, "P"), drawn(EAR, "Pe")
    assert remove(part & False, entity, generator=seeded()) == NotApplicable("the part covers no patch")
    assert remove(part, entity, occupied=part, generator=seeded()) == NotApplicable(
        "another artifact uses patches of the part"
    )
    assert remove(part, entity, occupied=~part, generator=seeded()) == NotApplicable(
        "no free patch within 2 of the part to fill it from"
    )


def test_strips_rotate_in_turns_and_ever_further():
    # A part taller than wide: each of its rows is a strip. Read: where a patch's content comes from.
    part = np.ones((6, 5), dtype=bool)
    expected = {-1: "40123 12340 34012 23401 23401 34012", 1: "12340 40123 23401 34012 34012 23401"}
    made = set()
    for seed in SEEDS:
        mapping = mapped(distort(part, entity=part, kernel="strip", generator=seeded(seed)))
        assert all(target[0] == reference[0] for target, reference in pairs_of(mapping))
        columns = np.array([reference[1] for _, reference in pairs_of(mapping)]).reshape(6, 5)
        made.add(" ".join("".join(map(str, row)) for row in columns))
    assert made == set(expected.values())


def test_strips_of_a_wide_part_are_columns_and_lines_of_one_patch_stay():
    drawing = """
        ........
        .PPPPPP.
        ..PPPP..
        ........
    """
    part = drawn(drawing, "P")
    mapping = mapped(distort(part, entity=part, kernel="strip", generator=seeded()))
    assert_drawn(
        mapping.target_patches(),
        """
        ........
        ..TTTT..
        ..TTTT..
        ........
        """,
        "T",
    )
    assert all(target == (3 - reference[0], reference[1]) for target, reference in pairs_of(mapping))


def test_jitter_draws_from_the_neighbourhood_with_a_deviation_of_one_patch():
    part = np.zeros((40, 40), dtype=bool)
    part[10:30, 10:30] = True
    mapping = mapped(distort(part, entity=np.ones_like(part), kernel="jitter", generator=seeded()))
    offsets = np.array([np.subtract(reference, target) for target, reference in pairs_of(mapping)])
    identities = part.sum() - len(mapping)
    # A rounded normal variable has variance 1 + 1/12, and is 0 with probability 0.383 per axis.
    assert (offsets**2).sum() / (2 * part.sum()) == pytest.approx(13 / 12, rel=0.15)
    assert identities / part.sum() == pytest.approx(0.383**2, abs=0.05)


def test_jitter_takes_the_nearest_patch_of_the_entity_where_draws_fail():
    # Two patches far apart: nearly every draw falls on the patch itself, beside the entity or off the grid.
    part = np.zeros((1, 12), dtype=bool)
    part[0, [0, 11]] = True
    made = [distort(part, entity=part, kernel="jitter", generator=seeded(seed)) for seed in SEEDS]
    assert set(made) == {NotApplicable("jitter leaves every patch of the part in its place")}


def test_distort_says_why_not():
    part = drawn(EAR, "P")
    single = np.zeros_like(part)
    single[0, 0] = True
    line = drawn("..... .PPP. .....", "P")
    assert distort(part, entity=part, occupied=part, generator=seeded()) == NotApplicable(
        "another artifact uses patches of the part"
    )
    assert distort(single, entity=single, generator=seeded()) == NotApplicable(
        "the part covers fewer than two patches"
    )
    assert distort(line, entity=line, kernel="strip", generator=seeded()) == NotApplicable(
        "strip leaves every patch of the part in its place"
    )
    with pytest.raises(ValueError, match="`kernel` must be among shuffle, jitter, strip, got 'blur'"):
        distort(part, entity=part, kernel="blur", generator=seeded())  # type: ignore[arg-type]


NEIGHBOURS = """
    ................
    aaaaaa++bbbbbb..
    aaaaaa++bbbbbb..
    aaaaaa++bbbbbb..
    ................
"""


def test_fuse_swaps_content_across_the_border():
    first, second = drawn(NEIGHBOURS, "a+"), drawn(NEIGHBOURS, "b+")
    for seed in SEEDS:
        mapping = mapped(fuse(first, second, generator=seeded(seed)))
        assert_drawn(
            mapping.target_patches(),
            """
            ................
            ....TTTTTT......
            ....TTTTTT......
            ....TTTTTT......
            ................
            """,
            "T",
        )
        from_first = {target for target, reference in pairs_of(mapping) if first[reference]}
        from_second = {target for target, reference in pairs_of(mapping) if second[reference]}
        # Whatever the cells, the outer columns of the band lie on one side each.
        assert {(row, 4) for row in (1, 2, 3)} <= from_second and {(row, 9) for row in (1, 2, 3)} <= from_first
        assert not (mapping.reference_patches() & mapping.target_patches()).any()


def test_fuse_keeps_a_borrowed_piece_whole_where_it_can():
    scene = "aaaaaaaa+bbbbbbbb " * 8
    first, second = drawn(scene, "a+"), drawn(scene, "b+")
    for seed in SEEDS:
        offsets = np.array([np.subtract(*pair) for pair in pairs_of(fuse(first, second, generator=seeded(seed)))])
        assert not offsets[:, 0].any()
        # The middle column has legal patches 3 away, but goes along with its cell, which an offset of 4 serves best;
        # only the outermost columns of the band, 5 away from the other side, are left to the nearest patch.
        assert set(np.abs(offsets[:, 1]).tolist()) == {4, 5}


@pytest.mark.parametrize(
    ("scene", "reason"),
    [
        ("aaaaaa+bbbbbb " * 5, "the entities share 5 patches, fewer than 6"),
        ("++++++ aaaaaa aaaaaa aaaaaa", "one entity lies within the other with 70% or more of its patches"),
        ("++++++ ++++aa ......", "one entity lies within the other with 70% or more of its patches"),
        ("aab aab +++ +++ aab aab", "an entity has no free patch of its own away from where they meet"),
    ],
)
def test_fuse_says_why_not(scene, reason):
    assert fuse(drawn(scene, "a+"), drawn(scene, "b+"), generator=seeded()) == NotApplicable(reason)


def test_fuse_leaves_another_artifact_alone():
    first, second = drawn(NEIGHBOURS, "a+"), drawn(NEIGHBOURS, "b+")
    assert fuse(first, second, occupied=first & second, generator=seeded()) == NotApplicable(
        "another artifact uses patches where the entities meet"
    )


# --- geometry ------------------------------------------------------------------------------------------------------


def grids(least=1, most=10):
    return st.tuples(st.integers(least, most), st.integers(least, most))


def patch_sets(least=1, most=10):
    return grids(least, most).flatmap(lambda grid: arrays(bool, grid))


def test_a_patch_is_in_if_any_of_its_pixels_is():
    mask = np.zeros((32, 48), dtype=bool)
    mask[15, 16] = mask[31, 47] = True
    np.testing.assert_array_equal(patches_of_mask(mask), [[False, True, False], [False, False, True]])


def test_sides_must_be_whole_patches():
    with pytest.raises(ValueError, match="`mask` must have sides that are multiples of 16, got 32x40"):
        patches_of_mask(np.zeros((32, 40), dtype=bool))
    with pytest.raises(ValueError, match=r"`object_mask` must have shape \(16, 32\) .* got \(32, 32\)"):
        artifact_mask(PatchMapping.empty((1, 2)), np.zeros((32, 32), dtype=bool))


def test_artifact_mask_is_where_the_object_was_and_where_it_is_now():
    mask = drawn("##.. #... .... ..##", "#")  # four patches of 2×2 pixels
    mapping = PatchMapping((1, 3), (0, 2), (2, 2), ("omission",) * 2)
    assert_drawn(artifact_mask(mapping, mask, 2), "..## ..#. .... ..##", "#")


def test_the_artifact_mask_of_a_copy_leaves_the_original_out():
    mask = drawn("##.. #... .... ..##", "#")
    for types in ((), ("duplication",) * 2):
        mapping = PatchMapping((1, 3), (0, 2), (2, 2), types)
        assert_drawn(artifact_mask(mapping, mask, 2), "..## ..#. .... ....", "#")


def test_boxes_have_exclusive_maxima():
    assert bbox_of_mask(drawn("..... ..#.. ...#. .....", "#")) == (2.0, 1.0, 4.0, 3.0)
    with pytest.raises(ValueError, match=r"`mask` must have at least one pixel, got an empty one of shape \(2, 3\)"):
        bbox_of_mask(np.zeros((2, 3), dtype=bool))


@examples
@given(patch_sets())
def test_l1_distance_is_that_of_the_nearest_patch(patches):
    members = np.argwhere(patches)
    for point, distance in np.ndenumerate(l1_distance(patches)):
        expected = min((int(np.abs(member - point).sum()) for member in members), default=sum(patches.shape))
        assert distance == expected


@examples
@given(patch_sets(), st.integers(-12, 12), st.integers(-12, 12))
def test_shift_moves_every_patch_and_drops_those_that_leave(patches, down, right):
    moved = shift(patches, (down, right))
    expected = {(row + down, column + right) for row, column in np.argwhere(patches).tolist()}
    rows, columns = patches.shape
    assert set(map(tuple, np.argwhere(moved).tolist())) == {
        (row, column) for row, column in expected if 0 <= row < rows and 0 <= column < columns
    }


@examples
@given(patch_sets(), st.integers(1, 8), st.integers(0, 100))
def test_farthest_points_are_members_and_differ(patches, count, seed):
    assume(patches.sum() >= count)
    points = farthest_points(patches, count, seeded(seed))
    assert len({tuple(point) for point in points.tolist()}) == count
    assert patches[tuple(points.T)].all()


def test_nearest_and_choose_best_break_ties_by_chance_alone():
    patches = drawn("#.# ... ..#", "#")
    middle = {tuple(nearest(np.array([[0, 1]]), patches, seeded(seed))[0].tolist()) for seed in SEEDS}
    assert middle == {(0, 0), (0, 2)}
    assert {choose_best([3, 7, 1, 7], seeded(seed)) for seed in SEEDS} == {1, 3}


# --- properties of every mapping -----------------------------------------------------------------------------------


@st.composite
def rectangles(draw, grid, smallest=1):
    bounds = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in grid]
    patches = np.zeros(grid, dtype=bool)
    (top, bottom), (left, right) = bounds
    patches[top : max(bottom, top + smallest), left : max(right, left + smallest)] = True
    return patches


@st.composite
def part_scenes(draw):
    """A part with holes, its entity, other instances of the part, and what other artifacts use."""
    grid = draw(grids(4, 12))
    part = draw(rectangles(grid, 2)) & ~draw(arrays(bool, grid, elements=st.sampled_from([False] * 5 + [True])))
    entity = part | draw(rectangles(grid, 2))
    return part, entity, draw(rectangles(grid)) & ~part, draw(rectangles(grid)) & ~part & draw(arrays(bool, grid))


@st.composite
def couples(draw):
    """Two rectangles with a common border, and what other artifacts use."""
    grid = (draw(st.integers(6, 16)), draw(st.integers(9, 16)))
    border, width = draw(st.integers(3, grid[1] - 4)), draw(st.integers(1, 2))
    first, second = draw(rectangles(grid, 6)), draw(rectangles(grid, 6))
    first[1:5, :border], second[1:5, border:] = True, True
    first[:, border + width :] = second[:, :border] = False
    first[2:5, border : border + width] = second[2:5, border : border + width] = True
    return first, second, draw(rectangles(grid)) & draw(arrays(bool, grid))


def add_of(scene, seed):
    part, entity, same_parts, occupied = scene
    return add(part, entity, same_parts=same_parts, occupied=occupied, generator=seeded(seed))


def remove_of(scene, seed):
    part, entity, same_parts, occupied = scene
    return remove(part, entity, same_parts=same_parts, occupied=occupied, generator=seeded(seed))


def distort_of(kernel):
    def tool(scene, seed):
        part, entity, _, occupied = scene
        return distort(part, entity=entity, kernel=kernel, occupied=occupied, generator=seeded(seed))

    return tool


def fuse_of(scene, seed):
    first, second, occupied = scene
    return fuse(first, second, occupied=occupied, generator=seeded(seed))


TOOLS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (part_scenes, add_of),
    "remove": (part_scenes, remove_of),
    **{kernel: (part_scenes, distort_of(kernel)) for kernel in DISTORTION_KERNELS},
    "fuse": (couples, fuse_of),
}


def applied(tool, scene, seed):
    mapping = tool(scene, seed)
    assume(not isinstance(mapping, NotApplicable))
    return mapping


@pytest.mark.parametrize("name", TOOLS)
@examples
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_every_mapping(name, data, seed):
    scenes, tool = TOOLS[name]
    scene = data.draw(scenes())
    before = [patches.copy() for patches in scene]
    mapping = applied(tool, scene, seed)

    assert mapping.grid == scene[0].shape and len(mapping) > 0
    assert all(target != reference for target, reference in zip(mapping.targets, mapping.references, strict=True))
    assert mapping == tool(scene, seed), "same seed, same mapping"
    occupied = scene[-1]
    assert not (occupied & (mapping.target_patches() | mapping.reference_patches())).any()
    assert all((old == new).all() for old, new in zip(before, scene, strict=True)), "arguments are left alone"


@pytest.mark.parametrize("name", TOOLS)
@examples
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_mask_and_box_agree_with_the_mapping(name, data, seed):
    scenes, tool = TOOLS[name]
    scene = data.draw(scenes())
    mapping = applied(tool, scene, seed)
    region = scene[0] | scene[1] if name == "fuse" else scene[0]
    # One corner pixel in every patch is the thinnest object that has these patches.
    pixels = np.kron(region, np.eye(1, PATCH_SIZE**2, dtype=bool).reshape(PATCH_SIZE, PATCH_SIZE))
    assert (patches_of_mask(pixels, PATCH_SIZE) == region).all()

    mask = artifact_mask(mapping, pixels, PATCH_SIZE)
    # No target is left out: for every tool the object was there before, or its content is there now.
    assert (patches_of_mask(mask, PATCH_SIZE) == mapping.target_patches()).all()
    x_min, y_min, x_max, y_max = bbox_of_mask(mask)
    rows, columns = np.nonzero(mapping.target_patches())
    assert (x_min // PATCH_SIZE, y_min // PATCH_SIZE) == (columns.min(), rows.min())
    assert ((x_max - 1) // PATCH_SIZE, (y_max - 1) // PATCH_SIZE) == (columns.max(), rows.max())
    assert 0 <= x_min < x_max <= mask.shape[1] and 0 <= y_min < y_max <= mask.shape[0]


@examples
@given(part_scenes(), st.integers(0, 2**32))
def test_add_is_one_shift_of_the_part_that_touches_the_entity(scene, seed):
    part, entity, *_ = scene
    mapping = applied(add_of, scene, seed)
    offsets = {(t[0] - r[0], t[1] - r[1]) for t, r in pairs_of(mapping)}
    assert len(offsets) == 1 and offsets != {(0, 0)}
    copy, references = mapping.target_patches(), mapping.reference_patches()
    assert (copy == shift(part, offsets.pop())).all(), "exactly what stays on the grid"
    assert (references <= part).all() and 2 * references.sum() >= part.sum()
    assert (copy & part).sum() <= 0.25 * copy.sum()
    rest = entity & ~part
    assert l1_distance(rest if rest.any() else part)[copy].min() <= 1


@examples
@given(part_scenes(), st.integers(0, 2**32))
def test_add_takes_the_best_score(scene, seed):
    part, entity, same_parts, occupied = scene
    mapping = applied(add_of, scene, seed)
    rest = entity & ~part

    def score(offset):
        copy = shift(part, offset)
        ratios = [(copy & other).sum() / copy.sum() for other in (part, rest, same_parts)]
        return (3 - sum(ratios)) / (1 + 0.05 * (abs(offset[0]) + abs(offset[1])))

    target, reference = pairs_of(mapping)[0]
    won = score((target[0] - reference[0], target[1] - reference[1]))
    # Shifts by the part's own extent are candidates that a reader can name, though not always legal ones.
    height, width = np.ptp(np.argwhere(part), axis=0) + 1
    centre_band = l1_distance(part)
    for offset in [(height, 0), (-height, 0), (0, width), (0, -width)]:
        copy = shift(part, offset)
        if not is_candidate(part, offset, centre_band) or (copy & occupied).any() or 2 * copy.sum() < part.sum():
            continue
        if l1_distance(rest if rest.any() else part)[copy].min() <= 1:
            assert won >= score(offset) - 1e-9


def is_candidate(part, offset, distance):
    """Return whether the copy's centre lies in the band for every choice among equally central patches."""
    points = np.argwhere(part)
    spread = np.abs(points - points.mean(axis=0)).sum(axis=1)
    depth = l1_distance(~np.pad(part, 1))[1:-1, 1:-1]
    for row, column in points[np.isclose(spread, spread.min())]:
        moved = (row + offset[0], column + offset[1])
        if not all(0 <= place < side for place, side in zip(moved, part.shape, strict=True)):
            return False
        if not depth[row, column] - 1 < distance[moved] <= depth[row, column] + 1:
            return False
    return True


@examples
@given(part_scenes(), st.integers(0, 2**32))
def test_remove_fills_the_whole_part_from_the_nearest_legal_patches(scene, seed):
    part, entity, same_parts, occupied = scene
    mapping = applied(remove_of, scene, seed)
    assert (mapping.target_patches() == part).all()
    around = (l1_distance(part) <= 2) & ~part & ~same_parts & ~occupied
    pool = around & ~entity if 2 * (around & ~entity).sum() > around.sum() else around
    assert (mapping.reference_patches() <= pool).all()
    distance = l1_distance(pool)
    for target, reference in pairs_of(mapping):
        assert np.abs(np.subtract(target, reference)).sum() == distance[target]


@examples
@given(part_scenes(), st.integers(0, 2**32))
def test_shuffle_permutes_the_part_and_leaves_no_patch(scene, seed):
    part = scene[0]
    mapping = applied(distort_of("shuffle"), scene, seed)
    assert (mapping.target_patches() == part).all()
    assert sorted(mapping.references) == list(mapping.targets)


@examples
@given(part_scenes(), st.integers(0, 2**32))
def test_strip_permutes_within_lines_across_the_longer_side(scene, seed):
    part = scene[0]
    mapping = applied(distort_of("strip"), scene, seed)
    extent = np.ptp(np.argwhere(part), axis=0)
    axis = 0 if extent[0] >= extent[1] else 1
    assert all(target[axis] == reference[axis] for target, reference in pairs_of(mapping))
    assert sorted(mapping.references) == list(mapping.targets)
    stays = part & ~mapping.target_patches()
    lines_of_one = part & (part.sum(axis=1 - axis, keepdims=True) == 1)
    assert (stays == lines_of_one).all()


@examples
@given(part_scenes(), st.integers(0, 2**32))
def test_jitter_stays_within_part_and_entity(scene, seed):
    part, entity, *_ = scene
    mapping = applied(distort_of("jitter"), scene, seed)
    assert (mapping.target_patches() <= part).all()
    assert (mapping.reference_patches() <= part | entity).all()


@examples
@given(couples(), st.integers(0, 2**32))
def test_fuse_covers_the_band_from_outside_it(scene, seed):
    first, second, _ = scene
    mapping = applied(fuse_of, scene, seed)
    band = (first | second) & (l1_distance(first & second) <= 2)
    references = mapping.reference_patches()
    assert (mapping.target_patches() == band).all()
    assert not (references & band).any() and (references <= first ^ second).all()


@examples
@given(part_scenes(), st.integers(0, 2**32))
def test_the_artifacts_of_one_image_are_disjoint(scene, seed):
    part, entity, same_parts, _ = scene
    occupied = np.zeros_like(part)
    mappings = []
    tools = [
        lambda: add(part, entity, same_parts=same_parts, occupied=occupied, generator=seeded(seed)),
        lambda: remove(same_parts, entity, occupied=occupied, generator=seeded(seed)),
        lambda: distort(entity & ~part, entity=entity, occupied=occupied, generator=seeded(seed)),
    ]
    for tool in tools:
        mapping = tool()
        if isinstance(mapping, PatchMapping):
            used = mapping.target_patches() | mapping.reference_patches()
            assert not (used & occupied).any()
            occupied = occupied | used
            mappings.append(mapping)
    assume(len(mappings) > 1)
    assert len(PatchMapping.union(mappings)) == sum(len(mapping) for mapping in mappings)
