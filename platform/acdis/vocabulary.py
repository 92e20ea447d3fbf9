"""The words of the field: modalities, regions, the 15 subsets, and how metrics are named.

Sources: order of the modalities as in RFNet; regions and subsets in the order of the paper's Table 1.
"""

MODALITIES = ("FLAIR", "T1ce", "T1", "T2")
REGIONS = ("WT", "TC", "ET")

#: Label values after preprocessing. BraTS writes enhancing tumour as 4 (2018-2021) or 3 (2023); here it is 3.
CLASSES = ("background", "NCR/NET", "ED", "ET")
REGION_LABELS: dict[str, tuple[int, ...]] = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}

Subset = tuple[str, ...]

SUBSETS: tuple[Subset, ...] = (
    ("FLAIR",),
    ("T1ce",),
    ("T1",),
    ("T2",),
    ("FLAIR", "T1ce"),
    ("FLAIR", "T1"),
    ("FLAIR", "T2"),
    ("T1ce", "T1"),
    ("T1ce", "T2"),
    ("T1", "T2"),
    ("FLAIR", "T1ce", "T1"),
    ("FLAIR", "T1ce", "T2"),
    ("FLAIR", "T1", "T2"),
    ("T1ce", "T1", "T2"),
    ("FLAIR", "T1ce", "T1", "T2"),
)


def subset_mask(subset: Subset) -> tuple[bool, bool, bool, bool]:
    """Which of `MODALITIES` a subset holds, in their order."""
    flair, t1ce, t1, t2 = (modality in subset for modality in MODALITIES)
    return flair, t1ce, t1, t2


def subset_name(subset: Subset) -> str:
    """`FLAIR_T1ce`: MLflow allows no `+` in a metric's name."""
    return "_".join(subset)


def metric_name(metric: str, region: str | None = None, subset: Subset | None = None) -> str:
    """`dice/ET/FLAIR_T1ce`; the mean over all subsets is `dice/ET/mean`, over all regions too `dice/mean`."""
    return "/".join([metric, *([region] if region else []), subset_name(subset) if subset else "mean"])


_LESIONS = ("lesion_dice", "lesion_hd95", "lesions_found", "lesions_missed", "lesions_false")

#: What `evaluation.metrics` may name, and the metrics that each gives, for every region. The rules of BraTS
#: 2023 (glioma, meningioma, metastases) give the same ones, so that one of them is named at most.
NAMED_METRICS: dict[str, tuple[str, ...]] = {
    "brats2023": _LESIONS,
    "brats2023_men": _LESIONS,
    "brats2023_met": _LESIONS,
    "brats2026": ("instance_dice", "instance_nsd", "instance_hd95", "instance_f1"),
    "nsd": ("nsd_1mm", "nsd_2mm"),
    "volume": ("volume_difference_ml",),
    "sensitivity": ("sensitivity",),
    "precision": ("precision",),
    "calibration": ("ece",),
}

#: The metrics of `NAMED_METRICS`, each once.
FURTHER_METRICS = tuple(dict.fromkeys(metric for given in NAMED_METRICS.values() for metric in given))

#: Those of them without an upper limit: mm, ml, counts. The others are shares.
UNBOUNDED = frozenset((*_LESIONS[1:], "instance_hd95", "volume_difference_ml"))
