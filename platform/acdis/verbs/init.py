"""`init`: the specs and experiments that come with the platform, as files to edit."""

from __future__ import annotations

from pathlib import Path

from acdis import home
from acdis.errors import UserError
from acdis.files import UnwritableError, write_text

#: Folders of `home.shipped`; the start script in a checkout's `experiments/` is of no use elsewhere.
FOLDERS, ENDINGS = ("ablations", "experiments"), (".yaml", ".txt")


def init(folder: Path) -> None:
    """Write `ablations/` and `experiments/` below the folder; what is there and equal stays.

    Raises:
        UserError: a file is there and says something else (then nothing is written), or the folder cannot be
            written to.
    """
    source = home.shipped()
    files = [
        path.relative_to(source)
        for part in FOLDERS
        for path in sorted((source / part).rglob("*"))
        if path.suffix in ENDINGS
    ]
    changed = [path for path in files if _says_other(folder / path, (source / path).read_text())]
    if changed:
        raise UserError(
            f"{folder / changed[0]}: is there and was changed ({len(changed)} such files); "
            "give another folder, or move it away"
        )
    try:
        for path in files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / path, (source / path).read_text())
    except OSError as error:
        raise UnwritableError(folder, error) from None
    print(f"{len(files)} files in {folder}: experiments/*.yaml and ablations/*.yaml, to be edited")
    print(f"go on with: cd {folder} && acdis train experiments/phantom.yaml (or acdis reproduce)")


def _says_other(path: Path, text: str) -> bool:
    try:
        return path.read_text() != text
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True
