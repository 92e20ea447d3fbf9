"""One typed tree: an `Experiment` says everything that a run needs.

Frozen models, unknown keys refused. YAML files hold only what differs from the defaults. Where the paper
is silent the default is RFNet's convention, and the field's description says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from acdis.vocabulary import MODALITIES, NAMED_METRICS

#: Voxels of a side: no volume has more (`data.nifti.MAX_SIDE`).
Side = Annotated[int, Field(ge=1, le=1024)]
Triple = tuple[Side, Side, Side]
#: One number for all axes, or one per axis; an error is about the way that was meant.
Sides = Annotated[
    Annotated[Side, Tag("<one>")] | Annotated[Triple, Tag("<each>")],
    Discriminator(lambda value: "<each>" if isinstance(value, list | tuple) else "<one>"),
]
#: What a voxel of a segmentation may hold: the least and the most of int16 and uint16.
LabelValue = Annotated[int, Field(ge=-(2**15), lt=2**16)]
Percentile = Annotated[float, Field(ge=0, le=100)]


class Config(BaseModel):
    """Base of every part of the tree: frozen, no unknown keys, no NaN or inf."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class Phantoms(Config):
    """Cases that the platform draws itself, where there is no data."""

    cases: int = Field(12, ge=1, le=10_000, description="number of phantoms")
    seed: int = Field(0, ge=0, description="seed of the drawing")
    shape: Triple = Field((80, 96, 80), description="voxels of each volume")
    spacing: PositiveFloat = Field(
        2.0, le=20, description="mm per voxel, isotropic; a coarser brain has no room for a lesion"
    )


class Split(Config):
    """Which cases train, validate and test: three lists of names in files, or seeded counts."""

    train: str | None = Field(None, description="text file, one case name a line")
    validation: str | None = Field(None, description="text file; without it nothing is validated on")
    test: str | None = Field(None, description="text file")
    counts: tuple[int, int, int] | None = Field(
        None, description="cases to train, validate, test on, drawn at random; instead of files"
    )
    seed: int = Field(0, ge=0, description="seed of the draw by counts")

    @model_validator(mode="after")
    def _one_way(self) -> Split:
        files = [name for name in (self.train, self.validation, self.test) if name is not None]
        if files and self.counts is not None:
            raise ValueError("give either files (train, validation, test) or counts, not both")
        if files and self.train is None:
            raise ValueError("split files without a train file")
        if self.counts is not None and (min(self.counts) < 0 or self.counts[0] < 1):
            raise ValueError("counts must not be negative, and at least one case must train")
        return self


class Augmentation(Config):
    """RFNet's training transforms, in order: rotation, intensity, flips."""

    rotation: int = Field(
        10, ge=0, le=180, description="degrees: whole numbers in [-rotation, rotation), one random plane"
    )
    rotation_images: Literal["linear", "nearest"] = Field(
        "linear", description="how images are rotated; RFNet takes the nearest voxel, as for labels"
    )
    rotation_fill: Literal["background", "minus_one"] = Field(
        "background", description="what comes in at the corners; RFNet pads with -1 ('minus_one')"
    )
    intensity_scale: float = Field(0.1, ge=0, lt=1, description="times U(1 - s, 1 + s), per modality")
    intensity_shift: float = Field(0.1, ge=0, description="plus U(-s, s), per modality")
    intensity_per_slice: bool = Field(
        False, description="RFNet draws the intensity change per slice: on to follow it"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a flip, each axis")


class FilePatterns(Config):
    """Where a data set of other names than the built-in ones keeps its files, as paths below `data.root`.

    `{case}` stands for the case's name, `*` for anything within one folder's or file's name:
    "{case}/{case}_t1Gd.nii.gz".
    """

    FLAIR: str = Field(min_length=1, max_length=500, description="pattern of the FLAIR images")
    T1ce: str = Field(min_length=1, max_length=500, description="of T1 after contrast agent")
    T1: str = Field(min_length=1, max_length=500, description="of T1 without it")
    T2: str = Field(min_length=1, max_length=500, description="of the T2 images")
    segmentation: str = Field(min_length=1, max_length=500, description="of the segmentations")

    def parts(self) -> dict[str, str]:
        """Part of a case -> pattern."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class Missing(Config):
    """Modalities that are taken away from training cases: what a case lacks, no part of training ever sees.

    Of the training cases the given share lacks each modality, as near as whole cases come to it; every case
    keeps one at least. Validation and test cases stay whole.
    """

    FLAIR: float = Field(0.0, ge=0, lt=1, description="share of the training cases without FLAIR")
    T1ce: float = Field(0.0, ge=0, lt=1, description="share without T1 after contrast agent")
    T1: float = Field(0.0, ge=0, lt=1, description="share without T1")
    T2: float = Field(0.0, ge=0, lt=1, description="share without T2")
    seed: int = Field(0, ge=0, description="of the draw: which cases lack what")

    @model_validator(mode="after")
    def _one_stays(self) -> Missing:
        if (total := sum(self.rates().values())) > len(MODALITIES) - 1:
            raise ValueError(
                f"the shares add up to {total:g}; with more than 3 some case would keep no modality"
            )
        return self

    def rates(self) -> dict[str, float]:
        """Modality -> share of the cases that lack it."""
        return {name: getattr(self, name) for name in MODALITIES}


class Data(Config):
    """From files on disk to crops."""

    root: str | None = Field(None, description="folder of cases; or give phantoms")
    phantoms: Phantoms | None = Field(None, description="draw phantoms instead of reading a folder")
    files: FilePatterns | None = Field(
        None, description="paths of the files, where they are not named as a known data set names them"
    )
    scheme: str | None = Field(
        None, description="what the labels mean, where names do not tell: brats_ped2024 …; docs/data.md"
    )
    labels: dict[LabelValue, Literal["background", "NCR", "ED", "ET"]] | None = Field(
        None,
        description="what each value of a segmentation means, instead of a scheme: {1: NCR, 2: ED, 3: ET}",
    )
    patients: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description=(
            "who was scanned, where names do not tell: a .csv or .tsv file of columns case and patient, or a "
            "regular expression whose first group is the patient. None: what known data sets' names say"
        ),
    )
    split: Split = Field(default_factory=Split)
    spacing: PositiveFloat | None = Field(
        None,
        description=(
            "mm, isotropic, at which the model works; none: as in the files. Scores are always at the files'"
        ),
    )
    min_size: Sides = Field(
        128,
        description="voxels: each side of the brain box is grown to at least this, or to one size per axis "
        "(RFNet: 128)",
    )
    last_slice: bool = Field(
        True,
        description="whether the box holds the last slice of brain on each axis; RFNet leaves it out (false)",
    )
    normalisation: Literal["zscore", "clip", "minmax"] = Field(
        "zscore",
        description="of each modality: mean 0 and deviation 1 in the brain (RFNet); 'clip': the same of "
        "intensities that are cut at percentiles of the brain; 'minmax': cut too, then from 0 to 1",
    )
    percentiles: tuple[Percentile, Percentile] | None = Field(
        None,
        description="of the brain, at which 'clip' and 'minmax' cut; none: 0.2 and 99.8 for 'clip', 1 and 99 "
        "for 'minmax'",
    )
    background: Literal["zero", "normalised"] = Field(
        "zero", description="outside the brain: 0, or normalised with the rest as RFNet does"
    )
    crop: Triple = Field((80, 80, 80), description="voxels of a training crop (paper: 80³)")
    lesion_crops: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of crops centred on a lesion voxel; paper and RFNet: 0, uniform crops",
    )
    augmentation: Augmentation = Field(default_factory=Augmentation)
    incomplete: bool = Field(
        False,
        description="whether cases whose files lack modalities take part with what they have; off: they are "
        "refused. Those to be tested are scored on the subsets that they have, apart from the others",
    )
    missing: Missing | None = Field(
        None,
        description="modalities that training cases are to lack, drawn by seed: {T1ce: 0.4, T2: 0.2, "
        "seed: 1} (PASSION: a rate per modality); none: they have all",
    )

    @model_validator(mode="after")
    def _fits(self) -> Data:
        if self.root is not None and self.phantoms is not None:
            raise ValueError("give either root or phantoms, not both")
        if self.labels is not None and self.scheme is not None:
            raise ValueError("give either labels or scheme, not both")
        if self.files is not None and self.labels is None and self.scheme is None:
            raise ValueError("files of other names need labels or a scheme: say what the labels mean")
        if any(side > least for side, least in zip(self.crop, self.least, strict=True)):
            raise ValueError(
                f"crop {self.crop} is larger than min_size "
                f"{self.min_size}: a box could be smaller than a crop"
            )
        if self.percentiles is not None:
            if self.normalisation == "zscore":
                raise ValueError("percentiles have no effect with normalisation 'zscore': remove them")
            if self.percentiles[0] >= self.percentiles[1]:
                raise ValueError(f"percentiles {self.percentiles}: give the lower one first")
        return self

    @field_validator("min_size")
    @classmethod
    def _one_number(cls, value: int | Triple) -> int | Triple:
        """Three equal sides are one number, so that equal choices have equal hashes."""
        return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value

    @property
    def least(self) -> Triple:
        """`min_size` axis by axis, voxels."""
        return self.min_size if isinstance(self.min_size, tuple) else (self.min_size,) * 3

    @property
    def cut(self) -> tuple[float, float] | None:
        """The percentiles at which intensities are cut; none: they are not."""
        if self.normalisation == "zscore":
            return None
        return self.percentiles or ((0.2, 99.8) if self.normalisation == "clip" else (1.0, 99.0))


class MethodChoice(Config):
    """Which method, with its own options; `methods.resolve` validates them and fills in the defaults."""

    name: str = Field("acdis", description="a registered method")
    options: dict[str, Any] = Field(default_factory=dict, description="what only this method knows")
    options_for: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="{method: its options}, used when a row or an override chooses that method instead",
    )
    parents: dict[str, str] = Field(
        default_factory=dict,
        description="{role: a row of the same spec, or a trained cell}: whose weights it starts or learns "
        "from; trained first, with the same seed unless a cell is named",
    )


class Training(Config):
    """The recipe. Everything here changes the weights."""

    epochs: PositiveInt = Field(500, le=1_000_000, description="paper: 500")
    batch_size: PositiveInt = Field(
        2,
        le=1_000_000,
        description="volumes per optimiser step, over all workers and accumulation steps (paper: 2)",
    )
    iterations: PositiveInt | None = Field(
        150,
        le=1_000_000,
        description="optimiser steps per epoch (RFNet: 150, the paper gives none); none: one pass over the "
        "cases (110 for 219 cases at batch 2)",
    )
    learning_rate: PositiveFloat = Field(1e-4, description="Adam's (paper: 1e-4)")
    weight_decay: float = Field(1e-4, ge=0, description="Adam's L2 (paper: 1e-4)")
    amsgrad: bool = Field(True, description="RFNet: on")
    poly_power: float = Field(
        0.9, ge=0, description="learning rate × (1 - epoch/epochs)^power, per epoch (RFNet: 0.9)"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="bf16 autocast where the hardware has it, else fp32; resolved before the run is named",
    )
    validate_every: PositiveInt = Field(
        10, description="epochs between validations; the last epoch is always validated"
    )
    selection: Literal["last", "best"] = Field(
        "last",
        description=(
            "weights that are kept: the last epoch's (RFNet), or those of the best validation mean Dice"
        ),
    )


class LargestComponent(Config):
    """Of the whole tumour the largest component alone stays."""

    rule: Literal["largest_component"] = Field(description="which rule this is")

    def words(self) -> str:
        """For a report."""
        return self.rule


class SmallComponents(Config):
    """Components of the whole tumour that are small become background."""

    rule: Literal["small_components"] = Field(description="which rule this is")
    volume: PositiveFloat = Field(2000.0, description="mm³: smaller ones go (M3AE: 2,000 voxels at 1 mm)")
    share: float = Field(
        0.1, gt=0, le=1, description="of the largest component: what is not below it too stays (M3AE: 0.1)"
    )

    def words(self) -> str:
        """For a report."""
        return f"{self.rule} (below {self.volume:g} mm³ and {100 * self.share:g} % of the largest)"


class SmallET(Config):
    """An enhancing tumour that is small as a whole becomes NCR/NET."""

    rule: Literal["small_et"] = Field(description="which rule this is")
    volume: PositiveFloat = Field(500.0, description="mm³: below it (M3AE and others: 500 voxels at 1 mm)")

    def words(self) -> str:
        """For a report."""
        return f"{self.rule} (below {self.volume:g} mm³)"


PostProcessing = Annotated[LargestComponent | SmallComponents | SmallET, Field(discriminator="rule")]


class Evaluation(Config):
    """How a trained model is scored. Nothing here changes the weights, unless selection is 'best'."""

    window: Triple = Field((80, 80, 80), description="voxels of a sliding window (RFNet: 80³)")
    stride: Triple = Field(
        (40, 40, 40), description="voxels between windows; the last one is flush with the edge (RFNet: 40)"
    )
    window_weights: Literal["constant", "gaussian"] = Field(
        "constant",
        description="of a window's voxels where windows overlap: all the same (RFNet), or a Gaussian about "
        "its centre, an eighth of a side wide, so that no straight line shows where a window ends",
    )
    hd95: bool = Field(True, description="also the 95th percentile Hausdorff distance, mm")
    hd95_convention: Literal["max", "pooled"] = Field(
        "max",
        description="the larger of the two directed 95th percentiles (MONAI), or the 95th "
        "percentile of the distances of both directions together (medpy)",
    )
    et_minimum: float = Field(
        500.0, ge=0, description="mm³: dice_et500 empties a predicted ET smaller than this (RFNet: 500)"
    )
    post_processing: tuple[PostProcessing, ...] = Field(
        (),
        max_length=20,
        description="what is done to predicted labels, one after the other: [{rule: largest_component}, "
        "{rule: small_components}, {rule: small_et, volume: 500}]; RFNet, ACDIS: nothing",
    )
    metrics: tuple[str, ...] = Field(
        (),
        description="what is scored besides Dice and HD95 (docs/metrics.md): brats2023, brats2023_men or "
        "brats2023_met, brats2026, nsd, volume, sensitivity, precision, calibration",
    )
    box: Literal["all", "given"] = Field(
        "all",
        description=(
            "what box, brain mask and normalisation of a test case come from: all four modalities, as the "
            "field's benchmarks have it, or those of the subset alone, as `predict` does; validation: all"
        ),
    )

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """In the vocabulary's order, so that equal choices have equal hashes."""
        for name in names:
            if name not in NAMED_METRICS:
                raise ValueError(f"{name!r} is no metric; known are {', '.join(NAMED_METRICS)}")
        chosen = tuple(name for name in NAMED_METRICS if name in names)
        rules = [name for name in chosen if name.startswith("brats2023")]
        if len(rules) > 1:
            raise ValueError(f"{' and '.join(rules)} give the same scores by different rules: name one")
        return chosen

    def dice_alone(self) -> Evaluation:
        """The same without distances and further metrics."""
        return self.model_copy(update={"hd95": False, "hd95_convention": "max", "metrics": ()})

    def processing_in_words(self) -> str:
        """The rules of `post_processing` in their order; empty where there is none."""
        return ", ".join(rule.words() for rule in self.post_processing)

    @model_validator(mode="after")
    def _covers(self) -> Evaluation:
        if self.hd95_convention != "max" and not self.hd95:
            raise ValueError("hd95_convention says how HD95 is computed, and hd95 is false: leave one out")
        if any(stride > window for stride, window in zip(self.stride, self.window, strict=True)):
            raise ValueError(
                f"stride {self.stride} is larger than window {self.window}: voxels would be left out"
            )
        return self


class Scaling(Config):
    """Where and how wide it runs. Nothing here changes the numbers beyond rounding."""

    workers: PositiveInt = Field(1, description="processes of data-parallel training")
    min_workers: PositiveInt | None = Field(
        None,
        description=(
            "fewest workers that a training goes on with when nodes are lost, the batch kept; it grows again "
            "when they are back. None: it waits until all workers have a place"
        ),
    )
    resize_seconds: PositiveFloat = Field(
        60.0, description="with min_workers: seconds between looks whether there is room for more workers"
    )
    patience: PositiveFloat = Field(
        3600.0, description="seconds that a training waits for its workers' places before it fails"
    )
    accumulation: PositiveInt = Field(
        1, description="pieces in which a worker takes its share of the batch, to save memory"
    )
    gpu: bool = Field(False, description="a GPU per worker, or `gpus_per_worker` of one")
    gpus_per_worker: float = Field(
        1.0,
        gt=0,
        le=1,
        description="with gpu: a worker's share of a card, such as 0.33: three cells train on one card",
    )
    deterministic: bool = Field(
        False,
        description=(
            "on a GPU: only algorithms that give the same bits each time, where there are such; slower. "
            "A CPU's are so without it"
        ),
    )
    cpus_per_worker: PositiveInt | None = Field(None, description="none: the node's CPUs shared out evenly")
    loader_threads: PositiveInt = Field(
        1, le=1024, description="threads that prepare crops ahead, per worker"
    )
    metric_processes: int | None = Field(
        None,
        ge=0,
        le=64,
        description=(
            "per worker, that compute HD95 and further metrics while the next case is predicted, some 400 MB "
            "each. None: on a GPU one per CPU of the worker but one, at most 8; without a GPU 0, this "
            "process itself"
        ),
    )
    activation_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, more time"
    )
    checkpoint_minutes: PositiveFloat | None = Field(
        None,
        description=(
            "minutes between checkpoints, written at the end of an epoch: what breaks costs as much, and an "
            "epoch stands in journal, MLflow and `status`, and is looked at by a search, once it is in one. "
            "None: after every epoch"
        ),
    )
    max_failures: int = Field(
        3, ge=0, description="how often Ray restarts a failed training from its last checkpoint"
    )
    storage: str | None = Field(
        None,
        min_length=1,
        description=(
            "object store that keeps each cell's folder after every epoch, such as s3://bucket/prefix: a "
            "machine without the folder goes on from there. None: ACDIS_HOME alone"
        ),
    )

    @model_validator(mode="after")
    def _fewest(self) -> Scaling:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than workers {self.workers}")
        if self.gpus_per_worker < 1 and self.workers > 1:
            raise ValueError("gpus_per_worker below 1 takes workers 1: two ranks cannot meet on one card")
        return self

    @property
    def gpus(self) -> float:
        """GPUs of a worker: 0, 1 or a share of one."""
        return self.gpus_per_worker if self.gpu else 0

    @property
    def least(self) -> int:
        """Workers without which there is no training."""
        return self.min_workers or self.workers


class Tracking(Config):
    """Where MLflow keeps the run."""

    uri: str | None = Field(
        None, description="MLflow server or store; none: $MLFLOW_TRACKING_URI, else SQLite in ACDIS_HOME"
    )
    system_metrics: bool = Field(
        False,
        description="each epoch takes MLflow's system metrics with it (processors, memory, disk, network; "
        "GPUs where nvidia-ml-py is installed), of the first worker's machine",
    )
    log_model: bool = Field(
        False,
        description="every cell becomes a model in MLflow (LoggedModel) when it is scored, as with "
        "`export --log-model`; some half a minute each",
    )
    register_as: str | None = Field(
        None,
        pattern=r"^[^/:]{1,200}$",
        description="with log_model: each is also a version of this name in MLflow's registry of models",
    )
    experiment: str = Field(
        "acdis", min_length=1, max_length=200, description="name of the MLflow experiment"
    )

    @model_validator(mode="after")
    def _has_effect(self) -> Tracking:
        if self.register_as and not self.log_model:
            raise ValueError("register_as names a model that log_model=false does not log: set that too")
        return self


class Planning(Config):
    """What `plan` reckons with. Nothing here changes what is trained."""

    price_per_gpu_hour: float | None = Field(
        None, gt=0, lt=1e6, description="of one GPU, in any currency; none: `plan` says no price"
    )


class Experiment(Config):
    """Everything that one training needs."""

    seed: int = Field(0, ge=0, lt=2**31, description="of first weights, crops, augmentation, subsets")
    recipe: Literal["common", "published"] = Field(
        "common",
        description="'published': what the method's authors set lies over this file, and under a row's `set` "
        "and the command line; 'common': the same for all methods",
    )
    scored: bool = Field(
        True,
        description="whether the test cases are scored; off for a first stage or a teacher, which stands "
        "in no table then",
    )
    data: Data = Field(default_factory=Data)
    method: MethodChoice = Field(default_factory=MethodChoice)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    scaling: Scaling = Field(default_factory=Scaling)
    planning: Planning = Field(default_factory=Planning)
    tracking: Tracking = Field(default_factory=Tracking)  # the last: half a file lacks it, see `cells.damage`

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        shares = self.scaling.workers * self.scaling.accumulation
        if self.training.batch_size % shares:
            raise ValueError(
                f"training.batch_size {self.training.batch_size} cannot be shared evenly by "
                f"{self.scaling.workers} workers × {self.scaling.accumulation} accumulation steps"
            )
        sides = zip(self.evaluation.window, self.data.least, strict=True)
        if any(side > least for side, least in sides):
            raise ValueError(
                f"evaluation.window {self.evaluation.window} is larger "
                f"than data.min_size {self.data.min_size}"
            )
        return self
