"""Code, versions and what was not committed; what the platform is meant for."""

from __future__ import annotations

from acdis.report.paperwork.study import Facts, RowRun, Study, grouped
from acdis.tracking.lineage import COMMIT, DIRTY, UNKNOWN

#: Versions in a lineage's tags, and what they are called.
LIBRARIES = {
    "acdis": "ACDIS platform",
    "python": "Python",
    "torch": "PyTorch",
    "monai": "MONAI",
    "ray": "Ray",
    "mlflow": "MLflow",
}
_VERSION = "acdis.version."


def facts(study: Study) -> Facts:
    """By what they are about."""
    specs = " ".join(f"{spec.name}.yaml" for spec, _, _ in study.compared)
    overrides = " ".join(dict.fromkeys(word for spec, _, _ in study.compared for word in spec.overrides))
    more = f" {overrides}" if overrides else ""
    trained = bool(study.trained)
    return {
        "versions": grouped(study.trained, versions),
        "commit": grouped(study.trained, commit),
        "code_licence": ["the platform is under Apache-2.0 (LICENSE)"],
        "own_code": [
            "methods of others are independent implementations in the platform; their papers are in the "
            "BibTeX below"
        ],
        "commands": [f"acdis ablate {specs}{more}; acdis report {specs}{more}"] if trained else [],
        "records": [
            "configuration, lineage, history and the scores of every case are kept with each cell; acdis "
            f"report {specs} --bundle FILE.zip packs them, and makes this report again from the file alone"
        ],
        "weights": (
            [
                "final weights are kept with each cell; acdis export CELL DIR writes them with a model "
                "card, no pickle"
            ]
            if any(run.cell.scored for run in study.trained)
            else []
        ),
        "documentation": [
            "README.md and docs/ of the platform; docs/choices.md names what its paper leaves open"
        ],
        "intended_use": [
            "research only; not for clinical use: no regulatory clearance, and scores hold for scans like "
            "the test cases"
        ],
    }


def versions(run: RowRun) -> str:
    """`PyTorch 2.11.0, …` of what was there; empty where nothing was noted."""
    tags = run.papers.tags
    told = [
        f"{words} {tags[_VERSION + name]}" for name, words in LIBRARIES.items() if _VERSION + name in tags
    ]
    return ", ".join(word for word in told if not word.endswith((" absent", f" {UNKNOWN}")))


def commit(run: RowRun) -> str:
    """With which code a cell was trained, and whether all of it was committed."""
    tags = run.papers.tags
    told = tags.get(COMMIT, UNKNOWN)
    if told == UNKNOWN:
        return ""
    kept = " (kept beside the cell as changes.patch)" if run.papers.patched else ""
    changed = {"true": f", with uncommitted changes{kept}", "false": ", all of it committed"}
    return (
        f"commit {told}{changed.get(tags.get(DIRTY, ''), ', whether all of it was committed is not known')}"
    )
