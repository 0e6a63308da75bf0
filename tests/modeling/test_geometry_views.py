"""The geometry image: undoing Qwen's pixels against a real processor, the grid it is resized to, and scenes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from gap_mllm.geometry_views_gap_mllm import group_scenes, recover_images, resize_to_grid


HALF, SIZES = [0.5] * 3, (16, 2, 2)  # Qwen's mean and std; patch, temporal patch and merge size


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def recover(inputs, dtype=torch.float32):
    pixels = inputs["pixel_values"].to(dtype)
    return recover_images(pixels, inputs["image_grid_thw"].tolist(), HALF, HALF, *SIZES)


@pytest.fixture
def every_value():
    """A picture whose three channels each hold all 256 values."""
    values = np.arange(64 * 96, dtype=np.int64).reshape(64, 96)
    return Image.fromarray(np.stack([values, 3 * values + 1, 7 * values + 5], -1).astype(np.uint8))


def test_pixels_of_the_processor_are_undone(tiny_processor, picture):
    # Multiples of 32 inside the pixel bounds: the processor does not resize them.
    images = [picture(64, 96, 1), picture(96, 32, 2), picture(32, 32, 3)]
    recovered = recover(tiny_processor.image_processor(images, return_tensors="pt"))
    for got, image in zip(recovered, images, strict=True):
        assert got.shape == (1, 2, 3, image.height, image.width) and got.dtype == torch.float32
        for frame in got[0]:
            torch.testing.assert_close(frame, to_tensor(image), rtol=0, atol=1e-6)


def test_a_resized_picture_is_what_the_processor_resized_it_to(tiny_processor, picture):
    image = picture(150, 215, 4)
    (recovered,) = recover(tiny_processor.image_processor([image], return_tensors="pt"))
    height, width = recovered.shape[-2:]
    assert (height, width) != (150, 215)
    expected = image.resize((width, height), Image.Resampling.BICUBIC)
    torch.testing.assert_close(recovered[0, 0], to_tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_restores_the_8_bit_picture_exactly(tiny_processor, every_value, dtype):
    (recovered,) = recover(tiny_processor.image_processor([every_value], return_tensors="pt"), dtype)
    assert torch.equal(recovered[0, 1], to_tensor(every_value))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.45, 0.225), (0.4, 0.28)])
def test_video_frames_are_undone_in_order(to_patches, mean, std):
    frames = torch.rand(5, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    patches, grid = to_patches(frames, mean, std)
    (recovered,) = recover_images(patches, grid.tolist(), [mean] * 3, [std] * 3, *SIZES)
    assert recovered.shape == (3, 2, 3, 32, 64)
    torch.testing.assert_close(recovered.flatten(0, 1)[:5], frames, rtol=0, atol=1e-6)
    assert torch.equal(recovered[2, 0], recovered[2, 1])


def test_mean_and_std_go_by_channel(to_patches):
    frames = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    patches, grid = to_patches(frames, torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1))
    (recovered,) = recover_images(patches, grid.tolist(), mean, std, *SIZES)
    torch.testing.assert_close(recovered[0, 0], frames[0], rtol=0, atol=1e-6)


def test_the_resized_view_has_qwens_patch_grid():
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    resized = resize_to_grid(image, (4, 6), 14)
    assert resized.shape == (2, 3, 56, 84)
    expected = F.interpolate(image, size=(56, 84), mode="bilinear", align_corners=False, antialias=False)
    assert torch.equal(resized, expected)


def test_a_grid_of_another_size_is_refused():
    with pytest.raises(ValueError, match="holds 20 patches, but pixel_values has 16 rows"):
        recover_images(torch.zeros(16, 1536), [(1, 4, 4), (1, 2, 2)], HALF, HALF, *SIZES)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_no_numbers_name_the_image(value):
    pixels = torch.zeros(24, 1536)
    pixels[5, 100] = pixels[23, 7] = value  # images 1 and 2
    with pytest.raises(ValueError, match=r"image or video \[1, 2\].*NaN or infinity"):
        recover_images(pixels, [(1, 2, 2), (1, 4, 4), (1, 2, 2)], HALF, HALF, *SIZES)


def token_types(*rows):
    return torch.tensor(rows)


def test_images_of_a_row_are_one_scene():
    # Rows: two images of 2 and 1 tokens (videos do not count), none, one image of 3 tokens.
    types = token_types([0, 1, 1, 0, 1, 2], [0, 0, 0, 2, 2, 2], [0, 0, 1, 1, 1, 0])
    assert group_scenes(3, [2, 1, 3], types) == [2, 1]
    assert group_scenes(2, [1, 3], types, token_type=2) == [1, 1]


@pytest.mark.parametrize("lengths", [[2, 1], (2, 0, 1), torch.tensor([2, 1, 0]), torch.tensor([[2, 0], [1, 0]])])
def test_scene_lengths_override_the_rows(lengths):
    assert group_scenes(3, [1, 1, 1], token_types([1, 1, 1]), lengths) == [2, 1]


def test_without_scene_information_one_image_works_and_several_raise():
    assert group_scenes(1, [4]) == [1]
    assert group_scenes(0, []) == []
    with pytest.raises(ValueError, match="3 images came without.*mm_token_type_ids.*scene_lengths"):
        group_scenes(3, [4, 4, 4])


@pytest.mark.parametrize(
    ("num_items", "tokens", "arguments", "message"),
    [
        (2, [2, 2], {"mm_token_type_ids": token_types([1, 1, 1, 0])}, "Row 0 has 3 image tokens.* make 4 "),
        (2, [2, 2], {"mm_token_type_ids": token_types([1, 1, 0], [1, 1, 1])}, "Row 1 has 3 .* make 2 "),
        (1, [2], {"mm_token_type_ids": token_types([1, 1, 1, 1])}, "Row 0 has 4 .* make 2 "),
        (2, [2, 1], {"mm_token_type_ids": token_types([1, 1])}, "2 image tokens for 1 images.*2 images of 3 tokens"),
        (3, [1, 1, 1], {"scene_lengths": [2, 2]}, "sum to 4 views, but pixel_values hold 3 images"),
        (1, [1], {"scene_lengths": [2, -1]}, "-1"),
    ],
)
def test_counts_that_disagree_are_refused_with_both_numbers(num_items, tokens, arguments, message):
    with pytest.raises(ValueError, match=message):
        group_scenes(num_items, tokens, **arguments)
