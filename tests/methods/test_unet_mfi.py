"""UNet-MFI as a method: losses worked out apart, what stands for a missing image, and where it learns."""

import numpy as np
import pytest
import torch
from reference import s

from acdis import methods
from acdis.losses import regions
from acdis.methods.base import Batch
from acdis.methods.unet_mfi.method import summed_terms


def identity(sums):
    return sums


def e6():
    """Logits (1, 3, 2, 2, 2) 2 s(1..24), target 1 where cos(i²) > 0."""
    i = torch.arange(1, 25, dtype=torch.float64)
    return 2 * s(1, 24, 1, 3, 2, 2, 2), (torch.cos(i * i) > 0).double().view(1, 3, 2, 2, 2)


def test_loss_of_one_map():
    found = summed_terms([e6()[0]], e6()[1], identity)
    assert float(found["dice"] + found["ce"]) == pytest.approx(0.804201, abs=1e-6)


def test_loss_of_a_batch_against_numpy():
    """Sums over batch and space, mean over the regions, sum over the maps."""
    draw = np.random.default_rng(0)
    maps = [draw.normal(size=(2, 3, 2, 3, 4)) for _ in range(3)]
    target = draw.integers(0, 2, size=(2, 3, 2, 3, 4)).astype(float)
    dice = cross = 0.0
    for logits in maps:
        p = 1 / (1 + np.exp(-logits))
        for r in range(3):
            q, y = p[:, r], target[:, r]
            dice += (1 - (2 * (q * y).sum() + 1e-5) / (q.sum() + y.sum() + 1e-5)) / 3
            cross += 0.5 * -(y * np.log(q) + (1 - y) * np.log(1 - q)).mean() / 3
    found = summed_terms([torch.from_numpy(each) for each in maps], torch.from_numpy(target), identity)
    assert float(found["dice"]) == pytest.approx(dice, rel=1e-9)
    assert float(found["ce"]) == pytest.approx(cross, rel=1e-9)


def test_region_target():
    """WT is 1, 2, 3; TC 1 and 3; ET 3."""
    found = regions.region_target(torch.tensor([0, 1, 2, 3]).view(1, 4, 1, 1))
    assert found[0, :, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


@pytest.fixture
def method():
    torch.manual_seed(0)
    return methods.build("unet_mfi", base_width=8).double().eval()


@torch.no_grad()
def test_an_image_of_zeros_stands_for_a_missing_one(method):
    """What the code bits alone change is the attention's input; the features are those of zeros."""
    images = torch.randn(1, 4, 16, 16, 16, dtype=torch.float64)
    emptied = images.clone()
    emptied[:, [0, 2]] = 0
    available = torch.tensor([[False, True, False, True]])
    one, other = (method.decode(method.encode(each), available) for each in (images, emptied))
    torch.testing.assert_close(one, other)


@torch.no_grad()
def test_training_and_inference_are_one_network(method):
    """Emptied images first, or what an empty image gives afterwards: the same thirteen maps."""
    images, available = torch.randn(2, 4, 16, 16, 16).double(), torch.tensor([[1, 0, 0, 1], [0, 1, 1, 1]]) > 0
    one = method.networks.train_on(images, available)
    other = method.networks(method.encode(images), available)
    for each, same in zip((*one.full, *one.deep), (*other.full, *other.deep), strict=True):
        torch.testing.assert_close(each, same)


@torch.no_grad()
def test_what_inference_gives_is_the_mean_of_five_maps(method):
    images, available = torch.randn(1, 4, 8, 8, 8).double(), torch.ones(1, 4, dtype=torch.bool)
    outputs = method.networks(method.encode(images), available)
    assert len(outputs.full) == 5
    assert len(outputs.deep) == 8
    torch.testing.assert_close(method.decode(method.encode(images), available), sum(outputs.full) / 5)


@torch.no_grad()
def test_with_equal_networks_equal_images_give_equal_maps(method):
    """Nothing in the exchange depends on a modality's number: four copies stay alike."""
    for parts in (method.networks.entries, method.networks.modalities):
        for copy in parts[1:]:
            copy.load_state_dict(parts[0].state_dict())
    images = torch.randn(1, 1, 8, 8, 8).double().expand(-1, 4, -1, -1, -1)
    *each, _ = method.networks(method.encode(images), torch.ones(1, 4, dtype=torch.bool)).full
    assert float(each[0].std()) > 0
    for other in each[1:]:
        torch.testing.assert_close(other, each[0])


def test_a_few_steps_lower_the_loss():
    torch.manual_seed(1)
    method = methods.build("unet_mfi", base_width=8)
    labels = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    labels[:, 4:12, 4:12, 4:12] = 2
    labels[:, 6:10, 6:10, 6:10] = 3
    images = labels[:, None].float().expand(-1, 4, -1, -1, -1) + 0.1 * torch.randn(1, 4, 16, 16, 16)
    batch = Batch(images, labels, torch.tensor([[True, False, True, True]]))
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = sum(method(batch, 0)["main"].values())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
