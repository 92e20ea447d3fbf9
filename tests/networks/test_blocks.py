"""AFEB, MFSB and their stand-ins against NumPy, gradients in float64, parameter counts."""

import numpy as np
import pytest
import torch

from acdis.networks.afeb import AFEB, ConvAFEB, GlobalBranch, heads
from acdis.networks.block import set_checkpointing
from acdis.networks.mfsb import MFSB, ConvMFSB, means


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def numbers(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().double().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def conv(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """[O, I, k, k, k] on [B, I, D, H, W], zero padding."""
    kernel = weight.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), *[(kernel // 2, kernel // 2)] * 3))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel,) * 3, axis=(2, 3, 4))
    return np.einsum("oixyz,bidhwxyz->bodhw", weight, windows)


def norm(x: np.ndarray) -> np.ndarray:
    mean, variance = x.mean((2, 3, 4), keepdims=True), x.var((2, 3, 4), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def conv_norm_act(module, x: np.ndarray) -> np.ndarray:
    return leaky(norm(conv(numbers(module[0].weight), x)))


def pooling(length: int, cells: int) -> np.ndarray:
    """[cells, length]: means of equal stretches."""
    return np.kron(np.eye(cells), np.full((1, length // cells), cells / length))


def linear(length: int, target: int) -> np.ndarray:
    """[target, length]: linear interpolation between cell centres, constant beyond the outermost."""
    matrix = np.zeros((target, length))
    for row in range(target):
        place = np.clip((row + 0.5) * length / target - 0.5, 0, length - 1)
        below = min(int(place), max(length - 2, 0))
        matrix[row, below] = 1 - (place - below)
        matrix[row, min(below + 1, length - 1)] += place - below
    return matrix


def along(matrices: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    return np.einsum("xd,yh,zw,bcdhw->bcxyz", *matrices, x)


def attention(branch: GlobalBranch, x: np.ndarray) -> np.ndarray:
    """Equation by equation: pool, add positions, norm, softmax(QKᵀ/√d)V per head, residual, enlarge."""
    shape, side = x.shape[2:], branch.side
    grid = [min(length, side) for length in shape]
    tokens = along([pooling(length, cells) for length, cells in zip(shape, grid, strict=True)], x)
    tokens = tokens + along([linear(side, cells) for cells in grid], numbers(branch.position))
    B, C = tokens.shape[:2]
    normed = norm(tokens).reshape(B, C, -1)
    q, k, v = np.split(np.einsum("oc,bcn->bon", numbers(branch.qkv.weight), normed), 3, axis=1)
    mixed = np.zeros_like(normed)
    size = C // branch.heads
    for b in range(B):
        for head in range(branch.heads):
            at = slice(head * size, (head + 1) * size)
            scores = np.exp(q[b, at].T @ k[b, at] / np.sqrt(size))
            mixed[b, at] = v[b, at] @ (scores / scores.sum(1, keepdims=True)).T
    attended = np.einsum("oc,bcn->bon", numbers(branch.out.weight), mixed).reshape(tokens.shape)
    return along(
        [linear(cells, length) for cells, length in zip(grid, shape, strict=True)], tokens + attended
    )


# grid equal to the position encoding's; pooled; smaller than the position encoding's; mixed
GRIDS = [(2, 2, 2), (4, 4, 4), (3, 3, 3), (6, 3, 2)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("channels", [4, 12])
def test_attention_against_numpy(grid, channels):
    torch.manual_seed(0)
    side = {(2, 2, 2): 2, (4, 4, 4): 2, (3, 3, 3): 4, (6, 3, 2): 3}[grid]
    branch = GlobalBranch(channels, side).double()
    torch.nn.init.normal_(branch.position)
    x = torch.randn(2, channels, *grid, dtype=torch.float64)
    np.testing.assert_allclose(numbers(branch(x)), attention(branch, x.numpy()), atol=1e-10)


@pytest.mark.parametrize("with_attention", [True, False])
def test_afeb_against_numpy(with_attention):
    torch.manual_seed(0)
    block = AFEB(4, with_attention, side=2).double()
    x = torch.randn(2, 4, 4, 4, 4, dtype=torch.float64)
    embedded = conv_norm_act(block.embed, x.numpy())
    branches = [conv_norm_act(block.local, embedded)]
    if with_attention:
        branches.insert(0, attention(block.distant, embedded))
    expected = x.numpy() + conv_norm_act(block.fuse, np.concatenate(branches, axis=1))
    np.testing.assert_allclose(numbers(block(x)), expected, atol=1e-9)


@pytest.mark.parametrize("kernel", [1, 3])
def test_mfsb_against_numpy(kernel):
    torch.manual_seed(0)
    block = MFSB(3, kernel).double()
    x = np.random.default_rng(0).normal(size=(2, 12, 3, 4, 2))
    x[0, 3:6] = 0  # a missing modality
    w1, w2, w3, w4 = (numbers(m.weight) for m in (block.weigh, block.reduce, block.scale, block.shift))
    p = sigmoid(np.einsum("oc,bc->bo", w1, x.mean((2, 3, 4))))  # Eq. 5
    f = np.einsum("oc,bc,bcdhw->bodhw", w2[..., 0, 0, 0], p, x)  # Eq. 6
    alpha, beta = sigmoid(conv(w3, f)), sigmoid(conv(w4, f))  # Eq. 7 and 8
    np.testing.assert_allclose(numbers(block(torch.from_numpy(x))), (1 + alpha) * f + beta, atol=1e-12)


def test_means_of_a_bf16_map_are_summed_in_fp32():
    x = (300 + torch.randn(2, 3, 30, 20, 20)).bfloat16()  # summed in bf16 they would stop growing at 65,536
    found = means(x)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), x.double().numpy().mean((2, 3, 4)), rtol=1e-5)


def test_mfsb_uses_means_that_are_known():
    torch.manual_seed(0)
    block, x = MFSB(2).double(), torch.randn(2, 8, 3, 3, 3, dtype=torch.float64)
    assert torch.equal(block(x, means(x)), block(x))
    assert not torch.allclose(block(x, means(x) + 1), block(x))


def test_conv_mfsb_against_numpy():
    torch.manual_seed(0)
    block = ConvMFSB(4, budget=22 * 16).double()
    x = np.random.default_rng(0).normal(size=(2, 16, 3, 3, 3))
    expected = leaky(conv(numbers(block.layers[0].weight), x))
    expected = leaky(conv(numbers(block.layers[2].weight), expected))
    expected = conv(numbers(block.layers[4].weight), expected)
    np.testing.assert_allclose(numbers(block(torch.from_numpy(x))), expected, atol=1e-12)


BLOCKS = {
    "afeb": (lambda: AFEB(2, side=2), (1, 2, 3, 3, 3)),
    "afeb pooled": (lambda: AFEB(2, side=2), (1, 2, 4, 2, 2)),
    "afeb local": (lambda: AFEB(2, attention=False), (1, 2, 2, 2, 3)),
    "conv afeb": (lambda: ConvAFEB(2, 216), (1, 2, 2, 2, 3)),
    "mfsb": (lambda: MFSB(2), (2, 8, 2, 2, 2)),
    "mfsb 3": (lambda: MFSB(2, kernel=3), (1, 8, 2, 2, 2)),
    "conv mfsb": (lambda: ConvMFSB(2, 88), (1, 8, 2, 2, 2)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_in_float64(name):
    make, shape = BLOCKS[name]
    torch.manual_seed(0)
    block = make().double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    names, values = zip(*block.named_parameters(), strict=True)

    def run(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize("name", BLOCKS)
def test_checkpointing_gives_the_same_gradients(name):
    make, shape = BLOCKS[name]
    torch.manual_seed(0)
    block, x = make(), torch.randn(shape)
    gradients = []
    for on in (False, True):
        set_checkpointing(block, on)
        block.zero_grad()
        block(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in block.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("channels", "expected"), [(128, 8), (16, 8), (4, 4), (12, 6), (10, 5), (7, 7), (11, 1)]
)
def test_heads(channels, expected):
    assert heads(channels) == expected


@pytest.mark.parametrize("channels", [16, 32, 64, 128])
def test_stand_ins_keep_the_parameter_count(channels):
    afeb = parameters(AFEB(channels))
    assert afeb == (1 + 27 + 2 + 4) * channels**2 + 1000 * channels
    assert parameters(ConvAFEB(channels, afeb)) == pytest.approx(afeb, rel=0.02)
    for kernel, factor in ((1, 22), (3, 74)):
        mfsb = parameters(MFSB(channels, kernel))
        assert mfsb == factor * channels**2
        stand_in = ConvMFSB(channels, mfsb)
        assert parameters(stand_in) == pytest.approx(mfsb, rel=0.02)
    assert ConvMFSB(channels, 22 * channels**2).width == pytest.approx(0.815 * channels, abs=0.5)


def test_autocast_keeps_the_blocks_in_half_precision():
    x = torch.randn(1, 4, 6, 6, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert AFEB(4, side=3)(x).dtype == torch.bfloat16
        assert MFSB(1)(x).dtype == torch.bfloat16
