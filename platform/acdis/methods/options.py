"""What every method's options share. No torch here: `plan` validates options without it."""

from __future__ import annotations

from typing import Any, ClassVar

from acdis.config import Config


class MethodOptions(Config):
    """What only one method knows. Subclasses say which options have no effect beside which others."""

    #: Options that came after cells had been trained, with the value that says "as before": then they are not
    #: written out, so that the names of those cells stay.
    came_later: ClassVar[dict[str, Any]] = {}

    def without_effect(self) -> dict[str, str]:
        """Options that do nothing in this configuration, with the reason: {"window": "no loss reads it"}."""
        return {}

    def too_short(self, epochs: int) -> dict[str, str]:
        """Options by which so many epochs would give a model that means nothing, with the reason."""
        return {}

    def whole_batch(self) -> str | None:
        """The option for which a worker must compute its share of a batch in one piece; none: no such."""
        return None

    def needs_whole_cases(self) -> str | None:
        """Why it cannot be trained on cases that lack modalities (`data.missing`); none: it can."""
        return "its losses are written for cases that have all four modalities"

    def roles(self) -> tuple[str, ...]:
        """What `method.parents` may name, such as "start": those whose weights `Method.adopt` takes."""
        return self.required_roles()

    def required_roles(self) -> tuple[str, ...]:
        """Those of them without which there is no training, such as "teacher"."""
        return ()

    def parts(self) -> dict[str, dict[str, Any]]:
        """{role: options that differ}, where a row of a spec is several cells; empty: it is one.

        Each part is trained in a cell of its own, which is not scored. The row's own cell has them all as
        parents, adopts their weights, trains nothing and is scored.
        """
        return {}

    def parent_methods(self, role: str) -> tuple[str, ...]:
        """Methods whose cells may stand in this role; none: any."""
        return ()

    def nothing_shared(self) -> str | None:
        """Why 15 subsets of a window cost 15 whole passes; none: what does not depend on them is shared."""
        return None

    def crop_rule(self) -> tuple[int, int]:
        """Sides of crops and windows, voxels: multiples of the first number, the second at least."""
        return 1, 1

    def settled(self) -> dict[str, Any]:
        """What a default such as "all levels" comes to: written out, so that equal choices look equal."""
        return {}

    def written(self) -> dict[str, Any]:
        """Every option that has an effect, as plain values; reading them back gives the same options."""
        tree = self.model_dump(mode="json") | self.settled()
        left_out = {*self.without_effect()} | {
            key for key, value in self.came_later.items() if tree[key] == value
        }
        return {key: value for key, value in tree.items() if key not in left_out}
