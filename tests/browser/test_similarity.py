"""The measure by which screenshots are judged."""

from __future__ import annotations

import numpy as np
import pytest

from tests.browser.similarity import likeness, picture, smaller, ssim

RAMP = np.add.outer(np.arange(96), np.arange(128)) % 64 * 4


def test_equal_unrelated_and_dark() -> None:
    noise = np.random.default_rng(1).integers(0, 256, RAMP.shape)
    assert ssim(RAMP, RAMP) == pytest.approx(1)
    assert abs(ssim(noise, np.random.default_rng(2).integers(0, 256, RAMP.shape))) < 0.05
    assert ssim(RAMP, np.zeros_like(RAMP)) < 0.05
    assert ssim(RAMP, 255 - RAMP) < 0


def test_what_is_even_does_not_count() -> None:
    final = np.pad(RAMP, 200)
    assert ssim(np.zeros_like(final), final) > 0.8
    assert likeness(np.zeros_like(final), final) < 0.1
    assert likeness(final, final) == pytest.approx(1)


def test_it_falls_with_damage() -> None:
    generator = np.random.default_rng(3)
    damaged = [ssim(RAMP, RAMP + generator.normal(0, strength, RAMP.shape)) for strength in (2, 10, 40)]
    assert 1 > damaged[0] > damaged[1] > damaged[2] > 0
    blocks = smaller(RAMP, 4).repeat(4, 0).repeat(4, 1)
    assert 0.1 < ssim(RAMP, blocks) < 0.9


def test_plain_loop_agrees() -> None:
    """One window after the other, as the paper writes it."""
    generator = np.random.default_rng(4)
    a, b = generator.integers(0, 256, (12, 15)), generator.integers(0, 256, (12, 15))
    found = []
    for row in range(12 - 6):
        for column in range(15 - 6):
            x, y = a[row : row + 7, column : column + 7].ravel(), b[row : row + 7, column : column + 7].ravel()
            both = np.cov(x, y)
            found.append(
                (2 * x.mean() * y.mean() + 2.55**2) * (2 * both[0, 1] + 7.65**2)
                / (x.mean() ** 2 + y.mean() ** 2 + 2.55**2) / (both[0, 0] + both[1, 1] + 7.65**2)
            )  # fmt: skip
    assert ssim(a, b) == pytest.approx(np.mean(found))


def test_where_the_picture_is() -> None:
    screen = np.zeros((50, 60))
    screen[10:20, 30:45] = 100
    assert picture(screen) == (slice(10, 20), slice(30, 45))
