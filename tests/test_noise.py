"""Shared noise: the numbers of a page, the moments of a normal law, and samplers that take it."""

import numpy as np
import pytest
import torch

from diffusion_edu.noise import SharedNoise, normals, uniforms
from diffusion_edu.process import normal_like


def one_by_one(seed: int, count: int) -> list[float]:
    """mulberry32 as it is published: with a state that is remembered."""
    state, found = seed, []
    for _ in range(count):
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        z = ((state ^ (state >> 15)) * (state | 1)) & 0xFFFFFFFF
        z ^= (z + (((z ^ (z >> 7)) * (z | 61)) & 0xFFFFFFFF)) & 0xFFFFFFFF
        found.append((z ^ (z >> 14)) / 2**32)
    return found


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_stream_is_that_of_the_published_loop(seed):
    assert uniforms(seed, 500).tolist() == one_by_one(seed, 500)
    assert uniforms(seed, 100, start=400).tolist() == one_by_one(seed, 500)[400:]


def test_normal_numbers_have_the_moments_and_tails_of_a_normal_law():
    z = normals(3, 200_000)
    error = (
        200_000**-0.5
    )  # of the mean; the variance's is sqrt 2 of that, the third moment's sqrt 15, the fourth's sqrt 96
    assert abs(z.mean()) < 4 * error
    assert abs(z.var() - 1) < 4 * 2**0.5 * error
    assert abs((z**3).mean()) < 4 * 15**0.5 * error
    assert abs((z**4).mean() - 3) < 4 * 96**0.5 * error
    assert abs((z[:-1] * z[1:]).mean()) < 4 * error


def test_each_image_has_a_stream_of_its_own_that_goes_on():
    noise = SharedNoise([5, 9, 5])
    first, second = noise.normal((3, 1, 2, 4)), noise.normal((3, 1, 2, 4))
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    both = torch.cat([first.flatten(1), second.flatten(1)], dim=1)
    np.testing.assert_array_equal(both[1].numpy(), normals(9, 16))


def test_noise_like_an_image_has_its_type():
    x = torch.zeros(2, 1, 4, 4)
    z = normal_like(x, SharedNoise([1, 2]))
    assert z.dtype == torch.float32 and z.shape == x.shape
    torch.testing.assert_close(z.double().flatten(1)[1], torch.from_numpy(normals(2, 16)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, True, "7"])
def test_other_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="a seed is a whole number from 0 to 2"):
        SharedNoise([seed])


def test_what_would_split_a_pair_or_leave_an_image_without_noise_is_refused():
    with pytest.raises(ValueError, match="must be even, got 1 and 4"):
        normals(0, 4, start=1)
    with pytest.raises(ValueError, match=r"streams for 2 images, asked for shape \(3, 4\)"):
        SharedNoise([0, 1]).normal((3, 4))
