"""`status`: how cells stand, from their folders, from any shell; on a terminal it follows them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from acdis import home
from acdis.ablation.expansion import Member
from acdis.ablation.standings import Standing, counted, survey
from acdis.cells.time_left import clock, remaining, steps_done
from acdis.terminal.progress import WIDTH, Display
from acdis.workflow.opening import open_specs

#: Seconds between looks, and of nothing at work before looking ends: between two cells nobody may be.
PAUSE, PATIENCE = 2.0, 30.0
#: Rows that are shown where there are more cells than that.
SHOWN = 40


def status(
    paths: Sequence[Path],
    experiment: Path | None,
    overrides: Sequence[str],
    rows: Sequence[str] | None,
    seeds: Sequence[int] | None,
    once: bool = False,
    every: bool = False,
) -> None:
    """Print how the cells stand; on a terminal again every two seconds while any is being trained.

    Args:
        once: do not follow.
        every: all cells, however many.

    Raises:
        UserError: a spec, an experiment or its data is wrong.
    """
    base = home.to_read()
    with Display() as display:
        if not display.live:
            display.console.width = WIDTH
        members = open_specs(
            paths, experiment, overrides, rows, seeds, base, display, looking=True, remembering=True
        )
    most = len(members) if every else SHOWN
    standings = survey(members, base)
    if once or not display.live or not _running(standings):
        display.console.print(view(standings, most))
        return
    _follow(members, base, most, display)


def _follow(members: Sequence[Member], base: Path, most: int, display: Display) -> None:
    """Ctrl-C ends the looking, and nothing else."""
    with Live(console=display.console, auto_refresh=False) as live:
        try:
            seen = time.monotonic()
            while time.monotonic() - seen < PATIENCE:
                standings = survey(members, base)
                live.update(view(standings, most), refresh=True)
                if _running(standings):
                    seen = time.monotonic()
                elif all(standing.status != "missing" for standing in standings):
                    return
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            return


def view(standings: Sequence[Standing], most: int) -> Group:
    """The table of at most `most` cells, those at work and those that failed first, and a line of numbers."""
    order = {"running": 0, "failed": 1, "missing": 2, "done": 3}
    few = len(standings) <= most
    chosen = standings if few else sorted(standings, key=lambda standing: order[standing.status])[:most]
    table = Table()
    for heading in ("row", "seed", "state", "epoch", "last Dice", "time left"):
        table.add_column(heading, overflow="fold")
    table.add_column("cell", overflow="fold", min_width=18)
    for standing in chosen:
        table.add_row(*(Text(word) for word in line(standing)))
    hidden = "" if few else f"; {len(standings) - most} rows are not shown (--all shows them)"
    reasons = [
        f"{standing.member.cell} failed: {standing.state.get('reason')}"
        for standing in chosen
        if standing.status == "failed"
    ]
    reasons += [problem for standing in standings for problem in standing.damage]
    return Group(table, Text("\n".join([*dict.fromkeys(reasons), counted(standings) + hidden])))


def line(standing: Standing) -> tuple[str, ...]:
    """Row, seed, status, epoch, last Dice, time left, cell."""
    member, state = standing.member, standing.state
    return (
        f"{member.spec.name}/{member.row.id}",
        str(member.seed),
        _status(standing),
        _epoch(standing),
        _dice(state),
        clock(remaining(state)) if standing.status == "running" and "step_seconds" in state else "",
        member.cell + (f" (stale: {', '.join(standing.stale)})" if standing.stale else ""),
    )


def _running(standings: Sequence[Standing]) -> bool:
    return any(standing.status == "running" for standing in standings)


def _status(standing: Standing) -> str:
    """The cell's state, and what a running one does just now or a stopped one lacks."""
    said = str(standing.state.get("status", ""))
    if standing.status == "running":
        share = _share(standing.state)
        return f"running: {said}{share}" if said else "running"
    if said == "damaged":
        return "stopped: damaged"
    if standing.word == "stopped" and said in ("scored", "scoring", "done"):
        return "stopped: not scored"
    return standing.word


def _share(state: dict[str, Any]) -> str:
    if state.get("status") != "training" or not state.get("steps"):
        return ""
    return f" {100 * steps_done(state) / (state['epochs'] * state['steps']):.0f} %"


def _epoch(standing: Standing) -> str:
    """The epoch at work of how many; of a cell at rest those that are done."""
    state = standing.state
    if not state.get("epochs"):
        return ""
    at_work = state.get("epoch") if standing.status == "running" else None
    return f"{at_work or state.get('done', 0)} of {state['epochs']}"


def _dice(state: dict[str, Any]) -> str:
    dice = state.get("validation", {}).get("dice/mean")
    return "" if dice is None else f"{100 * dice:.1f} %"
