"""mmFormer against the values of the public network (BASELINES.md, section 5)."""

import pytest
import torch
import torch.nn.functional as F
from reference import assert_stated, filled, h, parameters, stated

from acdis.methods.mmformer.network import MmFormer
from acdis.methods.mmformer.options import Options
from acdis.methods.mmformer.transformer import side_by_side

SUBSETS = {"1111": (1, 1, 1, 1), "0100": (0, 1, 0, 0), "1001": (1, 0, 0, 1)}


def test_parameters_per_module(shared):
    counts = stated(shared)["mmformer"]["parameters"]
    model, modules = MmFormer(Options()), counts["modules_80"]
    assert parameters(model) == counts["total_80"] - counts["dead"]
    assert [parameters(encoder) for encoder in model.encoders] == [modules["flair_encoder"]] * 4
    assert [parameters(conv) for conv in model.embed] == [modules["flair_encode_conv"]] * 4
    assert [parameters(block) for block in model.intra] == [modules["flair_transformer"]] * 4
    assert parameters(model.inter) == modules["multimodal_transformer"]
    assert parameters(model.joint) == modules["multimodal_decode_conv"]
    assert parameters(model.fusion_decoder) == modules["decoder_fuse"]
    assert parameters(model.mono_decoder) == modules["decoder_sep"]
    assert parameters(model.positions) == modules["(own)"]


@pytest.fixture(scope="module")
def network():
    return filled(MmFormer(Options(grid=(2, 2, 2))))


@pytest.mark.parametrize("name", SUBSETS)
def test_forward_values(network, shared, name):
    expected = stated(shared)["mmformer"]["forward_S32_grid2 (FLAIR,T1ce,T1,T2)"][name]
    available = torch.tensor([SUBSETS[name]], dtype=torch.bool)
    with torch.no_grad():
        features = network.encode(h(1, 4, 32, 32, 32))
        assert_stated(network.decode(features, available).softmax(1), expected["fuse probability"])
        maps = network._maps(features, available, None)[1:]
        deep = [head(x).softmax(1) for head, x in zip(network.fusion_decoder.heads[1:], maps, strict=True)]
        means = [
            F.interpolate(p, (32, 32, 32), mode="trilinear", align_corners=True)[:, 3].mean() for p in deep
        ]
    assert torch.stack(means).tolist() == pytest.approx(expected["deep maps, ET channel mean"], rel=1e-6)


def test_mono_maps(network, shared):
    expected = stated(shared)["mmformer"]["forward_S32_grid2 (FLAIR,T1ce,T1,T2)"]["1111"]["mono means"]
    images = h(1, 4, 32, 32, 32)
    with torch.no_grad():
        found = [
            network.mono_decoder(encoder(images[:, m : m + 1])).softmax(1)[:, 3].mean().item()
            for m, encoder in enumerate(network.encoders)
        ]
    assert found == pytest.approx(expected, rel=1e-6)


def test_views():
    """Grid 2^3, width 2: token t of 32 holds 2t and 2t + 1."""
    tokens = torch.arange(64).view(1, 32, 2).chunk(4, dim=1)
    published, aligned = (side_by_side(tokens, view)[0] for view in ("published", "aligned"))
    assert published[0].tolist() == list(range(8))
    assert published[3].tolist() == list(range(24, 32))
    assert aligned[3].tolist() == [6, 7, 22, 23, 38, 39, 54, 55]
