"""Source photos: listing and opening them, and cropping and resizing them for a model."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import warnings
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .errors import ArgumentError, UserError
from .files import DISK_FULL


_Box = tuple[float, float, float, float]
Size = tuple[int, int]

# Formats of photographs. Pillow knows more, some of which run programs (EPS starts Ghostscript) or are no pictures.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "GIF", "BMP", "JPEG2000", "PPM")
# The first brand of a HEIC file, after its length and "ftyp".
_HEIC = re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
# iPhone photos and photos with an HDR gain map are "multi-image" JPEGs; the first image is the photo.
_STILL_FORMATS_OF_SEVERAL_FRAMES = ("MPO",)
# Pillow's own `OSError`s of broken files have no number or one of arguments. These are the machine's, not the file's.
_MACHINE_ERRORS = (*DISK_FULL, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)
# By how many of 255 levels profiles that are called sRGB differ from each other.
_SHIFT_OF_SRGB = 2
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_CHANNELS = {"RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB", "P": "RGB", "PA": "RGB", "L": "L", "LA": "L", "CMYK": "CMYK"}
CONVERTED_FROM = "converted_from"
_ROWS = 64
_BOUND = "ARTIAGENT_MAX_PHOTO_PIXELS"
_ESCAPED_BYTE = re.compile(r"\\x[89a-f][0-9a-f]")


class SourceError(UserError, ValueError):
    """A file that cannot be used as a source photo. The message gives the reason to the user."""


def list_sources(folder: str | os.PathLike[str]) -> list[str]:
    """
    List all files below a folder except hidden ones (with a leading dot). What is no image is listed too and rejected
    when opened, so that nothing is skipped silently: other files, pipes, broken links, folders that cannot be read.
    Links to folders are followed, each folder once; a link to one that was searched already, or that the source lies
    in, is listed itself.

    Args:
        folder (`str` or `os.PathLike`): The folder.

    Returns:
        `list[str]`: Paths relative to `folder`, with forward slashes, sorted. Bytes that are not UTF-8 are escaped, as
        in `caf\\xe9.jpg`: no record can hold them, and such a file is rejected when opened.

    Raises:
        NotADirectoryError: `folder` is not a folder.
        SourceError: It cannot be read.
    """
    _apply_pixel_bound()  # a wrong one is told before any photo is opened
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"`folder` must be an existing folder, got {str(folder)!r}")
    return sorted({_in_utf8(path.relative_to(root).as_posix()) for path in _walk(root)})


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, and the folders that are not searched."""
    seen: set[tuple[int, int]] = set()
    around = {(place.stat().st_dev, place.stat().st_ino) for place in root.resolve().parents}
    folders, links = deque([root]), deque[Path]()
    while folders or links:  # real folders first: files are listed by their own path
        folder = folders.popleft() if folders else links.popleft()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise SourceError(
                    f"`folder` must be a folder that can be read, got {str(folder)!r}: {error.strerror}"
                ) from error
            yield folder
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in seen or identity in around:
            yield folder
            continue
        seen.add(identity)
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and os.path.isdir(path):
                links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                yield path


def _in_utf8(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def find_duplicates(folder: str | os.PathLike[str], sources: Sequence[str]) -> dict[str, str]:
    """
    Find files that are byte-identical to an earlier one. Only files of equal size are read; empty files are ignored.

    Args:
        folder (`str` or `os.PathLike`): The folder.
        sources (`Sequence[str]`): Paths relative to it. Unreadable files are skipped here and rejected when opened.

    Returns:
        `dict[str, str]`: For each duplicate, the first file with the same content.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for name in sources:
        with suppress(OSError):  # reported when the file is opened
            status = (Path(folder) / name).stat()
            if stat.S_ISREG(status.st_mode):
                by_size[status.st_size].append(name)
    duplicates, first = {}, dict[bytes, str]()
    for size, names in by_size.items():
        for name in names if size and len(names) > 1 else ():
            with suppress(OSError), (Path(folder) / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                if first.setdefault(digest, name) != name:
                    duplicates[name] = first[digest]
    return duplicates


def open_source(path: str | os.PathLike[str], min_side: int = 64) -> Image.Image:
    """
    Open a photo, upright and in 8-bit RGB: the EXIF orientation is applied, 16-bit grey is scaled (not clipped) to 8
    bits (32-bit grey with values up to 255 is taken as it is), CMYK and palettes are converted, colours of
    a profile (Display P3, Adobe RGB, ...) are converted to sRGB, and transparency is composited on white. A broken
    profile, or one of other channels than the photo's, is ignored.

    Args:
        path (`str` or `os.PathLike`): The file.
        min_side (`int`, *optional*, defaults to 64): Least width and height in pixels.

    Returns:
        `PIL.Image.Image`: RGB, fully read, without metadata. `info["converted_from"]` is the name of the profile that
        the colours were converted from, and missing if they were not.

    Raises:
        SourceError: The file is missing, unreadable, not an image, broken or truncated (within JPEG data if simplejpeg
            is installed and libjpeg-turbo notices), animated or multi-page,
            smaller than `min_side`, larger than `PIL.Image.MAX_IMAGE_PIXELS`, or in a pixel format without a defined
            8-bit range. Whatever else a decoder raises at such a file is its fault.
        MemoryError, ImportError: The machine is at fault, and not the file.
        OSError: The same, for a failing disk or too many open files.
    """
    _apply_pixel_bound()
    with _without_warning():
        try:
            _check_file(path)
            with Image.open(path, formats=_readable_formats()) as image:
                _check_still(image)
                _check_size(image, min_side)
                _check_bound(image)
                photo = to_rgb(image)
                if image.format in ("JPEG", "MPO"):
                    _check_jpeg_data(path, image.mode)
                return photo
        except (SourceError, MemoryError, ImportError):
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise _too_large() from error
        except UnidentifiedImageError as error:
            raise SourceError(_why_unidentified(path)) from error
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            if isinstance(error, FileNotFoundError) and _ESCAPED_BYTE.search(os.fspath(path)):
                raise SourceError("cannot be read: its name is not in UTF-8; rename it") from error
            raise SourceError(f"cannot be read: {error.strerror}; check that it is there and may be read") from error
        except Exception as error:  # decoders raise of all kinds: IndexError, TypeError, struct.error, zlib.error
            if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
                raise
            if isinstance(error, OSError) and error.filename is not None:  # of opening it, and not of decoding
                raise SourceError(f"cannot be read: {error.strerror}") from error
            raise SourceError(f"broken or truncated image: {error}; copy the file again or remove it") from error


@dataclass(frozen=True)
class SourceTransform:
    """
    A crop and a Lanczos resize that turn a source photo into the image a model sees. A point `(x, y)` of the source is
    at `((x - crop[0]) * output_width / crop_width, (y - crop[1]) * output_height / crop_height)` of the output.

    Args:
        source_size (`tuple[int, int]`): `(width, height)` of the upright source in pixels.
        crop (`tuple[int, int, int, int]`): `(x_min, y_min, x_max, y_max)` in the source, exclusive maxima.
        output_size (`tuple[int, int]`): `(width, height)` after resizing.
        converted_from (`str`, *optional*, defaults to `""`): Colour profile that the source was converted from.

    Raises:
        ValueError: The crop is empty or leaves the source, or the output has no pixels.
    """

    source_size: Size
    crop: tuple[int, int, int, int]
    output_size: Size
    converted_from: str = ""

    def __post_init__(self) -> None:
        x_min, y_min, x_max, y_max = self.crop
        if not (0 <= x_min < x_max <= self.source_size[0] and 0 <= y_min < y_max <= self.source_size[1]):
            raise ValueError(f"`crop` must be a box within the source of size {self.source_size}, got {self.crop}")
        if min(self.output_size) < 1:
            raise ValueError(f"`output_size` must have sides of at least 1 px, got {self.output_size}")

    @property
    def scale(self) -> tuple[float, float]:
        """
        Return the output pixels per source pixel, horizontally and vertically; equal but for the rounding of the crop.
        """
        x_min, y_min, x_max, y_max = self.crop
        return self.output_size[0] / (x_max - x_min), self.output_size[1] / (y_max - y_min)

    def apply(self, image: Image.Image) -> Image.Image:
        """
        Crop and resize a source photo to the image that the model sees.

        Raises:
            ValueError: The size of `image` is not that of the source.
        """
        self._check_source(image.size)
        return image.crop(self.crop).resize(self.output_size, Image.Resampling.LANCZOS)

    def apply_mask(self, mask: np.ndarray) -> np.ndarray:
        """
        Map a mask of the source to the output. An output pixel is in the mask if at least half of its area is.

        Args:
            mask (`np.ndarray` of shape `(height, width)`, `bool`): Mask of the source.

        Returns:
            `np.ndarray` of shape `(output_height, output_width)`, `bool`.

        Raises:
            ValueError: The size of `mask` is not that of the source.
        """
        self._check_source((mask.shape[1], mask.shape[0]))
        x_min, y_min, x_max, y_max = self.crop
        cropped = Image.fromarray(mask[y_min:y_max, x_min:x_max].astype(np.float32))
        return np.asarray(cropped.resize(self.output_size, Image.Resampling.BOX)) >= 0.5

    def apply_box(self, box: _Box) -> _Box | None:
        """Map a box of the source to the output, clipped to it; return `None` if nothing is left."""
        (width, height), (x_scale, y_scale) = self.output_size, self.scale
        x_min, x_max = (min(max((x - self.crop[0]) * x_scale, 0.0), float(width)) for x in (box[0], box[2]))
        y_min, y_max = (min(max((y - self.crop[1]) * y_scale, 0.0), float(height)) for y in (box[1], box[3]))
        return (x_min, y_min, x_max, y_max) if x_min < x_max and y_min < y_max else None

    def as_dict(self) -> dict[str, Any]:
        """Return the transform as it is recorded with a pair, JSON-serialisable."""
        return {
            "source_size": list(self.source_size),
            "crop": list(self.crop),
            "output_size": list(self.output_size),
            **({"converted_from": self.converted_from} if self.converted_from else {}),
        }

    def _check_source(self, size: Size) -> None:
        if size != self.source_size:
            raise ValueError(f"the image or mask must have the source's size {self.source_size}, got {size}")


def fit(size: Size, output_size: Size, focus: _Box | None = None) -> SourceTransform:
    """
    Compute the largest crop with the output's aspect ratio, for a model with a fixed input size.

    Args:
        size (`tuple[int, int]`): `(width, height)` of the source.
        output_size (`tuple[int, int]`): `(width, height)` the model takes, e.g. `(256, 256)`.
        focus (`tuple[float, float, float, float]`, *optional*): Box to centre the crop on, as far as the source
            allows; by default the whole source.

    Returns:
        `SourceTransform`: Stretches by no more than the rounding of the crop to whole pixels.
    """
    (width, height), (output_width, output_height) = size, output_size
    if width * output_height <= height * output_width:
        crop_size = (width, max(1, round(Fraction(width * output_height, output_width))))
    else:
        crop_size = (max(1, round(Fraction(height * output_width, output_height))), height)
    return SourceTransform(size, _place(size, crop_size, focus), output_size)


def fit_multiple(
    size: Size,
    multiple: int = 16,
    min_short_side: int = 480,
    max_long_side: int | None = None,
    focus: _Box | None = None,
) -> SourceTransform:
    """
    Compute the smallest change that makes both sides a multiple of a number, for a model that takes any size. The
    photo is enlarged if its short side is under `min_short_side`, reduced if its long side is over `max_long_side`,
    then cropped. If a narrow photo cannot meet both bounds, its short side is kept and its long side is cropped.

    Args:
        size (`tuple[int, int]`): `(width, height)` of the source.
        multiple (`int`, *optional*, defaults to 16): Both output sides are multiples of it.
        min_short_side (`int`, *optional*, defaults to 480): Least short side of the output in pixels.
        max_long_side (`int`, *optional*): Greatest long side of the output in pixels; unbounded by default.
        focus (`tuple[float, float, float, float]`, *optional*): See [`fit`].

    Returns:
        `SourceTransform`: Only crops if no resizing is needed.

    Raises:
        ValueError: `min_short_side` is no multiple of `multiple`, or `max_long_side` is below `min_short_side`.
    """
    if min_short_side < multiple or min_short_side % multiple:
        raise ValueError(f"`min_short_side` must be a multiple of {multiple}, got {min_short_side}")
    if max_long_side is not None and max_long_side < min_short_side:
        raise ValueError(f"`max_long_side` must be at least `min_short_side` ({min_short_side}), got {max_long_side}")
    longest = Fraction(max_long_side or max(size))
    scale = max(min(Fraction(1), longest / max(size)), Fraction(min_short_side, min(size)))
    limit = max_long_side or max(size) * scale
    width, height = (int(min(side * scale, Fraction(limit))) // multiple * multiple for side in size)
    crop_size = (min(round(width / scale), size[0]), min(round(height / scale), size[1]))
    return SourceTransform(size, _place(size, crop_size, focus), (width, height))


def _place(size: Size, crop_size: Size, focus: _Box | None) -> tuple[int, int, int, int]:
    """Place a crop within `size`, its centre as near to that of `focus` as possible."""
    x_min, y_min, x_max, y_max = focus or (0, 0, *size)
    left = min(max(round((x_min + x_max - crop_size[0]) / 2), 0), size[0] - crop_size[0])
    top = min(max(round((y_min + y_max - crop_size[1]) / 2), 0), size[1] - crop_size[1])
    return left, top, left + crop_size[0], top + crop_size[1]


def _apply_pixel_bound() -> None:
    """Set Pillow's bound on pixels to that of the environment, for cropping too, which Pillow checks as well."""
    bound = os.environ.get(_BOUND)
    if bound:
        if not bound.isdecimal() or int(bound) < 1:
            raise ArgumentError(f"`{_BOUND}` must be a whole number of pixels of at least 1, got {bound!r}")
        Image.MAX_IMAGE_PIXELS = int(bound)


@cache
def _readable_formats() -> tuple[str, ...]:
    """Return the formats of photos that are installed, after adding HEIC if its package is."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in PHOTO_FORMATS if name in Image.OPEN)


def _why_unidentified(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        start = file.read(12)
    if _HEIC.match(start) and "HEIF" not in _readable_formats():
        return "HEIC, for which a package is missing: run `pip install artiagent[heic]`, or convert it to JPEG"
    return (
        f"not an image in a format that can be read, which are {', '.join(_readable_formats())}; convert or remove it"
    )


def _check_jpeg_data(path: str | os.PathLike[str], mode: str) -> None:
    """
    Refuse a JPEG file of whose data the decoder complains, if the package that passes this on is installed. Pillow
    drops what libjpeg-turbo reports, and gives whatever pixels came out.
    """
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return
    colors = "CMYK" if mode == "CMYK" else "GRAY"
    try:
        decode_jpeg(Path(path).read_bytes(), colors, fastdct=True, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        raise SourceError(f"damaged JPEG data, the decoder says: {error}; copy the file again or remove it") from error


def _check_file(path: str | os.PathLike[str]) -> None:
    """Check that this is a file: opening a pipe would wait for whoever writes to it."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()
        if os.path.islink(path):
            raise SourceError("a link to a folder that is searched already or that holds this one: not followed")
        raise SourceError("cannot be read: a folder, not a file")
    if not stat.S_ISREG(mode):
        raise SourceError("cannot be read: a pipe, socket or device, not a file")


def _check_still(image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)  # missing for formats with a single frame
    if frames > 1 and image.format not in _STILL_FORMATS_OF_SEVERAL_FRAMES:
        raise SourceError(f"animated or of several pages: {frames} frames, only still images can be used")


def _check_size(image: Image.Image, min_side: int) -> None:
    if min(image.size) < min_side:
        raise SourceError(f"too small: {image.width}x{image.height} px, both sides must be at least {min_side} px")


def _check_bound(image: Image.Image) -> None:
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise _too_large()


def _too_large() -> SourceError:
    return SourceError(
        f"too large: over {Image.MAX_IMAGE_PIXELS} pixels; reduce it, or set {_BOUND}=N to read up to N"
    )


@contextmanager
def _without_warning() -> Iterator[None]:
    """Keep Pillow from warning of a photo that is refused as too large."""
    # All threads share the filters, and two that change them at once leave them wrong for good.
    if current_thread() is not main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def to_rgb(image: Image.Image) -> Image.Image:
    """
    Turn an image upright and convert it to 8-bit RGB as [`open_source`] does.

    Raises:
        SourceError: The pixels have no defined 8-bit range.
    """
    profile, converted_from = image.info.get("icc_profile"), ""
    # Pillow opens PGM files of 16 bits, and some versions PNG files, in the mode of 32 bits.
    of_16_bits = image.mode != "I" or image.format in ("PPM", "PNG")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = _grey_to_eight_bits(image, of_16_bits)
    if image.mode == "F":
        raise SourceError("floating-point pixels have no defined range; save it as an 8-bit image")
    if profile:
        image, converted_from = _to_srgb(image, profile)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    # A fresh array drops the metadata; otherwise a CMYK profile would be written into an RGB file.
    rgb = Image.fromarray(np.asarray(image.convert("RGB")))
    if converted_from:
        rgb.info[CONVERTED_FROM] = converted_from
    return rgb


def _to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    """
    Convert an image from its colour profile to sRGB; return the profile's name too. An image with a profile of sRGB
    itself, of other channels than it has or that is broken is returned as it is, with an empty name.
    """
    transform, name = _transform_to_srgb(profile, _CHANNELS.get(image.mode, ""))
    if transform is None:
        return image, ""
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    converted = ImageCms.applyTransform(image.convert(_CHANNELS[image.mode]), transform)
    assert converted is not None  # it is not made in place
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, name


@lru_cache(maxsize=8)
def _transform_to_srgb(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """Return the transform of images of a mode, and the profile's name; `None` where it would change nothing."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if _MODES.get(source.profile.xcolor_space.strip()) != mode:
            return None, ""
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        name = " ".join(ImageCms.getProfileDescription(source).split())
    except (OSError, ImageCms.PyCMSError):
        return None, ""
    levels = np.linspace(0, 255, 256 if mode == "L" else 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(*[levels] * len(mode)), axis=-1).reshape(-1, len(mode))
    probe = Image.frombytes(mode, (len(colours), 1), colours.tobytes())
    converted = ImageCms.applyTransform(probe, transform)
    shift = np.asarray(converted, int) - np.asarray(probe.convert("RGB"), int)
    return (transform, name or "a profile without a name") if np.abs(shift).max() > _SHIFT_OF_SRGB else (None, "")


def _grey_to_eight_bits(image: Image.Image, of_16_bits: bool) -> Image.Image:
    """
    Scale grey of 16 bits, and take that of 32 bits as it was meant: values up to 255 are those of 8 bits in a larger
    file, and values up to 65535 those of 16 bits.
    """
    values = np.asarray(image)
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > 65535:
        raise SourceError(f"32-bit pixels from {least} to {most} have no defined range; save 8 bits")
    if most <= 255 and not of_16_bits:
        return Image.fromarray(values.astype(np.uint8))
    scaled = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):  # in bands: the quotients take eight bytes a pixel
        scaled[top : top + _ROWS] = np.round(values[top : top + _ROWS] / 257)
    return Image.fromarray(scaled)
