"""One cell in this process, where Ray is not installed: a single worker, the same files, the same weights."""

from __future__ import annotations

import os
import time
import warnings
from typing import Any

from acdis.cluster.session import interrupted_by_sigterm
from acdis.cluster.train import Job, Show, TrainingFailed
from acdis.cluster.worker import run_alone
from acdis.errors import UserError
from acdis.planning.placement import WorkerShare

#: Seconds between two looks at the cell's state for who watches.
PAUSE = 1.0


def launch(job: Job, room: WorkerShare, show: Show, again: bool = False) -> None:
    """As `train.launch`, without Ray: nothing starts the training again where it breaks off.

    Args:
        room: what the one worker gets.
        show: called with the cell's state, at most once a second.
        again: score even if there are records already.

    Raises:
        UserError: the run's input was wrong.
        TrainingFailed: it diverged.
    """
    import torch

    from acdis.training.loop import Diverged

    if room.gpus and not torch.cuda.is_available():
        raise UserError("scaling.gpu: this torch has no CUDA; set scaling.gpu=false, or install one that has")
    torch.set_num_threads(room.cpus)
    job.cell.begin(status="starting", workers=1, cpus=room.cpus, gpus=room.gpus, driver=os.getpid())
    shown = 0.0

    def tell(event: Any) -> None:
        nonlocal shown
        if time.monotonic() - shown > PAUSE:
            show(job.cell.state())
            shown = time.monotonic()

    with interrupted_by_sigterm(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"monai\.")  # of its own functions
        try:
            run_alone(job.plain() | {"again": again}, tell, "cuda" if room.gpus else "cpu")
        except Diverged as error:
            raise TrainingFailed(str(error)) from error
    show(job.cell.state())
