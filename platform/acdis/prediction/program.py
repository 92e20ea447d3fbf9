"""The network alone as a `torch.export` program: it runs where torch is, without this package.

    network = torch.export.load("models/model.pt2").module()
    logits = network(images, available, origin)

`images` float32 [1, 4, d, h, w], one window, prepared as for training, in the order of `MODALITIES`, anything
where a modality is missing; `available` bool [1, 4]; `origin` int64 [1, 3], the window's first voxel in the
volume. Logits [1, 4 classes or 3 regions, d, h, w]. One program serves all 15 subsets.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from acdis import methods
from acdis.evaluation import sliding

if TYPE_CHECKING:
    from pathlib import Path

    from acdis.methods.base import Method
    from acdis.prediction.model import Model

PROGRAM = "models/model.pt2"
#: Of a probability, between the program's operators and the quicker ones that this package takes on a CPU.
TOLERANCE = 1e-3
#: What nodes of a program remember of the code that they come from: files of this machine among it.
_TRACES = ("stack_trace", "source_fn_stack", "nn_module_stack", "from_node", "fwd_source_fn_stack")


class ProgramError(Exception):
    """There is no program; the message says why."""


class _Window(nn.Module):
    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor, available: Tensor, origin: Tensor) -> Tensor:
        return self.method.decode(self.method.encode(images, origin=origin), available)


def write(path: Path, model: Model) -> float:
    """Write the program, once it has been loaded again and found to say what this package says.

    Returns:
        The largest difference of a probability, over the 15 subsets of a random window.

    Raises:
        ProgramError: torch cannot export the method, or the program says something else.
    """
    from acdis import files

    method, window = _without_training(model), model.experiment.evaluation.window
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, *window, generator=generator)
    subsets = sliding.subset_masks()
    origin = torch.zeros(1, 3, dtype=torch.int64)
    example = (images[None], subsets[:1], origin)
    stream = io.BytesIO()
    try:
        with torch.no_grad():
            program = torch.export.export(_Window(method), example)
        for node in program.graph.nodes:
            for key in _TRACES:
                node.meta.pop(key, None)
        program.example_inputs = None  # they would be pickled
        torch.export.save(program, stream)
    except Exception as error:  # whatever it is that torch cannot trace
        said = str(error).strip().partition("\n")[0][:200]
        raise ProgramError(f"torch.export: {type(error).__name__}: {said}") from error
    stream.seek(0)
    network = torch.export.load(stream).module()
    due = sliding.predict(method, images, window, window)
    worst = 0.0
    with torch.no_grad():
        for subset, expected in zip(subsets, due, strict=True):
            logits = network(images[None], subset[None], origin)[0].float()
            probabilities = logits.sigmoid() if method.outputs == "regions" else logits.softmax(0)
            worst = max(worst, float((probabilities - expected).abs().max()))
    if not worst <= TOLERANCE:
        raise ProgramError(f"its probabilities differ by {worst:.2g} from this package's")
    files.write_bytes(path, stream.getvalue())
    return worst


def _without_training(model: Model) -> Method:
    """The method on the CPU without the parts that only training needs."""
    chosen = model.experiment.method
    method = methods.bare(chosen.name, **chosen.options)
    method.load_inference_state(model.method.inference_state())
    for part in method.training_only:
        parent, _, child = part.rpartition(".")
        owner = method.get_submodule(parent)
        owner._modules[child] = None
    return cast("Method", method.eval())
