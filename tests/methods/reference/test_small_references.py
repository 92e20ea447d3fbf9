"""MMANet, GSS, U-HVED: pure functions and our MMANet network against stated values (BASELINES.md 3, 6, 9)."""

import pytest
import torch
from reference import assert_stated, filled, h, parameters, s, stated
from torch.distributions import Normal, kl_divergence

from acdis.losses.segmentation import one_hot
from acdis.methods.gss import soft_target as gss
from acdis.methods.mmanet import distillation, network
from acdis.methods.uhved import gaussians
from acdis.methods.uhved.gaussians import Gaussian
from acdis.vocabulary import SUBSETS, subset_mask

MASKS = torch.tensor([subset_mask(subset) for subset in SUBSETS])
THEIRS = ("T1", "T1c", "T2", "Flair")  # of U-HVED


class TestMMANet:
    SUBSETS = {"1111": (1, 1, 1, 1), "0100": (0, 1, 0, 0), "1001": (1, 0, 0, 1)}  # noqa: RUF012

    def test_parameters(self, shared):
        """Convolutions before a norm have no bias here: one number less per channel of each."""
        modules = stated(shared)["mmanet"]["parameters"]["modules"]
        net = network.Network((16, 32, 64, 128), 4, 4, "reflect")
        for level, (fusion, width) in enumerate(zip(net.fusions, (16, 32, 64, 128), strict=True)):
            assert parameters(fusion) == modules[f"fuse.{level}"] - 3 * width
        assert [parameters(encoder) for encoder in net.encoders] == [
            modules[f"enc.{m}"] - 3 * (16 + 32 + 64 + 128) for m in range(4)
        ]

    @pytest.mark.parametrize("name", SUBSETS)
    def test_forward_values(self, shared, name):
        expected = stated(shared)["mmanet"]["forward_S16 (FLAIR,T1ce,T1,T2)"][name]["probabilities"]
        net = filled(network.Network((16, 32, 64, 128), 4, 4, "reflect"))
        available = torch.tensor([self.SUBSETS[name]], dtype=torch.bool)
        with torch.no_grad():
            features = net.encode(h(1, 4, 16, 16, 16))
            assert_stated(net.decode(features, available).logits.softmax(1), expected)

    def test_margin_aware_distillation(self, shared):
        """E7: four rows of three channels."""
        expected = stated(shared)["mmanet"]["mad"]
        weights = distillation.margin_weights(2 * s(41, 56, 1, 4, 4))
        distances = distillation.row_distances(s(1, 12, 1, 4, 3), s(21, 32, 1, 4, 3))
        assert weights[0].tolist() == pytest.approx(expected["row weights w (entropy share)"], abs=1e-8)
        assert distances[0].tolist() == pytest.approx(
            expected["row distance d_r = sum_c (Gs-Gt)^2"], abs=1e-8
        )
        found = (weights * distances).sum().item()
        assert found == pytest.approx(expected["sound: sum_r w_r d_r"], rel=1e-9)

    def test_no_gradient_reaches_the_teacher_and_none_is_nan(self):
        student, teacher = (torch.randn(2, 3, 4, 4, 4, requires_grad=True) for _ in range(2))
        logits = torch.zeros(2, 4, 8, 8, 8)
        logits[:, 0] = 1e4  # a sure teacher: probabilities of 0
        distillation.margin_distillation(student, teacher, logits, most=2).sum().backward()
        assert teacher.grad is None
        assert student.grad.isfinite().all()


class TestGSS:
    def test_branches(self, shared):
        branches = stated(shared)["gss"]["branches"]
        cases = [
            (gss.single, 1, (0.8, 0.1, 0.1, 0.1), (0.6, 0.3, 0.2, 0.1), 0.6, 0.6),
            (gss.single, 1, (0.5, 0.9, 0.9, 0.9), (0.4, 0.2, 0.3, 0.4), 0.0, 0.3),
            (gss.single, 1, (0.5, 0.9, 0.2, 0.9), (0.4, 0.2, 0.3, 0.4), 0.2, 0.2),
            (gss.double, 2, (0.8, 0.9, 0.1, 0.1), (0.5, 0.6, 0.2, 0.1), 1.17, 0.6),
            (gss.double, 2, (0.8, 0.2, 0.1, 0.1), (0.5, 0.3, 0.2, 0.1), 0.44, 0.44),
            (gss.double, 2, (0.5, 0.5, 0.9, 0.9), (0.5, 0.3, 0.2, 0.4), 0.3, 0.3),
            (gss.double, 2, (0.5, 0.5, 0.2, 0.9), (0.5, 0.3, 0.2, 0.4), 0.2, 0.2),
        ]
        assert len(cases) == len(branches) - 1  # beside the note on the order
        for rule, leaders, p, q, published, sound in cases:
            p, q = (torch.tensor(x, dtype=torch.float64)[:, None] for x in (p, q))
            for variant, expected in (("published", published), ("sound", sound)):
                found = rule(p[:leaders], q[:leaders], p[leaders:], q[leaders:], variant)
                assert found.item() == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("variant", ["published", "sound"])
    def test_soft_loss_of_twelve_voxels(self, shared, variant):
        expected = stated(shared)["gss"]["soft_target"]
        logits = torch.stack([2 * s(100 * m + 1, 100 * m + 48, 1, 4, 12, 1, 1) for m in range(4)])
        for voxel in range(12):
            logits[:, 0, voxel % 4, voxel] += 4
        target = gss.soft_target(logits, variant)
        torch.testing.assert_close(target.sum(1), torch.ones(1, 12, 1, 1, dtype=torch.float64))
        found = sum(gss.soft_cross_entropy((x / 8).softmax(1), target) for x in logits)
        name = "public" if variant == "published" else "sound"
        assert found.item() == pytest.approx(expected[f"soft loss {name}, no masking"], rel=1e-6)

    def test_masked_loss(self, shared):
        """E1 with voxels 0 and 5 emptied."""
        expected = stated(shared)["gss"]["masked_wce"]
        (value,) = (v for name, v in expected.items() if name.startswith("wce after"))
        soft = (2 * s(1, 32, 1, 4, 2, 2, 2)).softmax(1)
        target = one_hot(torch.tensor([0, 1, 2, 3, 0, 0, 2, 0]).view(1, 2, 2, 2)).double()
        emptied = gss.masked(target, soft, 0.25, lambda draws: torch.tensor([[0, 5]])[:, :draws])
        assert gss.soft_cross_entropy(emptied[1], emptied[0]).item() == pytest.approx(value, rel=1e-6)


def precise(parts):
    return [gaussians.by_precision(part) for part in parts]


class TestGaussians:
    def parts(self):
        return [
            Gaussian(s(10 * k + 1, 10 * k + 4, 1, 4, 1, 1, 1), s(10 * k + 101, 10 * k + 104, 1, 4, 1, 1, 1))
            for k in range(4)
        ]

    def mask(self, *names):
        return torch.tensor([[name in names for name in THEIRS]])

    @pytest.mark.parametrize(
        ("name", "given"), [("T1", ("T1",)), ("T1c+Flair", ("T1c", "Flair")), ("all", THEIRS)]
    )
    def test_stated_products_and_divergences(self, shared, name, given):
        expected = stated(shared)["uhved"]["posterior_and_KLD"]
        found = gaussians.product(precise(self.parts()), self.mask(*given))
        assert found.mean.flatten().tolist() == pytest.approx(expected[f"posterior {name}"]["mu"], abs=1e-7)
        assert found.logvar.flatten().tolist() == pytest.approx(
            expected[f"posterior {name}"]["logvar"], abs=1e-7
        )
        terms = expected[f"KLD terms, available={name}"]
        between, prior = gaussians.disagreement(precise(self.parts()), self.mask(*given), MASKS)
        assert between.item() == pytest.approx(terms["inter (1/14 sum)"], rel=1e-9)
        prior_name = "prior (1/15 sum)"
        if prior_name in terms:
            assert prior.item() == pytest.approx(terms[prior_name], rel=1e-9)

    def test_divergence_is_that_of_torch(self):
        draw = torch.Generator().manual_seed(0)
        one, other = (
            Gaussian(*torch.randn(2, 3, 5, 2, 2, 2, generator=draw, dtype=torch.float64)) for _ in range(2)
        )
        normals = [Normal(g.mean, (g.logvar / 2).exp()) for g in (one, other)]
        expected = kl_divergence(*normals).flatten(1).mean(1)
        torch.testing.assert_close(gaussians.divergence(one, other), expected, rtol=1e-5, atol=1e-6)

    def test_product_is_that_of_densities(self):
        """The logarithm of the product of densities is a parabola: its top and curvature, voxel by voxel."""
        parts = self.parts()
        found = gaussians.product(precise(parts), self.mask("T1", "T2"))
        x = torch.linspace(-1, 1, 3, dtype=torch.float64)[:, None]
        mean, logvar = (torch.stack([g[i].flatten() for g in (parts[0], parts[2])]) for i in (0, 1))
        log = Normal(0.0, 1.0).log_prob(x) + Normal(mean[:, None], (logvar[:, None] / 2).exp()).log_prob(
            x
        ).sum(0)
        curvature = log[0] - 2 * log[1] + log[2]
        top = (log[0] - log[2]) / (2 * curvature)
        torch.testing.assert_close(found.mean.flatten(), top, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.logvar.exp().flatten(), -1 / curvature, rtol=1e-5, atol=1e-6)

    def test_what_is_missing_may_be_nan(self):
        parts = self.parts()
        spoiled = [parts[0], Gaussian(*(torch.full_like(x, torch.nan) for x in parts[1])), *parts[2:]]
        expected = gaussians.product(precise(parts), self.mask("T1", "T2"))
        found = gaussians.product(precise(spoiled), self.mask("T1", "T2"))
        assert torch.equal(found.mean, expected.mean)
