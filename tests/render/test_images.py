"""Pixels: the range, the rounding, what is not finite, and enlargement that invents nothing."""

import numpy as np
import pytest
import torch
from PIL import Image

from lab.render.images import NOT_FINITE, fit_cell, from_uint8, to_pil, to_uint8


def test_the_range_maps_onto_all_256_levels() -> None:
    levels = torch.arange(256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    pixels = to_uint8(levels / 127.5 - 1)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (1, 16, 16, 3)
    assert (pixels[0, :, :, 0].ravel() == np.arange(256)).all()


def test_values_outside_the_range_are_clamped() -> None:
    images = torch.tensor([-9.0, 9.0]).reshape(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert to_uint8(images).reshape(2, 3).tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_channel_shows_the_pixel_in_magenta(value: float) -> None:
    images = torch.zeros(1, 3, 2, 2)
    images[0, 1, 0, 1] = value
    pixels = to_uint8(images)[0]
    assert tuple(pixels[0, 1]) == NOT_FINITE
    assert tuple(pixels[1, 1]) == (128, 128, 128)


def test_half_precision_and_gradients_are_no_obstacle() -> None:
    images = torch.full((1, 3, 1, 1), 0.5, dtype=torch.bfloat16, requires_grad=True)
    assert to_uint8(images).ravel().tolist() == [191, 191, 191]


def test_the_order_of_rows_columns_and_channels() -> None:
    images = torch.full((1, 3, 2, 3), -1.0)
    images[0, 2, 1, 0] = 1.0  # blue, bottom left
    assert to_pil(images)[0].size == (3, 2)
    assert to_pil(images)[0].getpixel((0, 1)) == (0, 0, 255)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 1, 4, 4), (2, 4, 4, 3)])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        to_uint8(torch.zeros(shape))


@pytest.mark.parametrize(("side", "cell", "shown"), [(64, 128, 128), (48, 128, 96), (9, 9, 9), (1, 9, 9)])
def test_enlarging_repeats_pixels_a_whole_number_of_times(side: int, cell: int, shown: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    larger = np.asarray(fit_cell(Image.fromarray(pixels), cell))
    factor = shown // side
    assert (larger == pixels.repeat(factor, axis=0).repeat(factor, axis=1)).all()


def test_a_larger_image_is_reduced_in_proportion() -> None:
    assert fit_cell(Image.new("RGB", (300, 200)), 120).size == (120, 80)
    assert fit_cell(Image.new("RGB", (500, 1)), 100).size == (100, 1)


def test_bytes_and_images_are_each_others_inverse() -> None:
    pixels = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).view(2, 4, 5, 3)
    images = from_uint8(pixels)
    assert images.shape == (2, 3, 4, 5) and float(images[0, 0, 0, 0]) == -1
    assert torch.equal(torch.from_numpy(to_uint8(images)), pixels)
    assert torch.equal(from_uint8(pixels[None])[0], images)
