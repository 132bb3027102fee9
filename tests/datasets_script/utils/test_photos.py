import errno
import io
import json
import os
import struct
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from scipy.ndimage import binary_dilation, binary_erosion

from datasets_script.utils.errors import UserError
from datasets_script.utils.photos import (
    PHOTO_FORMATS,
    SourceError,
    SourceTransform,
    _readable_formats,
    find_duplicates,
    fit,
    fit_multiple,
    list_sources,
    open_source,
)


def gradient(width=96, height=80):
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, 255 - red], axis=-1).astype(np.uint8))


def test_lists_every_visible_file_sorted(tmp_path):
    for name in ("b.jpg", "a/z.png", "a/b/notes.txt", ".hidden.jpg", ".cache/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_sources(tmp_path) == ["a/b/notes.txt", "a/z.png", "b.jpg"]
    with pytest.raises(NotADirectoryError, match="b.jpg"):
        list_sources(tmp_path / "b.jpg")


def test_follows_links_to_folders_once_and_lists_those_it_does_not_follow(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for folder in (photos / "a", elsewhere / "more"):
        folder.mkdir(parents=True)
        gradient().save(folder / "x.png")
    (photos / "set2").symlink_to(elsewhere)
    (photos / "again").symlink_to(photos / "a")
    (photos / "a" / "up").symlink_to("..")
    (photos / "outside").symlink_to(tmp_path)
    (elsewhere / "loop").symlink_to(elsewhere)
    (photos / "self").symlink_to(photos / "self")
    listed = list_sources(photos)
    assert listed == ["a/up", "a/x.png", "again", "outside", "self", "set2/loop", "set2/more/x.png"]
    assert find_duplicates(photos, listed) == {"set2/more/x.png": "a/x.png"}
    for name in ("a/up", "again", "outside", "set2/loop"):
        with pytest.raises(SourceError, match="a link to a folder that is searched already"):
            open_source(photos / name)
    with pytest.raises(SourceError, match="cannot be read: Too many levels"):
        open_source(photos / "self")


def test_lists_pipes_and_folders_that_cannot_be_read_and_rejects_them_by_name(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "closed").mkdir()
    gradient().save(tmp_path / "closed" / "x.png")
    scandir = os.scandir

    def refuse(path):  # what the mode 000 does to all but root
        if os.fspath(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list_sources(tmp_path) == ["closed", "pipe.jpg"]
    assert find_duplicates(tmp_path, list_sources(tmp_path)) == {}
    with pytest.raises(SourceError, match="cannot be read: a pipe"):
        open_source(tmp_path / "pipe.jpg")
    with pytest.raises(SourceError, match="cannot be read: Permission denied"):
        open_source(tmp_path / "closed")
    with pytest.raises(SourceError, match="`folder` must be a folder that can be read, got .*closed'"):
        list_sources(tmp_path / "closed")


def test_a_name_that_is_not_in_utf_8_is_listed_escaped_and_rejected_when_opened(tmp_path):
    gradient().save(tmp_path / "good.png")
    try:
        with open(os.fsencode(tmp_path) + b"/bad\xff.png", "wb") as file:
            gradient().save(file, format="PNG")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert list_sources(tmp_path) == [r"bad\xff.png", "good.png"]
    assert find_duplicates(tmp_path, list_sources(tmp_path)) == {}
    with pytest.raises(SourceError, match="not in UTF-8; rename it"):
        open_source(tmp_path / r"bad\xff.png")


def test_opens_an_ordinary_photo_unchanged(tmp_path):
    gradient().save(tmp_path / "a.png")
    opened = open_source(tmp_path / "a.png")
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), np.asarray(gradient()))


def test_turns_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the stored image must be turned clockwise
    gradient().save(tmp_path / "a.jpg", exif=exif, quality=100)
    opened = open_source(tmp_path / "a.jpg")
    assert opened.size == (80, 96)
    expected = gradient().transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(opened, int) - np.asarray(expected, int)).max() <= 12
    assert not opened.getexif()


def test_scales_16_bit_grey(tmp_path):
    values = np.linspace(0, 65535, 64 * 70).reshape(64, 70).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    opened = np.asarray(open_source(tmp_path / "a.png"))
    assert opened.shape == (64, 70, 3)
    assert opened.min() == 0 and opened.max() == 255
    assert np.array_equal(opened[..., 0], np.round(values / 257))


def test_takes_32_bit_grey_of_8_bits_as_it_is(tmp_path):
    values = np.linspace(0, 255, 64 * 70).reshape(64, 70).astype(np.uint8)
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "a.tiff")
    assert np.array_equal(np.asarray(open_source(tmp_path / "a.tiff"))[..., 1], values)
    Image.fromarray(values.astype(np.int32) * 257).save(tmp_path / "b.tiff")
    assert np.array_equal(np.asarray(open_source(tmp_path / "b.tiff"))[..., 1], values)


@pytest.mark.parametrize("suffix", ["png", "pgm", "tiff"])
def test_dark_16_bit_grey_stays_dark(tmp_path, suffix):
    Image.fromarray(np.full((64, 70), 255, np.uint16)).save(tmp_path / f"a.{suffix}")
    assert (np.asarray(open_source(tmp_path / f"a.{suffix}")) == 1).all()


def test_converts_cmyk_without_its_profile(tmp_path):
    gradient().convert("CMYK").save(tmp_path / "a.jpg", quality=100, icc_profile=b"a CMYK profile")
    opened = open_source(tmp_path / "a.jpg")
    assert np.abs(np.asarray(opened, int) - np.asarray(gradient(), int)).mean() < 4
    assert "icc_profile" not in opened.info


def adobe_rgb():
    """A profile of RGB with Adobe's primaries and gamma, as a camera writes it."""

    def s15_16(*values):
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    name = b"Adobe RGB (1998)\0"
    gamma = b"curv" + bytes(4) + struct.pack(">IH", 1, 563) + bytes(2)  # 563 / 256
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78 + 1),
        b"wtpt": b"XYZ " + bytes(4) + s15_16(0.95045, 1, 1.08905),
        b"rXYZ": b"XYZ " + bytes(4) + s15_16(0.60974, 0.31111, 0.01947),
        b"gXYZ": b"XYZ " + bytes(4) + s15_16(0.20528, 0.62567, 0.06087),
        b"bXYZ": b"XYZ " + bytes(4) + s15_16(0.14919, 0.06322, 0.74457),
        b"rTRC": gamma,
        b"gTRC": gamma,
        b"bTRC": gamma,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = bytearray(128)
    struct.pack_into(
        ">I4sI4s4s4s", header, 0, 128 + len(table + body), bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    header[36:40], header[68:80] = b"acsp", s15_16(0.9642, 1, 0.8249)
    return bytes(header) + table + body


# Red, green and grey of sRGB, in Adobe RGB.
IN_ADOBE_RGB = [((219, 0, 0), (255, 0, 0)), ((144, 255, 60), (0, 255, 0)), ((127, 127, 127), (127, 127, 127))]


@pytest.mark.parametrize(("stored", "seen"), IN_ADOBE_RGB)
@pytest.mark.parametrize("name", ["a.png", "palette.png", "a.tiff", "rgba.png"])
def test_converts_colours_of_a_profile_to_srgb(tmp_path, name, stored, seen):
    image = Image.new("RGB", (96, 80), stored)
    if name == "rgba.png":
        image.putalpha(255)
        image.paste((0, 0, 0, 0), (48, 0, 96, 80))
    image = image.quantize(4) if name == "palette.png" else image
    image.save(tmp_path / name, icc_profile=adobe_rgb())
    opened = open_source(tmp_path / name)
    assert np.abs(np.asarray(opened, int)[:, :48] - seen).max() <= 3
    assert name != "rgba.png" or (np.asarray(opened)[:, 48:] == 255).all()
    assert opened.info == {"converted_from": "Adobe RGB (1998)"}


def test_a_profile_of_srgb_or_of_other_channels_or_a_broken_one_changes_nothing(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, adobe_rgb()[:200], b"no profile"):
        gradient().save(tmp_path / "a.png", icc_profile=profile)
        opened = open_source(tmp_path / "a.png")
        assert np.array_equal(np.asarray(opened), np.asarray(gradient())) and not opened.info
    gradient().convert("L").save(tmp_path / "grey.png", icc_profile=adobe_rgb())
    opened = open_source(tmp_path / "grey.png")
    assert np.array_equal(np.asarray(opened)[..., 0], np.asarray(gradient().convert("L"))) and not opened.info


def test_lays_transparency_on_white(tmp_path):
    image = gradient().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((10, 20, 30, 255), (0, 0, 48, 80))
    image.save(tmp_path / "rgba.png")
    image.quantize(16).save(tmp_path / "palette.png")
    for name in ("rgba.png", "palette.png"):
        opened = np.asarray(open_source(tmp_path / name), int)
        assert np.abs(opened[:, :48] - (10, 20, 30)).max() <= 3
        assert (opened[:, 48:] == 255).all()


def test_converts_a_palette(tmp_path):
    gradient().quantize(64).save(tmp_path / "a.png")
    opened = np.asarray(open_source(tmp_path / "a.png"), int)
    assert np.abs(opened - np.asarray(gradient(), int)).mean() < 16


def test_takes_the_first_image_of_a_multi_image_jpeg(tmp_path):
    gradient().save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[gradient(64, 64)], quality=100)
    assert open_source(tmp_path / "a.jpg").size == (96, 80)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_rejects_animations_and_pages(tmp_path, suffix):
    frames = [Image.new("RGB", (96, 80), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(SourceError, match="3 frames"):
        open_source(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_rejects_truncated_files(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="broken|not an image"):
        open_source(tmp_path / f"a.{suffix}")


def gif_of_a_frame_and(rest):
    """A still GIF whose end is replaced by the beginning of a second frame."""
    file = io.BytesIO()
    gradient().save(file, format="GIF")
    return file.getvalue()[:-1] + rest


def tiff_of_a_page_and(*tags):
    """A TIFF whose only page points to a second one with these tags only."""
    file = io.BytesIO()
    gradient().save(file, format="TIFF")
    data = bytearray(file.getvalue())
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, len(data))
    page = b"".join(struct.pack("<HHIHH", tag, 3, 1, 8, 0) for tag in tags)
    return bytes(data) + struct.pack("<H", len(tags)) + page + bytes(4)


BROKEN = {
    "frame.gif": gif_of_a_frame_and(bytes.fromhex("2C 0000 0000 6400 6400 00")),
    "control.gif": gif_of_a_frame_and(bytes.fromhex("21 F9 01 01 00 2C 0000 0000 6400 6400 00")),
    "page.tiff": tiff_of_a_page_and(258, 259),
}


@pytest.mark.parametrize("name", BROKEN)
def test_rejects_files_at_which_a_decoder_stumbles(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(SourceError, match="broken"):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.ENOSPC, "No space"), OSError(errno.EIO, "I/O error"), ImportError()]
)
def test_errors_of_the_machine_are_not_the_files_fault(tmp_path, monkeypatch, error):
    def fail(*args):
        raise error

    gradient().save(tmp_path / "a.png")
    monkeypatch.setattr("datasets_script.utils.photos.to_rgb", fail)
    with pytest.raises(type(error)) as raised:
        open_source(tmp_path / "a.png")
    assert raised.value is error


@pytest.mark.parametrize("format", ["EPS", "DDS", "TGA", "PCX", "ICO", "PDF"])
def test_only_formats_of_photographs_are_tried(tmp_path, monkeypatch, format):
    gradient().save(tmp_path / "a.jpg", format=format)
    for name, (_, accept) in Image.OPEN.items():
        if name not in PHOTO_FORMATS:
            monkeypatch.setitem(Image.OPEN, name, (lambda *_, name=name: pytest.fail(f"{name} was tried"), accept))
    with pytest.raises(SourceError, match="not an image in a format that can be read, which are JPEG, PNG, .*; conv"):
        open_source(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif", "bmp", "jp2", "ppm"])
def test_photographs_are_read_in_every_format_whatever_their_name(tmp_path, suffix):
    gradient().save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "photo")
    assert open_source(tmp_path / "photo").size == (96, 80)


def test_heic_is_read_with_its_package_and_named_without(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(bytes.fromhex("00000018") + b"ftypheic" + bytes(400))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    _readable_formats.cache_clear()
    with pytest.raises(SourceError, match=r"HEIC, .*: run `pip install artiagent\[heic\]`, or convert it to JPEG"):
        open_source(tmp_path / "a.heic")

    def register():
        decode = lambda file, name: gradient()  # noqa: E731
        monkeypatch.setitem(Image.OPEN, "HEIF", (decode, lambda start: start[4:12] == b"ftypheic"))

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    _readable_formats.cache_clear()
    assert open_source(tmp_path / "a.heic").size == (96, 80)
    _readable_formats.cache_clear()


@pytest.fixture
def damaged(tmp_path):
    """A JPEG with ten bytes of its data changed, which Pillow decodes without a word."""
    buffer = io.BytesIO()
    gradient(256, 256).save(buffer, format="JPEG", quality=90)
    content = bytearray(buffer.getvalue())
    content[len(content) // 2 : len(content) // 2 + 10] = bytes(range(10))
    (tmp_path / "damaged.jpg").write_bytes(content)
    return tmp_path / "damaged.jpg"


def test_damage_within_jpeg_data_is_told_with_the_package_that_passes_it_on(damaged, tmp_path):
    pytest.importorskip("simplejpeg")
    with pytest.raises(SourceError, match="damaged JPEG data, the decoder says: .*; copy the file again or remove it"):
        open_source(damaged)
    for mode, options in (("RGB", {"progressive": True}), ("L", {}), ("CMYK", {})):
        gradient().convert(mode).save(tmp_path / "good.jpg", **options)
        assert open_source(tmp_path / "good.jpg").size == (96, 80)


def test_damage_within_jpeg_data_passes_without_it(damaged, monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert np.abs(np.asarray(open_source(damaged), int) - np.asarray(gradient(256, 256), int)).max() > 64


def test_rejects_what_is_no_image(tmp_path):
    (tmp_path / "a.jpg").write_text("Dear diary")
    (tmp_path / "empty.png").touch()
    for name in ("a.jpg", "empty.png"):
        with pytest.raises(SourceError, match="not an image"):
            open_source(tmp_path / name)


def test_rejects_the_too_small_and_the_too_large(tmp_path, monkeypatch):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(SourceError, match="too small: 1x1 px"):
        open_source(tmp_path / "dot.png")
    Image.new("RGB", (300, 63)).save(tmp_path / "strip.png")
    with pytest.raises(SourceError, match="at least 64 px"):
        open_source(tmp_path / "strip.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    for size in ((96, 80), (200, 200)):  # Pillow warns of the first and refuses the second
        gradient(*size).save(tmp_path / "large.png")
        with pytest.raises(SourceError, match="over 5000 pixels"):
            open_source(tmp_path / "large.png")


def test_another_thread_refuses_the_too_large_and_leaves_the_filters_of_warnings_alone(tmp_path, monkeypatch):
    gradient(96, 80).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    pillows, seen = Image.open, []

    def opening(*args, **kwargs):
        seen.append(warnings.filters[:])
        return pillows(*args, **kwargs)

    monkeypatch.setattr(Image, "open", opening)
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as pool:
        warnings.simplefilter("ignore")
        before = warnings.filters[:]
        with pytest.raises(SourceError, match="over 5000 pixels"):
            pool.submit(open_source, tmp_path / "large.png").result()
    assert seen == [before]


def test_a_variable_raises_the_bound_on_pixels(tmp_path, monkeypatch):
    gradient().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SourceError, match="set ARTIAGENT_MAX_PHOTO_PIXELS=N"):
        open_source(tmp_path / "a.png")
    monkeypatch.setenv("ARTIAGENT_MAX_PHOTO_PIXELS", "9000")
    assert open_source(tmp_path / "a.png").crop((0, 0, 90, 70)).size == (90, 70)
    monkeypatch.setenv("ARTIAGENT_MAX_PHOTO_PIXELS", "many")
    with pytest.raises(UserError, match="`ARTIAGENT_MAX_PHOTO_PIXELS` must be a whole number .*, got 'many'"):
        list_sources(tmp_path)


def test_scaling_16_bit_grey_takes_a_few_bytes_a_pixel(tmp_path):
    Image.fromarray(np.zeros((2000, 2000), np.uint16)).save(tmp_path / "a.png")
    open_source(tmp_path / "a.png")
    tracemalloc.start()
    open_source(tmp_path / "a.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2000 * 2000


def test_rejects_pixels_without_an_8_bit_range(tmp_path):
    Image.fromarray(np.full((64, 64), 1e-3, np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((64, 64), 70000, np.int32)).save(tmp_path / "int.tiff")
    with pytest.raises(SourceError, match="floating-point"):
        open_source(tmp_path / "float.tiff")
    with pytest.raises(SourceError, match="32-bit"):
        open_source(tmp_path / "int.tiff")


sizes = st.tuples(st.integers(64, 3000), st.integers(64, 3000))


@st.composite
def boxes(draw, size):
    x = sorted(draw(st.tuples(st.integers(0, size[0]), st.integers(0, size[0]))))
    y = sorted(draw(st.tuples(st.integers(0, size[1]), st.integers(0, size[1]))))
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])


def assert_no_stretch(transform):
    """Check that both sides of the crop have one scale, to within a pixel of the source."""
    x_min, y_min, x_max, y_max = transform.crop
    width, height = x_max - x_min, y_max - y_min
    across, down = width / transform.output_size[0], height / transform.output_size[1]
    assert abs(width - down * transform.output_size[0]) <= 1 or abs(height - across * transform.output_size[1]) <= 1


@given(data=st.data(), size=sizes, output_size=st.tuples(st.integers(16, 512), st.integers(16, 512)))
def test_fit_is_the_largest_crop_of_the_outputs_shape(data, size, output_size):
    transform = fit(size, output_size, data.draw(st.none() | boxes(size)))
    x_min, y_min, x_max, y_max = transform.crop
    assert x_max - x_min == size[0] or y_max - y_min == size[1]
    assert transform.output_size == output_size
    assert_no_stretch(transform)


@given(data=st.data(), size=sizes, multiple=st.sampled_from([16, 32]), cap=st.none() | st.integers(480, 2048))
def test_fit_multiple_keeps_its_bounds(data, size, multiple, cap):
    transform = fit_multiple(size, multiple, max_long_side=cap, focus=data.draw(st.none() | boxes(size)))
    short, long = sorted(transform.output_size)
    assert short % multiple == 0 and long % multiple == 0
    assert short >= 480
    assert cap is None or long <= cap
    assert_no_stretch(transform)


def test_fit_multiple_only_crops_where_it_can():
    transform = fit_multiple((1003, 650))
    assert transform.output_size == (992, 640)
    assert transform.crop == (6, 5, 998, 645)
    assert fit_multiple((300, 200)).output_size == (720, 480)
    assert fit_multiple((4000, 3000), max_long_side=1024).output_size == (1024, 768)
    assert fit_multiple((3000, 100), max_long_side=1024).output_size == (1024, 480)


@pytest.mark.parametrize("arguments", [{"min_short_side": 500}, {"min_short_side": 0}, {"max_long_side": 400}])
def test_fit_multiple_refuses_impossible_bounds(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        fit_multiple((1000, 1000), **arguments)


def test_crop_follows_the_focus():
    assert fit((400, 200), (64, 64)).crop == (100, 0, 300, 200)
    assert fit((400, 200), (64, 64), focus=(150, 0, 170, 10)).crop == (60, 0, 260, 200)
    assert fit((400, 200), (64, 64), focus=(380, 0, 400, 10)).crop == (200, 0, 400, 200)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), size=st.tuples(st.integers(64, 400), st.integers(64, 400)))
def test_a_mask_goes_where_its_pixels_go(data, size):
    transform = data.draw(
        st.sampled_from([fit(size, (128, 128)), fit_multiple(size, 16, min_short_side=64, max_long_side=160)])
    )
    centre = [data.draw(st.floats(0, side)) for side in size]
    radius = data.draw(st.floats(10, 150))
    rows, columns = np.ogrid[: size[1], : size[0]]
    mask = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 <= radius**2
    blob = np.where(mask[..., None], (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    seen = np.asarray(transform.apply(Image.fromarray(blob)))[..., 0] > 127
    moved = transform.apply_mask(mask)
    assert moved.shape == seen.shape == transform.output_size[::-1]
    border = 1 + int(max(transform.scale))
    inner = binary_erosion(seen, iterations=border, border_value=1)
    assert (moved >= inner).all()
    assert (moved <= binary_dilation(seen, iterations=border)).all()


def test_boxes_move_with_the_crop():
    transform = SourceTransform((400, 200), (100, 0, 300, 200), (100, 100))
    assert transform.apply_box((120.0, 20.0, 200.0, 60.0)) == (10.0, 10.0, 50.0, 30.0)
    assert transform.apply_box((50.0, 20.0, 140.0, 60.0)) == (0.0, 10.0, 20.0, 30.0)
    assert transform.apply_box((0.0, 0.0, 90.0, 200.0)) is None


def test_transform_is_recorded_and_checks_what_it_is_given():
    transform = fit((400, 200), (64, 64))
    recorded = {"source_size": [400, 200], "crop": [100, 0, 300, 200], "output_size": [64, 64]}
    assert json.loads(json.dumps(transform.as_dict())) == recorded
    assert replace(transform, converted_from="P3").as_dict() == {**recorded, "converted_from": "P3"}
    with pytest.raises(ValueError, match=r"\(400, 200\), got \(200, 400\)"):
        transform.apply(Image.new("RGB", (200, 400)))
    with pytest.raises(ValueError, match=r"\(400, 200\), got \(200, 400\)"):
        transform.apply_mask(np.zeros((400, 200), bool))
    with pytest.raises(ValueError, match="`crop`"):
        SourceTransform((10, 10), (0, 0, 11, 10), (16, 16))
    with pytest.raises(ValueError, match="`output_size`"):
        SourceTransform((10, 10), (0, 0, 10, 10), (0, 16))
