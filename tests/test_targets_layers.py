"""Classes of layers: the menagerie, cut at calls and lines, leaves autograd's gradients on inputs and parameters."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import torch
from agreement import assert_close, namespace_of
from test_zoo import Case, case
from torch import Tensor
from zoo import ENTRIES, Entry

import chainrule as cr
from chainrule.show.layer_classes import parameters

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)


def entry_named(name: str) -> Entry:
    return next(entry for entry in ENTRIES if entry.name == name)


def code(name: str) -> str:
    return case(entry_named(name)).d.source("layers")


def classes(source: str) -> dict[str, str]:
    """The text of each class of a file."""
    found = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return {node.name: ast.get_source_segment(source, node) or "" for node in found}


def trained(c: Case) -> tuple[Any, list[Tensor]]:
    """The model of a case on fresh inputs, forward and backward, and the inputs."""
    inputs = c.inputs
    nodes = c.d._arguments()
    held = parameters(c.d.program, nodes)
    model = namespace_of(c.d.source("layers"))["Model"](*(t for n, t in zip(nodes, inputs, strict=True) if n in held))
    for _ in range(2):  # a second step starts anew
        output = model(*(t for n, t in zip(nodes, inputs, strict=True) if n not in held))
        assert_close(output, c.d.output)
        model.backward(*c.explicit)
    return model, inputs


@every_entry
def test_the_model_leaves_autograds_gradients(entry: Entry) -> None:
    c = case(entry)
    _, inputs = trained(c)
    found = dict(zip(c.d.inputs, inputs, strict=True))
    for name, truth in c.truth.items():
        assert_close(getattr(found[name], "g", None), truth)


@every_entry
def test_the_file_is_well_formed(entry: Entry) -> None:
    source = case(entry).d.source("layers")
    imported = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert {ast.unparse(n) for n in imported} <= {"import torch", "import torch.nn.functional as F"}
    assert [line for line in source.splitlines() if len(line) > 100 or line != line.rstrip()] == []
    *layers, model = classes(source)
    assert model == "Model"
    assert len({text.partition("\n")[2] for text in classes(source).values()}) == len(layers) + 1, "a class twice"


def test_calls_of_one_function_are_one_class() -> None:
    assert list(classes(code("course_network_mse"))) == ["Lin", "Relu", "Mse", "Model"]
    assert list(classes(code("course_network_cross_entropy"))) == ["Lin", "Relu", "CrossEntropy", "Model"]
    assert list(classes(code("classes_with_call"))) == ["Lin", "Relu", "Mse", "Model"]
    assert list(classes(code("residual_module"))) == ["Block", "LinearCrossEntropy", "Model"]


def test_a_layer_is_written_as_in_a_notebook() -> None:
    assert classes(code("course_network_cross_entropy"))["Lin"].splitlines() == [
        "class Lin:",
        "    def __init__(self, w, b):",
        "        self.w, self.b = w, b",
        "",
        "    def __call__(self, x):",
        "        self.x = x",
        "        self.out = x @ self.w + self.b",
        "        assert self.b.shape == self.out.shape[1:]",
        "        return self.out",
        "",
        "    def bwd(self):",
        "        self.b.g = self.out.g.sum(0)",
        "        self.x.g = self.out.g @ self.w.T",
        "        self.w.g = self.x.T @ self.out.g",
    ]


def test_gradients_of_what_several_layers_read_add_up() -> None:
    source = code("attention")
    assert "self.x.g = self.x.g + self.out.g @ self.w.T" in source
    assert "self.shared = [x]  # their gradients add up" in source
    assert "shared" not in code("course_network_cross_entropy")


def test_another_shape_is_an_assertion_and_no_wrong_gradient() -> None:
    c = case(entry_named("course_network_cross_entropy"))
    model, inputs = trained(c)
    x, y = inputs[0], inputs[5]
    model(x[:1].repeat(7, 1), y[:1].repeat(7))
    model.backward()
    assert inputs[1].g.shape == inputs[1].shape  # type: ignore[attr-defined]
    model.lin1.b = torch.zeros(1, dtype=x.dtype)
    with pytest.raises(AssertionError):
        model(x, y)
        model.backward()


def test_what_the_person_marked_is_held() -> None:
    w = torch.randn(3, requires_grad=True)
    d = cr.derive(lambda x, y: ((x * w).sum(1) - y).pow(2).mean(), torch.randn(4, 3), torch.randn(4))
    assert re.search(r"class Model:.*?def __init__\(self, w\):.*?def __call__\(self, x, y\):", d.source("layers"), re.S)
