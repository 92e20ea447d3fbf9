"""One typed tree, `Experiment`, that says everything a run needs; and how it is read from files."""

from acdis.config.documents import Document, Key, read_document, read_yaml
from acdis.config.files import Draft, anchor, draft, dump, flatten, load, merge, method_of, overlaid, parse
from acdis.config.problems import InvalidError, describe, find_problems
from acdis.config.tree import (
    Augmentation,
    Config,
    Data,
    Evaluation,
    Experiment,
    FilePatterns,
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
    "Document",
    "Draft",
    "Evaluation",
    "Experiment",
    "FilePatterns",
    "InvalidError",
    "Key",
    "MethodChoice",
    "Phantoms",
    "Scaling",
    "Split",
    "Tracking",
    "Training",
    "Triple",
    "anchor",
    "describe",
    "draft",
    "dump",
    "find_problems",
    "flatten",
    "load",
    "merge",
    "method_of",
    "overlaid",
    "parse",
    "read_document",
    "read_yaml",
]
