"""RFNet's region maps and region-aware fusion against NumPy, gradients in float64, parameter counts."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from acdis.networks.block import set_checkpointing
from acdis.networks.convolution import Conv3d
from acdis.networks.rfm import RegionDecoder, RegionFusion, RegionMap, mix, region_means

B, M, C, K = 2, 4, 4, 4
SPACE = (3, 4, 2)
PADDINGS = {"zeros": "constant", "reflect": "reflect"}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def conv(layer, x: np.ndarray, mode: str = "constant") -> np.ndarray:
    """[O, I, k, k, k] on [B, I, D, H, W], voxel by voxel."""
    weight = numbers(layer.weight)
    reach = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), *[(reach, reach)] * 3), mode=mode)
    result = np.zeros((len(x), len(weight), *x.shape[2:]))
    for d, h, w in np.ndindex(*x.shape[2:]):
        around = padded[:, :, d : d + 2 * reach + 1, h : h + 2 * reach + 1, w : w + 2 * reach + 1]
        result[:, :, d, h, w] = np.tensordot(around, weight, ([1, 2, 3, 4], [1, 2, 3, 4]))
    return result if layer.bias is None else result + numbers(layer.bias)[None, :, None, None, None]


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def layer(block, x: np.ndarray, mode: str = "constant") -> np.ndarray:
    """Convolution, instance norm, LeakyReLU."""
    x = conv(block[0], x, mode)
    mean, variance = x.mean((2, 3, 4), keepdims=True), x.var((2, 3, 4), keepdims=True)
    return leaky((x - mean) / np.sqrt(variance + 1e-5))


def chain(blocks, x: np.ndarray, mode: str = "constant") -> np.ndarray:
    for block in blocks:
        x = layer(block, x, mode)
    return x


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def region_map(module: RegionMap, features: np.ndarray, decoded: np.ndarray | None, mode="constant"):
    gathered = chain(module.gather, features, mode)
    joined = gathered if decoded is None else np.concatenate([gathered, decoded], 1)
    return softmax(conv(module.judge[1], layer(module.judge[0], joined, mode)))


def fused(module: RegionFusion, features: np.ndarray, regions: np.ndarray, mode="constant") -> np.ndarray:
    """Sample by sample and region by region, as the description reads."""
    mixed = []
    for f, p in zip(features, regions, strict=True):
        parts = []
        for k, layers in enumerate(module.weigh):
            inside = f * p[k]
            mass = p[k].mean()
            described = np.append(inside.mean((1, 2, 3)) / (mass + 1e-7), mass)
            hidden = leaky(numbers(layers[0].weight) @ described + numbers(layers[0].bias))
            weights = 1 / (1 + np.exp(-(numbers(layers[2].weight) @ hidden + numbers(layers[2].bias))))
            parts.append(sum(w * one for w, one in zip(weights, np.split(inside, M), strict=True)))
        mixed.append(np.concatenate(parts))
    halves = (module.inside, np.stack(mixed)), (module.shortcut, features)
    return np.concatenate([chain(blocks, x, mode) for blocks, x in halves], 1)


def drawn(seed=0, channels=M * C, space=SPACE):
    """Features and a region map, float64."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(B, channels, *space, generator=generator, dtype=torch.float64)
    logits = 2 * torch.randn(B, K, *space, generator=generator, dtype=torch.float64)
    return features, logits.softmax(1)


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(numbers(found), expected, rtol=1e-9, atol=1e-9)


# --- equations


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("decoded", [0, 5])
def test_region_map(decoded, padding):
    torch.manual_seed(0)
    module = RegionMap(C, decoded, K, padding).double()
    features, _ = drawn()
    below = torch.randn(B, decoded, *SPACE, dtype=torch.float64)
    found = module(features, below) if decoded else module(features)
    expected = region_map(module, numbers(features), numbers(below) if decoded else None, PADDINGS[padding])
    close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(B, *SPACE, dtype=torch.float64))


@pytest.mark.parametrize("padding", PADDINGS)
def test_region_fusion(padding):
    torch.manual_seed(0)
    module = RegionFusion(C, K, padding, hidden=6).double()
    features, regions = drawn()
    found = module(features, regions)
    assert found.shape == (B, C, *SPACE)
    close(found, fused(module, numbers(features), numbers(regions), PADDINGS[padding]))


def test_region_means_on_a_case_that_can_be_checked_on_paper():
    """Four voxels, two in each region, one region empty."""
    features = torch.tensor([1.0, 3.0, 10.0, 30.0]).view(1, 1, 1, 1, 4)
    regions = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]).view(1, 3, 1, 1, 4)
    means, mass = region_means(features, regions)
    torch.testing.assert_close(mass, torch.tensor([[0.5, 0.5, 0.0]]))
    torch.testing.assert_close(means[0, :, 0], torch.tensor([2.0, 20.0, 0.0]))


def test_mix_voxel_by_voxel():
    features, regions = drawn()
    weights = torch.rand(B, K, M, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = mix(features, regions, weights)
    assert found.shape == (B, K * C, *SPACE)
    for b, k, c in np.ndindex(B, K, C):
        for place in np.ndindex(*SPACE):
            value = sum(float(weights[b, k, m] * features[(b, m * C + c, *place)]) for m in range(M))
            value *= float(regions[(b, k, *place)])
            assert float(found[(b, k * C + c, *place)]) == pytest.approx(value, rel=1e-12)


def test_gradients():
    features, regions = drawn(channels=2 * M, space=(2, 2, 2))
    features.requires_grad_()
    weights = torch.rand(B, K, M, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda f: region_means(f, regions)[0], (features,))
    assert gradcheck(lambda f, w: mix(f, regions, w), (features, weights))


def test_gradients_of_the_whole_fusion():
    torch.manual_seed(0)
    module = RegionFusion(2, K, hidden=3).double()
    features, regions = drawn(channels=2 * M, space=(2, 3, 2))
    assert gradcheck(lambda f: module(f, regions), (features.requires_grad_(),))


# --- the decoder


def enlarge(x: np.ndarray, size) -> np.ndarray:
    """Linear interpolation along each axis, corner voxels kept in place."""
    for axis, target in zip((2, 3, 4), size, strict=True):
        length = x.shape[axis]
        places = np.linspace(0, length - 1, target)
        below = np.minimum(places.astype(int), length - 2)
        share = (places - below).reshape([-1 if a == axis else 1 for a in range(5)])
        x = (1 - share) * np.take(x, below, axis) + share * np.take(x, below + 1, axis)
    return x


def pyramid_of(widths, side, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    sizes = [tuple(-(-length // 2**level) for length in side) for level in range(len(widths))]
    return [
        torch.randn(1, M * width, *size, generator=generator, dtype=dtype)
        for width, size in zip(widths, sizes, strict=True)
    ]


def test_region_decoder_level_by_level():
    torch.manual_seed(0)
    module = RegionDecoder((4, 8), K).double()
    pyramid = pyramid_of((4, 8), (5, 4, 6))
    fine, coarse = (numbers(f) for f in pyramid)
    first = region_map(module.maps[1], coarse, None)
    x = fused(module.fusions[1], coarse, first)
    step = module.decoder.levels[0]
    lifted = layer(step.rise, enlarge(x, (5, 4, 6)))
    second = region_map(module.maps[0], fine, lifted)
    joined = np.concatenate([lifted, fused(module.fusions[0], fine, second)], 1)
    expected = conv(module.decoder.head, layer(step.settle, layer(step.merge, joined)))
    logits, maps = module(pyramid)
    close(maps[0], first)
    close(maps[1], second)
    close(logits, expected)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("side", [(16, 16, 16), (17, 20, 23)])
def test_shapes(side, padding):
    pyramid = pyramid_of((4, 8, 16, 32), side, torch.float32)
    logits, maps = RegionDecoder((4, 8, 16, 32), K, padding)(pyramid)
    assert logits.shape == (1, K, *side)
    assert [m.shape[2:] for m in maps] == [f.shape[2:] for f in reversed(pyramid)]


def test_held_stops_at_the_finest_region_map():
    module = RegionDecoder((4, 8, 16), K)
    pyramid = pyramid_of((4, 8, 16), (8, 8, 8), torch.float32)
    (logits, whole), (nothing, held) = module(pyramid), module(pyramid, held=True)
    assert logits is not None
    assert nothing is None
    assert all(torch.equal(a, b) for a, b in zip(whole, held, strict=True))


def test_a_region_map_learns_from_its_own_loss_alone():
    module = RegionDecoder((4, 8, 16), K)
    logits, maps = module(pyramid_of((4, 8, 16), (8, 8, 8), torch.float32))
    logits.square().sum().backward(retain_graph=True)
    assert all(p.grad is None for p in module.maps.parameters())
    assert all(p.grad is not None for p in module.fusions.parameters())
    maps[-1].square().sum().backward()
    taught = {n.split(".")[0] for n, p in module.maps.named_parameters() if p.grad is not None}
    assert taught == {"0"}


def test_parameter_counts_at_base_16():
    """The layers' sizes summed by hand; 16 and 128 are the hidden widths."""
    widths = (16, 32, 64, 128)
    gather = sum(4 * c * (c // 4) + 27 * (c // 4) ** 2 + (c // 4) * c for c in widths)
    judge = 16 * (2 * (16 + 32 + 64) + 128) + 4 * (16 * 4 + 4)
    weigh = sum(4 * ((4 * c + 1) * 128 + 128 + 128 * 4 + 4) for c in widths)
    halves = sum(2 * (4 * c * c + 27 * c * c + c * (c // 2)) for c in widths)
    module = RegionDecoder(widths, 4)
    assert parameters(module.maps) == gather + judge
    assert parameters(module.fusions) == weigh + halves


# --- numerics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_region_means_stay_exact_under_autocast(dtype):
    """Summed in bf16, 64,000 voxels near 1 would stop growing at 256."""
    generator = torch.Generator().manual_seed(0)
    features = (1 + 0.1 * torch.randn(1, 8, 40, 40, 40, generator=generator)).to(dtype)
    regions = torch.randn(1, K, 40, 40, 40, generator=generator).softmax(1)
    with torch.autocast("cpu", torch.bfloat16):
        means, mass = region_means(features, regions)
    f, p = numbers(features)[0].reshape(8, -1), numbers(regions)[0].reshape(K, -1)
    assert means.dtype == mass.dtype == torch.float32
    np.testing.assert_allclose(numbers(mass)[0], p.mean(1), rtol=1e-5)
    np.testing.assert_allclose(numbers(means)[0], p @ f.T / p.sum(1)[:, None], rtol=1e-5)


def test_memory_layout_changes_no_numbers():
    torch.manual_seed(0)
    module = RegionFusion(C, K).double()
    features, regions = drawn()
    layout = torch.channels_last_3d
    other = module(features.contiguous(memory_format=layout), regions.contiguous(memory_format=layout))
    torch.testing.assert_close(other, module(features, regions))


def test_checkpointing_changes_neither_maps_nor_gradients():
    torch.manual_seed(0)
    module = RegionDecoder((4, 8, 16), K)
    pyramid = pyramid_of((4, 8, 16), (8, 8, 8), torch.float32)
    for held in (False, True):
        results = []
        for on in (False, True):
            set_checkpointing(module, on)
            module.zero_grad(set_to_none=True)
            logits, maps = module(pyramid, held)
            found = [*maps] if logits is None else [logits, *maps]
            torch.stack([x.square().sum() for x in found]).sum().backward()
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            results.append([*found, *gradients])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_checkpointing_keeps_what_lies_between_blocks_only():
    """Fewer bytes are kept for the backward pass: each block's inside is computed again."""
    module = RegionDecoder((4, 8, 16), K)
    pyramid = pyramid_of((4, 8, 16), (16, 16, 16), torch.float32)
    kept = []
    for on in (False, True):
        set_checkpointing(module, on)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            module(pyramid)
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("module", [RegionMap(C, 0, K), RegionFusion(C, K)], ids=lambda m: type(m).__name__)
def test_every_wide_kernel_is_guarded(module):
    kernels = [m for m in module.modules() if isinstance(m, torch.nn.Conv3d) and m.kernel_size[0] > 1]
    assert kernels
    assert all(isinstance(kernel, Conv3d) for kernel in kernels)
