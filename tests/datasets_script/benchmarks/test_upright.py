"""Benchmark images with an EXIF turn, and polygons far outside: what is prepared is what is decoded and scored."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from datasets_script.benchmarks.reading import Mark, place_marks
from datasets_script.benchmarks.upright import upright
from datasets_script.schema.image import BENCHMARK_FEATURES, BenchmarkImage, Region, image_to_row


WIDTH, HEIGHT = 48, 32
BOX = (8.0, 4.0, 24.0, 12.0)
POLYGON = (8.0, 4.0, 24.0, 4.0, 24.0, 12.0, 8.0, 12.0)


def photo_with_a_red_box(orientation: int) -> BenchmarkImage:
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[4:12, 8:24] = 255, 0, 0
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", exif=exif)
    mask = pixels[..., 0] > 0
    regions = (Region("box", BOX), Region("polygon", BOX, (POLYGON,)), Region("mask", BOX, mask=mask))
    return BenchmarkImage("a.png", buffer.getvalue(), (WIDTH, HEIGHT), True, regions)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_once_with_its_regions(orientation):
    published = photo_with_a_red_box(orientation)
    image = upright(published)
    decoded = BENCHMARK_FEATURES.decode_example(BENCHMARK_FEATURES.encode_example(image_to_row(image)))
    assert decoded["image"].size == image.size == ((HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT))
    red = np.asarray(decoded["image"])[..., 0] > 0
    box, polygon, mask = image.regions
    assert box.bbox is not None
    x_min, y_min, x_max, y_max = map(int, box.bbox)
    assert red.sum() == red[y_min:y_max, x_min:x_max].sum() == (x_max - x_min) * (y_max - y_min)
    assert mask.mask is not None and np.array_equal(mask.mask, red)
    assert polygon.bbox == mask.bbox == box.bbox
    corners = {(x, y) for x, y in zip(polygon.polygons[0][::2], polygon.polygons[0][1::2], strict=True)}
    assert corners == {(x, y) for x in (x_min, x_max) for y in (y_min, y_max)}
    assert (image is published) == (orientation == 1)
    assert upright(image) is image and image.metadata.get("exif_orientation", 1) == orientation


def test_a_polygon_far_outside_is_left_out_by_name_where_the_metrics_refuse_it():
    far = Mark(polygons=((-100.0, 0.0, 24.0, 4.0, 24.0, 12.0),))
    marked = place_marks("a.png", [Mark(polygons=(POLYGON,)), far], (WIDTH, HEIGHT))
    assert [region.polygons for region in marked.regions] == [(POLYGON,)]
    [skipped] = marked.skipped
    assert skipped.id == "a.png#1" and "must lie within one width or height of its image" in skipped.reason
    near = Mark(polygons=((-WIDTH, 0.0, 24.0, 4.0, 24.0, 12.0),))
    assert not place_marks("a.png", [near], (WIDTH, HEIGHT)).skipped
