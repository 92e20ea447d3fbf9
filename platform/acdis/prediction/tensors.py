"""Weights as a safetensors file: a JSON header and raw numbers, nothing that could run.

The format (huggingface/safetensors, "Format"): 8 bytes with the header's length, little-endian; the header,
name → dtype, shape and offsets into what follows; then all tensors side by side, without gaps.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acdis import files
from acdis.errors import UserError

#: Bytes of a file, and of its header.
MOST, MOST_HEADER = 2**33, 2**24
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, in memory order row-major, sorted by name."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, at = [], 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        offsets = [at, at + len(content)]
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        parts.append(content)
        at += len(content)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    files.write_bytes(path, b"".join([struct.pack("<Q", len(head)), head, *parts]))


def read(path: Path) -> dict[str, Tensor]:
    """Read tensors; every size is checked against the file before anything is made of it.

    Raises:
        UserError: the file cannot be read or is none.
    """
    try:
        return _tensors(files.read(path, MOST))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({files.reason(error)})") from None
    except (ValueError, LookupError, TypeError, AttributeError, struct.error, RuntimeError) as error:
        raise UserError(f"{path}: is no safetensors file ({files.reason(error)}); export it again") from None


def _tensors(content: bytes) -> dict[str, Tensor]:
    (length,) = struct.unpack_from("<Q", content)
    if length > min(MOST_HEADER, len(content) - 8):
        raise ValueError(f"its header claims {length:,} bytes")
    header = files.json_of(content[8 : 8 + length])
    data = memoryview(bytearray(content[8 + length :]))
    header.pop("__metadata__", None)
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _TYPES[entry["dtype"]], [int(side) for side in entry["shape"]]
        first, last = entry["data_offsets"]
        size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
        if first != end or last - first != size or last > len(data) or min(shape, default=0) < 0:
            raise ValueError(f"{name}: its numbers lie elsewhere than they should")
        flat = torch.frombuffer(data[first:last], dtype=dtype) if size else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(shape).clone()
        end = last
    if end != len(data):
        raise ValueError("it holds more than its tensors")
    return tensors
