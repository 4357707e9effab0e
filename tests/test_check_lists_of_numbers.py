"""`check`: lists of plain numbers: what is not looked at is named."""

from __future__ import annotations

from pathlib import Path

from test_forms import module

import chainrule as cr

LISTS = """\
import math


class Regression:
    def __init__(self):
        self.w, self.b = [0.1, 0.2], 0.3

    def loss(self, xs, ys):
        loss, self.dw, self.db = 0.0, [0.0, 0.0], 0.0
        for x, y in zip(xs, ys):
            p = 1 / (1 + math.exp(-sum(w * v for w, v in zip(self.w, x)) - self.b))
            loss -= y * math.log(p) + (1 - y) * math.log(1 - p)
            for j in range(2):
                self.dw[j] += 2 * (p - y) * x[j]
            self.db += p - y
        return loss
"""
DATA = [[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]], [1, 0, 1]


def test_a_list_of_numbers_whose_gradient_is_not_looked_at_is_named(tmp_path: Path) -> None:
    report = cr.check(module(tmp_path, LISTS).Regression().loss, *DATA)
    assert [n for n in report.notes if n.startswith("nothing is said of w: the gradient of a list")], str(report)


def test_nothing_is_said_of_a_list_without_a_gradient(tmp_path: Path) -> None:
    text = LISTS.replace("self.dw, self.db = 0.0, [0.0, 0.0], 0.0", "self.db = 0.0, 0.0")
    text = text.replace("self.dw[j] += 2 * (p - y) * x[j]", "pass")
    report = cr.check(module(tmp_path, text).Regression().loss, *DATA)
    assert report.ok and not any("a list" in note for note in report.notes), str(report)
