"""Which numbers a training computes with."""

from __future__ import annotations

from typing import Literal

import torch

from acdis.errors import UserError

Precision = Literal["bf16", "fp32"]


def resolve(choice: str, gpu: bool) -> Precision:
    """`auto` → bf16 where the hardware computes in it, else fp32.

    The node that resolves may have no GPU while the workers have: every GPU that this platform is meant
    for computes in bf16, and `check` says so on the worker if one does not.
    """
    if choice == "fp32" or (choice == "auto" and not gpu and not cpu_has_bf16()):
        return "fp32"
    return "bf16"


def cpu_has_bf16() -> bool:
    """AVX-512 BF16 or AMX: convolutions in bf16 are faster than in fp32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def check(precision: str, device: torch.device) -> None:
    """Refuse bf16 on a GPU that emulates it.

    Raises:
        UserError: it does.
    """
    if (
        precision == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError(
            f"training.precision: {torch.cuda.get_device_name(device)} does not compute in bf16; set fp32"
        )


def autocast_dtype(precision: str) -> torch.dtype | None:
    """For `torch.autocast`; none: leave it off."""
    return torch.bfloat16 if precision == "bf16" else None
