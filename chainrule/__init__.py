"""chainrule writes backpropagation out: the backward pass of ordinary PyTorch code, as readable code."""

from chainrule.derivation import Derivation, derive
from chainrule.errors import ChainruleError
from chainrule.rules import rule

__all__ = ["ChainruleError", "Derivation", "derive", "rule"]
