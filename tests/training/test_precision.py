"""Which precision `auto` is, without torch; and that torch agrees where it can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acdis.training import precision


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512vl\n\nflags : fpu\n", True),
        ("flags : amx_bf16 amx_tile\n", True),
        ("Features : fp asimd bf16 i8mm\n", True),
        ("flags : fpu avx2 avx512f avx512bw avx512vl avx512dq\n", False),
        ("model name : avx512_bf16\nflags : fpu\n", False),
        ("", False),
    ],
)
def test_the_instructions_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, has: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    monkeypatch.setattr(precision, "_CPU_INFO", file)
    assert precision.cpu_has_bf16() is has
    assert precision.resolve("auto", gpu=False) == ("bf16" if has else "fp32")
    assert precision.resolve("auto", gpu=True) == "bf16"
    assert precision.resolve("fp32", gpu=True) == "fp32"
    assert precision.resolve("bf16", gpu=False) == "bf16"


def test_without_linux_there_is_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "nothing")
    assert not precision.cpu_has_bf16()


def test_torch_computes_in_bf16_where_the_flags_say_so() -> None:
    """The other way round does not hold: torch also says yes where bf16 is emulated."""
    if precision.cpu_has_bf16():
        assert torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_a_gpu_computes_fp32_in_fp32_and_the_same_bits_where_asked(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    precision.set_up(torch.device("cpu"), deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()  # nothing is touched for a CPU
    try:
        precision.set_up(torch.device("cuda"), deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
    finally:
        precision.set_up(torch.device("cuda"), deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
