import numpy as np
import pytest
from PIL import Image

from ray_jobs.reading import drawing
from ray_jobs.reading.drawing import Rectangle, draw_findings
from ray_jobs.reading.finding import Finding

GRAY = np.full((320, 320), 90, np.uint8)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Rectangle]]:
    """Every text that is written, and where."""
    written: list[tuple[str, Rectangle]] = []
    write = drawing._write

    def listen(pen, place, text, font, ink, paper):
        written.append((text, place))
        write(pen, place, text, font, ink, paper)

    monkeypatch.setattr(drawing, "_write", listen)
    return written


def coloured(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture).astype(int)
    return np.ptp(pixels, axis=2) > 40


def test_a_box_is_drawn_where_it_was_found(texts: list[tuple[str, Rectangle]]) -> None:
    picture = draw_findings(GRAY, [Finding("Mass", 0.83, (100, 120, 200, 220))])
    assert picture.size == (640, 640)
    marked = coloured(picture)
    assert marked[300, 201]  # left edge, enlarged twice
    assert marked[300, 399]
    assert not marked[300, 300]
    assert [text for text, _ in texts] == ["Mass 0.83"]


def test_nothing_found_is_said_in_words(texts: list[tuple[str, Rectangle]]) -> None:
    draw_findings(GRAY, [])
    assert [text for text, _ in texts] == ["No findings"]


def test_the_truth_is_told_apart(texts: list[tuple[str, Rectangle]]) -> None:
    truth = [Finding("Nodule", 1.0, (10, 10, 60, 60))]
    draw_findings(GRAY, [], truth)
    assert {text for text, _ in texts} == {"No findings", "Nodule (truth)", "solid: found   dashed: truth"}


def test_a_picture_known_to_be_empty_says_so(texts: list[tuple[str, Rectangle]]) -> None:
    draw_findings(GRAY, [], [])
    assert {text for text, _ in texts} == {"No findings", "truth: no findings"}


def test_labels_stay_inside_and_apart(texts: list[tuple[str, Rectangle]]) -> None:
    corner = [Finding("Pneumothorax", 0.9 - number / 10, (250, 0, 320, 40 + number)) for number in range(5)]
    truth = [Finding("Cardiomegaly", 1.0, (0, 300, 320, 320))]
    picture = draw_findings(GRAY, corner, truth)
    places = [place for _, place in texts]
    assert len(places) == 7
    for number, place in enumerate(places):
        assert place.left >= 0
        assert place.top >= 0
        assert place.right <= picture.width
        assert place.bottom <= picture.height
        assert all(place.shared_area(other) == 0 for other in places[:number])


def test_classes_have_their_own_colours() -> None:
    names = [f"class {number}" for number in range(20)]
    assert len({drawing._colour(name, names) for name in names}) == 20
    assert drawing._colour("Mass", ()) == drawing._colour("Mass", ())


@pytest.mark.parametrize("shape", [(1, 1), (3000, 40), (40, 3000), (2000, 2500)])
def test_any_size_is_drawn(shape: tuple[int, int]) -> None:
    picture = draw_findings(np.zeros(shape, np.uint8), [Finding("Mass", 0.5, (0, 0, shape[1], shape[0]))])
    assert max(picture.size) >= 640
