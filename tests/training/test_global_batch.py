"""One batch, spread over processes and accumulation steps: the same terms, gradients and weights.

Two ranks are two real processes with a gloo group and DDP. They are started once, for all tests here.
"""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from acdis.data.loader import share_of
from acdis.methods.base import MAIN
from acdis.training import loop
from acdis.training.group import Group
from acdis.training.step import pieces_of
from acdis.training.validation import shares

TINY = {"data.crop": [12, 12, 12]}
LATE = 3  # an epoch, counted from 0, in which every block is active; synthesis starts in the third
#: Rows of the batch. FLAIR and T2 are never missing; T1ce is in the rows of both ranks, T1 in the second row
#: alone: with two accumulation steps that is the last step of rank 0, and T1ce's is the first.
AVAILABLE = [(1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 1), (1, 0, 1, 1)]
#: Two ranks share it as three and two; with a piece no larger than a sample, in pieces of 2 + 1 and 1 + 1.
ODD = [*AVAILABLE, (1, 1, 0, 1)]
UNEVEN = {"uneven": 1, "uneven pieces": 5}
#: All losses or the default, type, epoch, and tolerances: of terms relative, of gradients by the largest one.
#: In fp32 the norms on the coarsest maps, of 4³ voxels, make up to 1e-4 of rounding; fp64 shows the equality.
VARIANTS = {
    "default fp32": (False, torch.float32, LATE, 1e-5, 5e-4),
    "all losses fp64": (True, torch.float64, LATE, 1e-6, 1e-10),  # terms are kept in fp32
    "waiting fp64": (True, torch.float64, 0, 1e-6, 1e-10),
}
#: Its statistics run over all ranks, so a batch cannot be had in pieces: over ranks alone, also unevenly.
BATCH_NORM = {"batch norm fp64": (True, torch.float64, LATE, 1e-6, 1e-10)}


#: Sizes of the pieces of a batch of five, per rank.
CUTS = ([[3], [2]], [[2, 1], [1, 1]])


@pytest.fixture(scope="session")
def task(small, three, all_losses):
    """The task of a variant, with the batch in so many pieces per process."""

    def build(variant, accumulation, workers=1, available=AVAILABLE):
        every, dtype, epoch, *_ = (VARIANTS | BATCH_NORM)[variant]
        settings = {"training.batch_size": len(available), "scaling.accumulation": accumulation}
        settings["scaling.workers"] = workers
        norm = {"norm": "batch"} if variant in BATCH_NORM else {}
        experiment = small({**settings, **TINY}, **(all_losses if every else {}), **norm)
        arguments = {"experiment": experiment, "cases": three, "epoch": epoch}
        return "gradients", {**arguments, "available": available, "dtype": dtype}

    return build


@pytest.fixture(scope="session")
def one_step_each(small, three, all_losses):
    """A step in each of the first three epochs, with a weight decay that would show."""
    experiment = small({**TINY, "training.weight_decay": 0.1}, synthesis_start=2, **all_losses)
    return "steps", {"experiment": experiment, "cases": three, "epochs": (0, 1, 2)}


@pytest.fixture(scope="session")
def validated_twice(small, entries):
    """Three epochs, of which the second and the last are validated on two cases."""
    settings = {**TINY, "training.epochs": 3, "training.iterations": 1, "training.validate_every": 2}
    return {"experiment": small(settings), "cases": loop.Cases(entries[:3], entries[3:5])}


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory, task, one_step_each, finish, small, three, validated_twice):
    """{task: results of the ranks}."""
    folder = tmp_path_factory.mktemp("ranks")
    names = [(variant, accumulation) for variant in VARIANTS for accumulation in (1, 2)]
    tasks = [task(*name, workers=2) for name in names]
    names += [(variant, how) for variant in VARIANTS for how in UNEVEN]
    tasks += [task(variant, 1, UNEVEN[how], ODD) for variant in VARIANTS for how in UNEVEN]
    experiment = small({**TINY, "training.epochs": 2}, synthesis_start=1)
    names += [(variant, rows) for variant in BATCH_NORM for rows in (len(AVAILABLE), len(ODD))]
    tasks += [task(variant, 1, 1, rows) for variant in BATCH_NORM for rows in (AVAILABLE, ODD)]
    names += [("pooled", str(cuts)) for cuts in CUTS]
    tasks += [("pooled", {"count": 5, "cuts": cuts}) for cuts in CUTS]
    tasks += [one_step_each, ("train", {"experiment": experiment, "cases": three, "folder": folder / "run"})]
    tasks += [("heard", {**validated_twice, "folder": folder / "heard"})]
    results = finish(folder, tasks, world=2)
    return dict(zip([*names, "steps", "train", "heard"], zip(*results, strict=True), strict=True))


@pytest.fixture(scope="session")
def alone(child, task):
    """The whole batch on one process, in one piece or several."""
    from acdis.training.group import Group

    known = {}

    def compute(variant, accumulation=1, available=AVAILABLE):
        key = variant, accumulation, len(available)
        if key not in known:
            name, arguments = task(variant, accumulation, available=available)
            known[key] = getattr(child, name)(Group(), **arguments)
        return known[key]

    return compute


def compare(variant, one, other):
    """(terms, gradients) against each other."""
    (terms, gradients), (other_terms, other_gradients) = one, other
    _, _, _, of_terms, of_gradients = (VARIANTS | BATCH_NORM)[variant]
    assert terms.keys() == other_terms.keys()
    for name, value in terms.items():
        assert other_terms[name] == pytest.approx(value, rel=of_terms), name
    active = {name for name, gradient in gradients.items() if gradient is not None}
    assert active == {name for name, gradient in other_gradients.items() if gradient is not None}
    largest = max(gradients[name].abs().max().item() for name in active)
    for name in active:
        difference = (gradients[name] - other_gradients[name]).abs().max().item()
        assert difference <= of_gradients * largest, name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_steps(variant, accumulation, alone):
    compare(variant, alone(variant), alone(variant, accumulation))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_ranks(variant, accumulation, alone, two_ranks):
    results = two_ranks[variant, accumulation]
    terms = {name: sum(result[0][name] for result in results) / 2 for name in results[0][0]}
    for _, gradients in results:
        compare(variant, alone(variant), (terms, gradients))


@pytest.mark.parametrize("variant", BATCH_NORM)
@pytest.mark.parametrize("rows", [AVAILABLE, ODD], ids=["even", "uneven"])
def test_batch_statistics_over_two_ranks(variant, rows, alone, two_ranks):
    """Terms, gradients and running statistics are those of the whole batch on one process."""
    results = two_ranks[variant, len(rows)]
    terms = {name: sum(result[0][name] for result in results) / 2 for name in results[0][0]}
    expected = alone(variant, available=rows)
    assert any(name.endswith("running_var") for name in expected[1])
    for _, gradients in results:
        compare(variant, expected, (terms, gradients))


@pytest.mark.parametrize("cuts", [[[5]], [[3, 2]], [[1] * 5], *CUTS], ids=str)
def test_what_is_pooled(cuts, child, two_ranks):
    """Sums of three shapes: the whole batch's value on every piece, and the whole batch's gradient."""
    arguments = {"count": 5, "cuts": cuts}
    (expected,), gradient = child.pooled(Group(), 5, [[5]])
    ranks = two_ranks["pooled", str(cuts)] if len(cuts) > 1 else [child.pooled(Group(), **arguments)]
    seen = [sums for sums_of_rank, _ in ranks for sums in sums_of_rank]
    assert all(torch.equal(sums, seen[0]) for sums in seen)
    torch.testing.assert_close(seen[0], expected, rtol=1e-12, atol=0)
    for _, found in ranks:
        torch.testing.assert_close(found, gradient, rtol=1e-12, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("how", UNEVEN)
def test_uneven_shares(variant, how, alone, two_ranks):
    """As after the loss of a node: the batch is what it was, each sample weighs the same."""
    results = two_ranks[variant, how]
    terms = {name: sum(result[0][name] for result in results) / 2 for name in results[0][0]}
    for _, gradients in results:
        compare(variant, alone(variant, available=ODD), (terms, gradients))


def test_fewer_workers_take_more_pieces(small):
    """None larger than with all workers, unless a worker of a smaller share would have none."""

    def sizes(world, batch_size, workers, accumulation=1):
        changes = {"training.batch_size": batch_size, "scaling.workers": workers}
        experiment = small({**changes, "scaling.accumulation": accumulation})
        parts = [share_of(batch_size, rank, world) for rank in range(world)]
        assert [sample for part in parts for sample in part] == list(range(batch_size))
        return [
            [piece.stop - piece.start for piece in pieces_of(experiment, len(share), world)]
            for share in parts
        ]

    assert sizes(4, 8, 4) == [[2]] * 4
    assert sizes(4, 8, 4, accumulation=2) == [[1, 1]] * 4
    assert sizes(3, 8, 4) == [[2, 1], [2, 1], [1, 1]]
    assert sizes(2, 8, 4) == [[2, 2]] * 2
    assert sizes(1, 8, 4) == [[2, 2, 2, 2]]
    assert sizes(2, 3, 3) == [[2], [1]]
    with pytest.raises(ValueError, match="has no share"):
        share_of(2, 0, 3)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_not_active_has_no_gradient(variant, world, alone, two_ranks):
    """In an epoch before synthesis no MFSB has one; later each has, though it be of 0."""
    _, gradients = alone(variant) if world == 1 else two_ranks[variant, 2][0]
    without = {".".join(name.split(".")[:2]) for name, gradient in gradients.items() if gradient is None}
    late = VARIANTS[variant][2] == LATE
    missing = set() if late else {f"synthesisers.{m}" for m in range(4)}
    others = {name for name in without if not name.startswith("synthesisers")}
    assert without - others == missing
    assert {name.split(".")[0] for name in others} == (set() if late else {"discriminator"})


@pytest.mark.parametrize("world", [1, 2])
def test_weights_that_wait_keep_their_bits(world, one_step_each, two_ranks, child):
    """Weight decay included; in the third epoch they move, and all others move in each."""
    from acdis.training.group import Group

    name, arguments = one_step_each
    first, second, third, fourth = (
        getattr(child, name)(Group(), **arguments) if world == 1 else two_ranks["steps"][0]
    )
    waiting = {name for name in first if name.startswith(("synthesisers.", "discriminator."))}
    assert {name.split(".")[0] for name in waiting} == {"synthesisers", "discriminator"}
    for name in first:
        moved = [not torch.equal(a, b) for a, b in ((first[name], second[name]), (second[name], third[name]))]
        assert moved == [name not in waiting] * 2, name
    moved = {name for name in waiting if not torch.equal(third[name], fourth[name])}
    assert any(name.startswith("synthesisers.") for name in moved)
    assert {name for name in waiting if name.startswith("discriminator.")} <= moved


def test_ranks_keep_equal_weights(two_ranks):
    """After two epochs, synthesis in the second."""
    one, other = two_ranks["train"]
    assert one["weights"].keys() == other["weights"].keys()
    for name, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][name]), name
    assert [entry["terms"] for entry in one["history"]] == [entry["terms"] for entry in other["history"]]


def test_two_ranks_train_as_one_process(two_ranks, train, small, tmp_path):
    """The history within what rounding makes of two epochs."""
    run, _ = train(small({**TINY, "training.epochs": 2}, synthesis_start=1), tmp_path)
    for entry, other in zip(run.history, two_ranks["train"][0]["history"], strict=True):
        assert other["terms"] == pytest.approx(entry["terms"], rel=1e-3)


def test_every_rank_hears_of_each_validation(two_ranks, validated_twice, child, tmp_path):
    """The same of both cases, of which each rank has scored one; as one process hears it."""
    one, other = two_ranks["heard"]
    assert one == other
    alone = child.heard(Group(), **validated_twice, folder=tmp_path / "alone")
    assert [epoch for epoch, _ in one] == [epoch for epoch, _ in alone] == [1, 2]
    for (_, summary), (_, expected) in zip(one, alone, strict=True):
        assert summary == pytest.approx(expected, abs=0.01)
        assert {"dice/WT/FLAIR_T2", "dice/ET/mean"} <= summary.keys()


@pytest.mark.parametrize("before", [1, 2])
def test_an_optimisers_state_is_the_checkpoints_whatever_the_number_of_workers(
    before, small, three, child, finish, tmp_path
):
    """Of one process or two, taken up by two or one: to the last bit on every rank."""
    arguments = {"experiment": small({**TINY, "training.batch_size": 4}), "cases": three}
    kinds = [("SGD", {"momentum": 0.9}), ("AdamW", {}), ("Adam", {"amsgrad": True})]
    tasks = [
        ("taken_up", {**arguments, "folder": tmp_path / kind, "kind": kind, "settings": settings})
        for kind, settings in kinds
    ]
    sides = [lambda: [[child.taken_up(Group(), **given) for _, given in tasks]]]
    sides.append(lambda: finish(tmp_path, tasks, world=2))
    written, *_ = sides[before - 1]()
    for rank in sides[2 - before]():
        for (kind, _), expected, found in zip(kinds, written, rank, strict=True):
            states, others = (side[MAIN]["state"] for side in (expected, found))
            assert states.keys() == others.keys(), kind
            kept = {key for state in states.values() for key in state}
            assert {"SGD": "momentum_buffer", "AdamW": "exp_avg_sq", "Adam": "max_exp_avg_sq"}[kind] in kept
            for index, state in states.items():
                assert all(torch.equal(value, others[index][key]) for key, value in state.items()), kind


def test_terms_are_of_the_main_optimiser_and_the_discriminator(small, all_losses, child):
    """The variants above cover both."""
    from acdis.training.run import new_method

    assert set(new_method(small(**all_losses)).parameter_groups()) == {MAIN, "discriminator"}


def test_workers_that_come_and_go_train_as_one_process(small, three, train, finish, tmp_path):
    """Two ranks in uneven shares, then one, then two: each goes on from the checkpoint of the one before."""
    settings = {**TINY, "training.epochs": 3, "training.batch_size": 3}
    experiment = small({**settings, "scaling.workers": 3}, synthesis_start=1)
    arguments = {"experiment": experiment, "cases": three, "folder": tmp_path / "run"}
    for epoch, world in ((1, 2), (2, 1), (None, 2)):
        results = finish(tmp_path / f"{world}-{epoch}", [("train", {**arguments, "until": epoch})], world)
    run, _ = train(small(settings, synthesis_start=1), tmp_path / "one")
    ((found,), (other,)) = results
    assert [entry["workers"] for entry in found["history"]] == [2, 1, 2]
    for entry, theirs in zip(run.history, found["history"], strict=True):
        assert theirs["terms"] == pytest.approx(entry["terms"], rel=1e-3)
    for name, weight in run.method.state_dict().items():
        assert torch.equal(found["weights"][name], other["weights"][name])
        # Adam divides by the root of the squared gradient: a tiny one's rounding shows in the size of a step
        assert torch.allclose(found["weights"][name].float(), weight.float(), atol=5e-3), name


@pytest.mark.parametrize("world", [1, 2, 3])
def test_cases_are_evened_out_over_ranks_by_voxels(world):
    """Each once, in their order; no rank has more than 4/3 - 1/(3n) of the best of all divisions."""
    sides = [
        (90, 90, 100),
        (10, 10, 10),
        (90, 90, 90),
        (12, 10, 10),
        (90, 80, 90),
        (11, 10, 10),
        (50, 60, 60),
    ]
    entries = [
        SimpleNamespace(name=f"{number}", meta=SimpleNamespace(box=SimpleNamespace(shape=shape)))
        for number, shape in enumerate(sides)
    ]
    found = shares(entries, world)
    assert sorted(entry.name for share in found for entry in share) == [str(n) for n in range(len(sides))]
    assert all([e.name for e in share] == sorted(e.name for e in share) for share in found)
    voxels = [math.prod(shape) for shape in sides]
    best = min(
        max(sum(v for v, at in zip(voxels, ranks, strict=True) if at == rank) for rank in range(world))
        for ranks in itertools.product(range(world), repeat=len(sides))
    )
    heaviest = max(sum(math.prod(entry.meta.box.shape) for entry in share) for share in found)
    assert heaviest <= (4 / 3 - 1 / (3 * world)) * best
    if world == 2:  # by turns the first would have three of the four large ones
        assert heaviest < max(sum(voxels[0::2]), sum(voxels[1::2]))
