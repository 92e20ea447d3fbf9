"""L_Syn and the adversarial terms against NumPy."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from acdis.losses import synthesis


def drawn(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mse_is_the_mean_of_squares():
    f_hat, f = drawn((2, 3, 4, 2, 5)), drawn((2, 3, 4, 2, 5), 1)
    truth = [
        sum((p - q) ** 2 for p, q in zip(f_hat[b].numpy().flat, f[b].numpy().flat, strict=True)) / 120
        for b in range(2)
    ]
    np.testing.assert_allclose(synthesis.mse(f_hat, f, "sample"), truth)
    assert synthesis.mse(f_hat, f).item() == pytest.approx(np.mean(truth))
    assert gradcheck(lambda x: synthesis.mse(x, f, "sample"), f_hat.requires_grad_())


def test_the_target_gets_no_gradient():
    f_hat, f = drawn((1, 2, 3, 3, 3)).requires_grad_(), drawn((1, 2, 3, 3, 3), 1).requires_grad_()
    synthesis.mse(f_hat, f).backward()
    assert f.grad is None
    assert torch.count_nonzero(f_hat.grad) > 0


def test_no_sample_no_loss():
    empty = torch.zeros(0, 2, 3, 3, 3, requires_grad=True)
    for value in (synthesis.mse(empty, empty.detach()), synthesis.adversarial_real(empty)):
        assert value.item() == 0
        value.backward()


@pytest.mark.parametrize(
    ("loss", "truth"), [(synthesis.adversarial_real, 1), (synthesis.adversarial_fake, 0)]
)
def test_adversarial_terms_are_binary_cross_entropy(loss, truth):
    logits = drawn((2, 1, 3, 4, 2))
    p = 1 / (1 + np.exp(-logits.numpy()))
    wanted = np.mean(-np.log(p if truth else 1 - p).reshape(2, -1), axis=1)
    np.testing.assert_allclose(loss(logits, "sample"), wanted)
    assert loss(logits).item() == pytest.approx(wanted.mean())
    assert gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("loss", [synthesis.adversarial_real, synthesis.adversarial_fake])
def test_a_sure_discriminator_stays_finite(loss):
    logits = torch.tensor([-1e4, 1e4]).reshape(2, 1, 1, 1, 1).requires_grad_()
    loss(logits).backward()
    assert loss(logits).item() == pytest.approx(5e3)
    assert torch.isfinite(logits.grad).all()


def test_bf16_under_autocast_is_computed_in_float32():
    f_hat, f = drawn((2, 2, 6, 6, 6)).bfloat16(), drawn((2, 2, 6, 6, 6), 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, real = synthesis.mse(f_hat, f), synthesis.adversarial_real(f)
    assert value.dtype == real.dtype == torch.float32
    assert value.item() == pytest.approx(synthesis.mse(f_hat.double(), f.double()).item(), rel=1e-5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes differ"):
        synthesis.mse(torch.zeros(1, 2, 3, 3, 3), torch.zeros(1, 1, 3, 3, 3))
