"""Lists of cases as people write them: names, CSV, nnU-Net's folds; and the field's own, known by a hash."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import files
from acdis.data.list_forms import DUE, of_fold, of_lines, of_table
from acdis.errors import UserError

#: BraTS 2020's public lists mark the grade before the name of the folder: HG_BraTS20_Training_002.
_PREFIXES = ("HG_", "LG_")
_ENDINGS = re.compile(r"\.(nii(\.gz)?|npy|npz|h5|hdf5|pt|pkl)$", re.IGNORECASE)


def bare(name: str) -> str:
    """A name without what others write around it: folders, endings, the grade; accents composed."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    plain = unicodedata.normalize("NFC", _ENDINGS.sub("", last))
    for prefix in _PREFIXES:
        if plain.startswith(prefix):
            return plain.removeprefix(prefix)
    return plain


def read_list(path: Path, part: str = "train", names: Sequence[str] = ()) -> list[str]:
    """The names in a file: text, CSV or TSV, or `splits_final.json#0`.

    Args:
        part: train, validation or test: which list of an nnU-Net fold.
        names: of the cases, by which names are told from headers and from what else stands on a line.

    Raises:
        UserError: the file cannot be read or is none of these.
    """
    where, _, fold = path.name.partition("#")
    file = path.with_name(where)
    content = files.given(file, files.TEXT, DUE)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not UTF-8 text; {DUE}") from None
    if file.suffix.lower() == ".json":
        return of_fold(text, file, fold, "train" if part == "train" else "val")
    known = {bare(name) for name in names}
    form = of_table if file.suffix.lower() in (".csv", ".tsv") else of_lines
    return form(text, lambda word: bare(word) in known, file)


def is_prose(names: Sequence[str]) -> bool:
    """Whether most lines are several words: a README, and no list of names."""
    return 2 * sum(" " in name.strip() for name in names) > len(names)


def digest(names: Iterable[str]) -> str:
    """SHA-256 (hex) of a list's names, bare, each once and sorted: the same however they are written down."""
    return hashlib.sha256("\n".join(sorted({bare(name) for name in names})).encode()).hexdigest()


@dataclass(frozen=True)
class Published:
    """A list that the field shares: which split of which data set, and which part of it."""

    split: str
    part: str
    cases: int
    digest: str


#: 2018 and 2020 as RFNet and its descendants use them, 2023 as IM-Fuse does; the names are the organisers'.
PUBLISHED = (
    Published(
        "BraTS 2018, split 1",
        "train",
        199,
        "d7026e1360bb60bbdaff07efc45ad36304a32e986dd220895b4139292037a0d6",
    ),
    Published(
        "BraTS 2018, split 1",
        "validation",
        29,
        "994e6cb358f1b6d1d728a4ff360a85274fff53add65ccc1d8d64a59302796aff",
    ),
    Published(
        "BraTS 2018, split 1", "test", 57, "c1f15e644e377caf80a95097406e9b29bc42ad31dae0d27f618f798de0fc20be"
    ),
    Published(
        "BraTS 2018, split 2",
        "train",
        199,
        "6963c1eaa36db378cdf7f9829fe9cfb4100e538c8d028f10fc901771d63b5e80",
    ),
    Published(
        "BraTS 2018, split 2",
        "validation",
        29,
        "c0bdaa61e01d1e2d57899e65ff586fcdf5d7f33e4d5d1b3e11f8706644378921",
    ),
    Published(
        "BraTS 2018, split 2", "test", 57, "5f73831414ae06f723f13b6b6c7f20898f7ea30289f50e21ab1ef58d51aa5459"
    ),
    Published(
        "BraTS 2018, split 3",
        "train",
        199,
        "8e934ea4ced264fa1424ddd7597c6ff72368d4375789e7618f7babeb7b427ea6",
    ),
    Published(
        "BraTS 2018, split 3",
        "validation",
        29,
        "14f05f1ab069f1f841f2944a7ac06d4cf7645b262ba658f7a148d8f11d878eb6",
    ),
    Published(
        "BraTS 2018, split 3", "test", 57, "43899d5b257b7603fd4f69a9924bbbbd17d5b10a22305fd7906e6868c17c083b"
    ),
    Published("BraTS 2020", "train", 219, "c54c959faa397fa67b94d6822ba5dd318aaf49be63ed223b2f1091b55be54736"),
    Published(
        "BraTS 2020", "validation", 50, "46a40c04a1ede6c1d431e036286a944090ae581961c0a21608c2711c0290a8fc"
    ),
    Published("BraTS 2020", "test", 100, "2a54056e702738ddb89a162263b56c46743b1c7e1ac2094460660c733dde124a"),
    Published("BraTS 2023", "train", 875, "e50ff8f4a3a8a098e6930385100da56d07e7f41f241230be52bc3c4bbf0fa140"),
    Published(
        "BraTS 2023", "validation", 125, "1c81c78f88487f12b561a2fa47575d3e3d62b43c224b39677661945cfef3c7e0"
    ),
    Published("BraTS 2023", "test", 251, "2b3e80dbed6b95dbc8e59e8f0ed1370cea6d851dbe9176cbfdc707e568426c42"),
)


def recognised(names: Iterable[str]) -> Published | None:
    """The published list that holds just these names."""
    wanted = digest(names)
    return next((published for published in PUBLISHED if published.digest == wanted), None)
