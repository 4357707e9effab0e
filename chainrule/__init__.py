"""chainrule writes backpropagation out: the backward pass of ordinary PyTorch code, as readable code.

The verbs are loaded when they are first used, so that `chainrule --help` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule import testing
    from chainrule.compiling.compiler import compile
    from chainrule.compiling.optimisers import SGD, Adam, AdamW
    from chainrule.derivation import Derivation
    from chainrule.deriving import derive
    from chainrule.diagnosis.auditing.audit import audit
    from chainrule.diagnosis.check import check
    from chainrule.errors import ChainruleError
    from chainrule.module import Module
    from chainrule.rules import rule
    from chainrule.tape import record

_HOMES = {
    "SGD": "chainrule.compiling.optimisers",
    "Adam": "chainrule.compiling.optimisers",
    "AdamW": "chainrule.compiling.optimisers",
    "ChainruleError": "chainrule.errors",
    "Derivation": "chainrule.derivation",
    "Module": "chainrule.module",
    "audit": "chainrule.diagnosis.auditing.audit",
    "check": "chainrule.diagnosis.check",
    "compile": "chainrule.compiling.compiler",
    "derive": "chainrule.deriving",
    "record": "chainrule.tape",
    "rule": "chainrule.rules.book",
    "testing": "chainrule.testing",
}

__all__ = [
    "SGD", "Adam", "AdamW", "ChainruleError", "Derivation", "Module", "audit", "check", "compile", "derive", "record",
    "rule", "testing",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'chainrule' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    value = module if name == "testing" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
