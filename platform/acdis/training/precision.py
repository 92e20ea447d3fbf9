"""Which numbers a training computes with. Deciding it takes no torch: `plan` names cells without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from acdis.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp32"]

#: Linux' names of the instructions that compute in bf16: AVX-512 BF16, AMX, and those of Arm.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_CPU_INFO = Path("/proc/cpuinfo")


def resolve(choice: str, gpu: bool) -> Precision:
    """`auto` → bf16 where the hardware computes in it, else fp32.

    The node that resolves may have no GPU while the workers have: every GPU that this platform is meant
    for computes in bf16, and `check` says so on the worker if one does not.
    """
    if choice == "fp32" or (choice == "auto" and not gpu and not cpu_has_bf16()):
        return "fp32"
    return "bf16"


def cpu_has_bf16() -> bool:
    """AVX-512 BF16, AMX or Arm's: convolutions in bf16 are faster than in fp32.

    torch itself says yes to CPUs that only emulate bf16 (AVX-512 without BF16), where it is slower.
    """
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    named = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return bool(_BF16_FLAGS & set(next(named, "").split()))


def check(precision: str, device: torch.device) -> None:
    """Refuse bf16 on a GPU that emulates it.

    Raises:
        UserError: it does.
    """
    import torch

    if (
        precision == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError(
            f"training.precision: {torch.cuda.get_device_name(device)} does not compute in bf16; set fp32"
        )


def set_up(device: torch.device, deterministic: bool) -> None:
    """How a GPU computes in this process: fp32 is fp32 (no TF32), cuDNN chooses its algorithms by trying.

    Args:
        deterministic: only algorithms that give the same bits each time, where there are such; slower. Of the
            others torch warns, by name.
    """
    import torch

    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def autocast_dtype(precision: str) -> torch.dtype | None:
    """For `torch.autocast`; none: leave it off."""
    import torch

    return torch.bfloat16 if precision == "bf16" else None
