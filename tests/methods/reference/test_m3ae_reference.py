"""M3AE's U-Net against the values of the public network (BASELINES.md, section 8)."""

import torch
from reference import assert_stated, filled, h, parameters, stated

from acdis.methods.m3ae.network import UNet


def test_parameters_per_module(shared):
    counts = stated(shared)["m3ae"]["parameters"]
    net, modules = UNet(4, 3, 16, deep=True), counts["modules"]
    assert parameters(net) == counts["net"]
    assert parameters(UNet(4, 4, 16, deep=False)) == counts["net_stage1"]
    assert parameters(net.entry) == modules["conv1a"]
    assert [parameters(down) for down in net.downs] == [modules[f"ds{n}"] for n in (1, 2, 3)]
    assert [parameters(stage) for stage in net.encoder] == [13_920, 2 * 55_488, 2 * 221_568, 4 * 885_504]
    assert [parameters(conv) for conv in net.narrow] == [8_256, 2_080, 528]
    assert [parameters(stage) for stage in net.decoder] == [221_568, 55_488, 13_920]
    assert parameters(net.last) == 51
    assert parameters(net.heads) == 294


def test_forward_values(shared):
    expected = stated(shared)["m3ae"]["forward_S32 (T1,T1ce,T2,FLAIR)"]
    net = filled(UNet(4, 3, 16, deep=True))
    with torch.no_grad():
        maps = net(h(1, 4, 32, 32, 32))
    assert_stated(maps.deep[0], expected["out4 (coarsest, x4)"])
    assert_stated(maps.deep[1], expected["out3 (x2)"])
    assert_stated(maps.full, expected["final"])
