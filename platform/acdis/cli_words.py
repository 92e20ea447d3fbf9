"""Words of the command line that several verbs share: specs and overrides, comma lists, a default command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from acdis.errors import UserError

#: What `VERB --help` ends with, by verb: lines that run in a checkout, but for names of cells and of data.
_EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "train experiments/phantom.yaml",
        "ablate ablations/table3.yaml",
        "report ablations/table3.yaml",
        "dashboard",
    ),
    "data": ("data check /data/BraTS2020", "data phantom phantoms --cases 20 --seed 3"),
    "train": (
        "train experiments/phantom.yaml",
        "train experiments/brats2020.yaml data.root=/data/BraTS2020 method.name=rfnet seed=1",
    ),
    "evaluate": (
        "evaluate acdis-0d1a7",
        "evaluate acdis-0d1a7 --root /data/BraTS2021",
        'evaluate experiments/brats2020.yaml --predictions nnunet --row "nnU-Net"',
    ),
    "external": (
        "external acdis-0d1a7 --root /data/UPENN-GBM",
        "external acdis-0d1a7 --root /data/ours data.scheme=brats2023",
    ),
    "predict": (
        "predict acdis-0d1a7 --flair flair.nii.gz --t2 t2.nii.gz --out tumour.nii.gz --picture",
        "predict acdis-0d1a7 acdis-93bc0 --root /data/new --out segmentations",
    ),
    "export": ("export acdis-0d1a7 to-give-away --licence CC-BY-4.0",),
    "import": ("import to-give-away",),
    "init": ("init my-experiments",),
    "plan": ("plan ablations/table2.yaml ablations/table3.yaml", "plan ablations/table3.yaml --measure"),
    "status": ("status ablations/table3.yaml", "status ablations/table3.yaml --once --all"),
    "ablate": (
        "ablate ablations/table3.yaml --seeds 0,1,2",
        "ablate ablations/table3.yaml --experiment experiments/brats2020.yaml data.root=/data/BraTS2020",
        "ablate ablations/table3.yaml --rows conv,syn training.epochs=4",
    ),
    "reproduce": ("reproduce", "reproduce --experiment experiments/brats2020.yaml data.root=/data/BraTS2020"),
    "report": (
        "report ablations/table3.yaml",
        "report ablations/table3.yaml --out table3.tex",
        "report ablations/table3.yaml --layout subsets --out subsets.tex --standalone",
        "report ablations/table2.yaml ablations/table3.yaml --bundle tables.zip",
        "report tables.zip --format csv",
        "report tables.zip --checklist claim --out claim.md",
        "report figures acdis-0d1a7 --format pdf --no-title --out figures",
    ),
    "report figures": (
        "report figures acdis-0d1a7",
        "report figures acdis-0d1a7 rfnet-51c2e --case Phantom_00007 --slice 20 --subset FLAIR,FLAIR_T1ce",
        "report figures acdis-0d1a7 --format pdf --dpi 300 --no-title --out figures",
    ),
    "search": ("search ablations/search.yaml", "search ablations/search.yaml training.epochs=8"),
    "dashboard": (
        "dashboard",
        "dashboard ablations/table3.yaml --port 5001",
        "dashboard --host 0.0.0.0 --login",
    ),
    "up": ("up",),
    "down": ("down",),
    "submit": (
        "submit train experiments/phantom.yaml",
        "submit ablate ablations/table3.yaml --seeds 0,1,2",
    ),
    "data check": (
        "data check /data/BraTS2020 --experiment experiments/brats2020.yaml",
        "data check /data/mine data.scheme=brats_ped2024",
    ),
    "data splits": (
        "data splits experiments/splits",
        "data splits /data/BraTS2021 --folds 5 --out folds",
    ),
    "data prepare": ("data prepare /data/BraTS2020 --experiment experiments/brats2020.yaml",),
    "data phantom": ("data phantom phantoms --cases 20 --seed 3",),
}


def examples(verb: str) -> str:
    """The end of a verb's help; of the whole command's for no verb."""
    return "\n\n".join(["Examples:", *(f"python experiments/main.py {line}" for line in _EXAMPLES[verb])])


class FirstUnlessNamed(TyperGroup):
    """A verb with commands of its own, of which the first is meant unless a word names another.

    `report SPEC…` is `report tables SPEC…`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else [next(iter(self.commands)), *args])


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Spec files, and overrides: the words with `=` in them."""
    return [Path(word) for word in words if "=" not in word], [word for word in words if "=" in word]


def names(text: str | None, option: str) -> list[str] | None:
    """`a,b` → `["a", "b"]`; none stays none.

    Raises:
        UserError: a name is empty or stands there twice.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(words) or len(set(words)) < len(words):
        raise UserError(f"{option}: {text!r}: give different names with commas between them, as in a,b")
    return words


def numbers(text: str | None, option: str) -> list[int] | None:
    """`0,1,2` → `[0, 1, 2]`; none stays none.

    Raises:
        UserError: not whole numbers from 0, or one stands there twice.
    """
    words = names(text, option)
    if words is None:
        return None
    if not all(word.isdecimal() for word in words):
        raise UserError(f"{option}: {text!r}: give whole numbers with commas between them, as in 0,1,2")
    return [int(word) for word in words]
