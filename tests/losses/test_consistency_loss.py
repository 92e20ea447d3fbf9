"""L_Var, L_Covar, L_MSE, L_KL against plain loops in NumPy; gradients; flat, partial, overlapping windows."""

import itertools

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from acdis.errors import UserError
from acdis.losses import consistency, local_windows

EPSILON = 1e-6

# (shape [B, C, D, H, W], window, stride)
CASES = [
    ((2, 3, 10, 10, 10), 5, None),  # tiles exactly
    ((1, 2, 7, 11, 3), 5, None),  # 5 + 2, 5 + 5 + 1, and shorter than a window
    ((1, 2, 6, 6, 6), 5, None),  # 5 + 1: one corner of a single voxel, left out
    ((2, 1, 6, 5, 11), 5, None),
    ((1, 1, 9, 7, 8), 5, 2),  # overlap, every second voxel
    ((1, 2, 5, 8, 7), 3, 1),  # a window at every voxel
    ((1, 1, 8, 6, 5), 4, 3),
    ((1, 2, 9, 8, 12), 3, 4),  # gaps between the windows
    ((1, 1, 2, 1, 1), 5, None),  # one window of two voxels
]
GRADIENT_CASES = [
    ((1, 2, 5, 5, 5), 5, None),
    ((1, 1, 7, 6, 3), 5, None),
    ((1, 1, 6, 6, 6), 5, None),
    ((2, 1, 4, 5, 3), 3, 2),
    ((1, 1, 4, 3, 5), 3, 1),
    ((1, 1, 7, 3, 4), 2, 3),
]


def starts(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Windows along an axis as the module defines them, in a plain loop: (from, to)."""
    found: list[tuple[int, int]] = []
    for start in range(0, length, stride):
        stop = min(start + window, length)
        if found and stop <= found[-1][1]:
            break
        found.append((start, stop))
    return found


def windows(f_m, f_aux, window, stride):
    """(sample, values of f_m, values of f_aux) of each window that holds two voxels, after the sigmoid."""
    axes = [starts(length, window, stride or window) for length in f_m.shape[2:]]
    for b, c in np.ndindex(*f_m.shape[:2]):
        for (d0, d1), (h0, h1), (w0, w1) in itertools.product(*axes):
            box = (b, c, slice(d0, d1), slice(h0, h1), slice(w0, w1))
            x, y = (1 / (1 + np.exp(-f[box].astype(np.float64))) for f in (f_m, f_aux))
            if x.size > 1:
                yield b, x.ravel(), y.ravel()


def expected(f_m, f_aux, window, stride):
    """Eq. 1-3 in plain loops, and the share of flat windows: {name: [B]}."""
    samples = [{"var": [], "covar": [], "flat": []} for _ in range(len(f_m))]
    for b, x, y in windows(f_m, f_aux, window, stride):
        n = len(x)
        mean_x, mean_y = sum(x) / n, sum(y) / n
        var_x = sum((value - mean_x) ** 2 for value in x) / (n - 1)
        var_y = sum((value - mean_y) ** 2 for value in y) / (n - 1)
        covar = sum((p - mean_x) * (q - mean_y) for p, q in zip(x, y, strict=True)) / (n - 1)
        sigmas = np.sqrt(var_x) * np.sqrt(var_y)
        samples[b]["var"].append(1 - (2 * sigmas + EPSILON) / (var_x + var_y + EPSILON))
        samples[b]["covar"].append(1 - (abs(covar) + EPSILON) / (sigmas + EPSILON))
        samples[b]["flat"].append(float(np.all(x == x[0]) or np.all(y == y[0])))
    return {name: np.array([np.mean(sample[name]) for sample in samples]) for name in samples[0]}


def features(shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    f_m, f_aux = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return f_m.to(dtype), f_aux.to(dtype)


@pytest.mark.parametrize(("shape", "window", "stride"), CASES)
def test_window_losses_are_the_equations(shape, window, stride):
    f_m, f_aux = features(shape)
    f_m[:, :, : (shape[2] + 1) // 2, :2] = 0.3  # some windows flat in f_m, some in part
    truth = expected(f_m.numpy(), f_aux.numpy(), window, stride)
    found = consistency.window_losses(f_m, f_aux, window, stride, reduction="sample")
    for name, values in truth.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-10, atol=1e-12, err_msg=name)
    assert consistency.variance_loss(f_m, f_aux, window, stride).item() == pytest.approx(truth["var"].mean())
    assert consistency.covariance_loss(f_m, f_aux, window, stride).item() == pytest.approx(
        truth["covar"].mean()
    )


def test_which_windows_there_are():
    def sizes(length, window, stride):
        return sorted(
            (run.start + k * run.step, run.start + k * run.step + run.size)
            for run in local_windows.runs(length, window, stride)
            for k in range(run.number)
        )

    assert sizes(11, 5, 5) == [(0, 5), (5, 10), (10, 11)]
    assert sizes(7, 5, 2) == [(0, 5), (2, 7)]  # the one at 4 would cover nothing new
    assert sizes(8, 5, 2) == [(0, 5), (2, 7), (4, 8)]
    assert sizes(3, 5, 2) == [(0, 3)]
    assert sizes(9, 3, 4) == [(0, 3), (4, 7), (8, 9)]
    for length, window, stride in itertools.product(range(1, 14), range(2, 7), range(1, 8)):
        assert sizes(length, window, stride) == starts(length, window, stride)


@pytest.mark.parametrize("pieces", [1, 200, 10**9])
def test_the_size_of_the_pieces_changes_nothing(monkeypatch, pieces):
    f_m, f_aux = features((2, 2, 13, 6, 7))
    f_m.requires_grad_()
    whole = sum(consistency.window_losses(f_m, f_aux, 3, 2).values())
    (gradient,) = torch.autograd.grad(whole, f_m)
    monkeypatch.setattr(local_windows, "_PIECE_ON_CPU", pieces)
    again = sum(consistency.window_losses(f_m, f_aux, 3, 2).values())
    torch.testing.assert_close(again, whole)
    torch.testing.assert_close(torch.autograd.grad(again, f_m)[0], gradient)


@pytest.mark.parametrize("loss", [consistency.variance_loss, consistency.covariance_loss])
@pytest.mark.parametrize(("shape", "window", "stride"), GRADIENT_CASES)
def test_gradients_of_window_losses(loss, shape, window, stride):
    f_m, f_aux = features(shape, seed=1)
    f_m.requires_grad_()
    assert gradcheck(lambda f: loss(f, f_aux, window, stride, "sample"), f_m)
    opposite = 0.1 * f_aux - f_m.detach()  # negative covariances
    assert gradcheck(lambda f: loss(f, opposite, window, stride), f_m)


def test_gradient_of_both_losses_at_once():
    f_m, f_aux = features((1, 2, 6, 4, 3), seed=2)
    f_m.requires_grad_()

    def accumulated(f):
        losses = consistency.window_losses(f, f_aux, 3)
        return losses["var"] + 0.5 * losses["covar"]

    assert gradcheck(accumulated, f_m)


@pytest.mark.parametrize("loss", [consistency.variance_loss, consistency.covariance_loss])
@pytest.mark.parametrize("flat", ["f_m", "f_aux", "both"])
def test_gradients_on_flat_windows(loss, flat):
    f_m, f_aux = features((1, 1, 4, 3, 5), seed=3)
    if flat != "f_aux":
        f_m[..., :3] = 0.0  # where the sigmoid is odd around its value
    if flat != "f_m":
        f_aux[..., :3] = -0.2
    f_m.requires_grad_()
    # Central differences see the symmetric derivative, which the convention at σ = 0 is.
    assert gradcheck(lambda f: loss(f, f_aux, 3), f_m, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 0.3, -1.7, 200.0, -200.0])
def test_all_equal_features(dtype, value):
    f_m = torch.full((1, 2, 7, 15, 11), value, dtype=dtype, requires_grad=True)
    textured = features(f_m.shape, dtype=dtype)[1]
    for f_aux in (f_m.detach().clone(), f_m.detach() * 0.5, textured):
        losses = consistency.window_losses(f_m, f_aux)
        assert losses["flat"] == 1
        assert losses["covar"].item() == 0  # 1 - (0 + ε) / (0 + ε)
        if f_aux is textured:
            variances = np.array(
                [np.var(y, ddof=1) for _, _, y in windows(*[textured.double().numpy()] * 2, 5, 5)]
            )
            truth = np.mean(1 - EPSILON / (variances + EPSILON))
            assert losses["var"].item() == pytest.approx(truth, rel=1e-5)
        else:
            assert losses["var"].item() == 0
        (gradient,) = torch.autograd.grad(losses["var"] + losses["covar"], f_m)
        assert torch.count_nonzero(gradient) == 0


@pytest.mark.parametrize("noise", [1e-30, 1e-12, 1e-8, 1e-7, 1e-6, 1e-4])
def test_almost_flat_windows_have_finite_gradients(noise):
    generator = torch.Generator().manual_seed(4)
    f_m = torch.randn(1, 2, 10, 10, 10, generator=generator) * noise
    for offset in (0.0, 1.0, 20.0, -20.0, -80.0, -100.0):
        shifted = (f_m + offset).requires_grad_()
        for f_aux in (f_m, f_m * 0, f_m / noise, f_m - 100):
            losses = consistency.window_losses(shifted, f_aux)
            (gradient,) = torch.autograd.grad(losses["var"] + losses["covar"], shifted)
            assert torch.isfinite(gradient).all()
            assert torch.isfinite(torch.stack(list(losses.values()))).all()


def test_equal_and_mirrored_features_are_consistent():
    f_m, _ = features((1, 2, 10, 5, 5))
    same = consistency.window_losses(f_m, f_m)
    mirrored = consistency.window_losses(f_m, -f_m)  # sigmoid(-x) = 1 - sigmoid(x): covariance = -variance
    for losses in (same, mirrored):
        assert losses["var"].item() == pytest.approx(0, abs=1e-12)
        assert losses["covar"].item() == pytest.approx(0, abs=1e-12)


def test_statistics_survive_a_large_mean():
    """Mean 0.993, σ about 7e-5: E[x²] - E[x]² in float32, of 5e-9 with an error of 1e-7, would be noise."""
    f_m, f_aux = (5 + 0.01 * f.float() for f in features((1, 1, 10, 10, 10)))
    for loss in (consistency.variance_loss, consistency.covariance_loss):
        assert loss(f_m, f_aux).item() == pytest.approx(loss(f_m.double(), f_aux.double()).item(), rel=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_equal_features_are_flat_wherever_they_lie(threads):
    """The sigmoid's vector and scalar code differ in the last bit; σ must be 0 all the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for value, dtype in itertools.product(np.linspace(-4, 4, 9), (torch.float32, torch.float64)):
            f = torch.full((1, 3, 23, 25, 27), value, dtype=dtype)
            assert consistency.window_losses(f, f)["flat"] == 1
    finally:
        torch.set_num_threads(before)


def test_the_share_of_flat_windows_by_counting():
    f, _ = features((2, 2, 10, 10, 5))
    f[0, 0, :5, :5] = 0.3  # 1 of sample 0's 8 windows
    f[1, :, :, 5:] = -2.0  # 4 of sample 1's 8
    f = f.float()
    alone = consistency.window_losses(f, f, reduction="sample")["flat"]
    np.testing.assert_allclose(alone, [1 / 8, 4 / 8])
    assert consistency.window_losses(f, f)["flat"].item() == pytest.approx(5 / 16)
    other = features(f.shape, seed=5)[0].float()
    other[0] = 0.1
    assert consistency.window_losses(f, other)["flat"].item() == pytest.approx((8 + 4) / 16)
    assert not consistency.window_losses(f.requires_grad_(), other)["flat"].requires_grad


def test_mse_is_of_sigmoid_features():
    f_m, f_aux = features((2, 3, 4, 3, 5))
    x, y = (1 / (1 + np.exp(-f.numpy())) for f in (f_m, f_aux))
    truth = [np.mean([(p - q) ** 2 for p, q in zip(x[b].flat, y[b].flat, strict=True)]) for b in range(2)]
    np.testing.assert_allclose(consistency.mse_loss(f_m, f_aux, "sample"), truth)
    assert consistency.mse_loss(f_m, f_aux).item() == pytest.approx(np.mean(truth))
    assert gradcheck(lambda f: consistency.mse_loss(f, f_aux), f_m.requires_grad_())


def test_kl_is_between_softmax_over_space_teacher_first():
    f_m, f_aux = features((2, 3, 4, 3, 5))
    truth = np.zeros((2, 3))
    for b, c in np.ndindex(2, 3):
        p, q = (np.exp(f[b, c].numpy().ravel()) for f in (f_aux, f_m))
        p, q = p / p.sum(), q / q.sum()
        truth[b, c] = sum(a * np.log(a / m) for a, m in zip(p, q, strict=True))
    np.testing.assert_allclose(consistency.kl_loss(f_m, f_aux, "sample"), truth.mean(1))
    assert consistency.kl_loss(f_m, f_aux).item() == pytest.approx(truth.mean())
    assert consistency.kl_loss(f_m, f_m + 3).item() == pytest.approx(0, abs=1e-12)
    assert gradcheck(lambda f: consistency.kl_loss(f, f_aux), f_m.requires_grad_())


ALL = [consistency.variance_loss, consistency.covariance_loss, consistency.mse_loss, consistency.kl_loss]


@pytest.mark.parametrize("loss", ALL)
def test_the_label_gets_no_gradient(loss):
    f_m, f_aux = (f.requires_grad_() for f in features((1, 2, 5, 6, 5)))
    loss(f_m, f_aux).backward()
    assert f_aux.grad is None
    assert torch.count_nonzero(f_m.grad) > 0


@pytest.mark.parametrize("loss", ALL)
def test_layout_of_the_memory_changes_nothing(loss):
    f_m, f_aux = features((2, 3, 7, 5, 6))
    plain = f_m.clone().requires_grad_()
    value = loss(plain, f_aux)
    value.backward()
    wide = torch.zeros(2, 3, 14, 5, 6, dtype=torch.float64)
    wide[:, :, ::2] = f_m
    for other in (f_m.to(memory_format=torch.channels_last_3d), wide[:, :, ::2]):
        leaf = other.detach().requires_grad_()
        again = loss(leaf, f_aux.transpose(2, 4).contiguous().transpose(2, 4))
        again.backward()
        torch.testing.assert_close(again, value)
        torch.testing.assert_close(leaf.grad, plain.grad)


@pytest.mark.parametrize("loss", ALL)
def test_bf16_features_under_autocast_are_computed_in_float32(loss):
    f_m, f_aux = features((2, 2, 10, 5, 6), dtype=torch.bfloat16)
    exact = loss(f_m.double(), f_aux.double())
    assert exact.dtype == torch.float64
    f_m.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(f_m, f_aux)
        samples = loss(f_m, f_aux, reduction="sample")
        still_double = loss(f_m.double(), f_aux.double())
    assert value.dtype == samples.dtype == torch.float32
    assert still_double.dtype == torch.float64
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert samples.mean().item() == pytest.approx(value.item(), rel=1e-6)
    value.backward()
    assert f_m.grad.dtype == torch.bfloat16
    reference = f_m.detach().double().requires_grad_()
    loss(reference, f_aux.double()).backward()
    torch.testing.assert_close(f_m.grad.double(), reference.grad, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("loss", ALL)
def test_an_empty_batch_costs_nothing(loss):
    empty = torch.zeros(0, 2, 5, 5, 5, requires_grad=True)
    value = loss(empty, empty.detach())
    assert value.item() == 0
    value.backward()
    assert loss(empty, empty, reduction="sample").shape == (0,)


@pytest.mark.parametrize("loss", ALL)
def test_nan_is_not_hidden(loss):
    f_m, f_aux = features((1, 1, 5, 5, 10), dtype=torch.float32)
    f_m[0, 0, 2, 2, 2] = torch.nan
    f_m.requires_grad_()
    value = loss(f_m, f_aux)
    value.backward()
    assert value.isnan()
    assert f_m.grad.isnan().any()


def test_wrong_use_is_refused():
    f = torch.zeros(1, 1, 4, 4, 4)
    with pytest.raises(UserError, match="window 1"):
        consistency.variance_loss(f, f, window=1)
    with pytest.raises(UserError, match="stride 0"):
        consistency.variance_loss(f, f, stride=0)
    with pytest.raises(UserError, match="1×1×1"):
        consistency.covariance_loss(f[..., :1, :1, :1], f[..., :1, :1, :1])
    with pytest.raises(ValueError, match="shapes differ"):
        consistency.covariance_loss(f, f[..., :1])
    with pytest.raises(ValueError, match="unknown window losses"):
        consistency.window_losses(f, f, names=("mse",))
    with pytest.raises(ValueError, match="reduction"):
        consistency.mse_loss(f, f, reduction="sum")
