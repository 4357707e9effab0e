"""The shared menagerie: small functions as different people write them, each run through every invariant."""

from zoo import elementwise, images, indexing, losses, networks, recurrent, shapes, sizes, statistics, styles
from zoo.registry import ENTRIES, SEED, Entry

FAMILIES = (elementwise, images, indexing, losses, networks, recurrent, shapes, sizes, statistics, styles)

__all__ = ["ENTRIES", "FAMILIES", "SEED", "Entry"]
