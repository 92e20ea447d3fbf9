"""Pyramids of several modalities: which sample, modality and channel ends up where."""

import numpy as np
import pytest
import torch
from torch import nn

from acdis.networks import modalities, unet

B, M, C = 2, 4, 3


class Coded(nn.Module):
    """Two levels whose values name the modality, the level, the channel; and the image's value."""

    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, image):
        channels = torch.arange(C)[None, :, None, None, None]
        return [
            1000 * self.m + 100 * level + 10 * channels + image[:, :, ::step, ::step, ::step]
            for level, step in enumerate((1, 2))
        ]


def pyramids():
    images = torch.arange(B)[:, None, None, None, None].expand(B, M, 4, 4, 4).float()
    return modalities.extract([Coded(m) for m in range(M)], images)


def code(b, m, level, c):
    return 1000 * m + 100 * level + 10 * c + b


def test_each_encoder_sees_its_modality_alone():
    images = torch.arange(M).float()[None, :, None, None, None].expand(B, M, 4, 4, 4)
    for m, pyramid in enumerate(modalities.extract([nn.Identity() for _ in range(M)], images)):
        assert pyramid.shape == (B, 1, 4, 4, 4)
        assert (pyramid == m).all()


def test_places():
    found = pyramids()
    levels = modalities.by_level(found)
    beside = modalities.joined(levels)
    for level, side in enumerate((4, 2)):
        assert beside[level].shape == (B, M * C, side, side, side)
        for b, m, c in np.ndindex(B, M, C):
            assert (levels[level][m][b, c] == code(b, m, level, c)).all()
            assert (beside[level][b, m * C + c] == code(b, m, level, c)).all()


class Finest(nn.Module):
    """Stands for a decoder: the finest map, and how often it was asked."""

    def __init__(self, checkpointing, norm):
        super().__init__()
        self.block = unet.EncoderLevel(1, 1, stride=1, padding="zeros")
        unet.set_norm(self.block, norm)
        self.block.checkpointing = checkpointing
        self.calls = 0

    def forward(self, pyramid):
        self.calls += 1
        return pyramid[0]


@pytest.mark.parametrize(
    ("checkpointing", "norm", "calls"), [(False, "instance", 1), (True, "instance", M), (True, "batch", 1)]
)
def test_one_decoder_gives_a_map_for_each_modality(checkpointing, norm, calls):
    """Batch norm sees all of them together, so that its running statistics move once a step."""
    decoder = Finest(checkpointing, norm)
    maps = modalities.each_decoded(decoder, pyramids())
    assert len(maps) == M
    assert decoder.calls == calls
    for m, b, c in np.ndindex(M, B, C):
        assert (maps[m][b, c] == code(b, m, 0, c)).all()


def test_joining_keeps_the_memory_layout():
    layout = torch.channels_last_3d
    found = [[f.contiguous(memory_format=layout) for f in pyramid] for pyramid in pyramids()]
    for level in modalities.joined(modalities.by_level(found)):
        assert level.is_contiguous(memory_format=layout)


def test_what_is_missing_is_zero_whatever_it_was():
    features = torch.randn(B, M, C, 2, 2, 2)
    available = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    for filler in (torch.nan, torch.inf):
        spoiled = features.clone()
        spoiled[~available] = filler
        (maps,) = modalities.known((spoiled.unbind(dim=1),), available)
        known = torch.stack(maps, dim=1)
        assert (known[~available] == 0).all()
        assert torch.equal(known[available], features[available])
