"""A home with an ablation in it, made by the platform's own code from made-up scores, and its pages."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acdis import cells, files
from acdis.ablation.expansion import Member, resolve
from acdis.ablation.spec import load
from acdis.cells import Cell
from acdis.cluster.train import Job
from acdis.cluster.worker import run_alone
from acdis.dashboard.app import pages
from acdis.dashboard.settings import Settings
from acdis.dashboard.state import Site
from acdis.data.inputs import Inputs
from acdis.evaluation.records import Record, summarise, write_parquet
from acdis.report import spec_outline
from acdis.terminal.progress import Display
from acdis.tracking import default_uri
from acdis.tracking.lineage import lineage
from acdis.tracking.runs import RunTracker
from acdis.tracking.specs import Link, SpecTracker
from acdis.vocabulary import REGIONS, SUBSETS, subset_name
from acdis.workflow import spec_runs
from acdis.workflow.jobs import job_of
from acdis.workflow.life import complete
from acdis.workflow.opening import open_specs

#: Milliseconds for what the browser waits for, however busy the machine: by default half a minute.
PATIENCE = 300_000
EXPERIMENT = """
data: {phantoms: {cases: 8}, min_size: 16, crop: [16, 16, 16]}
training: {epochs: 4, iterations: 10, precision: fp32}
evaluation: {window: [16, 16, 16], stride: [16, 16, 16]}
"""
SPEC = """
title: "Table 9: a small ablation"
base: ../experiments/small.yaml
seeds: [0, 1, 2]
baseline: slow
paper: Some journal
rows:
  slow: {label: slow one, set: {training.learning_rate: 1.0e-4}, paper: {WT: 80.0, TC: 70.0, ET: 60.0}}
  fast:
    label: fast one
    set: {training.learning_rate: 1.0e-3}
    paper: {WT: 81.0, TC: 71.5, ET: 61.25}
    note: Tick marks garbled in the source.
  plain: {label: plain one, set: {training.learning_rate: 1.0e-2}}
"""
#: Mean Dice of each row, about.
LEVELS = {"slow": 0.3, "fast": 0.5, "plain": 0.4}
CASES = 6


@dataclass
class Lab:
    """A home, its spec file, its members, and what shows them."""

    root: Path
    members: list[Member]

    @property
    def base(self) -> Path:
        return self.root / "home"

    @property
    def spec(self) -> Path:
        return self.root / "ablations" / "small.yaml"

    @property
    def uri(self) -> str:
        return default_uri(self.base)

    def cell(self, row: str, seed: int) -> Cell:
        """The folder of a row and seed."""
        (name,) = (each.cell for each in self.members if (each.row.id, each.seed) == (row, seed))
        return Cell(self.base / "cells" / name)

    def site(self, **changes: Any) -> Site:
        """A fresh one: nothing is remembered."""
        return Site(Settings(**{"base": self.base, "uri": self.uri, "specs": (self.spec,)} | changes))

    def client(self, **changes: Any) -> Any:
        """Asks the pages as they are served alone; what they raise is not hidden."""
        from starlette.testclient import TestClient

        return TestClient(pages(self.site(**changes)), root_path="/acdis")


def make_records(level: float, seed: int, cases: int = CASES) -> list[Record]:
    """More modalities, better scores; no two cases alike."""
    draw = np.random.default_rng([int(1000 * level), seed])
    return [
        Record(
            case=f"case{case}",
            subset=subset_name(subset),
            region=region,
            dice=(
                dice := float(
                    np.clip(level + 0.04 * case + 0.05 * len(subset) + 0.02 * draw.standard_normal(), 0, 1)
                )
            ),
            dice_et500=dice if region == "ET" else None,
            hd95=20 * (1 - dice),
            predicted_voxels=1,
            truth_voxels=1,
            voxel_volume=1.0,
        )
        for case in range(cases)
        for subset in SUBSETS
        for region in REGIONS
    ]


def finish(base: Path, uri: str, member: Member, level: float) -> None:
    """What a finished cell leaves behind, in its folder and in MLflow."""
    tags = {"acdis.git_commit": "0123456789abcdef", "acdis.git_dirty": "true", "acdis.method": "acdis"}
    cell = cells.create(base, member.cell, member.experiment, {"tags": tags})
    cell.add_role(spec=member.spec.name, table=member.spec.table, row=member.row.id, seed=member.seed)
    progress = {"epochs": 4, "steps": 10, "step_seconds": 2.5, "done": 4}
    cell.update(status="done", evaluation=member.evaluation, workers=1, cpus=2, gpus=0, **progress)
    files.write_json(
        cell.folder / "history.json", {"epochs": [{"epoch": n, "seconds": 90.0} for n in range(1, 5)]}
    )
    cell.weights.write_bytes(b"weights")
    folder = cell.evaluations / member.evaluation
    folder.mkdir(parents=True)
    records = make_records(level, member.seed)
    write_parquet(folder / "records.parquet", records)
    tracker = RunTracker(cell.folder, uri, "acdis", cell.name, cell.name)
    tracker.log_params({"seed": str(member.seed)})
    tracker.log_tags(tags)
    tracker.log_roles(cell.roles())
    tracker.log_metrics(summarise(records) | {"cpu_hours": 0.2})
    tracker.finish()
    assert tracker.close() == 0


def make_lab(root: Path) -> Lab:
    """Three rows × three seeds: the last cell failed, the one before it is not begun."""
    for name, text in (("experiments/small.yaml", EXPERIMENT), ("ablations/small.yaml", SPEC)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    members = resolve([load(root / "ablations" / "small.yaml")], lambda _: Inputs((), (), ()))
    lab = Lab(root, members)
    for member in members[:-2]:
        finish(lab.base, lab.uri, member, LEVELS[member.row.id])
    failed = cells.create(lab.base, members[-1].cell, members[-1].experiment, {"tags": {}})
    failed.update(status="failed", reason="the loss became NaN\nin epoch 3")
    spec_outline.save(members, lab.base)
    parent = SpecTracker(lab.base, lab.uri, "acdis", "small")
    about = {"rows": "slow, fast, plain", "seeds": "0, 1, 2", "baseline": "slow"}
    parent.begin(members[0].spec.title, about, {})
    parent.cells([_link(lab, member) for member in members])
    parent.finish()
    assert parent.close() == 0
    return lab


def _link(lab: Lab, member: Member) -> Link:
    cell = Cell(lab.base / "cells" / member.cell)
    status = str(cell.state().get("status", "missing"))
    return Link(member.row.id, member.row.label, member.seed, cell.name, cell.folder, status, cell.roles())


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Shared by the tests: look, do not touch."""
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def own_lab(lab: Lab, tmp_path: Path) -> Lab:
    """A copy that the test may spoil."""
    shutil.copytree(lab.root, tmp_path / "lab")
    return Lab(tmp_path / "lab", lab.members)


@pytest.fixture(scope="session")
def client(lab: Lab) -> Any:
    """Pages of the shared home."""
    return lab.client()


@pytest.fixture(scope="session")
def levels() -> Mapping[str, float]:
    """Mean Dice of each row, about."""
    return LEVELS


@pytest.fixture(scope="session")
def records_of() -> Callable[[float, int], Sequence[Record]]:
    """The made-up records of a level and seed."""
    return make_records


#: Of a real ablation: seconds a cell, on phantoms.
TINY = """
data:
  phantoms: {cases: 5, seed: 3, shape: [24, 24, 24], spacing: 6.0}
  split: {counts: [2, 1, 2], seed: 0}
  min_size: 16
  crop: [16, 16, 16]
  lesion_crops: 0.6
method: {options: {base_width: 4, levels: 3, synthesis_start: 2}}
training: {epochs: 3, iterations: 2, batch_size: 2, learning_rate: 1.0e-3, precision: fp32, validate_every: 3}
evaluation: {window: [16, 16, 16], stride: [16, 16, 16], metrics: [calibration]}
scaling: {cpus_per_worker: 1}
tracking: {system_metrics: true}
"""
TINY_SPEC = """
title: "Table 3: the synthesis loss, tiny"
base: tiny.yaml
seeds: [0, 1]
baseline: conv
paper: BraTS2020, Dice in per cent
rows:
  conv:
    label: w/o MFSB
    set: {method.options.mfsb: conv, method.options.synthesis: []}
    paper: {WT: 86.61, TC: 78.56, ET: 61.09}
  syn:
    label: MFSB + L_Syn
    set: {method.options.synthesis: [mse]}
    paper: {WT: 88.31, TC: 79.56, ET: 62.79}
    note: Full ACDIS.
"""


@dataclass
class Ablated:
    """A home with a small ablation that was really trained, and the spec file."""

    base: Path
    spec: Path

    def environment(self) -> dict[str, str]:
        """A shell's, without what an outer Ray or job has put there."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "ACDIS_"))}
        return kept | {"ACDIS_HOME": str(self.base), "OMP_NUM_THREADS": "1"}

    def command(self, *words: str) -> list[str]:
        """`python experiments/main.py WORDS…`"""
        main = Path(__file__).resolve().parents[2] / "experiments" / "main.py"
        return [sys.executable, str(main), *words]

    def run(self, *words: str) -> str:
        """Run to the end; what it printed."""
        done = subprocess.run(
            self.command(*words), env=self.environment(), capture_output=True, text=True, timeout=1100
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _train(job: Job) -> None:
    """What a worker does, in this process: Ray's own start-up would take longer than all four trainings."""
    job.cell.begin(status="starting", workers=1, cpus=1, gpus=0, driver=os.getpid())
    run_alone(job.plain() | {"again": False}, lambda event: None)
    assert job.cell.state()["status"] == "scored", job.cell.state()


@pytest.fixture(scope="session")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> Ablated:
    """Two rows × two seeds, really trained, scored and published to a real store, in seconds."""
    root = tmp_path_factory.mktemp("ablated")
    (root / "tiny.yaml").write_text(TINY)
    (root / "tiny_table.yaml").write_text(TINY_SPEC)
    made = Ablated(root / "home", root / "tiny_table.yaml")
    made.base.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with Display() as display:
            members = open_specs([made.spec], None, (), None, None, made.base, display, tracked=True)
        tags = lineage()
        with spec_runs.parents(members, made.base):
            for member in members:
                job = job_of(member.experiment, member.inputs, made.base, tags)
                job.cell.add_role(
                    spec=member.spec.name, table=member.spec.table, row=member.row.id, seed=member.seed
                )
                with job.cell.alone():
                    complete(job, tags, functools.partial(_train, job), print)
    assert spec_outline.read(made.base / "ablations" / "tiny_table" / spec_outline.FILE).baseline == "conv"
    return made


@pytest.fixture(scope="session")
def address(ablated: Ablated) -> Iterator[str]:
    """Where `dashboard` shows it: `http://127.0.0.1:…/acdis/`. Ends the server with Ctrl-C."""
    command = ablated.command("dashboard", str(ablated.spec), "--port", "0")
    log = ablated.base / "dashboard.log"
    with log.open("wb") as said:
        server = subprocess.Popen(
            command, env=ablated.environment(), stdout=subprocess.PIPE, stderr=said, text=True
        )
    assert server.stdout is not None
    try:
        lines = iter(server.stdout)
        line = next((line for line in lines if line.startswith("dashboard: ")), "")
        assert line, log.read_text()
        yield line.split()[1]
    finally:
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(300) == 0, log.read_text()
        finally:
            server.kill()
            server.stdout.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's chromium, headless; skips with the reason where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    words = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    words += "--disable-component-update --disable-sync"
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")),
            executable_path=program,
            headless=True,
            args=words.split(),
            timeout=PATIENCE,
        )
        context.set_default_timeout(PATIENCE)
        yield context
        context.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab of 1280 × 900; whatever the browser complains of fails the test."""
    tab = browser.new_page()
    tab.set_viewport_size({"width": 1280, "height": 900})
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    yield tab
    tab.close()
    assert not complaints


@pytest.fixture
def can_be_read(page: Any, address: str) -> Callable[[str], None]:
    """`can_be_read(where)`: by axe-core, and nothing stands out of the screen, on a desk and on a phone.

    Each of the two is loaded in one theme, where contrast, names, roles and the order of headings are looked
    at; in the other theme, which is a matter of colours alone, contrast is.
    """
    from axe_playwright_python.sync_playwright import Axe

    contrast = {"runOnly": {"type": "rule", "values": ["color-contrast"]}, "resultTypes": ["violations"]}

    def look(where: str) -> None:
        axe = Axe()
        for width, height, theme, other in ((1280, 900, "light", "dark"), (375, 740, "dark", "light")):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": height})
            assert page.goto(address + where).status == 200
            page.wait_for_load_state("networkidle")
            found = axe.run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
            page.emulate_media(color_scheme=other)
            found = axe.run(page, options=contrast)
            assert len(found.response["passes"]) + len(found.response["incomplete"]) > 0, (
                "nothing was looked at"
            )
            assert found.violations_count == 0, found.generate_report()

    return look
