"""What this machine gives, also where the system tells less."""

import os

from acdis import machine


def test_processors_are_those_of_the_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert machine.processors() == 3


def test_processors_without_an_affinity(monkeypatch):
    """macOS has none."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert machine.processors() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.processors() == 1
