"""The colours of all figures and pages: Okabe and Ito's, told apart with any colour vision.

A region has one colour, be it a curve, a bar, an outline or a label. The pages' style.css and common.js
repeat these values, since a browser reads no Python; a test compares them.
"""

from __future__ import annotations

#: By region. As lines each has a contrast of 3 : 1 or more with the pages' ground, light and dark.
REGIONS = {"WT": "#0072B2", "TC": "#009E73", "ET": "#D55E00"}
#: By label (`vocabulary.CLASSES`), for areas on black or on an image. ET is a region too, the others are not.
LABELS = {1: "#56B4E9", 2: "#F0E442", 3: REGIONS["ET"]}
#: Of what is neither: rows, terms of a loss, in an order that stays apart.
SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C", "#B5A900")


def rgb(colour: str) -> tuple[float, float, float]:
    """`#D55E00` as red, green and blue from 0 to 1."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue
