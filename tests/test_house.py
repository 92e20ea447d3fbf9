"""CONTRIBUTING's drawing of the house is the one that `make check` holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
#: Single files that are no room: what a page of `cli` splits its words by, and the number of this version.
ALONE = {"cli_words", "version"}


@pytest.fixture(scope="module")
def contracts() -> list[dict[str, Any]]:
    tools: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    found: list[dict[str, Any]] = tools["importlinter"]["contracts"]
    return found


@pytest.fixture(scope="module")
def layers(contracts: list[dict[str, Any]]) -> list[set[str]]:
    """The floors of the contract, from the top."""
    (floors,) = (contract for contract in contracts if contract["type"] == "layers")
    return [set(line.split(" | ")) - ALONE for line in floors["layers"] if line not in ALONE]


@pytest.fixture(scope="module")
def rooms() -> set[str]:
    package = ROOT / "platform" / "acdis"
    names = {
        path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    return names - {"__init__", "__main__"}


def test_the_table_of_floors_is_the_contract(layers: list[set[str]]) -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().split("## The floors")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?:top|bottom)? ?\| (`[^|]*`) \|", table, re.M)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == layers


def test_every_room_stands_on_a_floor(layers: list[set[str]], rooms: set[str]) -> None:
    assert rooms - ALONE == set().union(*layers)


@pytest.mark.parametrize(("package", "may"), [("ray", {"cluster"}), ("mlflow", {"tracking", "dashboard"})])
def test_no_other_room_may_import_ray_or_mlflow(
    contracts: list[dict[str, Any]], rooms: set[str], package: str, may: set[str]
) -> None:
    (contract,) = (each for each in contracts if each.get("forbidden_modules") == [package])
    assert set(contract["source_modules"]) == {f"acdis.{room}" for room in rooms - may}
