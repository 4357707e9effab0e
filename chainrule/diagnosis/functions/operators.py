"""What torch.library.opcheck finds wrong with a registered operator, as findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from chainrule.diagnosis.functions.ordinary_call import place
from chainrule.diagnosis.report import Finding


def broken_promises_of_operator(
    operator: Any, args: Sequence[Any], kwargs: dict[str, Any] | None = None
) -> list[Finding]:
    """What torch.library.opcheck finds wrong with a registered operator, one finding for each of its tests.

    >>> broken_promises_of_operator(torch.ops.aten.sin.default, [torch.ones(3)])
    []
    """
    results = torch.library.opcheck(operator, tuple(args), kwargs, raise_exception=False)
    name = str(getattr(operator, "_qualname", operator))
    file, line, _ = place(getattr(operator, "_init_fn", None), None)
    findings = []
    for test, result in results.items():
        if result != "SUCCESS":
            said = " ".join(str(result).split())
            message = f"{name} fails {test}, {_OPERATOR_TESTS.get(test, '')}: {said[:300]}"
            findings.append(Finding(name, line, "contract", message, "", False, file))
    return findings


_OPERATOR_TESTS = {
    "test_schema": "so its schema does not say what it changes or returns a view of; declare mutates_args, return copies",
    "test_autograd_registration": "so its derivative is not registered as autograd expects; use register_autograd",
    "test_faketensor": "so it has no fake implementation or a wrong one; use register_fake with the shapes and dtypes",
    "test_aot_dispatch_static": "so compiled gradients differ from eager ones; write its backward in registered operators",
    "test_aot_dispatch_dynamic": "so compiled gradients differ from eager ones; write its backward in registered operators",
}
