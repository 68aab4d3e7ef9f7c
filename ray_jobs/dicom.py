"""From the bytes of an X-ray as a hospital has it, DICOM or a picture file, to gray pixels: uint8, (height, width).

Comes in: bytes. Goes out: pixels, and nothing of the header: no name, no date, no identifier is returned, printed or
put into an error. What of the header decides how pixels look is applied: rescale (slope and intercept, or a table),
the window (the first one; without any, the one of ``ray_jobs.pixels``) and MONOCHROME1, where low values are bright.

DICOM needs the extra ``dicom`` (pydicom).
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.pixels import MAX_PIXELS, ImageError, decode_image, histogram, look_up, to_gray8

SUFFIXES = frozenset({".dcm", ".dicom"})
"""Lower-case endings of DICOM files; many have none, and are read when they are named one by one."""


def is_dicom(data: bytes) -> bool:
    """Whether a file starts like one (PS3.10: 128 free bytes, then DICM)."""
    return data[128:132] == b"DICM"


def decode_xray(data: bytes, name: str = "image") -> NDArray[np.uint8]:
    """Decode a DICOM or picture file. Raises ``ImageError``, in which ``name`` stands, for anything else."""
    if not data:
        raise ImageError(f"{name}: is empty (0 bytes); copy it again from its source")
    return decode_dicom(data, name) if is_dicom(data) else to_gray8(decode_image(data, name))


def decode_dicom(data: bytes, name: str = "image") -> NDArray[np.uint8]:
    """Decode a DICOM file of one gray or RGB frame. Raises ``ImageError`` for one that cannot be read."""
    try:
        from pydicom import dcmread
    except ImportError:
        raise ImageError(f"{name}: is DICOM, for which pydicom is needed: pip install 'xray-ray[dicom]'") from None
    try:
        _refuse_deflated(data, name)
        dataset = dcmread(io.BytesIO(data))
        _check(dataset, name)
        return _gray(dataset, dataset.pixel_array, name)
    except ImageError:
        raise
    # pydicom and its decoders raise nearly anything; their messages may quote the header, so only the kind is told.
    except Exception as error:
        raise ImageError(
            f"{name}: this DICOM cannot be decoded ({type(error).__name__}); "
            "if it is compressed, decompress it first, for example with dcmdjpeg or gdcmconv --raw"
        ) from None


def _refuse_deflated(data: bytes, name: str) -> None:
    """Refuse a file that is deflated as a whole: pydicom inflates it without bound, a thousandfold and more."""
    from pydicom.filereader import _read_file_meta_info  # dcmread's own way, which nothing slips past
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file = io.BytesIO(data)
    file.seek(132)
    if _read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise ImageError(f"{name}: this DICOM is deflated, which is not read; inflate it first, with dcmconv +te")


def _gray(dataset: Any, stored: NDArray[Any], name: str) -> NDArray[np.uint8]:
    kind = dataset.PhotometricInterpretation
    if stored.ndim != (3 if kind == "RGB" else 2):
        raise ImageError(f"{name}: this DICOM has {dataset.SamplesPerPixel:d} values a pixel, which is not {kind}")
    if kind == "RGB":
        return to_gray8(stored)
    gray = _windowed(dataset, stored, name)
    return 255 - gray if kind == "MONOCHROME1" else gray


def _check(dataset: Any, name: str) -> None:
    if "PixelData" not in dataset:
        raise ImageError(f"{name}: this DICOM holds no picture")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(f"{name}: this DICOM holds {frames} frames; export the one to read as a file of its own")
    if dataset.Rows * dataset.Columns > MAX_PIXELS:
        raise ImageError(f"{name}: {dataset.Columns} x {dataset.Rows} pixels are more than the {MAX_PIXELS:,} read")
    kind = dataset.PhotometricInterpretation
    if kind not in ("MONOCHROME1", "MONOCHROME2", "RGB"):
        raise ImageError(f"{name}: this DICOM is none of MONOCHROME1, MONOCHROME2 and RGB, which are read")


def _windowed(dataset: Any, stored: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Rescaled and windowed, through a table of all values that 8 or 16 bits can hold."""
    if stored.dtype.itemsize > 2 or stored.dtype.kind not in "iu":
        raise ImageError(f"{name}: this DICOM holds {stored.dtype} pixels; whole numbers of 8 or 16 bits are read")
    from pydicom.pixels import apply_modality_lut, apply_voi

    unsigned = np.dtype(f"u{stored.dtype.itemsize}")
    place = np.ascontiguousarray(stored).view(unsigned)
    values = np.arange(np.iinfo(unsigned).max + 1).astype(unsigned).view(stored.dtype)
    rescaled = np.asarray(apply_modality_lut(values, dataset))
    if table := dataset.get("VOILUTSequence"):
        top = 2 ** int(table[0].LUTDescriptor[2]) - 1
        shown = np.asarray(apply_voi(rescaled.astype(np.int64), dataset), np.float64) / top
    elif dataset.get("WindowWidth") and dataset.get("WindowCenter") is not None:
        shown = _window(dataset, rescaled.astype(np.float64))
    elif unsigned == np.uint8 and np.array_equal(rescaled, values):
        return place
    else:  # no window: that of pixels.py, on what the values mean
        meant = rescaled.astype(np.float64)
        present = meant[np.flatnonzero(histogram(place))]
        low, high = float(present.min()), float(present.max())
        deep = np.clip((meant - low) / max(high - low, 1e-9), 0, 1) * 65535
        return to_gray8(look_up(np.rint(deep).astype(np.uint16), place))
    return look_up(np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8), place)


def _window(dataset: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first window, black at 0 and white at 1 (PS3.3 C.11.2.1.2 and C.11.2.1.3); beyond it values go on."""
    centre, width = (float(np.atleast_1d(dataset[key].value)[0]) for key in ("WindowCenter", "WindowWidth"))
    kind = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if kind == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if kind == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return (values - centre) / max(width, 1e-9) + 0.5
