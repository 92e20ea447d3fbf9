"""How it was scored: metrics and their conventions, as the cells' evaluations are configured."""

from __future__ import annotations

from collections.abc import Callable

from acdis.config import Evaluation
from acdis.evaluation.calibration import BINS
from acdis.evaluation.lesionwise import PENALTY_2023, PENALTY_2026
from acdis.evaluation.metrics import HD95_CONVENTIONS, HD95_ONE_EMPTY
from acdis.report.facts import RowScores
from acdis.report.paperwork.study import Facts, RowRun, Study, each_row, grouped
from acdis.vocabulary import FURTHER_METRICS, REGION_LABELS, REGIONS

_OF_2023 = f"a missed or a false lesion counts 0 and {PENALTY_2023:g} mm"
#: What `evaluation.metrics` may name, in words; docs/metrics.md has the definitions.
FURTHER = {
    "brats2023": f"lesion-wise Dice and HD95 by the rules of BraTS 2023 for glioma ({_OF_2023})",
    "brats2023_men": f"lesion-wise Dice and HD95 by the rules of BraTS 2023 for meningioma ({_OF_2023})",
    "brats2023_met": f"lesion-wise Dice and HD95 by the rules of BraTS 2023 for metastases ({_OF_2023})",
    "brats2026": (
        "Dice, NSD, HD95 and F1 by instance by the rules of BraTS 2026 (what has no partner counts 0 and "
        f"{PENALTY_2026:g} mm)"
    ),
    "nsd": "normalised surface Dice at 1 and 2 mm (both empty 1, one empty 0)",
    "volume": "absolute difference of volumes, ml",
    "sensitivity": "sensitivity by voxel (1 where nothing is to be found)",
    "precision": "precision by voxel (1 where nothing is predicted)",
    "calibration": f"expected calibration error of each region's probability, {BINS} bins of equal width, "
    "over the voxels of the brain's box",
}
_LESIONS = ("brats2023", "brats2023_men", "brats2023_met", "brats2026")


def facts(study: Study) -> Facts:
    """By what they are about."""

    def configured(told: Callable[[Evaluation], str]) -> list[str]:
        return grouped(
            study.runs, lambda run: told(run.papers.experiment.evaluation) if run.papers.experiment else ""
        )

    def named(*names: str) -> list[str]:
        return configured(lambda given: "; ".join(FURTHER[name] for name in given.metrics if name in names))

    facts = {
        "metrics": configured(metrics),
        "boundary_metrics": [*configured(hd95), *named("nsd")],
        "volume_metrics": named("volume"),
        "lesion_metrics": named(*_LESIONS),
        "error_metrics": named("sensitivity", "precision"),
        "tolerance": named("nsd"),
        "class_scores": configured(_of_probabilities),
        "post_processing": configured(_post_processing),
        "inference": grouped(study.trained, _windows),
        "penalties": each_row(study, _penalties),
    }
    return facts | {name: lines if study.scored else [] for name, lines in _always().items()}


def _always() -> dict[str, list[str]]:
    """What holds for every score that the platform computes."""
    regions = ", ".join(f"{region} = {' + '.join(map(str, REGION_LABELS[region]))}" for region in REGIONS)
    return {
        "regions": [f"of the classes 1 NCR/NET, 2 ED, 3 ET: {regions}"],
        "conventions": [
            "Dice of a region that is empty in truth and prediction counts 100 %, of an empty truth with any "
            "predicted voxel about 0 %; no case is left out of a mean",
        ],
        "aggregation": [
            "mean over cases, then over the 15 subsets, then over seeds, each weighing the same; for tests "
            "scans of one patient are averaged first"
        ],
        "metric_code": [
            "Dice is the platform's own code, surface distances are MONAI's, or by its definitions; scores "
            "are computed at the files' own spacing"
        ],
        "per_case": [
            "the scores of every case × subset × region × seed are kept, and are in report --bundle"
        ],
    }


def metrics(given: Evaluation) -> str:
    """Everything that is scored, in words."""
    told = ["Dice", f"Dice of ET after predictions below {given.et_minimum:g} mm³ are emptied (ET500)"]
    return "; ".join([*told, *filter(None, [hd95(given)]), *(FURTHER[name] for name in given.metrics)])


def hd95(given: Evaluation) -> str:
    """With its convention, which must stand beside every HD95; empty where it is not computed."""
    if not given.hd95:
        return ""
    return (
        f"HD95, mm: {HD95_CONVENTIONS[given.hd95_convention]}; both masks empty 0, one empty "
        f"{HD95_ONE_EMPTY:g}, a penalty"
    )


def _of_probabilities(given: Evaluation) -> str:
    if "calibration" not in given.metrics:
        return "labels alone are scored, no probabilities"
    return FURTHER["calibration"]


def further_of(study: Study) -> set[str]:
    """Metrics beside Dice that some row has scores of, HD95 among them."""
    every = [scores for _, rows, _ in study.compared for row in rows for scores in row.seeds.values()]
    named = {name for scores in every for name in scores.further if name in FURTHER_METRICS}
    return named | ({"hd95"} if any(scores.hd95 is not None for scores in every) else set())


def _post_processing(given: Evaluation) -> str:
    words = given.processing_in_words()
    return f"labels after prediction: {words}" if words else "none: labels are scored as they are predicted"


def _windows(run: RowRun) -> str:
    if run.papers.experiment is None:
        return ""
    given = run.papers.experiment.evaluation
    window, stride = (" × ".join(map(str, sides)) for sides in (given.window, given.stride))
    weights = "all voxels alike" if given.window_weights == "constant" else "a Gaussian about its centre"
    return f"sliding windows of {window} voxels at stride {stride}, {weights} where they overlap"


def _penalties(row: RowScores) -> str:
    """How many distances are those of one empty mask."""
    every = [scores for scores in row.seeds.values() if scores.hd95 is not None]
    if not every:
        return ""
    counts = sum(scores.penalties.sum(axis=0) for scores in every)
    scores = sum(15 * len(scores_of_row.cases) for scores_of_row in every)
    told = ", ".join(f"{region} {count}" for region, count in zip(REGIONS, counts, strict=True))
    return f"HD95 that are penalties: {told} of {scores:,} scores each"
