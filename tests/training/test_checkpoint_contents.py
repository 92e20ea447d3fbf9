"""What a checkpoint says beside the weights: taken as it was written, refused where it would fail later."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from acdis.errors import UserError
from acdis.training import checkpoint, checkpoint_contents

ENTRY = {
    "epoch": 1,
    "epochs": 3,
    "terms": {"loss": 1.0},
    "learning_rate": 0.1,
    "seconds": 1.0,
    "validation": {},
}


#: Any optimiser will do: its class, and settings under which its state is what others' is not.
KINDS = [
    (torch.optim.Adam, {"amsgrad": True}),
    (torch.optim.Adam, {"amsgrad": False}),
    (torch.optim.AdamW, {}),
    (torch.optim.RAdam, {"weight_decay": 3e-5}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.99, "nesterov": True}),
    (torch.optim.SGD, {"lr": 0.1}),
]


def _optimiser(steps=1, kind=torch.optim.Adam, **settings):
    torch.manual_seed(0)
    weights = [
        torch.nn.Parameter(torch.randn(3, 2)),
        torch.nn.Parameter(torch.randn(2)),
        torch.nn.Parameter(torch.randn(1)),
    ]
    optimiser = kind(weights, **(({"amsgrad": True} if kind is torch.optim.Adam else {}) | settings))
    for weight in weights[:2]:  # the third belongs to a block that is not active yet
        weight.grad = torch.ones_like(weight)
    for _ in range(steps):
        optimiser.step()
    return optimiser


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_an_optimiser_goes_on_as_if_it_had_not_stopped(kind, settings):
    whole, taken_up = _optimiser(2, kind, **settings), _optimiser(1, kind, **settings)
    state = copy.deepcopy(_optimiser(1, kind, **settings).state_dict())
    checkpoint_contents.load_optimiser(taken_up, state)
    for weight in taken_up.param_groups[0]["params"][:2]:
        weight.grad = torch.ones_like(weight)
    taken_up.step()
    ours, theirs = taken_up.state_dict()["state"], whole.state_dict()["state"]
    assert all(torch.equal(ours[index][name], theirs[index][name]) for index in ours for name in ours[index])
    assert list(ours) == ([0, 1] if kind is not torch.optim.SGD or "momentum" in settings else [])
    pairs = zip(whole.param_groups[0]["params"], taken_up.param_groups[0]["params"], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    for other, others in KINDS:
        strange = _optimiser(1, other, **others)
        if (other, others) != (kind, settings):
            with pytest.raises((ValueError, TypeError, LookupError)):
                checkpoint_contents.load_optimiser(strange, state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state["state"][0].update(exp_avg=torch.zeros(2, 3)),
        lambda state: state["state"][0].update(exp_avg=[0.0]),
        lambda state: state["state"][0].update(exp_avg=torch.zeros(3, 2, dtype=torch.int64)),
        lambda state: state["state"][1].update(step=torch.zeros(2)),
        lambda state: state["state"][1].pop("exp_avg_sq"),
        lambda state: state["state"][1].update(more=torch.zeros(2)),
        lambda state: state["state"].update({7: state["state"][1]}),
        lambda state: state["state"].update({-1: state["state"][1]}),
        lambda state: state["param_groups"].clear(),
        lambda state: state["param_groups"][0].update(maximize=True),
        lambda state: state["param_groups"][0].update(betas=(0.0, 0.0)),
        lambda state: state["param_groups"][0].update(lr="fast"),
        lambda state: state["param_groups"][0].update(params=[0, 1]),
        lambda state: state["param_groups"][0].update(more=1),
    ],
)
def test_states_of_other_optimisers_are_refused(damage):
    """PyTorch takes most of these, fails at the first step, or trains differently."""
    state = copy.deepcopy(_optimiser().state_dict())
    damage(state)
    with pytest.raises((ValueError, TypeError, LookupError)):
        checkpoint_contents.load_optimiser(_optimiser(), state)


def test_what_is_scheduled_may_differ():
    checkpoint_contents.load_optimiser(_optimiser(), _optimiser(lr=0.5).state_dict())
    sgd = torch.optim.SGD
    one, other = (_optimiser(1, sgd, lr=0.1, momentum=momentum) for momentum in (0.8, 0.9))
    with pytest.raises(ValueError, match="momentum"):
        checkpoint_contents.load_optimiser(one, other.state_dict())
    checkpoint_contents.load_optimiser(one, other.state_dict(), ("lr", "momentum"))


def test_what_an_optimiser_keeps():
    """Of a weight: what the memory check counts beside the numbers."""
    for kind, settings, expected in (
        (torch.optim.Adam, {"amsgrad": True}, 3),
        (torch.optim.AdamW, {}, 2),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, 1),
        (torch.optim.SGD, {"lr": 0.1}, 0),
    ):
        optimiser = _optimiser(0, kind, **settings)
        assert (
            len(checkpoint_contents.state_of(optimiser, optimiser.param_groups[0]).like_weights) == expected
        )
        assert not optimiser.state


def test_a_history_counts_its_epochs():
    two = [ENTRY, {**ENTRY, "epoch": 2}]
    assert checkpoint_contents.history(json.dumps(two), 3) == two
    for wrong in ([two[1]], two * 2, {"a": 1}, [{**ENTRY, "terms": {"loss": "low"}}], [{"epoch": 1}], [1]):
        with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
            checkpoint_contents.history(json.dumps(wrong), 3)


def test_the_best_epoch_is_two_numbers_or_none():
    assert checkpoint_contents.best({}) == {}
    assert checkpoint_contents.best({"dice": 0.5, "epoch": 1.0}) == {"dice": 0.5, "epoch": 1.0}
    for wrong in ({"dice": 0.5}, {"dice": float("nan"), "epoch": 1.0}, {"dice": "x", "epoch": 1.0}):
        with pytest.raises((ValueError, TypeError)):
            checkpoint_contents.best(wrong)


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    """The archive has checksums; PyTorch does not look at them."""
    weights = torch.arange(1000.0)
    checkpoint.save(tmp_path / "a.pt", {"weights": weights})
    content = bytearray((tmp_path / "a.pt").read_bytes())
    at = content.index(weights.numpy().tobytes()) + 2000
    content[at] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        checkpoint.load(tmp_path / "a.pt")
    assert not torch.equal(torch.load(tmp_path / "a.pt", weights_only=True)["weights"], weights)


def test_a_tensor_that_claims_more_than_the_file_holds(tmp_path):
    """2⁴⁰ numbers, all the same one: whoever copies it takes 4 TB."""
    torch.save({"weights": torch.zeros(1).expand(2**40)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="claims the shape"):
        checkpoint.load(tmp_path / "a.pt")
