"""What a decoded picture looks like: a descriptor that survives what copies go through, and its borders."""

from __future__ import annotations

import numpy as np
import pytest

from osteoscope.imaging.look import SIDE, look, squashed


def blots(rows: int = 200, columns: int = 150, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns] / max(rows, columns)
    values = np.zeros((rows, columns))
    for _ in range(20):
        values += rng.normal() * np.exp(-((y - rng.random()) ** 2 + (x - rng.random()) ** 2) / 0.01)
    return np.asarray((values - values.min()) / np.ptp(values) * 0.8 + 0.1, dtype=np.float32)


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the whole pictures' descriptors."""
    return float(np.corrcoef(look(first).descriptor[0].ravel(), look(second).descriptor[0].ravel())[0, 1])


def test_brightness_contrast_and_depth_do_not_matter() -> None:
    plane = blots()
    assert alike(plane, (0.2 + 0.5 * plane).astype(np.float32)) > 0.99
    assert alike(plane, np.round(plane * 255).astype(np.float32) / 255) > 0.99


def test_another_size_or_aspect_does_not_matter_and_another_picture_does() -> None:
    plane = blots()
    assert alike(plane, squashed(plane, 120)) > 0.98
    assert alike(plane, blots(seed=1)) < 0.5


def test_uniform_borders_are_measured_and_left_out_of_the_content() -> None:
    plane = blots()
    framed = np.zeros((250, 200), dtype=np.float32)
    framed[20:220, 40:190] = plane
    seen = look(framed)
    borders = [seen.features[f"border_{side}"] for side in ("left", "top", "right", "bottom")]
    assert borders == pytest.approx([40 / 200, 20 / 250, 10 / 200, 30 / 250], abs=0.02)
    assert seen.content == pytest.approx((0.2, 0.08, 0.95, 0.88), abs=0.02)
    content, whole = seen.descriptor[1].ravel(), look(plane).descriptor[0].ravel()
    assert np.corrcoef(content, whole)[0, 1] > 0.8


def test_a_mark_in_a_corner_is_seen() -> None:
    plane = (blots() * 0.5).astype(np.float32)
    marked = plane.copy()
    marked[8:20, 8:11] = marked[8:11, 8:20] = 1.0
    assert look(marked).features["corner_marks"] > look(plane).features["corner_marks"]


def test_greys_and_shape_are_those_of_the_picture() -> None:
    plane = blots()
    features = look(plane).features
    assert features["mean"] == pytest.approx(float(plane.mean()), abs=1e-5)
    assert features["deviation"] == pytest.approx(float(plane.std()), abs=1e-5)
    assert features["aspect"] == 150 / 200
    assert look(plane).shape == (200, 150)


@pytest.mark.parametrize("side", [1, 2, 32])
def test_a_constant_picture_has_an_empty_descriptor_and_finite_features(side: int) -> None:
    seen = look(np.full((side, side), 0.5, dtype=np.float32))
    assert seen.descriptor.shape == (2, SIDE, SIDE)
    assert not seen.descriptor.any()
    assert np.isfinite(list(seen.features.values())).all()


@pytest.mark.parametrize(
    "plane", [np.zeros((0, 5), np.float32), np.zeros((2, 3, 4), np.float32), np.array([[np.nan]], np.float32)]
)
def test_what_is_no_picture_is_refused(plane: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected finite values of \(rows, columns\)"):
        look(plane)
