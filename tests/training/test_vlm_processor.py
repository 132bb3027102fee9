"""
Box coordinates in answers match what the model sees: a bright box on a dark image passes through the image processor
of each family and is searched for in the output.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessor, GotOcr2ImageProcessor, Qwen2VLImageProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from datasets_script.detection.box_answers import find_boxes
from datasets_script.vlm.conventions import encode_box, qwen2_5_size
from training.vlm.processor import prepare_processor


EXAMPLES = settings(max_examples=40, deadline=None)
TILE = 112
# Blue: LLaVA's padding is darkest there, clearly below half.
CHANNEL = 2


@st.composite
def sizes_and_boxes(draw, shortest=60, longest=500, most_slender=8.0):
    """Draw an image size, and an integer box of at least an eighth of each side, often at a border."""
    size = draw(
        st.tuples(*[st.integers(shortest, longest)] * 2).filter(lambda size: max(size) <= most_slender * min(size))
    )
    edges = []
    for side in size:
        low = draw(st.just(0) | st.integers(0, side - side // 8 - 1))
        edges.append((low, draw(st.just(side) | st.integers(low + side // 8 + 1, side))))
    (x_min, x_max), (y_min, y_max) = edges
    return size, (x_min, y_min, x_max, y_max)


def drawn(size, box):
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Image.fromarray(pixels)


def brightness(values, processor):
    """Return one channel, 0 to 1, of normalised values of shape `(channels, height, width)`."""
    return values[CHANNEL] * processor.image_std[CHANNEL] + processor.image_mean[CHANNEL]


def seen_box(canvas):
    """Return the box around everything at least half as bright as the box, in pixels of the canvas."""
    rows, columns = (np.flatnonzero((canvas > 0.5).any(axis)) for axis in (1, 0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def unpatchified(inputs, processor):
    """Reassemble the canvas from Qwen's patches, which are in blocks of `merge_size` by `merge_size`."""
    _, rows, columns = inputs["image_grid_thw"][0].tolist()
    merge, side = processor.merge_size, processor.patch_size
    shape = (rows // merge, columns // merge, merge, merge, 3, processor.temporal_patch_size, side, side)
    patches = inputs["pixel_values"].numpy().reshape(shape)
    # channel, time, block row, row in it, pixel row, and the same of columns
    canvas = patches.transpose(4, 5, 0, 2, 6, 1, 3, 7).reshape(3, -1, rows * side, columns * side)
    assert canvas.shape[1] == processor.temporal_patch_size
    return brightness(canvas[:, 0], processor)


def assert_seen_where_named(canvas, box, size, box_format):
    """Assert that a box in an answer matches `canvas`, the image as the model sees it, and is read back correctly."""
    convention, seen_size = box_format.coordinates, canvas.shape[::-1]
    resized = seen_size if convention == "qwen2.5" else None
    # Coordinates of the whole width and height, and their resolution.
    whole, step = {"qwen2.5": (seen_size, 1), "llava": ((1, 1), 0.01)}.get(convention, ((1000, 1000), 1))
    # Size of the image that the model sees, in stored pixels: LLaVA pads the narrow side to a square.
    shown = (max(size),) * 2 if convention == "llava" else size
    named = encode_box(box, size, convention, resized)
    answer = find_boxes(box_format(box, size), size, convention, resized)
    assert not answer.failures
    for edge, seen in enumerate(seen_box(canvas)):
        per_step = seen_size[edge % 2] / whole[edge % 2] * step
        # One pixel, and half a step where that is more than half a pixel.
        assert abs(named[edge] / step * per_step - seen) <= 1 + max(0.0, (per_step - 1) / 2), (named, canvas.shape)
        back = abs(answer.boxes[0][edge] - box[edge])
        assert back <= shown[edge % 2] / whole[edge % 2] * step + 1e-6


@pytest.mark.parametrize(
    "bounds", [(56 * 56, 28 * 28 * 1280), (28 * 28 * 64, 28 * 28 * 256), (28 * 28 * 4, 28 * 28 * 20)]
)
@EXAMPLES
@given(made=sizes_and_boxes())
def test_qwen2_5_names_pixels_of_what_it_sees(bounds, made):
    size, box = made
    processor = SimpleNamespace(image_processor=Qwen2VLImageProcessor())
    box_format = prepare_processor(processor, "qwen2.5", *bounds)
    inputs = processor.image_processor(drawn(size, box), return_tensors="pt")
    canvas = unpatchified(inputs, processor.image_processor)
    assert canvas.shape[::-1] == qwen2_5_size(size, *bounds)
    assert box_format(box, size) == str(list(encode_box(box, size, "qwen2.5", canvas.shape[::-1])))
    assert_seen_where_named(canvas, box, size, box_format)


@EXAMPLES
@given(made=sizes_and_boxes())
def test_qwen3_names_thousandths_of_what_it_sees(made):
    size, box = made
    processor = SimpleNamespace(image_processor=Qwen2VLImageProcessor(patch_size=16))
    box_format = prepare_processor(processor, "qwen3", 32 * 32 * 16, 32 * 32 * 128)
    inputs = processor.image_processor(drawn(size, box), return_tensors="pt")
    canvas = unpatchified(inputs, processor.image_processor)
    assert canvas.shape[0] % 32 == canvas.shape[1] % 32 == 0
    assert_seen_where_named(canvas, box, size, box_format)


@pytest.mark.parametrize("crop_to_patches", [False, True])
@EXAMPLES
@given(made=sizes_and_boxes())
def test_internvl_names_thousandths_of_what_it_sees(crop_to_patches, made):
    size, box = made
    processor = SimpleNamespace(
        image_processor=GotOcr2ImageProcessor(
            size={"height": TILE, "width": TILE}, crop_to_patches=crop_to_patches, max_patches=6
        )
    )
    box_format = prepare_processor(processor, "internvl")
    inputs = processor.image_processor(drawn(size, box), return_tensors="pt")
    tiles = [brightness(tile, processor.image_processor) for tile in inputs["pixel_values"].numpy()]
    canvases = [tiles[-1]]
    if len(tiles) > 1:
        # The last tile shows the whole image.
        columns, rows = get_optimal_tiled_canvas(size[::-1], (TILE, TILE), 1, 6)
        assert len(tiles) == columns * rows + 1
        canvases.append(np.block([tiles[row * columns : (row + 1) * columns] for row in range(rows)]))
    for canvas in canvases:
        assert_seen_where_named(canvas, box, size, box_format)


@EXAMPLES
@given(made=sizes_and_boxes(most_slender=3.0))
def test_llava_names_hundredths_of_the_padded_square_that_it_sees(made):
    size, box = made
    processor = SimpleNamespace(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    )
    box_format = prepare_processor(processor, "llava")
    inputs = processor.image_processor(drawn(size, box), return_tensors="pt")
    canvas = brightness(inputs["pixel_values"][0].numpy(), processor.image_processor)
    assert canvas.shape == (336, 336)
    assert_seen_where_named(canvas, box, size, box_format)


def test_a_cropping_processor_does_not_show_what_llava_names():
    """Without LLaVA's padding, which the test above relies on, the box is cropped away."""
    size, box = (300, 100), (0, 20, 40, 80)
    cropping = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    inputs = cropping(drawn(size, box), return_tensors="pt")
    assert not (brightness(inputs["pixel_values"][0].numpy(), cropping) > 0.5).any()
