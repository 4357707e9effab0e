"""What torch.library.opcheck finds wrong with a registered operator, as findings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch._library.custom_ops import CustomOpDef

from chainrule.diagnosis.functions.ordinary_call import place
from chainrule.diagnosis.report import Finding
from chainrule.recording.operators import definition_of


def broken_promises_of_operator(
    operator: Any, args: Sequence[Any], kwargs: dict[str, Any] | None = None, compiled: bool = True
) -> list[Finding]:
    """What torch.library.opcheck finds wrong with a registered operator. Whether it gives the same when it is compiled is
    said where nothing else is wrong, and not asked unless `compiled`.

    >>> broken_promises_of_operator(torch.ops.aten.sin.default, [torch.ones(3)])
    []
    """
    given = tuple(a.detach().clone().requires_grad_() if _is_floating(a) else a for a in args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch runs, which the person did not write
        results = torch.library.opcheck(
            operator, given, kwargs, test_utils=list(_TESTS)[: None if compiled else -1], raise_exception=False
        )
    known = operator if isinstance(operator, CustomOpDef) else definition_of(operator)
    name = known._qualname if known is not None else str(operator)
    file, line, text = place(getattr(known, "_init_fn", None), None)
    findings: list[Finding] = []
    for test, result in results.items():
        if result == "SUCCESS" or (findings and test.startswith("test_aot")):
            continue
        said = "" if (reason := _reason(result)) == str(operator) else f": {reason}"
        message = f"{name} fails {test} of torch.library.opcheck; {_TESTS[test]}{said}"
        findings.append(Finding(name, line, "contract", message, "", False, file, text))
    return findings


def _reason(result: Any) -> str:
    reason = (result.__cause__ or result) if isinstance(result, BaseException) else result
    return " ".join(str(reason).split())[:300]


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point


_TESTS = {
    "test_schema": "its schema does not say what it changes or returns a view of: declare mutates_args, return copies",
    "test_autograd_registration": "its derivative is not registered as autograd expects: use register_autograd",
    "test_faketensor": "it has no fake implementation or a wrong one: use register_fake with the shapes and dtypes",
    "test_aot_dispatch_dynamic": "compiled, it does not give what it gives otherwise: write its backward in torch operations",
}
