"""Where torch or oneDNN compute wrongly or slowly on a CPU, and what to do instead; GPUs pass by."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAST = torch.channels_last_3d


def writes_out_of_bounds(layer: nn.Conv3d, x: Tensor) -> bool:
    """Whether bf16 autocast must be left: the result has a side of 2 voxels or fewer.

    There oneDNN (torch 2.13.0, avx512_bf16) writes outside its buffers when it computes the gradient of a
    3³ kernel: values of 1e33 or NaN that differ from run to run, up to a crash. A bottleneck of 2 voxels is
    all it takes. fp32 is right at all of these sizes, bf16 at all larger ones, and on maps so small the
    precision costs nothing. `tests/networks/test_small_maps.py` measures it.
    """
    if x.device.type != "cpu" or layer.kernel_size[0] == 1 or not torch.is_autocast_enabled("cpu"):
        return False
    return any(math.ceil(side / layer.stride[0]) <= 2 for side in x.shape[2:])


def goes_a_slow_way(x: Tensor, weight: Tensor) -> bool:
    """One small sample on a CPU in fp32: torch 2.13 goes a slow way, oneDNN is up to 16 times faster.

    Not in a program that is exported: it is to run wherever torch does.
    """
    return (
        len(x) == 1
        and not torch.compiler.is_exporting()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    )


def directly(layer: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """oneDNN without torch's choice of a way."""
    padding: tuple[int, ...] = tuple(int(side) for side in layer.padding)
    if layer.padding_mode != "zeros":
        x = F.pad(x, [side for side in reversed(padding) for _ in range(2)], mode=layer.padding_mode)
        padding = (0, 0, 0)
    result: Tensor = torch.ops.aten.mkldnn_convolution(
        x, weight, bias, padding, layer.stride, layer.dilation, layer.groups
    )
    return result


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1³ convolution of a channels-last map `[B, C, D, H, W]` as one product of matrices.

    torch's own takes a slow way where one thread computes.

    Args:
        weight: `[outputs, C]`, or one per sample `[B, outputs, C]` (then without bias).
    """
    rows = x.permute(0, 2, 3, 4, 1)
    if weight.ndim == 2:
        return F.linear(rows, weight, bias).permute(0, 4, 1, 2, 3)
    mixed = torch.bmm(rows.flatten(1, 3), weight.transpose(1, 2))
    return mixed.unflatten(1, x.shape[2:]).permute(0, 4, 1, 2, 3)
