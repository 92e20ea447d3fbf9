"""What every method's options share. No torch here: `plan` validates options without it."""

from __future__ import annotations

from typing import Any

from acdis.config import Config


class MethodOptions(Config):
    """What only one method knows. Subclasses say which options have no effect beside which others."""

    def without_effect(self) -> dict[str, str]:
        """Options that do nothing in this configuration, with the reason: {"window": "no loss reads it"}."""
        return {}

    def too_short(self, epochs: int) -> dict[str, str]:
        """Options by which so many epochs would give a model that means nothing, with the reason."""
        return {}

    def whole_batch(self) -> str | None:
        """The option for which a worker must compute its share of a batch in one piece; none: no such."""
        return None

    def roles(self) -> tuple[str, ...]:
        """What `method.parents` may name, such as "start": those whose weights `Method.adopt` takes."""
        return self.required_roles()

    def required_roles(self) -> tuple[str, ...]:
        """Those of them without which there is no training, such as "teacher"."""
        return ()

    def crop_rule(self) -> tuple[int, int]:
        """Sides of crops and windows, voxels: multiples of the first number, the second at least."""
        return 1, 1

    def settled(self) -> dict[str, Any]:
        """What a default such as "all levels" comes to: written out, so that equal choices look equal."""
        return {}

    def written(self) -> dict[str, Any]:
        """Every option that has an effect, as plain values; reading them back gives the same options."""
        tree = self.model_dump(mode="json", exclude=set(self.without_effect()))
        return tree | {key: value for key, value in self.settled().items() if key in tree}
