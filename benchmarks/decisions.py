"""How often a table's verdicts are right: simulated tables whose truth is known.

    python benchmarks/decisions.py [--tables 1000] [--json FILE]

Rows × seeds × cases × regions with spreads as real scores have them (points): what a seed does to all rows,
what it does to one row, what a case does to one row, and the rest, which is as large as in real scores.
"Independent": the seed's part is drawn for each row alone, as if rows did not share crops and weights. t3:
heavy tails in all parts.

- family error: null tables in which any row is called better or worse; at most 5 %.
- coverage: 95 % intervals of single differences that hold the truth; at least 93.5 %.
- power: one row is 3 points better in TC, and is called better there; with 6 rows, 3 seeds and 100 cases at
  least 70 %, independent seeds 55 %.

A second table has one row that spreads more than the others, as one that collapses does, at the same mean:
nothing is promised there; it shows how often it leaves the pool and how much power the others keep.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import machine
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from acdis.evaluation.statistics import compare
from acdis.vocabulary import REGIONS

#: Standard deviations in WT, TC and ET, in points.
SEED, ROW_SEED, ROW_CASE, RESIDUAL = (
    np.array(deviations)
    for deviations in ((0.3, 0.5, 0.7), (0.2, 0.4, 0.6), (2.0, 4.0, 6.0), (3.0, 5.0, 8.0))
)
GAIN = 3.0
FAMILY, COVERAGE, POWER, POWER_INDEPENDENT = 0.05, 0.935, 0.70, 0.55


@dataclass(frozen=True)
class Design:
    """How tables are made."""

    rows: int
    seeds: int
    cases: int
    law: str  # normal, t3
    shared: bool
    unsteady: float = 1.0  # how many times the others' row×seed spread the last row has
    uneven: float = 1.0  # and of their row×case spread


#: With a row that spreads more.
ODD = (
    Design(6, 3, 100, "normal", True, unsteady=6),
    Design(6, 3, 100, "normal", True, unsteady=15),
    Design(6, 5, 100, "normal", True, unsteady=15),
    Design(6, 3, 16, "normal", True, unsteady=15),
    Design(3, 3, 100, "normal", True, unsteady=15),
    Design(6, 3, 100, "normal", True, uneven=3),
    Design(6, 3, 16, "normal", True, uneven=3),
)


@dataclass(frozen=True)
class Result:
    """Shares of the tables of a design."""

    design: Design
    family_error: float
    coverage: float
    power: float
    apart: float  # the last row, in any region
    tables: int


def draw(design: Design, generator: np.random.Generator) -> np.ndarray:
    """Scores [R, S, N, 3] without any true difference."""

    def part(spread: np.ndarray, *shape: int) -> np.ndarray:
        if design.law == "t3":
            return spread * generator.standard_t(3, (*shape, 3)) / math.sqrt(3)
        return spread * generator.standard_normal((*shape, 3))

    rows, seeds, cases = design.rows, design.seeds, design.cases
    seed = part(SEED, 1 if design.shared else rows, seeds, 1)
    row_seed, row_case = part(ROW_SEED, rows, seeds, 1), part(ROW_CASE, rows, 1, cases)
    row_seed[-1] *= design.unsteady
    row_case[-1] *= design.uneven
    return 70 + seed + row_seed + row_case + part(RESIDUAL, rows, seeds, cases)


def simulate(design: Design, tables: int, seed: int = 0) -> Result:
    """Each table twice: as it is, and with one row better in TC."""
    generator = np.random.default_rng([seed, design.rows, design.seeds, design.cases])
    alarms = covered = detected = apart = 0
    for _ in range(tables):
        scores = draw(design, generator)
        answers = compare(scores)
        alarms += any(answer.verdict in ("better", "worse") for answer in answers)
        covered += sum(answer.low <= 0 <= answer.high for answer in answers)
        apart += any(answer.apart for answer in answers if answer.row == design.rows - 1)
        place = REGIONS.index("TC")
        scores[1, ..., place] += GAIN
        detected += compare(scores)[place].verdict == "better"
    questions = 3 * (design.rows - 1)
    shares = alarms / tables, covered / tables / questions, detected / tables, apart / tables
    return Result(design, *shares, tables)


def failures(result: Result) -> list[str]:
    """What is missed by more than three errors of the simulation."""
    design, due = result.design, POWER if result.design.shared else POWER_INDEPENDENT

    def error(share: float) -> float:
        return 3 * math.sqrt(share * (1 - share) / result.tables)

    missed = []
    if result.family_error > FAMILY + error(FAMILY):
        missed.append("family error")
    if result.coverage < COVERAGE - error(COVERAGE):
        missed.append("coverage")
    if (design.rows, design.seeds, design.cases) == (6, 3, 100) and result.power < due - error(due):
        missed.append("power")
    return missed


def main() -> None:
    """Print a table of all designs."""
    parser = machine.parser(__doc__)
    parser.add_argument("--tables", type=int, default=1000, help="for each design")
    wanted = parser.parse_args()
    began, results = time.process_time(), []
    print("| law | seeds | rows | seeds × cases | family error % | coverage % | power, 3 points of TC % | |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for law, shared, rows, seeds, cases in itertools.product(
        ("normal", "t3"), (True, False), (2, 3, 6), (3, 5), (16, 100)
    ):
        result = simulate(Design(rows, seeds, cases, law, shared), wanted.tables)
        results.append(result)
        shares = (f"{100 * share:.1f}" for share in (result.family_error, result.coverage, result.power))
        missed = ", ".join(failures(result))
        print(
            f"| {law} | {'shared' if shared else 'independent'} | {rows} | {seeds} × {cases} | "
            f"{' | '.join(shares)} | {f'missed: {missed}' if missed else ''} |",
            flush=True,
        )
    print("\n| one row×seed, row×case | rows | seeds × cases | left % | alarms % | coverage % | power % |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for design in ODD:
        result = simulate(design, wanted.tables)
        results.append(result)
        shares = (
            f"{100 * share:.1f}"
            for share in (result.apart, result.family_error, result.coverage, result.power)
        )
        print(
            f"| {design.unsteady:g} ×, {design.uneven:g} × | {design.rows} | "
            f"{design.seeds} × {design.cases} | {' | '.join(shares)} |",
            flush=True,
        )
    print(f"\n{wanted.tables} tables of each design, {time.process_time() - began:.0f} s of processor")
    where = machine.facts(1, ("numpy", "scipy"))
    print(machine.line(where))
    machine.save(wanted.json, {"results": [asdict(result) for result in results], "machine": where})


if __name__ == "__main__":
    main()
