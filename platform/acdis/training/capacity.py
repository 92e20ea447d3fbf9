"""How large a method is: parameters, and multiply-adds of a window, counted without computing it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from acdis.methods.base import Method
from acdis.vocabulary import MODALITIES, SUBSETS, subset_mask

log = logging.getLogger(__name__)


def capacity(method: Method, window: Sequence[int]) -> dict[str, float]:
    """What of a method's size can be counted.

    `parameters` that are trained, `parameters_inference` of them; per voxel of a window of `window_voxels`
    `multiply_adds` with all modalities, and `multiply_adds_subsets` of all 15 subsets from one encoding. Both
    are left out, with a line in the log, for a method whose operations torch cannot count.
    """
    counted: dict[str, float] = {
        "parameters": sum(weight.numel() for weight in method.parameters()),
        "parameters_inference": sum(
            weight.numel() for name, weight in method.named_parameters() if name in method.inference_state()
        ),
    }
    try:
        voxels = math.prod(window)
        whole, all_subsets = multiply_adds(method, window)
        counted |= {
            "window_voxels": voxels,
            "multiply_adds": whole / voxels,
            "multiply_adds_subsets": all_subsets / voxels,
        }
    except Exception as error:  # a training must not end over a number in a table
        log.warning("multiply-adds of %s are not counted: %s", type(method).__name__, error)
    return counted


def multiply_adds(method: Method, window: Sequence[int]) -> tuple[float, float]:
    """Of one window with all modalities, and with all 15 subsets: convolutions, products of matrices.

    Norms, activations and interpolation are not counted, as everywhere in the field.

    Args:
        window: voxels (d, h, w).
    """
    device, modes = next(method.parameters()).device, [module.training for module in method.modules()]
    masks = torch.tensor([subset_mask(subset) for subset in SUBSETS])
    everything = torch.ones(1, len(MODALITIES), dtype=torch.bool)
    counter = FlopCounterMode(display=False)
    # In bf16, because a single sample in fp32 takes a way through oneDNN on a CPU that torch cannot count;
    # attention as products of matrices, because it cannot count the CPU's fused one either.
    mixed = torch.autocast(device.type, torch.bfloat16)
    method.eval()
    try:
        fake, plain = FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH)
        with torch.no_grad(), fake, mixed, plain, counter:
            images = torch.empty(1, len(MODALITIES), *window, device=device)
            origin = torch.zeros(1, 3, dtype=torch.long, device=device)
            features = method.encode(images, origin=origin)
            encoded = counter.get_total_flops()
            method.decode_subsets(features, everything)
            once = counter.get_total_flops() - encoded
            if type(method).decode_subsets is Method.decode_subsets:
                # `decode` branches on no tensor, so that it costs every subset the same.
                decoded = len(masks) * once
            else:
                method.decode_subsets(features, masks)
                decoded = counter.get_total_flops() - encoded - once
    finally:
        for module, mode in zip(method.modules(), modes, strict=True):
            module.training = mode
    return (encoded + once) / 2, (encoded + decoded) / 2
