"""Rules on predicted labels, against a flood fill in plain loops and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acdis.config import Evaluation, parse
from acdis.errors import UserError
from acdis.evaluation.post_processing import post_process

RNG = np.random.default_rng


def rules(*given):
    return Evaluation.model_validate({"post_processing": given}).post_processing


def components(labels):
    """Sets of voxels that hang together by faces, in the order in which they are met."""
    left = {tuple(place) for place in np.argwhere(labels > 0).tolist()}
    found = []
    for start in map(tuple, np.argwhere(labels > 0).tolist()):
        if start not in left:
            continue
        left.discard(start)
        part, waiting = {start}, [start]
        while waiting:
            place = waiting.pop()
            for axis in range(3):
                for step in (-1, 1):
                    near = tuple(value + step * (axis == at) for at, value in enumerate(place))
                    if near in left:
                        left.discard(near)
                        part.add(near)
                        waiting.append(near)
        found.append(part)
    return found


def kept(labels, parts):
    out = np.zeros_like(labels)
    for part in parts:
        for place in part:
            out[place] = labels[place]
    return out


def drawn(seed, share):
    generator = RNG(seed)
    labels = generator.integers(1, 4, (6, 5, 7)).astype(np.uint8)
    labels[generator.random(labels.shape) > share] = 0
    return labels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.3, 0.5]))
def test_largest_component_by_flood_fill(seed, share):
    labels = drawn(seed, share)
    before = labels.copy()
    parts = components(labels)
    expected = kept(labels, [max(parts, key=len)] if parts else [])  # the first of several
    found = post_process(labels, rules({"rule": "largest_component"}), (1, 1, 1))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, before)
    assert found.dtype == np.uint8


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.1, 0.3, 0.5]),
    st.floats(0.5, 60),
    st.floats(0.05, 1),
    st.sampled_from([(1.0, 1.0, 1.0), (2.0, 0.5, 3.0)]),
)
def test_small_components_by_flood_fill(seed, share, volume, of_largest, spacing):
    """Gone is what is below both limits; mm³, not voxels."""
    labels, voxel = drawn(seed, share), spacing[0] * spacing[1] * spacing[2]
    parts = components(labels)
    most = max((len(part) for part in parts), default=0)
    limit = min(volume, of_largest * most * voxel)
    expected = kept(labels, [part for part in parts if len(part) * voxel >= limit * (1 - 1e-5)])
    rule = {"rule": "small_components", "volume": volume, "share": of_largest}
    np.testing.assert_array_equal(post_process(labels, rules(rule), spacing), expected)


@pytest.mark.parametrize(("voxels", "becomes"), [(0, None), (7, 1), (8, 3), (9, 3)])
def test_small_et_becomes_ncr(voxels, becomes):
    """Voxels of 1.5 × 1 × 2 mm: eight of them are 24 mm³, and that itself stays."""
    labels = np.full((4, 4, 4), 2, np.uint8)
    labels[0, 0, 0] = 1
    labels.reshape(-1)[10 : 10 + voxels] = 3
    found = post_process(labels, rules({"rule": "small_et", "volume": 24}), (1.5, 1, 2))
    expected = labels.copy()
    if voxels:
        expected[labels == 3] = becomes
    np.testing.assert_array_equal(found, expected)


def test_rules_follow_each_other():
    """An ET of 9 voxels in two components: with the larger alone it is too small."""
    labels = np.zeros((3, 3, 8), np.uint8)
    labels[:, :2, 0] = 3  # six
    labels[:, 0, 2] = 3  # three
    small, largest = {"rule": "small_et", "volume": 8}, {"rule": "largest_component"}
    np.testing.assert_array_equal(np.unique(post_process(labels, rules(small, largest), (1, 1, 1))), [0, 3])
    found = post_process(labels, rules(largest, small), (1, 1, 1))
    assert (found == 1).sum() == 6
    assert (found == 3).sum() == 0


def test_without_rules_nothing_is_touched():
    labels = drawn(0, 0.3)
    assert post_process(labels, (), (1, 1, 1)) is labels


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([{"rule": "smallest"}], "does not match any of the expected tags: 'largest_component', 'small_comp"),
        ([{"rule": "small_et", "volume": 0}], r"evaluation\.post_processing\.0\.small_et\.volume"),
        ([{"rule": "largest_component", "volume": 3}], "volume"),
        ([{"rule": "small_components", "share": 2}], r"share: .*less than or equal to 1"),
    ],
)
def test_wrong_rules(wrong, words):
    with pytest.raises(UserError, match=words):
        parse({"evaluation": {"post_processing": wrong}}, "test")


def test_in_words():
    given = rules(
        {"rule": "largest_component"}, {"rule": "small_components"}, {"rule": "small_et", "volume": 100}
    )
    words = Evaluation(post_processing=given).processing_in_words()
    assert words == (
        "largest_component, small_components (below 2000 mm³ and 10 % of the largest), "
        "small_et (below 100 mm³)"
    )
    assert Evaluation().processing_in_words() == ""
