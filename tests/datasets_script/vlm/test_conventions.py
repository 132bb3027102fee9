"""Boxes in the conventions of vision-language models."""

from __future__ import annotations

import doctest
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.image_utils import SizeDict

from datasets_script.utils.errors import UserError
from datasets_script.vlm import conventions as coordinates
from datasets_script.vlm.conventions import (
    CONVENTIONS,
    QWEN2_5_MAX_PIXELS,
    QWEN2_5_MIN_PIXELS,
    BoxFormat,
    box_format,
    convention_for,
    decode_box,
    encode_box,
    find_convention,
    format_box,
    pixel_bounds,
    qwen2_5_size,
    registry,
)


SIDES = st.integers(8, 4000)
SIZES = st.tuples(SIDES, SIDES).filter(lambda size: max(size) <= 200 * min(size))


@st.composite
def boxes(draw, size):
    low_x, low_y = (draw(st.floats(0, side - 0.5)) for side in size)
    high_x, high_y = (draw(st.floats(low + 0.5, side)) for low, side in zip((low_x, low_y), size, strict=True))
    return low_x, low_y, high_x, high_y


def steps_in_pixels(size, convention):
    """How many pixels of the image a step of a convention is, horizontally and vertically."""
    width, height = size
    if convention == "pixel":
        return 1.0, 1.0
    if convention == "qwen2.5":
        resized = qwen2_5_size(size)
        return width / resized[0], height / resized[1]
    if convention == "llava":
        return max(size) / 100, max(size) / 100
    return width / 1000, height / 1000


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(data=st.data(), size=SIZES)
def test_a_box_comes_back_within_a_step_inside_the_image_and_not_empty(convention, data, size):
    box = data.draw(boxes(size))
    back = decode_box(encode_box(box, size, convention), size, convention)
    step = steps_in_pixels(size, convention)
    for edge in range(4):
        assert abs(back[edge] - box[edge]) <= step[edge % 2] * (1 + 1e-6)
        assert 0 <= back[edge] <= size[edge % 2]
    assert back[0] < back[2] and back[1] < back[3]


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(data=st.data(), size=SIZES)
def test_boxes_of_two_steps_and_more_are_off_by_half_a_step_at_most(convention, data, size):
    box = data.draw(boxes(size))
    step = steps_in_pixels(size, convention)
    back = decode_box(encode_box(box, size, convention), size, convention)
    for axis in range(2):
        if box[axis + 2] - box[axis] >= 2 * step[axis]:
            for edge in (axis, axis + 2):
                assert abs(back[edge] - box[edge]) <= step[axis] * (0.5 + 1e-5)


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(data=st.data(), size=SIZES)
def test_what_can_be_written_is_written_again(convention, data, size):
    values = encode_box(data.draw(boxes(size)), size, convention)
    if convention == "llava":
        # A thin box that was widened may begin in the padding, which decoding cuts off.
        values = encode_box(decode_box(values, size, convention), size, convention)
    assert encode_box(decode_box(values, size, convention), size, convention) == values


@pytest.mark.parametrize(
    ("convention", "values", "text"),
    [
        ("pixel", (64, 48, 320, 240), "[64, 48, 320, 240]"),
        ("normalized", (0.1, 0.1, 0.5, 0.5), "[0.100, 0.100, 0.500, 0.500]"),
        # The processor resizes 640 x 480 to 644 x 476.
        ("qwen2.5", (64, 48, 322, 238), "[64, 48, 322, 238]"),
        ("qwen3", (100, 100, 500, 500), "[100, 100, 500, 500]"),
        ("internvl", (100, 100, 500, 500), "<box>[[100, 100, 500, 500]]</box>"),
        # 80 px of padding above: (48 + 80) / 640.
        ("llava", (0.1, 0.2, 0.5, 0.5), "[0.10, 0.20, 0.50, 0.50]"),
    ],
)
def test_conventions_by_hand(convention, values, text):
    box, size = (64.0, 48.0, 320.0, 240.0), (640, 480)
    assert encode_box(box, size, convention) == values
    assert format_box(box, size, convention) == text
    assert decode_box(values, size, convention) == pytest.approx(box, abs=0.8)


def test_qwen2_5_boxes_follow_the_resized_input():
    size = (1920, 1080)
    resized = qwen2_5_size(size, max_pixels=1003520)
    assert resized == (1316, 728)
    assert encode_box((0, 0, 960, 540), size, "qwen2.5", resized) == (0, 0, 658, 364)
    assert decode_box((0, 0, 658, 364), size, "qwen2.5", resized) == (0, 0, 960, 540)


def test_llava_pads_upright_images_at_the_sides():
    assert encode_box((0, 0, 100, 200), (100, 200), "llava") == (0.25, 0.0, 0.75, 1.0)
    assert decode_box((0.0, 0.0, 1.0, 1.0), (100, 200), "llava") == (0.0, 0.0, 100.0, 200.0)


@given(size=SIZES, limits=st.sampled_from([(3136, 12845056), (3136, 1003520), (256 * 784, 1280 * 784)]))
def test_qwen2_5_size_is_that_of_the_processor(size, limits):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    height, width = smart_resize(size[1], size[0], factor=28, min_pixels=limits[0], max_pixels=limits[1])
    assert qwen2_5_size(size, *limits) == (width, height)


def test_what_lies_outside_is_cut_off():
    assert encode_box((-5, 10, 700, 500), (640, 480), "pixel") == (0, 10, 640, 480)
    assert decode_box((0, 0, 1010, 999), (640, 480), "qwen3") == pytest.approx((0, 0, 640, 479.52))


@pytest.mark.parametrize("values", [(1, 2, 3), (1, 2, 3, math.nan), (5, 0, 4, 9)])
def test_values_that_are_no_box_are_refused(values):
    with pytest.raises(ValueError):
        decode_box(values, (10, 10), "pixel")


def test_mistakes_are_named():
    unknown: Any = "qwen"
    with pytest.raises(ValueError, match="convention.*pixel, normalized.*'qwen'"):
        encode_box((0, 0, 1, 1), (10, 10), unknown)
    with pytest.raises(ValueError, match="resized"):
        encode_box((0, 0, 1, 1), (10, 10), "qwen3", (28, 28))
    with pytest.raises(ValueError, match="200"):
        qwen2_5_size((2010, 10))


@pytest.mark.parametrize(
    ("names", "convention"),
    [
        (("qwen2_5_vl",), "qwen2.5"),
        (("Qwen/Qwen2.5-VL-7B-Instruct",), "qwen2.5"),
        (("qwen3_vl_moe",), "qwen3"),
        (("OpenGVLab/InternVL3_5-8B-HF",), "internvl"),
        (("internvl_chat",), "internvl"),
        (("", "llava-hf/llava-1.5-7b-hf"), "llava"),
        # The architecture, given first, counts before what a folder is called.
        (("internvl", "/models/llava-like"), "internvl"),
        (("idefics3", "runs/detector"), "normalized"),
        ((), "normalized"),
    ],
)
def test_conventions_of_families(names, convention):
    assert convention_for(*names) == convention


@pytest.mark.parametrize(
    ("attributes", "bounds"),
    [
        ({"merge_size": 2, "size": {"shortest_edge": 784, "longest_edge": 3136}}, (784, 3136)),
        ({"merge_size": 2, "size": SizeDict(shortest_edge=784, longest_edge=3136)}, (784, 3136)),
        ({"merge_size": 2, "size": SizeDict(longest_edge=1)}, None),
        ({"merge_size": 2, "size": {"height": 448, "width": 448}}, None),
        # Edges in pixels, as detectors have them.
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, None),
        ({}, None),
    ],
)
def test_bounds_are_read_from_processors_that_count_pixels(attributes, bounds):
    assert pixel_bounds(SimpleNamespace(**attributes)) == (bounds or (QWEN2_5_MIN_PIXELS, QWEN2_5_MAX_PIXELS))
    assert pixel_bounds(None) == (QWEN2_5_MIN_PIXELS, QWEN2_5_MAX_PIXELS)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_format_sets_its_convention_up_for_a_model(name):
    form, size = BoxFormat(name, 3136, 1003520), (1920, 1080)
    resized = (1316, 728) if name == "qwen2.5" else None
    assert form.resized(size) == resized and form.convention is find_convention(name)
    assert form((0, 0, 960, 540), size) == format_box((0, 0, 960, 540), size, name, resized)
    bounds = {"min_pixels": 3136, "max_pixels": 1003520} if name == "qwen2.5" else {}
    assert form.record() == {"coordinates": name, **bounds}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coordinates": "polar"}, "coordinates must be among pixel, normalized, .*, got 'polar'"),
        ({"min_pixels": 0}, "min_pixels must be above 0 and at most max_pixels, got 0 and"),
        ({"max_pixels": 3135}, "min_pixels must be above 0 and at most max_pixels, got 3136 and 3135"),
    ],
)
def test_formats_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        BoxFormat(**changes)


def test_no_two_conventions_are_asked_for_or_told_alike():
    known = [find_convention(name) for name in CONVENTIONS]
    assert len({each.meaning for each in known}) == len({each.question for each in known}) == len(known)


@pytest.mark.parametrize("module", [coordinates, registry, box_format])
def test_examples_run(module):
    results = doctest.testmod(module)
    assert results.attempted and not results.failed
