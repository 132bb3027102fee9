"""The patch mapping: refused arguments, and the union of several artifacts."""

import numpy as np
import pytest

from diffusers_artifact.mapping import PatchMapping


GRID = (2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": (0, 1), "references": (2,)}, "equally long, got 2 and 1"),
        ({"targets": (6,), "references": (0,)}, "`targets` must be token indices from 0 to 5 on the 2x3 grid, got 6"),
        (
            {"targets": (0,), "references": (-1,)},
            "`references` must be token indices from 0 to 5 on the 2x3 grid, got -1",
        ),
        ({"targets": (1, 4, 1), "references": (0, 2, 3)}, r"`targets` must be unique, got \[1\] more than once"),
        ({"targets": (1,), "references": (0,), "grid": (0, 3)}, r"`grid` must be two positive numbers, got \(0, 3\)"),
        (
            {"targets": (1,), "references": (0,), "types": ("omission",) * 2},
            "as long as `targets`, got 2 types for 1 targets",
        ),
        (
            {"targets": (1,), "references": (0,), "types": ("blur",)},
            "`types` must be among duplication, .*, corruption, got 'blur'",
        ),
    ],
)
def test_illegal_mappings_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        PatchMapping(**{"grid": GRID, **arguments})


def test_one_reference_may_serve_several_targets():
    assert len(PatchMapping((0, 1, 2), (5, 5, 5), GRID)) == 3


def test_from_pairs_sorts_by_target_and_types_every_pair():
    mapping = PatchMapping.from_pairs(np.array([[4, 0], [1, 5]]), GRID, "fusion")
    assert mapping == PatchMapping((1, 4), (5, 0), GRID, ("fusion", "fusion"))
    assert [type(index) for index in mapping.targets + mapping.references] == [int] * 4


def test_patches_are_row_major():
    mapping = PatchMapping((1, 5), (3, 3), GRID)
    np.testing.assert_array_equal(mapping.target_patches(), [[False, True, False], [False, False, True]])
    np.testing.assert_array_equal(mapping.reference_patches(), [[False, False, False], [True, False, False]])


def test_an_empty_mapping_has_no_patches():
    mapping = PatchMapping.empty(GRID)
    assert len(mapping) == 0
    assert not mapping.target_patches().any() and not mapping.reference_patches().any()


def test_union_keeps_the_pairs_and_types_of_every_mapping():
    union = PatchMapping.union(
        [
            PatchMapping.from_pairs([(0, 1)], GRID, "omission"),
            PatchMapping.from_pairs([(4, 5), (3, 2)], GRID, "fusion"),
        ]
    )
    assert union == PatchMapping((0, 3, 4), (1, 2, 5), GRID, ("omission", "fusion", "fusion"))


@pytest.mark.parametrize(
    ("mappings", "message"),
    [
        ([], "at least one mapping, got none"),
        ([PatchMapping.empty(GRID), PatchMapping.empty((3, 2))], r"share one grid, got \[\(2, 3\), \(3, 2\)\]"),
        ([PatchMapping((0,), (1,), GRID), PatchMapping((0,), (2,), GRID)], r"unique, got \[0\] more than once"),
        (
            [PatchMapping((0,), (1,), GRID), PatchMapping((3,), (2,), GRID, ("fusion",))],
            "`types`.*got 1 types for 2 targets",
        ),
    ],
)
def test_mappings_that_do_not_fit_together_are_refused(mappings, message):
    with pytest.raises(ValueError, match=message):
        PatchMapping.union(mappings)
