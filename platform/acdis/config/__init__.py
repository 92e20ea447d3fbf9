"""One typed tree, `Experiment`, that says everything a run needs; and how it is read from files."""

from acdis.config.files import dump, flatten, load, parse, read_yaml
from acdis.config.problems import describe
from acdis.config.tree import (
    Augmentation,
    Config,
    Data,
    Evaluation,
    Experiment,
    MethodChoice,
    Phantoms,
    Scaling,
    Split,
    Tracking,
    Training,
    Triple,
)

__all__ = [
    "Augmentation",
    "Config",
    "Data",
    "Evaluation",
    "Experiment",
    "MethodChoice",
    "Phantoms",
    "Scaling",
    "Split",
    "Tracking",
    "Training",
    "Triple",
    "describe",
    "dump",
    "flatten",
    "load",
    "parse",
    "read_yaml",
]
