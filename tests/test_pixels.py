"""The door to pixels: what is read, what is refused, and that more than 8 bits are windowed."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ray_jobs.pixels import ImageError, decode_image, read_image, to_gray8

GRADIENT = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)


def _written(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jp2", "webp"])
def test_lossless_formats_give_the_pixels_that_were_written(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = _written(tmp_path / f"x.{suffix}", GRADIENT, **options)
    np.testing.assert_allclose(read_image(path), GRADIENT, atol=1 if suffix == "webp" else 0)


def test_strict_reading_gives_the_same_pixels(xrays_mini: Path) -> None:
    for path in sorted((xrays_mini / "images" / "val").iterdir()):
        np.testing.assert_array_equal(read_image(path, strict=True), read_image(path))


def test_both_decoders_agree_on_a_real_xray(xrays_mini: Path) -> None:
    path = next((xrays_mini / "images" / "val").iterdir())
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_rotation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    file = io.BytesIO()
    Image.fromarray(GRADIENT).save(file, kind, exif=exif)
    turned = to_gray8(decode_image(file.getvalue(), strict=True))
    assert turned.shape == (64, 48)
    np.testing.assert_allclose(turned, np.rot90(GRADIENT, -1), atol=4)


@pytest.mark.parametrize("colours", [1, 3, 4])
def test_sixteen_bit_files_are_windowed_not_truncated(tmp_path: Path, colours: int) -> None:
    deep = (GRADIENT.astype(np.uint16) + 1000) * 16  # 12 bits of depth, high up
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), deep if colours == 1 else np.stack([deep] * colours, axis=-1))
    gray = read_image(path)
    assert gray.dtype == np.uint8
    assert (gray.min(), gray.max()) == (0, 255)
    assert (np.diff(gray[0].astype(int)) >= 0).all(), "the order of brightness is kept"
    assert len(np.unique(gray)) > 90, "the low bits are still told apart"


def test_the_window_ignores_a_few_extreme_pixels() -> None:
    deep = np.linspace(1000, 3000, 10_000).astype(np.uint16).reshape(100, 100)
    marked = deep.copy()
    marked[0, :3] = 65535  # a burnt-in marker
    assert np.abs(to_gray8(marked)[1:].astype(int) - to_gray8(deep)[1:]).max() <= 1


def test_windowing_does_not_depend_on_the_type() -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (50, 60)).astype(np.uint16)
    np.testing.assert_array_equal(to_gray8(deep), to_gray8(deep.astype(np.int32)))
    np.testing.assert_array_equal(to_gray8(deep), to_gray8(deep.astype(np.float32)))


def test_arrays_of_every_shape_give_the_same_gray() -> None:
    for array in (GRADIENT, GRADIENT[:, :, None], np.stack([GRADIENT] * 3, -1), np.stack([GRADIENT] * 4, -1)):
        np.testing.assert_array_equal(to_gray8(array), GRADIENT)
    np.testing.assert_array_equal(to_gray8(GRADIENT / 255), GRADIENT)
    np.testing.assert_array_equal(to_gray8(GRADIENT > 50), np.where(GRADIENT > 50, 255, 0))


def test_colour_is_weighted_as_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[:, :, 0] = 255
    assert to_gray8(red)[0, 0] == 76
    assert read_image(_written(tmp_path / "red.png", red))[0, 0] == 76


def test_a_constant_deep_image_is_black() -> None:
    assert not to_gray8(np.full((4, 4), 30_000, np.uint16)).any()


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 4)), np.zeros(5), np.zeros((4, 4, 2)), np.full((2, 2), np.nan), np.zeros((2, 2), complex)],
    ids=["empty", "one axis", "two channels", "nan", "complex"],
)
def test_wrong_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="image array"):
        to_gray8(array)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=5),
    )
)
def test_any_array_gives_gray_pixels_or_our_error(array: np.ndarray) -> None:
    try:
        gray = to_gray8(array)
    except ImageError:
        return
    assert gray.dtype == np.uint8
    assert gray.shape == array.shape[:2]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_files_that_are_cut_short_are_refused(tmp_path: Path, suffix: str, part: float) -> None:
    whole = _written(tmp_path / f"whole.{suffix}", np.random.default_rng(0).integers(0, 255, (99, 99), dtype=np.uint8))
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageError, match=f"cut.{suffix}"):
        read_image(cut, strict=True)


def test_a_flipped_byte_in_a_png_is_found(tmp_path: Path) -> None:
    path = _written(tmp_path / "x.png", GRADIENT)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        read_image(path, strict=True)


def test_text_named_jpg_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_text("<html>not found</html>")
    with pytest.raises(ImageError, match=r"is no image.*text.*html"):
        read_image(path)


def test_dicom_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(bytes(128) + b"DICM" + bytes(50))
    with pytest.raises(ImageError, match="DICOM: convert"):
        read_image(path)


def test_missing_empty_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for path, reason in [
        (tmp_path / "none.png", "no such file"),
        (tmp_path / "empty.png", "is empty"),
        (tmp_path, "cannot be read"),
        (Path("a\0b.png"), "cannot be read"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_image(path)


@pytest.mark.parametrize("side", [9_200, 9_800, 60_000])
def test_decompression_bombs_are_refused_by_their_header(side: int) -> None:
    """60,000 pixels wide and high: 3.6 GB of gray in a file of a hundred bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="80 million"):
        decode_image(data)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"BM", b"RIFF"])
)
def test_any_bytes_are_refused_with_our_error(data: bytes, magic: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(magic + data)
