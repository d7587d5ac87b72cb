import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semabench.data.procedural.shapes import OUTLINES, coverage, pixel_centres, plane_wave


def _axes(resolution):
    grid = pixel_centres(0, resolution, resolution)
    return grid[None, :], grid[:, None]


def _reduce(image, factor):
    size = len(image) // factor
    return image.reshape(size, factor, size, factor).mean(axis=(1, 3))


@settings(deadline=None)
@given(frequency=st.floats(0, 15), angle=st.floats(-np.pi, np.pi), phase=st.floats(0, 2 * np.pi))
def test_a_wave_is_averaged_over_its_pixels(frequency, angle, phase):
    wave = {"frequency": frequency, "angle": angle, "phase": phase}
    coarse = plane_wave(*_axes(32), **wave, resolution=32)
    fine = plane_wave(*_axes(256), **wave, resolution=256)
    np.testing.assert_allclose(coarse, _reduce(fine, 8), atol=1e-10)


def test_waves_beyond_nyquist_are_flat():
    wave = plane_wave(*_axes(32), frequency=16, angle=0.0, phase=0.3, resolution=32)
    assert not wave.any()


@pytest.mark.parametrize("outline", OUTLINES)
@pytest.mark.parametrize("resolution", [64, 256])
def test_all_outlines_have_the_same_area_at_every_resolution(outline, resolution):
    x, y = _axes(resolution)
    ink = coverage(x - 0.5, y - 0.5, outline=outline, radius=0.3, resolution=resolution)
    assert ink.mean() == pytest.approx(np.pi * 0.3**2, rel=0.01)
    assert ink.min() == 0
    assert ink.max() == 1
