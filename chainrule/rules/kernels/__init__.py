"""The second shelf of the rule book, for the fast step: rules whose step is one or two of torch's own kernels.

Where the backward kernel needs what the forward kernel gives beside its value (the mean and the scale of a
normalisation, the indices of a pooling), the function is opened into that forward kernel, whose rule has it at hand.
Openings say the parts that torch's own C++ says, so that lowering the one or the other gives the same graph.
"""

from chainrule.rules.book import KERNELS
from chainrule.rules.kernels import (  # noqa: F401  (adds their rules)
    activations,
    attention,
    convolution,
    embedding,
    losses,
    normalisation,
    pooling,
    selections,
)

__all__ = ["KERNELS"]
