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

from acdis import extras, home
from acdis.cli_words import FirstUnlessNamed, examples, names, numbers, split_words
from acdis.errors import UserError
from acdis.files import UnwritableError
from acdis.version import __version__

app = typer.Typer(
    help="Experiments and ablations for brain-tumour segmentation with missing MRI modalities.",
    epilog=examples(""),
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(
    help="Find, check, prepare and draw cases.", epilog=examples("data"), no_args_is_help=True
)
report_app = typer.Typer(
    cls=FirstUnlessNamed, help="Tables of ablations beside the paper's; `report figures`: its figures."
)
app.add_typer(data_app, name="data")
app.add_typer(report_app, name="report")

WITHOUT_A_VERB = """\
Say what to do: `reproduce` trains and reports Tables 2 and 3 of the paper on phantoms, in about 13 minutes;
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


@app.command(epilog=examples("train"))
def train(
    experiment: Annotated[Path, typer.Argument(help="an experiment file, such as experiments/phantom.yaml")],
    overrides: Overrides = None,
) -> None:
    """Train, score on all 15 subsets; the same command goes on where it stopped."""
    from acdis.verbs.train import train as verb

    _run(verb, experiment, overrides or [])


@app.command(epilog=examples("evaluate"))
def evaluate(
    run: Annotated[
        str,
        typer.Argument(
            help="a cell's name (its beginning will do) or folder; of predictions an experiment file"
        ),
    ],
    root: Annotated[Path | None, typer.Option(help="score on the cases in this folder instead")] = None,
    split: Annotated[Path | None, typer.Option(help="score on the cases that this file lists")] = None,
    overrides: Overrides = None,
    with_trained: Annotated[
        bool, typer.Option("--with-trained", help="also cases that it was trained or chosen on")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="score another tool's files instead: a folder of 15 folders"),
    ] = None,
    row: Annotated[str | None, typer.Option("--row", help="what to call that tool")] = None,
    subset: Annotated[
        str | None, typer.Option("--subset", help="its folder holds this subset alone: FLAIR_T2")
    ] = None,
    scheme: Annotated[
        str | None, typer.Option("--scheme", help="what its labels mean, as data.scheme names it")
    ] = None,
) -> None:
    """Score a trained run again, on these or other data; or another tool's predictions (docs/others.md)."""
    if predictions is None:
        from acdis.verbs.evaluate import evaluate as verb
        from acdis.workflow.score_again import Request as Again

        given = {"--row": row, "--subset": subset, "--scheme": scheme}
        if lost := next((name for name, value in given.items() if value), None):
            raise typer.BadParameter(f"{lost} goes with --predictions")
        _run(verb, Again(run, root, split, overrides or [], with_trained))
        return
    from acdis.verbs.evaluate_predictions import Request, evaluate_predictions

    if root or split or with_trained:
        raise typer.BadParameter(
            "--predictions goes with an experiment or a spec, whose data.… names the cases"
        )
    label = row or predictions.resolve().name
    _run(evaluate_predictions, Request(Path(run), predictions, label, subset, scheme, overrides or []))


@app.command(epilog=examples("external"))
def external(
    run: Annotated[str, typer.Argument(help="a cell's name (its beginning will do) or folder")],
    root: Annotated[Path, typer.Option(help="folder of the other cases")],
    split: Annotated[Path | None, typer.Option(help="only the cases that this file lists")] = None,
    overrides: Overrides = None,
) -> None:
    """Score a trained run on other people's cases, beside its own test cases: 15 subsets, with a test."""
    from acdis.verbs.external import external as verb
    from acdis.workflow.score_again import Request

    _run(verb, Request(run, root, split, overrides or []))


@app.command(epilog=examples("predict"))
def predict(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="CELL...", help="names (beginnings will do), folders or MLflow runs; several: mean"
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="the segmentation, .nii.gz or .nii; with --root a folder")
    ],
    flair: Annotated[Path | None, typer.Option("--flair", help="NIfTI file")] = None,
    t1ce: Annotated[Path | None, typer.Option("--t1ce", help="after contrast agent (T1c, T1Gd)")] = None,
    t1: Annotated[Path | None, typer.Option("--t1", help="without contrast agent (T1n)")] = None,
    t2: Annotated[Path | None, typer.Option("--t2")] = None,
    case: Annotated[
        Path | None, typer.Option("--case", help="a patient's folder, files named as BraTS's")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="a folder of many patients")] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="bring images on other grids to the first one's")
    ] = False,
    flips: Annotated[bool, typer.Option("--flips", help="mean over 8 flips; 8 times as slow")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="also a file per region: …_WT, …_TC, …_ET")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="also entropy, and disagreement over subsets and cells")
    ] = False,
    picture: Annotated[bool, typer.Option("--picture", help="also a PNG: three planes")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; else a GPU if there is one")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="processes for --root; else as many as the machine carries"),
    ] = None,
) -> None:
    """Segment a patient from whichever of the four images there are, in the images' own grid."""
    from acdis.verbs.predict import Request
    from acdis.verbs.predict import run as verb
    from acdis.workflow.patients import Manner

    every = {"FLAIR": flair, "T1ce": t1ce, "T1": t1, "T2": t2}
    given = {name: path for name, path in every.items() if path is not None}
    manner = Manner(resample, flips, probabilities, uncertainty, picture, device)
    _run(verb, Request(runs, given, case, root, out, manner, workers))


@app.command(epilog=examples("export"))
def export(
    run: Annotated[str, typer.Argument(metavar="CELL", help="name (its beginning will do) or folder")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="a new folder")],
    licence: Annotated[str, typer.Option(help="of weights and data, for the model card")] = "not stated",
    log_model: Annotated[
        bool, typer.Option("--log-model", help="also as a model of the cell's run in MLflow")
    ] = False,
    register: Annotated[
        str | None, typer.Option(help="the same, with this name in MLflow's registry of models")
    ] = None,
) -> None:
    """Write a trained cell as a folder to give away: safetensors, model card, MONAI bundle; no pickle."""
    from acdis.verbs.hand_on import export as verb

    _run(verb, run, out, licence, log_model, register)


@app.command("import", epilog=examples("import"))
def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="what `export` has written")],
) -> None:
    """Make an exported cell one of this home's: to predict with, to evaluate, to be a parent."""
    from acdis.verbs.hand_on import import_ as verb

    _run(verb, folder)


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


@app.command(epilog=examples("init"))
def init(folder: Annotated[Path, typer.Argument(help="made where it is not there")]) -> None:
    """Write the specs and experiments that come with the platform, as files to edit."""
    from acdis.verbs.init import init as verb

    _run(verb, folder)


@app.command(epilog=examples("plan"))
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


@app.command(epilog=examples("status"))
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


@app.command(epilog=examples("ablate"))
def ablate(
    words: Words = None,
    experiment: OnExperiment = None,
    rows: Rows = None,
    seeds: Seeds = None,
    at_once: AtOnce = None,
    failed: Annotated[bool, typer.Option("--failed", help="only cells that have failed")] = False,
    notify: Annotated[
        str | None,
        typer.Option(
            "--notify", help="tell at the end: a command ({} is the message), or a webhook https://…"
        ),
    ] = None,
) -> None:
    """Train what is missing of ablations, side by side; the same command goes on where it stopped."""
    from acdis.verbs.ablate import Request, ablate

    paths, overrides = split_words(words or [])
    chosen = names(rows, "--rows"), numbers(seeds, "--seeds")
    _run(ablate, Request(paths, experiment, overrides, *chosen, at_once, failed, notify))


@app.command(epilog=examples("reproduce"))
def reproduce(
    overrides: Overrides = None,
    experiment: OnExperiment = None,
    seeds: Seeds = None,
    at_once: AtOnce = None,
) -> None:
    """Tables 2 and 3 of the paper: `ablate`, then `report`. On phantoms unless an experiment is named."""
    from acdis.verbs.reproduce import reproduce

    _run(reproduce, experiment, overrides or [], numbers(seeds, "--seeds"), at_once)


@report_app.command("tables", epilog=examples("report"))
def report(
    words: Annotated[
        list[str] | None, typer.Argument(help="spec files and key.path=value, or one bundle: FILE.zip")
    ] = None,
    experiment: OnExperiment = None,
    rows: Rows = None,
    seeds: Seeds = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="md, latex, csv, html or challenger; by default as --out ends, else md (a terminal: tables)",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="write to this .md, .tex, .csv or .html file")
    ] = None,
    pack: Annotated[
        Path | None, typer.Option("--bundle", help="pack all that is behind the report into this ZIP file")
    ] = None,
    layout: Annotated[
        str,
        typer.Option("--layout", help="rows: with statistics; subsets: 15 subsets × 3 regions, as in papers"),
    ] = "rows",
    against: Annotated[
        str | None, typer.Option("--against", help="row that the verdicts of --layout subsets are against")
    ] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="LaTeX that compiles by itself; without it tables to \\input")
    ] = False,
    cases: Annotated[
        bool, typer.Option("--cases", help="with --format csv: the scores of every case, row, seed, subset")
    ] = False,
    strata: Annotated[
        Path | None,
        typer.Option("--strata", help="CSV file, case,site,…: scores by site too, not only by ET and size"),
    ] = None,
    checklist: Annotated[
        str | None,
        typer.Option(
            "--checklist",
            help="midl, neurips, claim or metrics-reloaded, filled from the cells, with compute and BibTeX",
        ),
    ] = None,
) -> None:
    """Tables of ablations beside the paper's, and what they can tell; also from a bundle alone.

    `report figures CELL…` draws the paper's figures of trained cells: see `report figures --help`.
    """
    from acdis.verbs.report import ReportRequest
    from acdis.verbs.report import report as verb

    paths, overrides = split_words(words or [])
    chosen = names(rows, "--rows"), numbers(seeds, "--seeds")
    request = ReportRequest(
        paths,
        experiment,
        overrides,
        *chosen,
        form=form,
        out=out,
        pack=pack,
        layout=layout,
        against=against,
        standalone=standalone,
        cases=cases,
        strata=strata,
        checklist=checklist,
    )
    _run(verb, request)


@app.command(epilog=examples("search"))
def search(
    spec: Annotated[Path, typer.Argument(help="a search file, such as ablations/search.yaml")],
    overrides: Overrides = None,
    experiment: OnExperiment = None,
    at_once: AtOnce = None,
) -> None:
    """Search for good settings on the validation cases; the same command goes on where it stopped."""
    from acdis.verbs.search import Request, search

    _run(search, Request(spec, experiment, overrides or [], at_once))


@app.command(epilog=examples("dashboard"))
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
    strata: Annotated[
        Path | None,
        typer.Option("--strata", help="CSV file, case,site,…: tables by site too, as in `report`"),
    ] = None,
) -> None:
    """MLflow's UI with our comparison pages beside it, in one server; Ctrl-C ends it."""
    from acdis.verbs.dashboard import DashboardRequest
    from acdis.verbs.dashboard import dashboard as verb

    paths, overrides = split_words(words or [])
    prefix = prefix.rstrip("/")
    request = DashboardRequest(paths, experiment, overrides, host, port, store, prefix, login, strata)
    _run(verb, request)


@app.command(epilog=examples("up"))
def up() -> None:
    """Start a Ray head on this machine's loopback, with a token; found again where it runs already."""
    from acdis.verbs.head import up as verb

    _run(verb)


@app.command(epilog=examples("down"))
def down() -> None:
    """End exactly what `up` or `submit` has started on this machine."""
    from acdis.verbs.head import down as verb

    _run(verb)


@app.command(
    epilog=examples("submit"),
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
def submit(
    words: Annotated[list[str] | None, typer.Argument(help="a verb and its words: train FILE …")] = None,
) -> None:
    """Run a verb as a job of this checkout on the Ray head of this machine; Ctrl-C stops the job."""
    from acdis.verbs.head import submit as verb

    _run(verb, words or [])


@report_app.command("figures", epilog=examples("report figures"))
def report_figures(
    runs: Annotated[list[str], typer.Argument(help="cells' names (their beginnings will do) or folders")],
    case: Annotated[str | None, typer.Option(help="a test case of all of them; else the first")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder to write to, instead of the cells' folders and MLflow runs")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="png, pdf or svg, or several: png,pdf; else png")
    ] = None,
    dpi: Annotated[int, typer.Option(min=20, max=1200, help="dots per inch")] = 110,
    index: Annotated[
        int | None, typer.Option("--slice", min=0, help="axial slice of the file; else that with most tumour")
    ] = None,
    subsets: Annotated[
        str | None, typer.Option("--subset", help="rows of Figure 5, such as FLAIR,FLAIR_T2; else five")
    ] = None,
    titles: Annotated[
        bool, typer.Option("--title/--no-title", help="with or without the title above each figure")
    ] = True,
) -> None:
    """Figures 1, 5, 6 and 7 of the paper for trained cells: windows, segmentations, ACD, synthesis.

    The caption of each stands in a .txt file beside it, not in the picture.
    """
    from acdis.verbs.figures import FiguresRequest
    from acdis.verbs.figures import figures as verb

    chosen = names(formats, "--format"), dpi, index, names(subsets, "--subset"), titles
    _run(verb, FiguresRequest(runs, case, out, *chosen))


@data_app.command("check", epilog=examples("data check"))
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


@data_app.command("splits", epilog=examples("data splits"))
def data_splits(
    paths: Annotated[
        list[Path], typer.Argument(help="split files or their folder; with --folds the folder of cases")
    ],
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="write lists of so many folds of these cases")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="with --folds: the folder that their lists are written to")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the draw")] = 0,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="what names files, labels, patients: data.scheme=…")
    ] = None,
) -> None:
    """Tell which of the field's published lists split files hold; or draw folds, patients kept together."""
    from acdis.verbs.data import check_lists, draw_folds

    if folds is None:
        _run(check_lists, paths, out)
    else:
        _run(draw_folds, paths, folds, seed, out, overrides or [])


@data_app.command("prepare", epilog=examples("data prepare"))
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


@data_app.command("phantom", epilog=examples("data phantom"))
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
    except ImportError as error:
        if (missing := extras.missing(error)) is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        from acdis.cluster.train import TrainingFailed

        if not isinstance(error, TrainingFailed):
            raise
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
