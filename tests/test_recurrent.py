"""Recurrent layers and cells, opened through time, against autograd through torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from agreement import assert_as_autograd, loss_of, normal, run_emitted
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import chainrule as cr

BATCH, STEPS, INPUTS, HIDDEN = 2, 3, 3, 4
KINDS = {
    "LSTM": (nn.LSTM, {}),
    "LSTM with a projection": (nn.LSTM, {"proj_size": 2}),
    "GRU": (nn.GRU, {}),
    "RNN": (nn.RNN, {}),
    "RNN with relu": (nn.RNN, {"nonlinearity": "relu"}),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "batch first": {"batch_first": True},
    "both directions": {"bidirectional": True},
    "two layers": {"num_layers": 2},
    "two layers, dropout": {"num_layers": 2, "dropout": 0.5},
    "two layers, dropout of all": {"num_layers": 2, "dropout": 1.0},
    "everything": {"num_layers": 2, "dropout": 0.4, "batch_first": True, "bidirectional": True},
    "everything, no bias": {"num_layers": 2, "bidirectional": True, "bias": False},
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_setting = pytest.mark.parametrize("setting", SETTINGS)


def layer_of(kind: str, setting: str) -> Any:
    torch.manual_seed(0)
    make, more = KINDS[kind]
    return make(INPUTS, HIDDEN, **more, **SETTINGS[setting], dtype=torch.float64)  # type: ignore[arg-type]


def states_of(layer: Any, *batch: int) -> Any:
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    h, c = normal(rows, *batch, layer.proj_size or HIDDEN), normal(rows, *batch, HIDDEN)
    return (h, c) if isinstance(layer, nn.LSTM) else h


@each_kind
@each_setting
def test_a_layer(kind: str, setting: str) -> None:
    layer = layer_of(kind, setting)
    x = normal(BATCH, STEPS, INPUTS) if layer.batch_first else normal(STEPS, BATCH, INPUTS)
    d = assert_as_autograd(lambda x: loss_of(layer(x)), x)
    assert set(dict(layer.named_parameters())) <= {name.partition(".")[2] for name in d.grads}
    assert_as_autograd(lambda x, state: loss_of(layer(x, state)), x, states_of(layer, BATCH))


@each_kind
@pytest.mark.parametrize("setting", ["plain", "everything"])
def test_a_sequence_without_a_batch(kind: str, setting: str) -> None:
    layer, x = layer_of(kind, setting), normal(STEPS, INPUTS)
    assert_as_autograd(lambda x: loss_of(layer(x)), x)
    assert_as_autograd(lambda x, state: loss_of(layer(x, state)), x, states_of(layer))


@each_kind
@pytest.mark.parametrize(
    ("setting", "lengths"), [("plain", (3, 3, 3)), ("both directions", (4, 2, 1)), ("everything", (1, 4, 2))]
)
def test_packed_sequences(kind: str, setting: str, lengths: tuple[int, ...]) -> None:
    layer = layer_of(kind, setting)
    how = {"batch_first": layer.batch_first}
    x = normal(3, 4, INPUTS) if layer.batch_first else normal(4, 3, INPUTS)

    def call(x: Tensor, state: Any) -> Tensor:
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False, **how)
        output, last = layer(packed, state)
        return loss_of((pad_packed_sequence(output, **how)[0], last))

    assert_as_autograd(call, x, states_of(layer, 3))


def test_code_for_packed_sequences_holds_for_their_lengths() -> None:
    layer = layer_of("GRU", "plain")

    def call(x: Tensor, lengths: Tensor) -> Tensor:
        return loss_of(layer(pack_padded_sequence(x, lengths))[1])

    d = cr.derive(call, normal(4, 3, INPUTS), torch.tensor([4, 2, 1]))
    inputs = {name: d[name].value for name in d.inputs}
    run_emitted(d, *inputs.values())
    with pytest.raises(AssertionError):
        run_emitted(d, *(inputs | {"lengths": torch.tensor([3, 3, 1])}).values())


def test_code_holds_for_the_number_of_steps_alone() -> None:
    layer = layer_of("RNN", "plain")
    d = cr.derive(lambda x: loss_of(layer(x)), normal(1, BATCH, INPUTS))
    inputs = {name: d[name].value for name in d.inputs}
    for batch in (BATCH, 5):
        run_emitted(d, *(inputs | {"x": normal(1, batch, INPUTS)}).values())
    with pytest.raises(AssertionError):
        run_emitted(d, *(inputs | {"x": normal(2, BATCH, INPUTS)}).values())


@pytest.mark.parametrize("make", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(2,), ()])
def test_a_cell(make: Any, bias: bool, batch: tuple[int, ...]) -> None:
    cell = make(INPUTS, HIDDEN, bias=bias, dtype=torch.float64)
    x, h, c = normal(*batch, INPUTS), normal(*batch, HIDDEN), normal(*batch, HIDDEN)
    assert_as_autograd(lambda x: loss_of(cell(x)), x)
    assert_as_autograd(lambda x, state: loss_of(cell(x, state)), x, (h, c) if make is nn.LSTMCell else h)


def test_relu_cell() -> None:
    cell = nn.RNNCell(INPUTS, HIDDEN, nonlinearity="relu", dtype=torch.float64)
    assert_as_autograd(lambda x: loss_of(cell(x)), normal(2, INPUTS))


def test_the_functions_beneath_the_modules() -> None:
    layer, x, state = layer_of("LSTM", "plain"), normal(STEPS, BATCH, INPUTS), normal(1, BATCH, HIDDEN)
    weights = list(layer.parameters())

    def call(x: Tensor, h: Tensor) -> Tensor:
        return loss_of(torch.lstm(x, (h, h), weights, True, 1, 0.0, False, False, False))

    assert_as_autograd(call, x, state)


def test_the_code_has_the_names_of_the_gates() -> None:
    layer = layer_of("LSTM", "plain")
    code = cr.derive(lambda x: loss_of(layer(x)[0]), normal(STEPS, BATCH, INPUTS)).source()
    assert "a_i, a_f, a_g, a_o = gates.chunk(4, -1)" in code
    assert "c_1 = f * c + i * g" in code
    assert "gates.g = torch.cat([" in code
