"""`acdis VERB …`, the same as `python experiments/main.py VERB …`.

Exit codes: 0 done; 2 the user's input is wrong (one line, no traceback); 1 anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from acdis.errors import UserError
from acdis.version import __version__

app = typer.Typer(
    help="Experiments and ablations for brain-tumour segmentation with missing MRI modalities.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Find, check, prepare and draw cases.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Overrides = Annotated[list[str] | None, typer.Argument(help="key.path=value, as many as you like")]


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and end")] = False,
) -> None:
    """Without a verb: train and score on phantoms (`train experiments/phantom.yaml`)."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        train(_demo(), [])


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help="an experiment file, such as experiments/phantom.yaml")],
    overrides: Overrides = None,
) -> None:
    """Train on Ray, score on all 15 subsets; the same command goes on where it stopped."""
    from acdis.verbs.train import train as verb

    _run(verb, experiment, overrides or [])


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="a cell's name (its beginning will do) or folder")],
    root: Annotated[Path | None, typer.Option(help="score on the cases in this folder instead")] = None,
    split: Annotated[Path | None, typer.Option(help="score on the cases that this file lists")] = None,
    overrides: Overrides = None,
) -> None:
    """Score a trained run again, on the same or other data, without training."""
    from acdis.verbs.evaluate import evaluate as verb

    _run(verb, run, root, split, overrides or [])


@data_app.command("check")
def data_check(root: Annotated[Path, typer.Argument(help="folder of cases")]) -> None:
    """Find and validate cases; everything that is wrong is listed in one go."""
    from acdis.verbs.data import check

    _run(check, root)


@data_app.command("prepare")
def data_prepare(
    root: Annotated[Path, typer.Argument(help="folder of cases")],
    experiment: Annotated[
        Path | None, typer.Option(help=("take spacing, min_size … from this experiment file"))
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Build the preprocessed cache; done cases are kept, so it can be stopped and started again."""
    from acdis.verbs.data import prepare

    _run(prepare, experiment, root, overrides or [])


@data_app.command("phantom")
def data_phantom(
    out: Annotated[Path, typer.Argument(help="folder to write to")],
    cases: Annotated[int, typer.Option(min=1, help="how many")] = 12,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    shape: Annotated[tuple[int, int, int], typer.Option(help="voxels")] = (80, 96, 80),
    spacing: Annotated[float, typer.Option(min=0.5, help="mm per voxel")] = 2.0,
) -> None:
    """Write phantoms: BraTS-like NIfTI cases, drawn by the platform."""
    from acdis.verbs.data import draw

    _run(draw, out, cases, seed, shape, spacing)


def _run(verb: Callable[..., None], *arguments: Any) -> None:
    """Ctrl-C ends here: typer would say no more than "Aborted"."""
    try:
        verb(*arguments)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(1)


def _demo() -> Path:
    from acdis import home

    root = home.checkout()
    if root is None:
        raise UserError(
            "no verb given; outside a checkout name an experiment file: acdis train FILE (see acdis --help)"
        )
    return root / "experiments" / "phantom.yaml"


def main() -> None:
    """Run the command line; see the module's docstring for the exit codes."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        from acdis.cluster.train import TrainingFailed

        if not isinstance(error, TrainingFailed):
            raise
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
