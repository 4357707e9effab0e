"""A pytest plugin for hand-written backward passes; it imports torch only when a test uses it.

The fixture `check_gradients(code, *args)` fails the test unless every gradient is right; where `assert report`
fails on the result of `chainrule.check`, the report is shown below the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def check_gradients() -> Callable[..., None]:
    """`check_gradients(code, *args, **kwargs)` fails the test unless every hand-written gradient is right."""

    def checked(code: Any, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        from chainrule.testing import assert_gradients

        assert_gradients(code, *args, **kwargs)

    return checked


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Adds the reports that a failed `assert` looked at, as a section of their own."""
    made = yield
    reports = sys.modules.get("chainrule.diagnosis.report")  # not loaded: no test has used it
    if reports is None or call.excinfo is None or not isinstance(call.excinfo.value, AssertionError):
        return
    shown: list[str] = []
    said = str(call.excinfo.value)
    # pytest keeps the parts of an assertion in local variables of its own
    for value in call.excinfo.traceback[-1].frame.f_locals.values():
        if isinstance(value, reports.Report) and not value.ok:
            text = value.findings_first()
            if text not in [said, *shown]:  # the message of assert_gradients is the report
                shown.append(text)
    made.get_result().sections += [("chainrule.check", text) for text in shown]
