"""DICOM X-rays: the same pixels as the window says, and nothing of the header."""

import io

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless, generate_uid

from ray_jobs.dicom import decode_xray
from ray_jobs.pixels import ImageError

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
PATIENT = "Doe^Jane"


def dicom(pixels: np.ndarray, **header: object) -> bytes:
    """A DICOM file of these pixels, with a patient in its header."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID = PATIENT, "12345"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for key, value in header.items():
        setattr(dataset, key, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_the_window_is_applied() -> None:
    gray = decode_xray(dicom(RAMP, WindowCenter=1000.5, WindowWidth=1001)).ravel().astype(int)
    assert (gray.min(), gray.max()) == (0, 255)
    assert gray[500] == 0
    assert gray[1000] == pytest.approx(127, abs=1)
    assert gray[1500] == 255
    assert gray[4000] == 255


@pytest.mark.parametrize("kind", ["LINEAR_EXACT", "SIGMOID"])
def test_other_window_functions_are_centred_as_well(kind: str) -> None:
    gray = (
        decode_xray(dicom(RAMP, WindowCenter=[1000, 5], WindowWidth=[800, 5], VOILUTFunction=kind)).ravel().astype(int)
    )
    assert gray[1000] == pytest.approx(128, abs=1)
    assert gray[700] < 60 < 200 < gray[1300]


def test_monochrome1_is_turned_round() -> None:
    header = {"WindowCenter": 2048, "WindowWidth": 4096}
    plain = decode_xray(dicom(RAMP, **header))
    turned = decode_xray(dicom(RAMP, PhotometricInterpretation="MONOCHROME1", **header))
    np.testing.assert_array_equal(turned, 255 - plain)


def test_rescaled_values_are_what_the_window_speaks_of() -> None:
    stored = (RAMP.astype(np.int32) - 2048).astype(np.int16)
    rescaled = dicom(stored, RescaleSlope=2, RescaleIntercept=4096, WindowCenter=4096, WindowWidth=8192)
    np.testing.assert_allclose(
        decode_xray(rescaled).astype(int), decode_xray(dicom(RAMP, WindowCenter=2048, WindowWidth=4096)), atol=1
    )


def test_a_table_goes_before_a_window() -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], np.linspace(65535, 0, 4096).astype(np.uint16).tobytes()
    gray = decode_xray(dicom(RAMP, VOILUTSequence=Sequence([table]), WindowCenter=1, WindowWidth=2)).ravel()
    assert gray[0] == 255
    assert gray[-1] == 0


@pytest.mark.parametrize("pixels", [RAMP, (RAMP.astype(np.int32) - 2048).astype(np.int16)])
def test_without_a_window_the_brightest_half_percent_saturates(pixels: np.ndarray) -> None:
    gray = decode_xray(dicom(pixels)).ravel()
    assert (gray.min(), gray.max()) == (0, 255)
    assert (np.diff(gray.astype(int)) >= 0).all()
    assert len(np.unique(gray)) == 256


def test_eight_bits_without_a_window_stay_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(50, 90, (40, 30), dtype=np.uint8)
    np.testing.assert_array_equal(decode_xray(dicom(pixels)), pixels)


def test_plain_compression_is_read() -> None:
    from pydicom import dcmread

    dataset = dcmread(io.BytesIO(dicom(RAMP, WindowCenter=2048, WindowWidth=4096)))
    dataset.compress(RLELossless)
    file = io.BytesIO()
    dataset.save_as(file)
    np.testing.assert_array_equal(
        decode_xray(file.getvalue()), decode_xray(dicom(RAMP, WindowCenter=2048, WindowWidth=4096))
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (dicom(np.zeros((4, 8), np.uint8), NumberOfFrames=2, Rows=2), "2 frames"),
        (dicom(RAMP)[:-1000], "cannot be decoded"),
        (dicom(RAMP, Rows=30000, Columns=30000), "30000 x 30000 pixels"),
        (dicom(RAMP, PhotometricInterpretation="DOE"), "none of MONOCHROME1"),
        (dicom(RAMP, BitsAllocated=13), "cannot be decoded"),
        (dicom(RAMP, VOILUTSequence=Sequence([Dataset()])), "cannot be decoded"),
        (dicom(RAMP, ModalityLUTSequence=Sequence([Dataset()])), "cannot be decoded"),
        (dicom(RAMP, WindowCenter=2048, WindowWidth=1234567).replace(b"1234567", b"Doe^Jan"), "cannot be decoded"),
        (dicom(np.zeros((8, 8, 3), np.uint8), SamplesPerPixel=3, PlanarConfiguration=0), "3 values a pixel"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 50, "DICOM"),
        (b"", "is empty"),
    ],
)
def test_what_cannot_be_read_is_told_without_the_patient(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as error:
        decode_xray(data, "scan")
    assert "scan" in str(error.value)
    assert "doe" not in str(error.value).lower()
    assert "12345" not in str(error.value)


def test_a_deflated_file_is_refused_before_it_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom import dcmread

    dataset = dcmread(io.BytesIO(dicom(np.zeros((1000, 1000), np.uint16))))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file)
    assert len(file.getvalue()) < 10_000
    monkeypatch.setattr("zlib.decompress", lambda *_: pytest.fail("it was inflated"))
    with pytest.raises(ImageError, match=r"scan: this DICOM is deflated.*dcmconv"):
        decode_xray(file.getvalue(), "scan")
