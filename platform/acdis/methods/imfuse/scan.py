"""Mamba's selective scan (Gu and Dao 2023) in plain PyTorch, forward and backward, on any device.

A state h of shape [e, n] runs through a sequence: h_t = exp(dt_t A) h_{t-1} + (dt_t u_t) B_t^T, and
y_t = h_t C_t + D u_t. Step by step that is L dependent steps, and autograd would keep L states. Here the
sequence is cut into K chunks of Q steps that run side by side: once from empty states, which gives what each
chunk adds; the chunks' first states follow from a recurrence of K steps (cut again where K is large); then
once more from those. All factors lie in (0, 1], so nothing overflows. The backward pass is the same scan from
the other end; of the forward pass it keeps the chunks' first states alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Steps of the chunks' own recurrence beyond which it is cut as well.
_LONG = 128


def chunk_length(steps: int) -> int:
    """Q that keeps the number of dependent steps, about 4 Q + K / Q, small."""
    return max(1, round(max(steps ** (1 / 3), min(math.sqrt(steps), 25.0))))


def selective_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, chunk: int | None = None
) -> Tensor:
    """y, `[b, L, e]`, of a selective scan from an empty state.

    Args:
        u: input, `[b, L, e]`.
        dt: step sizes, `[b, L, e]`, above 0 (0 leaves the state alone).
        A: `[e, n]`, below 0.
        B, C: `[b, L, n]`, into the state and out of it.
        D: `[e]`, past the state.
        chunk: Q; none: `chunk_length`.
    """
    result: Tensor = _Scan.apply(u, dt, A, B, C, D, chunk or chunk_length(u.shape[1]))
    return result


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, chunk: int
    ) -> Tensor:
        steps = u.shape[1]
        inputs = _cut(dt * u, chunk)
        dts, Bs, Cs = (_cut(x, chunk) for x in (dt, B, C))
        h = _zeros(dts, A)
        for q in range(chunk):
            h = _advance(h, dts[:, :, q], inputs[:, :, q], A, Bs[:, :, q])
        starts = recurrence(_decay(dts, A), h)
        h, out = starts.clone(), torch.empty_like(inputs)
        for q in range(chunk):
            h = _advance(h, dts[:, :, q], inputs[:, :, q], A, Bs[:, :, q])
            out[:, :, q] = torch.einsum("bken,bkn->bke", h, Cs[:, :, q])
        ctx.save_for_backward(u, dt, A, B, C, D, starts)
        ctx.chunk = chunk
        return out.flatten(1, 2)[:, :steps] + D * u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, ...]:
        u, dt, A, B, C, D, starts = ctx.saved_tensors
        chunk, steps = ctx.chunk, u.shape[1]
        dts, us, Bs, Cs, ws = (_cut(x, chunk) for x in (dt, u, B, C, w))
        inputs = dts * us
        states = [starts]
        for q in range(chunk):
            states.append(_advance(states[-1], dts[:, :, q], inputs[:, :, q], A, Bs[:, :, q]))
        carry = _zeros(dts, A)  # what the steps behind ask of the state, from the chunk's end
        for q in reversed(range(chunk)):
            carry = _retreat(carry, dts[:, :, q], A, ws[:, :, q], Cs[:, :, q])[1]
        carry = recurrence(_decay(dts, A).flip(1), carry.flip(1)).flip(1)
        du, ddt, dB, dC = (torch.empty_like(x) for x in (us, dts, Bs, Cs))
        dA = torch.zeros_like(A)
        for q in reversed(range(chunk)):
            here, step, into = states[q + 1], dts[:, :, q], Bs[:, :, q]
            g, _ = _retreat(carry, step, A, ws[:, :, q], Cs[:, :, q])
            decayed = torch.exp(step[..., None] * A).mul_(states[q])  # a_t h_{t-1}
            dC[:, :, q] = torch.einsum("bken,bke->bkn", here, ws[:, :, q])
            dB[:, :, q] = torch.einsum("bken,bke->bkn", g, inputs[:, :, q])
            felt = torch.einsum("bken,bkn->bke", g, into)
            du[:, :, q] = step * felt
            moved = g * decayed
            ddt[:, :, q] = torch.einsum("bken,en->bke", moved, A) + us[:, :, q] * felt
            dA += torch.einsum("bken,bke->en", moved, step)
            carry = g.mul_(torch.exp(step[..., None] * A))
            states.pop()
        back = [x.flatten(1, 2)[:, :steps] for x in (du, ddt, dB, dC)]
        return back[0] + D * w, back[1], dA, back[2], back[3], (w * u).sum((0, 1)), None


def _cut(x: Tensor, chunk: int) -> Tensor:
    """`[b, L, c]` to `[b, K, Q, c]`; zeros behind the end: with dt = 0 a step changes nothing."""
    return F.pad(x, (0, 0, 0, -x.shape[1] % chunk)).unflatten(1, (-1, chunk))


def _zeros(dts: Tensor, A: Tensor) -> Tensor:
    return dts.new_zeros(*dts.shape[:2], *A.shape)


def _decay(dts: Tensor, A: Tensor) -> Tensor:
    """What a chunk leaves of the state before it, `[b, K, e, n]`."""
    return torch.exp(dts.sum(2)[..., None] * A)


def _advance(h: Tensor, dt: Tensor, inputs: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return torch.exp(dt[..., None] * A).mul_(h).addcmul_(inputs[..., None], B[:, :, None])


def _retreat(carry: Tensor, dt: Tensor, A: Tensor, w: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of this step's state, and what it hands to the step before."""
    g = torch.addcmul(carry, w[..., None], C[:, :, None])
    return g, torch.exp(dt[..., None] * A).mul_(g)


def recurrence(decay: Tensor, added: Tensor) -> Tensor:
    """S_0 = 0, S_{k+1} = decay_k S_k + added_k, for `[b, K, ...]`: all S_k, the last sum left out."""
    count = decay.shape[1]
    if count <= _LONG:
        starts = [torch.zeros_like(added[:, 0])]
        for k in range(count - 1):
            starts.append(torch.addcmul(added[:, k], decay[:, k], starts[-1]))
        return torch.stack(starts, dim=1)
    length = math.isqrt(count - 1) + 1
    missing = -count % length
    blank = (0, 0) * (decay.ndim - 2) + (0, missing)
    decay, added = F.pad(decay, blank, value=1.0), F.pad(added, blank)
    decay, added = decay.unflatten(1, (-1, length)), added.unflatten(1, (-1, length))
    sums, factors = torch.zeros_like(added[:, :, 0]), torch.ones_like(decay[:, :, 0])
    local, reach = torch.empty_like(added), torch.empty_like(decay)
    for k in range(length):
        local[:, :, k], reach[:, :, k] = sums, factors
        sums = torch.addcmul(added[:, :, k], decay[:, :, k], sums)
        factors = factors * decay[:, :, k]
    first = recurrence(factors, sums)
    return local.addcmul_(reach, first[:, :, None]).flatten(1, 2)[:, :count]
