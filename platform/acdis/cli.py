"""`acdis VERB …`, the same as `python experiments/main.py VERB …`.

Exit codes: 0 done; 2 the user's input is wrong (one line, no traceback); 1 anything else.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from acdis import home
from acdis.cli_words import FirstUnlessNamed, names, numbers, split_words
from acdis.errors import UserError
from acdis.files import UnwritableError
from acdis.version import __version__

app = typer.Typer(
    help="Experiments and ablations for brain-tumour segmentation with missing MRI modalities.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Find, check, prepare and draw cases.", no_args_is_help=True)
report_app = typer.Typer(
    cls=FirstUnlessNamed, help="Tables of ablations beside the paper's; `report figures`: its figures."
)
app.add_typer(data_app, name="data")
app.add_typer(report_app, name="report")

WITHOUT_A_VERB = """\
Say what to do: `reproduce` trains and reports Tables 2 and 3 of the paper on phantoms, in about ten minutes;
`train FILE` trains one experiment (experiments/*.yaml), `ablate SPEC` a whole table (ablations/*.yaml);
`submit VERB …` does it as a job on a Ray head of this machine. All verbs: --help; about one: VERB --help."""

Overrides = Annotated[list[str] | None, typer.Argument(help="key.path=value, as many as you like")]


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and end")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(WITHOUT_A_VERB)


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
    with_trained: Annotated[
        bool, typer.Option("--with-trained", help="also cases that it was trained or chosen on")
    ] = False,
) -> None:
    """Score a trained run again, on the same or other data, without training."""
    from acdis.verbs.evaluate import evaluate as verb

    _run(verb, run, root, split, overrides or [], with_trained)


Words = Annotated[
    list[str] | None, typer.Argument(help="spec files, such as ablations/table2.yaml, and key.path=value")
]
OnExperiment = Annotated[
    Path | None, typer.Option("--experiment", help="experiment file instead of the spec's own")
]
Rows = Annotated[str | None, typer.Option("--rows", help="only these rows: var,covar")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="instead of the spec's: 0,1,2")]
AtOnce = Annotated[
    int | None,
    typer.Option("--max-concurrent", min=1, help="cells side by side; without it as many as fit"),
]


@app.command()
def plan(
    words: Words = None,
    experiment: OnExperiment = None,
    rows: Rows = None,
    seeds: Seeds = None,
    measure: Annotated[bool, typer.Option("--measure", help="time a step first, without training")] = False,
    resolved: Annotated[bool, typer.Option("--config", help="also the baseline's configuration")] = False,
    cluster: Annotated[
        Path | None, typer.Option("--cluster", help="reckon with what this `ray up` file may start")
    ] = None,
) -> None:
    """What `ablate` would do: cells, resources, time, disk. Starts nothing; refuses what can never run."""
    from acdis.verbs.plan import plan as verb

    paths, overrides = split_words(words or [])
    chosen = names(rows, "--rows"), numbers(seeds, "--seeds")
    _run(verb, paths, experiment, overrides, *chosen, measure, resolved, cluster)


@app.command()
def status(
    words: Words = None,
    experiment: OnExperiment = None,
    rows: Rows = None,
    seeds: Seeds = None,
    once: Annotated[bool, typer.Option("--once", help="do not follow cells that are being trained")] = False,
    every: Annotated[bool, typer.Option("--all", help="every cell, however many")] = False,
) -> None:
    """How the cells of specs stand: epoch, last Dice, time left. From any shell; follows on a terminal."""
    from acdis.verbs.status import status as verb

    paths, overrides = split_words(words or [])
    chosen = names(rows, "--rows"), numbers(seeds, "--seeds")
    _run(verb, paths, experiment, overrides, *chosen, once, every)


@app.command()
def ablate(
    words: Words = None,
    experiment: OnExperiment = None,
    rows: Rows = None,
    seeds: Seeds = None,
    at_once: AtOnce = None,
    failed: Annotated[bool, typer.Option("--failed", help="only cells that have failed")] = False,
) -> None:
    """Train what is missing of ablations, side by side; the same command goes on where it stopped."""
    from acdis.verbs.ablate import Request, ablate

    paths, overrides = split_words(words or [])
    chosen = names(rows, "--rows"), numbers(seeds, "--seeds")
    _run(ablate, Request(paths, experiment, overrides, *chosen, at_once, failed))


@app.command()
def reproduce(
    overrides: Overrides = None,
    experiment: OnExperiment = None,
    seeds: Seeds = None,
    at_once: AtOnce = None,
) -> None:
    """Tables 2 and 3 of the paper: `ablate`, then `report`. On phantoms unless an experiment is named."""
    from acdis.verbs.reproduce import reproduce

    _run(reproduce, experiment, overrides or [], numbers(seeds, "--seeds"), at_once)


@report_app.command("tables")
def report(
    words: Annotated[
        list[str] | None, typer.Argument(help="spec files and key.path=value, or one bundle: FILE.zip")
    ] = None,
    experiment: OnExperiment = None,
    rows: Rows = None,
    seeds: Seeds = None,
    form: Annotated[
        str | None, typer.Option("--format", help="md, latex, csv or html; without it as --out ends, else md")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="write to this file")] = None,
    pack: Annotated[
        Path | None, typer.Option("--bundle", help="pack all that is behind the report into this ZIP file")
    ] = None,
) -> None:
    """Tables of ablations beside the paper's, and what they can tell; also from a bundle alone.

    `report figures CELL…` draws the paper's figures of trained cells: see `report figures --help`.
    """
    from acdis.verbs.report import Wanted
    from acdis.verbs.report import report as verb

    paths, overrides = split_words(words or [])
    chosen = names(rows, "--rows"), numbers(seeds, "--seeds")
    _run(verb, Wanted(paths, experiment, overrides, *chosen, form, out, pack))


@app.command()
def search(
    spec: Annotated[Path, typer.Argument(help="a search file, such as ablations/search.yaml")],
    overrides: Overrides = None,
    experiment: OnExperiment = None,
    at_once: AtOnce = None,
) -> None:
    """Search for good settings on the validation cases; the same command goes on where it stopped."""
    from acdis.verbs.search import Request, search

    _run(search, Request(spec, experiment, overrides or [], at_once))


@app.command()
def dashboard(
    words: Words = None,
    experiment: OnExperiment = None,
    host: Annotated[
        str, typer.Option(help="address to listen on; others than this machine: 0.0.0.0")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 5000,
    store: Annotated[
        str | None, typer.Option(help="MLflow's database, such as postgresql://…; without it the home's")
    ] = None,
    prefix: Annotated[str, typer.Option(help="path in front of all pages, such as /lab")] = "",
    login: Annotated[bool, typer.Option("--login", help="with MLflow's users and passwords")] = False,
) -> None:
    """MLflow's UI with our comparison pages beside it, in one server; Ctrl-C ends it."""
    from acdis.verbs.dashboard import Wanted
    from acdis.verbs.dashboard import dashboard as verb

    paths, overrides = split_words(words or [])
    _run(verb, Wanted(paths, experiment, overrides, host, port, store, prefix.rstrip("/"), login))


@app.command()
def up() -> None:
    """Start a Ray head on this machine's loopback, with a token; found again where it runs already."""
    from acdis.verbs.head import up as verb

    _run(verb)


@app.command()
def down() -> None:
    """End exactly what `up` or `submit` has started on this machine."""
    from acdis.verbs.head import down as verb

    _run(verb)


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def submit(
    words: Annotated[list[str] | None, typer.Argument(help="a verb and its words: train FILE …")] = None,
) -> None:
    """Run a verb as a job of this checkout on the Ray head of this machine; Ctrl-C stops the job."""
    from acdis.verbs.head import submit as verb

    _run(verb, words or [])


@report_app.command("figures")
def report_figures(
    runs: Annotated[list[str], typer.Argument(help="cells' names (their beginnings will do) or folders")],
    case: Annotated[str | None, typer.Option(help="a test case of all of them; else the first")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder to write to, instead of the cells' folders and MLflow runs")
    ] = None,
) -> None:
    """Figures 1, 5, 6 and 7 of the paper for trained cells: windows, segmentations, ACD, synthesis."""
    from acdis.verbs.figures import figures as verb

    _run(verb, runs, case, out)


@data_app.command("check")
def data_check(
    root: Annotated[Path, typer.Argument(help="folder of cases")],
    overrides: Overrides = None,
    experiment: Annotated[
        Path | None, typer.Option("--experiment", help="whose data: names of files, labels, split")
    ] = None,
) -> None:
    """Find and validate cases; everything that is wrong is listed in one go."""
    from acdis.verbs.data import check

    _run(check, root, experiment, overrides or [])


@data_app.command("splits")
def data_splits(
    paths: Annotated[
        list[Path], typer.Argument(help="split files or their folder; with --folds the folder of cases")
    ],
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="write lists of so many folds of these cases")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="folder for the lists of the folds")] = Path("folds"),
    seed: Annotated[int, typer.Option(min=0, help="of the draw")] = 0,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="what names files, labels, patients: data.scheme=…")
    ] = None,
) -> None:
    """Tell which of the field's published lists split files hold; or draw folds, patients kept together."""
    from acdis.verbs.data import check_lists, draw_folds

    if folds is None:
        _run(check_lists, paths)
    else:
        _run(draw_folds, paths, folds, seed, out, overrides or [])


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


def _run(verb: Callable[..., object], *arguments: Any) -> None:
    """Ctrl-C ends here: typer would say no more than "Aborted"."""
    try:
        verb(*arguments)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(1)


def main() -> None:
    """Run the command line; see the module's docstring for the exit codes."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {UnwritableError(error.filename or home.place(), error)}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        from acdis.cluster.train import TrainingFailed

        if not isinstance(error, TrainingFailed):
            raise
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
