"""Files of a cell that pages list or send: nothing outside its folder, and only pictures are sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acdis.cells import Cell
from acdis.config import flatten, read_yaml
from acdis.dashboard.state import NotThereError
from acdis.errors import UserError

#: Files that are listed at most, folders that are looked into, and bytes of a picture or a configuration.
MOST, DEPTH, LARGEST, LONGEST = 300, 4, 32 * 2**20, 2**20
#: Bytes of a caption.
LONGEST_CAPTION = 10_000
PNG = b"\x89PNG\r\n\x1a\n"
#: In a cell's folder: what `report figures` draws; in an evaluation's: pictures of its worst cases.
FIGURES, FIGURE5, QUALITATIVE = "figures", "figure5-", "qualitative"


@dataclass(frozen=True)
class File:
    """A file of a cell; `path` is relative to its folder."""

    path: str
    size: int

    @property
    def is_picture(self) -> bool:
        """Whether a page may show it."""
        return self.path.endswith(".png") and self.path.isprintable()


def listed(cell: Cell) -> tuple[list[File], bool]:
    """Its files by name, and whether there are more than are listed; links are left out."""
    listing: list[File] = []
    for file in _walk(cell.folder, "", DEPTH):
        if len(listing) == MOST:
            return sorted(listing, key=lambda file: file.path), True
        listing.append(file)
    return sorted(listing, key=lambda file: file.path), False


def _walk(folder: Path, above: str, depth: int) -> Iterator[File]:
    try:
        with os.scandir(folder) as entries:
            every = sorted(entries, key=lambda entry: entry.name)
    except OSError:  # gone meanwhile, or not ours to read
        return
    for entry in every:
        if entry.name.startswith(".") or entry.name == "lock" or entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False):
            if depth:
                yield from _walk(folder / entry.name, f"{above}{entry.name}/", depth - 1)
            continue
        if not entry.is_file(follow_symlinks=False):
            continue
        try:
            yield File(above + entry.name, entry.stat(follow_symlinks=False).st_size)
        except OSError:
            continue


def picture(cell: Cell, path: str) -> bytes:
    """A PNG of the cell's folder.

    Raises:
        NotThereError: there is none of this name in that folder.
    """
    content = _content(cell, path, ".png", LARGEST)
    if content is None or not content.startswith(PNG):
        raise NotThereError("There is no such picture in the folder of this cell.")
    return content


def caption(cell: Cell, path: str) -> str:
    """What stands beside a picture as `.txt`, as `report figures` writes it; empty where nothing does."""
    content = _content(cell, f"{path.removesuffix('.png')}.txt", ".txt", LONGEST_CAPTION)
    return (content or b"").decode(errors="replace").strip()


def _content(cell: Cell, path: str, ending: str, most: int) -> bytes | None:
    """A file of the cell's folder; none where there is none there of this name, or it is too large."""
    try:
        root = cell.folder.resolve(strict=True)
        file = (root / path).resolve(strict=True)
        hidden = any(part.startswith(".") for part in file.parts[len(root.parts) :])
        if not hidden and file.is_relative_to(root) and file.suffix == ending and file.is_file():
            with file.open("rb") as stream:
                content = stream.read(most + 1)
            return content if len(content) <= most else None
    except (OSError, ValueError, RuntimeError):  # gone; a NUL in the name; links in a circle
        pass
    return None


def pictures_of(cell: Cell, evaluation: str) -> dict[str, str]:
    """By case: the picture of its segmentations, relative to the cell's folder.

    Figure 5 of `report figures` where it was drawn for the case, else the evaluation's own.
    """
    folder = f"{cell.evaluations.name}/{evaluation}/{QUALITATIVE}"
    pictures = {name: f"{folder}/{name}.png" for name in _pictures(cell, folder)}
    drawn = [name for name in _pictures(cell, FIGURES) if name.startswith(FIGURE5)]
    return pictures | {name.removeprefix(FIGURE5): f"{FIGURES}/{name}.png" for name in drawn}


def _pictures(cell: Cell, folder: str) -> list[str]:
    """Names of a folder's PNG files, without `.png`."""
    return [file.path.removesuffix(".png") for file in _walk(cell.folder / folder, "", 0) if file.is_picture]


def settings(file: Path) -> dict[str, str]:
    """A resolved configuration as `{"data.crop": "[80, 80, 80]", …}`; for `Files.read`.

    Raises:
        OSError, ValueError: it cannot be read, or is none.
    """
    if file.stat().st_size > LONGEST:
        raise ValueError(f"{file}: too long")
    try:
        return flatten(read_yaml(file))
    except (UserError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
