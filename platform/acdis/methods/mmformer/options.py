"""What only mmFormer knows (multimodal medical transformer, Zhang et al., MICCAI 2022). No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from acdis.methods.options import MethodOptions

VERSION = 1


class TokenOptions(MethodOptions):
    """Sizes of mmFormer, and of IM-Fuse, which is built of its encoders, transformers and decoder."""

    base_width: PositiveInt = Field(
        8, le=256, description="channels of the finest of five levels, doubled at each below (published: 8)"
    )
    embedding: PositiveInt = Field(512, le=8192, description="width of the tokens (published: 512)")
    heads: PositiveInt = Field(8, le=64, description="of self-attention (published: 8)")
    feed_forward: PositiveInt = Field(
        4096, le=65536, description="inner width of the transformers' linear maps (published: 4096)"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="in the transformers (published: 0.1)")

    @model_validator(mode="after")
    def _divides(self) -> TokenOptions:
        if self.embedding % self.heads:
            raise ValueError(f"embedding {self.embedding} is no multiple of heads {self.heads}")
        return self

    def needs_whole_cases(self) -> str | None:
        return None

    def crop_rule(self) -> tuple[int, int]:
        return 16, 32  # four halvings, and instance norm needs two voxels

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level, fine to coarse."""
        return tuple(self.base_width * 2**level for level in range(5))


class Options(TokenOptions):
    """What only mmFormer knows."""

    grid: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (5, 5, 5),
        description="voxels of the coarsest level for which positions are learnt: data.crop / 16 (80³: 5³, "
        "published at 128³: 8³). Other crops read between them",
    )
    view: Literal["published", "aligned"] = Field(
        "published",
        description="how the four modalities' tokens come together behind the inter-modal transformer. "
        "published: as the public code views them, four neighbouring positions of one modality in a row; "
        "aligned: the four modalities of one position, as the paper describes it",
    )
