"""The 3D convolution of every method: parts of its input apart, guards where a CPU library errs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acdis.networks import cpu


class Conv3d(nn.Conv3d):
    """torch's, with two guards on CPUs (see `cpu`) and a 1³ kernel as one product of matrices."""

    def forward(self, input: Tensor) -> Tensor:
        return self._convolve(input, self.weight, self.bias)

    def part(self, x: Tensor, first: int, times: int = 1) -> Tensor:
        """What some of the input's channels add to the result, without bias; the parts add up to the whole.

        Args:
            x: `[B, n, D, H, W]`, channels `first` to `first` + n of the input.
            times: x stands so many times, side by side: the kernels are added, and it is convolved once.
        """
        weight = self.weight[:, first : first + times * x.shape[1]]
        return self._convolve(x, weight.unflatten(1, (times, -1)).sum(1) if times > 1 else weight, None)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if cpu.writes_out_of_bounds(self, x):
            with torch.autocast("cpu", enabled=False):
                exact = self._conv_forward(x.to(weight.dtype), weight, bias)
            return exact.to(torch.get_autocast_dtype("cpu"))
        if self.kernel_size == self.stride == (1, 1, 1) and x.is_contiguous(memory_format=cpu.LAST):
            return cpu.pointwise(x, weight.flatten(1), bias)
        if cpu.goes_a_slow_way(x, weight):
            return cpu.directly(self, x, weight, bias)
        return self._conv_forward(x, weight, bias)
