"""What a cell is: its name, folder, the schemas of its files, its copy on an object store. No training."""

from acdis.cells.cell import Cell, borrowed, create, find, find_trained, read_json
from acdis.cells.hours import hours_of, summed
from acdis.cells.naming import EXTERNAL, as_external, cell_name, digest, evaluation_name, identity

__all__ = [
    "EXTERNAL",
    "Cell",
    "as_external",
    "borrowed",
    "cell_name",
    "create",
    "digest",
    "evaluation_name",
    "find",
    "find_trained",
    "hours_of",
    "identity",
    "read_json",
    "summed",
]
