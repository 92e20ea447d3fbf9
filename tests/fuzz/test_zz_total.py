"""The last of the suite: were there enough inputs, and did they reach beyond the first check?"""

import os

import pytest

FACTOR = float(os.environ.get("ACDIS_FUZZ", "1"))


def test_a_thousand_inputs(ledger, request):
    print("\n".join(ledger.lines()))
    chosen = {item.path.name for item in request.session.items if item.path.name.startswith("test_fuzz_")}
    every = {path.name for path in request.path.parent.glob("test_fuzz_*.py")}
    if chosen != every or request.session.testsfailed or request.config.getoption("keyword"):
        pytest.skip("only a part of the suite ran, or some of it failed")
    assert ledger.total >= 1000 * min(1, FACTOR)
    assert not any(kinds["wrong"] for kinds in ledger.seen.values())
    fuzzed = [kinds for entrance, kinds in ledger.seen.items() if sum(kinds.values()) >= 30]
    assert sum(kinds["sound"] for kinds in fuzzed) >= 50 * min(1, FACTOR), (
        "mutations that all are refused at once test little"
    )
    assert all(kinds["refused"] for kinds in fuzzed if kinds["sound"] < sum(kinds.values()))
