"""When the faults of an ablation come: by plan, and never by luck a fault that has hit nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from storm import scene
from storm.scene import EPOCHS, Scene, plan, weather


@pytest.mark.parametrize(
    ("count", "epochs"), [(0, []), (1, [1]), (2, [1, 6]), (5, [1, 3, 5, 7, 9]), (11, [1, 1, *range(2, 11)])]
)
def test_the_epochs_are_divided_among_the_faults(count: int, epochs: list[int]) -> None:
    assert EPOCHS == 12
    assert plan(count) == epochs


def test_a_fault_that_came_after_the_last_epoch_is_left_for_another_ablation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what could not be aimed any more. The second of these finds its cell's last epoch done."""
    struck: list[tuple[str, int]] = []
    made = Scene(SimpleNamespace(), SimpleNamespace(base=tmp_path), 0)
    monkeypatch.setattr(made, "start", lambda: None)
    monkeypatch.setattr(made, "finish", lambda: None)
    monkeypatch.setattr(made, "_goes_on", lambda done: None)

    def aim(least: int, planned: int) -> bool:
        made.state = {"done": planned}
        return True

    def strike(name: str, done: int) -> Any:
        def now(scene: Scene) -> Any:
            struck.append((name, scene.state["done"]))
            scene.cell.update(done=done)
            return lambda: True

        return SimpleNamespace(name=name, strike=now, least=1, kills=True)

    monkeypatch.setattr(made, "_aim", aim)
    hits = weather(made, [strike("first", 2), strike("second", EPOCHS), strike("third", 3)])
    assert struck == [("first", 1), ("second", scene.plan(3)[1])]
    assert [(hit.fault, hit.epoch) for hit in hits] == [("first", 3)]
