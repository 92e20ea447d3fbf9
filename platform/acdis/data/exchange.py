"""Patients exchanged between the parts of a draw until whole ones come to the sizes that are wanted."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

#: How many patients of each number of scans a part holds, part by part.
_Held = tuple[tuple[int, ...], ...]
#: From which part a patient of so many scans goes to which, and one of how many comes back (0: none).
_Move = tuple[int, int, int, int]
#: Scans that lie in the wrong part, moves so far, what the parts hold, the moves.
_State = tuple[int, int, _Held, tuple[_Move, ...]]

#: States looked at before the nearest is taken: one or two seconds where sizes cannot be met at all.
#: Of 400 random sets of patients none whose sizes can be met took more than 6.
_MOST = 500


def exchange(
    parts: list[list[str]],
    scans: Mapping[str, Sequence[str]],
    kind_of: Mapping[str, int],
    sizes: Sequence[int],
) -> None:
    """Change `parts` in place so that each comes to its size in scans, or as near as was found.

    As few patients change sides as that takes, those of one kind first.
    """
    for giver, given, taker, back in _moves(parts, scans, sizes):
        leaving = [patient for patient in parts[giver] if len(scans[patient]) == given]
        coming = [patient for patient in parts[taker] if len(scans[patient]) == back]
        pairs = itertools.product(reversed(leaving), reversed(coming))
        alike = ((one, other) for one, other in pairs if kind_of[one] == kind_of[other])
        one, other = next(alike, (leaving[-1], coming[-1] if coming else None))
        parts[giver].remove(one)
        parts[taker].append(one)
        if other is not None:
            parts[taker].remove(other)
            parts[giver].append(other)


def _moves(
    parts: Sequence[Sequence[str]], scans: Mapping[str, Sequence[str]], sizes: Sequence[int]
) -> tuple[_Move, ...]:
    """Best first: the state whose parts lie nearest to their sizes, then the one with fewest moves."""
    numbers = sorted({len(own) for own in scans.values()})
    counted = [Counter(len(scans[patient]) for patient in part) for part in parts]
    start: _Held = tuple(tuple(counts[number] for number in numbers) for counts in counted)

    def off(held: _Held) -> int:
        totals = (sum(n * size for n, size in zip(counts, numbers, strict=True)) for counts in held)
        return sum(abs(size - total) for size, total in zip(sizes, totals, strict=True))

    best: _State = (off(start), 0, start, ())
    queue = [best]
    seen = {start}
    for _ in range(_MOST):
        if not best[0] or not queue:
            break
        _, steps, held, path = heapq.heappop(queue)
        for move, after in _neighbours(held, numbers):
            if after not in seen:
                seen.add(after)
                state: _State = (off(after), steps + 1, after, (*path, move))
                best = min(best, state)
                heapq.heappush(queue, state)
    return best[3]


def _neighbours(held: _Held, numbers: Sequence[int]) -> Iterator[tuple[_Move, _Held]]:
    """What one move makes of a state: a patient goes, and none or one with fewer scans comes back."""
    for giver, taker in itertools.permutations(range(len(held)), 2):
        for place, number in enumerate(numbers):
            if not held[giver][place]:
                continue
            for other in range(-1, place):  # -1: none comes back
                if other >= 0 and not held[taker][other]:
                    continue
                rows = [list(counts) for counts in held]
                rows[giver][place] -= 1
                rows[taker][place] += 1
                if other >= 0:
                    rows[giver][other] += 1
                    rows[taker][other] -= 1
                back = numbers[other] if other >= 0 else 0
                yield (giver, number, taker, back), tuple(map(tuple, rows))
