"""Ways to damage a file: its bytes, or the tree of plain values in it. Each is a hypothesis strategy."""

from __future__ import annotations

import copy
import struct
from typing import Any

from hypothesis import strategies as st

#: Bytes that mean something to somebody.
_NASTY = (
    b"\x00",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff",
    b"\n",
    b"\x1f\x8b\x08",
    b"PK\x03\x04",
    b"\xef\xbb\xbf",
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, head: int | None = None) -> bytes:
    """A file of which bits are flipped, parts cut out, doubled, overwritten, or the end lost, 1 to 4 times.

    Args:
        head: most changes fall into so many first bytes.
    """
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        reach = len(content) if head is None or draw(st.integers(0, 3)) == 0 else min(head, len(content))
        at = draw(st.integers(0, reach - 1))
        match draw(st.integers(0, 5)):
            case 0 | 1:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                del content[at:]
            case 3:
                del content[at : at + draw(st.integers(1, 64))]
            case 4:
                length = draw(st.integers(1, 64))
                content[at:at] = content[at : at + length]
            case _:
                bad = draw(st.sampled_from(_NASTY) | st.binary(min_size=1, max_size=8))
                content[at : at + len(bad)] = bad
    return bytes(content)


#: Values that a file may hold where another is due.
values = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            0,
            1,
            -1,
            2**31,
            2**63,
            10**30,
            10**40,
            0.0,
            -0.0,
            0.5,
            1e308,
            float("nan"),
            float("inf"),
            float("-inf"),
            "",
            " ",
            "..",
            "../../outside/x",
            "/",
            "/dev/zero",
            "/proc/self/mem",
            "~nobody/x",
            "$NOT_SET/x",
            "a\0b",
            "x" * 300,
            "x" * 5000,
            "\x1b[31mred",
            "\ud800",
            "\u202e",
            "a\nb",
            "[",
            "{",
            "nan",
            "1e3",
            "{}",
            "%s",
            "{0}",
            "acdis",
            [],
            [[]],
            {},
            [1],
            [1, 2],
            [1, 2, 3, 4],
            [0, 0, 0],
            [-1, 8, 8],
            [10**9, 10**9, 10**9],
            [1000, 1000, 1000],
            ["a"],
            {"a": 1},
            {"": 0},
        ]
    ),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=12),
)


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree of mappings and lists."""
    found = [at] if at else []
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        found += _places(value, (*at, key))
    return found


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """A tree in which 1 or 2 values are replaced, removed, renamed, doubled or moved."""
    tree = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        places = _places(tree)
        if not places:
            return draw(values)
        *above, last = draw(st.sampled_from(places))
        node = tree
        for key in above:
            node = node[key]
        match draw(st.integers(0, 6)):
            case 0 | 1 | 2:
                node[last] = draw(values)
            case 3:
                del node[last]
            case 4 if isinstance(node, dict):
                node[draw(st.text(max_size=8) | st.sampled_from([1, None, True, 2.5, "extends", "seed"]))] = (
                    node.pop(last)
                )
            case 5 if isinstance(node, list):
                node += [copy.deepcopy(node[last])] * draw(st.integers(1, 3))
            case _:
                node[last] = copy.deepcopy(tree) if draw(st.booleans()) else [node[last]]
    return tree


def of_many_entries(count: int) -> bytes:
    """A ZIP file that is nothing but a list of entries, 47 bytes each."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = count * len(entry)
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, 0)
    place = struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    return entry * count + large + place + end
