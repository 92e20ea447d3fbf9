"""The loop: what it tells in which order, what it keeps, and what must not change the weights."""

import json

import pytest
import torch

from acdis import methods
from acdis.errors import UserError
from acdis.methods.acdis.network import ACDIS
from acdis.training import checkpoint, loop, preflight
from acdis.training.events import EpochEnd, Projection, Saving, Scoring, Step
from acdis.training.group import Group

TWO = {"training.epochs": 2}


def same_weights(one, other):
    weights, others = one.method.state_dict(), other.method.state_dict()
    return weights.keys() == others.keys() and all(
        torch.equal(weights[name], others[name]) for name in weights
    )


def terms(run):
    return [entry["terms"] for entry in run.history]


@pytest.fixture(scope="module")
def usual(small, three, tmp_path_factory):
    """Two epochs, synthesis in the second; the run and its events."""
    events = []
    folder = tmp_path_factory.mktemp("usual")
    return loop.train(small(TWO, synthesis_start=1), three, folder, Group(), events.append), events, folder


def test_order_of_events(small, entries, train, tmp_path):
    """Three cases, batches of two: two steps an epoch. The second and the last epoch are validated."""
    settings = {"training.epochs": 3, "training.validate_every": 2}
    _, events = train(small(settings), tmp_path, loop.Cases(entries[:3], entries[3:5]))
    steps = [Step, Step]
    scoring = [Scoring, Scoring]
    saved = [Saving, EpochEnd]
    validated = [*steps, *scoring, *saved]
    assert [type(event) for event in events] == [Projection, *steps, *saved, *validated, *validated]
    assert [event.epoch for event in events if isinstance(event, Saving)] == [1, 2, 3]
    counted = [
        (event.epoch, event.step, event.steps, event.epochs) for event in events if isinstance(event, Step)
    ]
    assert counted == [(epoch, step, 2, 3) for epoch in (1, 2, 3) for step in (1, 2)]
    assert [event.epoch for event in events if isinstance(event, EpochEnd)] == [1, 2, 3]
    assert [(event.done, event.cases) for event in events if isinstance(event, Scoring)] == [
        (1, 2),
        (2, 2),
    ] * 2
    ends = [event for event in events if isinstance(event, EpochEnd)]
    assert [sorted(end.validation) for end in ends] == [
        [],
        *[["dice/ET/mean", "dice/TC/mean", "dice/WT/mean", "dice/mean"]] * 2,
    ]
    regions = [ends[2].validation[f"dice/{region}/mean"] for region in ("WT", "TC", "ET")]
    assert ends[2].validation["dice/mean"] == pytest.approx(sum(regions) / 3)


def test_an_epochs_terms(usual):
    """They add up to the loss, whose mean over the steps it is; MFSB's appear when it does."""
    run, events, _ = usual
    for number, entry in enumerate(run.history, 1):
        values = entry["terms"]
        own = [name for name in values if name != "loss" and not name.startswith("flat_windows")]
        assert values["loss"] == pytest.approx(sum(values[name] for name in own), rel=1e-5)
        losses = [event.loss for event in events if isinstance(event, Step) and event.epoch == number]
        assert values["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
        assert ("synthesis/mse" in values) == (number == 2)


def test_the_checkpoint_is_there_when_the_end_of_an_epoch_is_told(small, three, tmp_path):
    """With the history up to that epoch, equal to the events."""
    ends = []

    def listen(event):
        if isinstance(event, EpochEnd):
            ends.append(event.as_dict())
            assert json.loads(checkpoint.load(tmp_path / loop.LAST)["history"]) == ends

    run = loop.train(small(TWO), three, tmp_path, Group(), listen)
    assert run.history == ends


def test_who_may_no_longer_write_leaves_the_checkpoints_as_they_are(small, entries, tmp_path):
    """Told after the validation and before anything of the epoch is on the disk, the best weights too."""

    class Fenced(Exception):  # noqa: N818  it says what happened
        pass

    def listen(event):
        if isinstance(event, Saving) and event.epoch == 2:
            raise Fenced

    experiment = small({**TWO, "training.selection": "best", "training.validate_every": 2})
    with pytest.raises(Fenced):
        loop.train(experiment, loop.Cases(entries[:3], entries[3:4]), tmp_path, Group(), listen)
    assert len(json.loads(checkpoint.load(tmp_path / loop.LAST)["history"])) == 1
    assert {path.name for path in tmp_path.iterdir()} == {loop.LAST}


def test_learning_rate(small, train, tmp_path):
    """rate × (1 - epoch / epochs)^0.9, epochs from 0; the discriminator's own rate decays in the same way."""
    settings = {"training.epochs": 3, "training.learning_rate": 2e-3, "training.iterations": 1}
    run, _ = train(small(settings, synthesis=["adver"], discriminator_learning_rate=3e-4), tmp_path)
    factors = [(1 - epoch / 3) ** 0.9 for epoch in range(3)]
    assert [entry["learning_rate"] for entry in run.history] == pytest.approx([2e-3 * f for f in factors])
    used = {name: optimiser.param_groups[0]["lr"] for name, optimiser in run.optimisers.items()}
    assert used == pytest.approx({"main": 2e-3 * factors[2], "discriminator": 3e-4 * factors[2]})


def test_number_of_loader_threads(usual, small, train, tmp_path):
    run, _ = train(small({**TWO, "scaling.loader_threads": 3}, synthesis_start=1), tmp_path)
    assert same_weights(run, usual[0])
    assert terms(run) == terms(usual[0])


def test_order_of_the_cases(usual, small, train, three, tmp_path):
    backwards = loop.Cases(three.train[::-1])
    run, _ = train(small(TWO, synthesis_start=1), tmp_path, backwards)
    assert same_weights(run, usual[0])


def test_the_seed_changes_the_weights(usual, small, train, tmp_path):
    run, _ = train(small({**TWO, "seed": 1}, synthesis_start=1), tmp_path)
    assert not same_weights(run, usual[0])


def test_the_callers_random_state_does_not_matter(small):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = loop.new_method(small()).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    other = loop.new_method(small()).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_preflight_leaves_no_trace(small, three, tmp_path):
    """Nor in the running statistics of batch norm."""
    run = loop.begin(small(synthesis_start=1, norm="batch"), tmp_path, Group())
    before = {name: value.clone() for name, value in run.method.state_dict().items()}
    projection = preflight.project(run, three)
    after = run.method.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in run.method.parameters())
    assert not any(optimiser.state for optimiser in run.optimisers.values())
    assert projection.remaining_seconds == pytest.approx(projection.step_seconds * 2 * 4)


def test_training_without_preflight_is_the_same(usual, small, train, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "project", lambda run, cases: Projection(0, 2, 0.0, 0.0, 0))
    run, _ = train(small(TWO, synthesis_start=1), tmp_path)
    assert same_weights(run, usual[0])
    assert terms(run) == terms(usual[0])


def test_activation_checkpointing(usual, small, train, tmp_path):
    """Only memory and time differ: weights are the same within rounding, of which Adam's division makes more.

    Where a gradient is next to nothing its sign is rounding, and Adam makes a whole step of 1e-4 of it: so
    one weight in a thousand may differ by more than a fifth of a step, none by more than the steps allow.
    """
    run, _ = train(small({**TWO, "scaling.activation_checkpointing": True}, synthesis_start=1), tmp_path)
    pairs = zip(run.method.parameters(), usual[0].method.parameters(), strict=True)
    apart = torch.cat([(ours - usual_one).detach().float().abs().flatten() for ours, usual_one in pairs])
    steps = max(int(kept["step"]) for kept in run.optimisers["main"].state.values())
    assert (apart > 2e-5).float().mean() < 1e-3
    assert apart.max() <= 2 * 1e-4 * steps


def fake_scores(monkeypatch, dice):
    """Validations that come out as these, one after the other."""
    coming = iter(dice)
    monkeypatch.setattr(loop, "validate", lambda *_: {"dice/mean": next(coming)})


@pytest.mark.parametrize(("selection", "kept"), [("best", 2), ("last", 4)])
def test_selection(small, entries, tmp_path, monkeypatch, selection, kept):
    """Of validation Dice 0.1, 0.4, 0.4, 0.3 the first of the best counts."""
    fake_scores(monkeypatch, (0.1, 0.4, 0.4, 0.3))
    after = {}

    def listen(event):
        if isinstance(event, EpochEnd):
            after[event.epoch] = checkpoint.load(tmp_path / loop.LAST)["method"]

    settings = {"training.selection": selection, "training.iterations": 1}
    cases = loop.Cases(entries[:3], entries[3:4])
    run = loop.train(small(settings), cases, tmp_path, Group(), listen)
    final = loop.final_state(run, tmp_path)
    assert not any(name.startswith(("auxiliary_", "discriminator")) for name in final)
    assert all(torch.equal(value, after[kept][name]) for name, value in final.items())
    assert run.best == ({"dice": 0.4, "epoch": 2.0} if selection == "best" else {})
    assert (tmp_path / loop.BEST).exists() == (selection == "best")
    differing = [name for name in final if not torch.equal(after[2][name], after[4][name])]
    assert differing  # the test can tell the two apart


def test_the_best_is_remembered_over_a_restart(small, entries, tmp_path, monkeypatch):
    """The second process finds that nothing it does is better."""
    settings = {"training.selection": "best", "training.iterations": 1}
    cases = loop.Cases(entries[:3], entries[3:4])
    fake_scores(monkeypatch, (0.1, 0.4))

    def stop(event):
        if isinstance(event, EpochEnd) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(small(settings), cases, tmp_path, Group(), stop)
    best = checkpoint.load(tmp_path / loop.BEST)
    fake_scores(monkeypatch, (0.3, 0.2))
    run = loop.train(small(settings), cases, tmp_path, Group(), lambda event: None)
    assert run.best == {"dice": 0.4, "epoch": 2.0}
    final = loop.final_state(run, tmp_path)
    assert all(torch.equal(final[name], best[name]) for name in best)


def test_the_best_of_nothing_is_refused(small, train, tmp_path):
    with pytest.raises(UserError, match=r"training\.selection: 'best' needs validation cases"):
        train(small({"training.selection": "best"}), tmp_path)


class Feedback(ACDIS):
    """Nesterov SGD on one cycle, and a rate that validation lowers: as a method's authors may have it."""

    def __init__(self, options):
        super().__init__(options)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.float64))
        self.asked = []

    def optimisers(self, recipe):
        groups = self.parameter_groups().items()
        return {name: torch.optim.SGD(group, lr=1.0, momentum=0.9, nesterov=True) for name, group in groups}

    def settings_at(self, epochs, recipe):
        self.asked.append(epochs)
        peak = 1 - abs(2 * epochs / recipe.epochs - 1)
        value = {"lr": 1e-4 * (0.1 + peak) / (1 + float(self.seen.sum())), "momentum": 0.95 - 0.1 * peak}
        return dict.fromkeys(self.parameter_groups(), value)

    def wants_validation(self, epoch):
        return epoch == 1

    def validated(self, epoch, summary):
        self.seen += torch.tensor([summary["dice/WT/FLAIR_T2"], summary["dice/ET/mean"]]) + epoch


def test_own_optimiser_schedule_and_feedback_resume_to_the_last_bit(small, entries, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "build", lambda name, **options: Feedback(methods.validate(name, options)))
    settings = {"training.epochs": 3, "training.iterations": 2, "training.validate_every": 50}
    experiment = small(settings, norm="batch")
    cases = loop.Cases(entries[:3], entries[3:4])

    def stop(event):
        if isinstance(event, EpochEnd) and event.epoch == 2:
            raise KeyboardInterrupt

    whole = loop.train(experiment, cases, tmp_path / "whole", Group(), lambda event: None)
    with pytest.raises(KeyboardInterrupt):
        loop.train(experiment, cases, tmp_path / "parts", Group(), stop)
    # With other workers the sums round otherwise, but training goes on from the same state.
    wider = experiment.model_copy(update={"scaling": experiment.scaling.model_copy(update={"workers": 2})})
    taken_up = loop.begin(wider, tmp_path / "parts", Group())
    state = checkpoint.load(tmp_path / "parts" / loop.LAST)["optimisers"]
    for name, optimiser in taken_up.optimisers.items():
        assert str(optimiser.state_dict()) == str(state[name])
    parts = loop.train(experiment, cases, tmp_path / "parts", Group(), lambda event: None)
    assert same_weights(whole, parts)
    assert terms(whole) == terms(parts)
    for one, other in zip(whole.optimisers.values(), parts.optimisers.values(), strict=True):
        assert str(one.state_dict()) == str(other.state_dict())
    assert [bool(entry["validation"]) for entry in whole.history] == [False, True, True]
    assert whole.method.asked == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]  # before every step
    assert float(whole.method.seen.sum()) > 1 + 2 + 1 + 2 - 0.1  # both epochs told, each to both


def test_what_a_method_adopts_of_its_parents_is_there_before_the_first_step(small, tmp_path, monkeypatch):
    """Also before a checkpoint is taken up, which has the last word."""

    class Pupil(ACDIS):
        def adopt(self, role, state):
            assert role == "start"
            self.load_inference_state(state)

    monkeypatch.setattr(methods, "build", lambda name, **options: Pupil(methods.validate(name, options)))
    experiment = small()
    parent = loop.new_method(experiment.model_copy(update={"seed": 7}))
    (tmp_path / "acdis-parent").mkdir()
    checkpoint.save(tmp_path / "acdis-parent" / "weights.pt", parent.inference_state())
    chosen = experiment.method.model_copy(update={"parents": {"start": "acdis-parent"}})
    pupil = loop.begin(experiment.model_copy(update={"method": chosen}), tmp_path / "acdis-pupil", Group())
    expected = parent.inference_state()
    assert all(torch.equal(pupil.method.state_dict()[name], value) for name, value in expected.items())
    with pytest.raises(UserError, match=r"method\.parents: Pupil takes no parent as 'teacher'"):
        ACDIS.adopt(pupil.method, "teacher", expected)
