"""A paragraph for the paper's methods section: what the cells know, in sentences, with places to fill in."""

from __future__ import annotations

from collections.abc import Sequence

from acdis.report.paperwork.references import METHODS, PLATFORM
from acdis.report.paperwork.study import Facts, Study

BLANK = "[not known: write here]"


def paragraph(study: Study, facts: Facts, cited: Sequence[str]) -> str:
    """Sentences in the order of a methods section; citations as pandoc reads them, [@key].

    Args:
        facts: of all concerns.
        cited: keys that the bibliography has.
    """
    papers = [key for keys in METHODS.values() for key in keys if key in cited]

    def told(name: str) -> str:
        return "; ".join(facts[name]) or BLANK

    def of(*keys: str) -> str:
        there = [f"@{key}" for key in dict.fromkeys(keys) if key in cited]
        return f" [{'; '.join(there)}]" if there else ""

    missing = "; ".join([*facts["missing_modalities"], *facts["training_subsets"]]) or BLANK
    sentences = [
        f"Experiments were run with the ACDIS platform{of(PLATFORM)}, {told('commit')}, with "
        f"{told('versions')}, "
        f"on {told('hardware')}",
        f"Rows: {told('methods')}{of(*papers)}",
        f"Data: {told('data_sets')}",
        f"Split: {told('splits')}, {told('split_rule')}",
        f"Preprocessing: {told('preprocessing')}",
        f"Augmentation: {told('augmentation')}",
        f"Training: {told('recipe')}; {told('selection')}; {told('seeds')}",
        f"Missing modalities: {missing}",
        f"Metrics: {told('metrics')}{of('dice1945measures', 'huttenlocher1993hausdorff', 'nikolov2018nsd')}; "
        f"{told('aggregation')}; post-processing: {told('post_processing')}",
        f"Statistics: {_statistics(facts)}"
        f"{of('obuchowski1995hypothesis', 'hillis2007comparison', 'holm1979simple')}",
        f"Compute: {told('hours_in_all')}",
    ]
    return " ".join(f"{sentence.rstrip('.')}." for sentence in sentences)


def _statistics(facts: Facts) -> str:
    told = [line for name in ("design", "questions", "verdict_rules", "intervals") for line in facts[name]]
    return "; ".join(told) or BLANK
