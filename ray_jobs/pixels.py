"""The one door from an X-ray, as a file or as an array, to pixels: uint8, gray, (height, width).

Comes in: an image file, or an array of 8 or 16 bits or of floats, gray or in colour.
Goes out: the same gray picture everywhere, so that training, evaluation, export and reading see equal pixels.

What happens on the way:

- EXIF orientation is applied (phones and some exporters store a rotated image and say so), so the height and the
  width are those of the picture that a person saw when drawing boxes. For JPEG, PNG and WebP.
- Colour becomes ITU-R BT.601 luma, 0.299 R + 0.587 G + 0.114 B; transparency is ignored.
- More than 8 bits are windowed, never truncated: the darkest and the brightest half percent of the pixels saturate
  and what is between is spread evenly over 0..255. Detectors with 12 or 14 used bits out of 16 so lose nothing.

OpenCV decodes: on 512 px gray JPEGs it needs 0.5 ms where Pillow needs 0.6, it keeps 16 bits of colour PNGs, which
Pillow cuts to 8, and it refuses files that are cut short. Pillow reads the header, and the whole file once more when
asked to be strict.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ray_jobs.errors import DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Lower-case endings of the files that are read; both decoders know each of them."""

MAX_PIXELS = 80_000_000
"""Larger images are refused before they are decoded: a small file may unpack to gigabytes. A plain X-ray has at most
about 25 million pixels. Below the 89 million from which Pillow itself warns."""

MAX_BYTES = 1 << 29
"""Larger files are refused before they are read: uncompressed, ``MAX_PIXELS`` of 16 bits need a third of it."""

WINDOW = (0.005, 0.995)
"""Quantiles of an image with more than 8 bits that become 0 and 255."""

_GRAY_AT_FULL_DEPTH = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH


class ImageError(DataError):
    """A file or an array is no image that can be read."""


def read_image(path: Path, *, strict: bool = False) -> NDArray[np.uint8]:
    """Read an image file as uint8 gray pixels of shape (height, width).

    ``strict`` reads the file a second time with another decoder, which finds damage that the first one may pass
    over; the pixels are the same. Raises ``ImageError`` for a file that is missing, empty, cut short, too large or no
    image.
    """
    return to_gray8(decode_image(read_bytes(path), str(path), strict=strict))


def read_bytes(path: Path) -> bytes:
    """The bytes of an image file; ``ImageError`` where it cannot be read or is empty."""
    try:
        if (size := Path(path).stat().st_size) > MAX_BYTES:
            raise ImageError(f"{path}: {size:,} bytes are more than the {MAX_BYTES:,} that are read; is it an image?")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise ImageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise ImageError(f"{path}: is empty (0 bytes); copy it again from its source")
    return data


def decode_image(data: bytes, name: str = "image", *, strict: bool = False) -> np.ndarray:
    """Decode the bytes of an image file to gray at its own depth: (height, width), mostly uint8 or uint16.

    ``name`` stands in the message of the ``ImageError`` raised for bytes that are no whole image.
    """
    _check_header(data, name, load=strict)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _GRAY_AT_FULL_DEPTH)
    except (cv2.error, MemoryError) as error:
        raise ImageError(f"{name}: cannot be decoded: {str(error).strip()}") from None
    if pixels is None or pixels.size == 0:
        raise ImageError(f"{name}: is cut short or damaged; copy it again from its source")
    return pixels


def to_gray8(array: np.ndarray) -> NDArray[np.uint8]:
    """Turn an image array into uint8 gray pixels of shape (height, width).

    Takes (H, W), (H, W, 1), (H, W, 3) as RGB or (H, W, 4) as RGBA. uint8 stays as it is, bool becomes 0 and 255,
    floats that all lie in 0..1 are multiplied by 255, everything else is windowed (see the top of this file).
    Raises ``ImageError`` for another shape or type, an empty array, or values that are not finite.
    """
    array = np.asarray(array)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"image array: shape must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.size == 0:
        raise ImageError(f"image array: has no pixels, shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise ImageError(f"image array: must hold numbers, got {array.dtype}")
    gray = _to_gray(array)
    if gray.dtype == np.uint8:
        return np.ascontiguousarray(gray)
    if gray.dtype == np.bool_:
        return gray.astype(np.uint8) * np.uint8(255)
    if gray.dtype.kind == "f":
        if not np.isfinite(gray).all():
            raise ImageError("image array: holds NaN or infinite values")
        if gray.min() >= 0 and gray.max() <= 1:
            return np.rint(gray * 255).astype(np.uint8)
    return _window(gray)


def _check_header(data: bytes, name: str, *, load: bool) -> None:
    """Refuse what is no image, has no or too many pixels and, with ``load``, whatever Pillow cannot decode."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(_too_large(name, f"{width} x {height} pixels"))
            if load:
                _load(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_too_large(name, str(error).split(" exceeds")[0])) from None
    except (UnidentifiedImageError, ModuleNotFoundError):  # the second where Ultralytics has patched Pillow for HEIF
        raise ImageError(f"{name}: is no image ({_what_it_looks_like(data)}), whatever its name says") from None
    except ImageError:
        raise
    # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise ImageError(f"{name}: is cut short or damaged ({error}); copy it again from its source") from None


def _load(image: Image.Image) -> None:
    """Read the whole file. A PNG holds checksums, which say more in a twentieth of the time than decoding again."""
    if image.format == "PNG":
        image.verify()
    else:
        image.load()


def _too_large(name: str, size: str) -> str:
    return f"{name}: {size} is more than the {MAX_PIXELS // 10**6} million pixels that are read; scale it down"


def _what_it_looks_like(data: bytes) -> str:
    if data[128:132] == b"DICM":
        return "it looks like DICOM: convert it to 16-bit PNG"
    try:
        start = data[:40].decode()
    except UnicodeDecodeError:
        return f"it starts with the bytes {data[:8].hex(' ')}"
    return f"it looks like text: {start!r}"


def _to_gray(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array
    if array.shape[2] == 1:
        return array[:, :, 0]
    rgb = array[:, :, :3]
    if rgb.dtype in (np.uint8, np.uint16):
        return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    return rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def _window(gray: np.ndarray) -> NDArray[np.uint8]:
    """Spread the values between the ``WINDOW`` quantiles over 0..255; a constant image becomes 0."""
    if gray.dtype == np.uint16:  # the usual case: a histogram and a table take a tenth of the time of sorting
        counts = np.cumsum(histogram(gray))
        low, high = np.searchsorted(counts, np.array(WINDOW) * gray.size)
        low, high = (low, high) if high > low else (gray.min(), gray.max())
        return look_up(_spread(np.arange(65536), float(low), float(high)), gray)
    low, high = np.quantile(gray, WINDOW, method="inverted_cdf")
    low, high = (low, high) if high > low else (gray.min(), gray.max())
    return _spread(gray, float(low), float(high))


def look_up(table: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """``table[gray]``, some rows at a time: NumPy makes indices of eight bytes a pixel."""
    found = np.empty(gray.shape, table.dtype)
    for rows in _some_rows(gray):
        found[rows] = table[gray[rows]]
    return found


def histogram(gray: np.ndarray) -> NDArray[np.int64]:
    """How often each of 65536 values occurs, counted some rows at a time for the same reason."""
    counts = np.zeros(65536, np.int64)
    for rows in _some_rows(gray):
        counts += np.bincount(gray[rows].ravel(), minlength=65536)
    return counts


def _some_rows(gray: np.ndarray) -> list[slice]:
    """Slices of about a million pixels each."""
    step = max(1, (1 << 20) // gray.shape[1])
    return [slice(top, top + step) for top in range(0, len(gray), step)]


def _spread(values: np.ndarray, low: float, high: float) -> NDArray[np.uint8]:
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
