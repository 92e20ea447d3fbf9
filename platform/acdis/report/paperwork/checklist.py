"""A checklist as Markdown: each item with what is known of it, or that it is to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acdis.report import floors, rendering
from acdis.report.document import Table
from acdis.report.facts import PHANTOM_WARNING
from acdis.report.paperwork import (
    about_cost,
    about_data,
    about_results,
    about_scores,
    about_software,
    about_training,
    lists,
    methods_paragraph,
    references,
)
from acdis.report.paperwork.study import Facts, Study

UNKNOWN = "not known: write here"
#: Lines of one kind that are shown.
MOST = 40
_CONCERNS = (about_data, about_training, about_scores, about_results, about_cost, about_software)


@dataclass(frozen=True)
class Answer:
    """An item of a list.

    Attributes:
        known: sentences from records; ask: what is still to be written, none where nothing is.
    """

    at: str
    words: str
    known: tuple[str, ...]
    ask: str | None


@dataclass(frozen=True)
class Page:
    """Everything that the template shows."""

    title: str
    preface: tuple[str, ...]
    warnings: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Answer, ...]], ...]
    cost: Table
    cost_notes: tuple[str, ...]
    methods: str
    bibtex: str
    uncited: str


def facts_of(study: Study) -> Facts:
    """All that is known, by what it is about."""
    return {name: _few(lines) for concern in _CONCERNS for name, lines in concern.facts(study).items()}


def _few(lines: list[str]) -> list[str]:
    """A grid has hundreds of rows: beyond `MOST` lines their number."""
    more = len(lines) - MOST
    return lines if more <= 0 else [*lines[:MOST], f"and {more} more of these, which report shows"]


def render(study: Study, name: str) -> str:
    """The list of this name, filled; ends with a newline."""
    from markupsafe import Markup

    page = page_of(study, name)
    # Ours and the platform's own characters alone: nothing in it ends the fence or is markup.
    return rendering.render("checklist.md", page=page, bibtex=Markup(page.bibtex))


def page_of(study: Study, name: str) -> Page:
    """The same before it is Markdown.

    Raises:
        UserError: there is no such list.
    """
    wanted = lists.load(name)
    facts = facts_of(study)
    groups = tuple(
        (group.name, tuple(answer(item, facts) for item in group.items)) for group in wanted.groups
    )
    items = [item for _, answers in groups for item in answers]
    titles = "; ".join(dict.fromkeys(spec.title for spec, _, _ in study.compared))
    cited = references.keys(study, wanted.cite)
    done, partly = (
        sum(bool(item.known) and (item.ask is None) == whole for item in items) for whole in (True, False)
    )
    return Page(
        f"{wanted.title}: {titles}",
        (
            f"Edition: {wanted.edition}. The original, whose wording counts: {wanted.original}.",
            f"Items stand under short words of the platform's own. {len(items)} items: {done} known, "
            f"{partly} known in part, {len(items) - done - partly} not known. “known” is read from the "
            "cells' records and from what report computes; check it before you sign it.",
        ),
        tuple(_warnings(study)),
        groups,
        about_cost.table(study),
        tuple(facts["hours_in_all"] + facts["failed_runs"] + facts["hours_elsewhere"]),
        methods_paragraph.paragraph(study, facts, cited),
        references.bibtex(study, cited),
        ", ".join(references.without(study)),
    )


def answer(item: lists.Item, facts: Facts) -> Answer:
    """What the facts say of an item."""
    known = tuple(line for name in item.known for line in facts[name])
    ask = None if known and not item.ask else f"{UNKNOWN} ({item.ask})" if item.ask else UNKNOWN
    return Answer(item.at, item.words, known, ask)


def _warnings(study: Study) -> Sequence[str]:
    """What a report begins with, too."""
    drawn = [spec.name for spec, _, _ in study.compared if spec.phantoms]
    which = "" if len(drawn) == len(study.compared) else f" (of {', '.join(drawn)})"
    below = floors.first_lines([row for _, rows, _ in study.compared for row in rows])
    return [*below, *([PHANTOM_WARNING + which] if drawn else [])]
