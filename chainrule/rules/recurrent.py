"""Recurrent cells and layers, opened through time: linear maps and activations, one group for each step.

The gates stand in torch's order: input, forget, cell, output in an LSTM; reset, update, new in a GRU. What a
layer's inputs contribute is one product for all steps, as torch has it; the states go from step to step.
"""

import torch
import torch.nn.functional as F

from chainrule.errors import ChainruleError
from chainrule.recording.unseen import drawn
from chainrule.rules.book import assume, assume_size, opening, rule


def affine(x, weight, bias=None):
    return F.linear(x, weight) if bias is None else F.linear(x, weight, bias)


def lstm_step(from_input, state, w_hh, b_hh=None, w_hr=None):
    """Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000)."""
    h, c = state
    gates = from_input + affine(h, w_hh, b_hh)
    a_i, a_f, a_g, a_o = gates.chunk(4, -1)
    i, f, g, o = a_i.sigmoid(), a_f.sigmoid(), a_g.tanh(), a_o.sigmoid()
    c = f * c + i * g
    h = o * c.tanh()
    return (h if w_hr is None else affine(h, w_hr)), c


def gru_step(from_input, state, w_hh, b_hh=None, w_hr=None):
    """Cho et al. (2014), with the reset gate after the product, as cuDNN and torch have it."""
    (h,) = state
    x_r, x_z, x_n = from_input.chunk(3, -1)
    from_state = affine(h, w_hh, b_hh)
    h_r, h_z, h_n = from_state.chunk(3, -1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    h = (1 - z) * n + z * h
    return (h,)


def tanh_step(from_input, state, w_hh, b_hh=None, w_hr=None):
    h = (from_input + affine(state[0], w_hh, b_hh)).tanh()
    return (h,)


def relu_step(from_input, state, w_hh, b_hh=None, w_hr=None):
    h = (from_input + affine(state[0], w_hh, b_hh)).relu()
    return (h,)


@opening(torch.lstm_cell)
def lstm_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    return lstm_step(affine(input, w_ih, b_ih), hx, w_hh, b_hh)


@opening(torch.gru_cell)
def gru_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    return gru_step(affine(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]


@opening(torch.rnn_tanh_cell)
def rnn_tanh_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    return tanh_step(affine(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]


@opening(torch.rnn_relu_cell)
def rnn_relu_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    return relu_step(affine(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]


@opening(torch.lstm)
def lstm(*given, **named):
    return _layers(lstm_step, *given, **named)


@opening(torch.gru)
def gru(*given, **named):
    return _layers(gru_step, *given, **named)


@opening(torch.rnn_tanh)
def rnn_tanh(*given, **named):
    return _layers(tanh_step, *given, **named)


@opening(torch.rnn_relu)
def rnn_relu(*given, **named):
    return _layers(relu_step, *given, **named)


def _layers(step, *given, **named):
    """The two signatures of torch's recurrent layers: of a tensor, and of a packed sequence."""
    packed = "batch_sizes" in named or (len(given) > 3 and isinstance(given[3], tuple | list))
    return (_packed if packed else _dense)(step, *given, **named)


def _dense(step, input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first):
    time = 1 if batch_first else 0
    assume_size(input, time, int(input.shape[time]))

    def through_time(x, state, w_ih, w_hh, b_ih, b_hh, w_hr, backwards):
        inputs = affine(x, w_ih, b_ih)
        steps = inputs.unbind(time)
        outputs = []
        for from_input in reversed(steps) if backwards else steps:
            state = step(from_input, state, w_hh, b_hh, w_hr)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if backwards else outputs, time), state

    p = dropout if train else 0
    return _stack_of_layers(through_time, input, hx, params, has_biases, num_layers, p, bidirectional, time)


def _packed(step, data, batch_sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional):
    sizes = batch_sizes.tolist()
    assume_size(batch_sizes, 0, len(sizes))
    assume((batch_sizes == torch.tensor(sizes)).all(), batch_sizes)

    def through_time(x, state, w_ih, w_hh, b_ih, b_hh, w_hr, backwards):
        inputs = affine(x, w_ih, b_ih)
        steps = inputs.split(sizes)
        first, ended, outputs = state, [], []
        if backwards:
            state = [s[: sizes[-1]] for s in first]
        rows = sizes[-1] if backwards else sizes[0]
        for n, from_input in reversed(list(zip(sizes, steps))) if backwards else zip(sizes, steps):
            if n > rows:  # sequences that end here begin, seen from the end
                state = [torch.cat([s, s0[rows:n]]) for s, s0 in zip(state, first, strict=True)]
            elif n < rows:  # the shortest sequences have ended
                ended.append([s[n:] for s in state])
                state = [s[:n] for s in state]
            rows = n
            state = step(from_input, state, w_hh, b_hh, w_hr)
            outputs.append(state[0])
        last = [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(state, *ended[::-1], strict=True)]
        return torch.cat(outputs[::-1] if backwards else outputs), last

    p = dropout if train else 0
    return _stack_of_layers(through_time, data, hx, params, has_biases, num_layers, p, bidirectional, 0)


def _stack_of_layers(through_time, x, hx, params, has_biases, num_layers, dropout, bidirectional, time):
    directions = 2 if bidirectional else 1
    rows = num_layers * directions
    hx = hx if isinstance(hx, tuple | list) else (hx,)
    first = list(zip(*([h0[0]] if rows == 1 else h0.unbind(0) for h0 in hx), strict=True))
    each = len(params) // rows  # w_ih, w_hh, then b_ih, b_hh, then w_hr
    last = []
    for layer in range(num_layers):
        outputs = []
        for k in range(layer * directions, (layer + 1) * directions):
            w_ih, w_hh, *others = params[k * each : (k + 1) * each]
            b_ih, b_hh = others[:2] if has_biases else (None, None)
            w_hr = others[-1] if len(others) % 2 else None
            backwards = k > layer * directions
            y, state = through_time(x, first[k], w_ih, w_hh, b_ih, b_hh, w_hr, backwards)
            outputs.append(y)
            last.append(state)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if dropout and layer < num_layers - 1:
            x = _dropped(x, dropout, time)
    return x, *(s[0].unsqueeze(0) if rows == 1 else torch.stack(s) for s in zip(*last, strict=True))


def _dropped(x, p, time):
    """Dropout between layers: drawn as torch draws it, time first."""
    if x.is_cuda:
        raise ChainruleError(
            "the dropout between the layers of a recurrent module is drawn inside cuDNN, which cannot be recorded; "
            "give the module dropout=0 or eval mode, and stack layers with nn.Dropout between them"
        )
    if p == 1:
        return x * 0
    with torch._C.DisableTorchFunction():
        like = x.detach().transpose(0, time)
        kept = torch.empty_like(like, memory_format=torch.contiguous_format).bernoulli_(1 - p).bool().transpose(0, time)
    return x * drawn(kept, "mask") / (1 - p)


@rule(torch._pack_padded_sequence, samples=["r(4, 3, 2), torch.tensor([4, 2, 1]), False", "r(3, 4, 2), torch.tensor([3, 3, 1]), True"],
      note="what stands beyond the length of a sequence gets no gradient")  # fmt: skip
def pack_padded_sequence(out, x, lengths, batch_first):
    data, batch_sizes = out
    longest = x.shape[1 if batch_first else 0]
    x.g = torch._pad_packed_sequence(data.g, batch_sizes, batch_first, 0.0, longest)[0]


@rule(
    torch._pad_packed_sequence,
    samples=["r(7, 2), torch.tensor([3, 2, 1, 1]), False, 0.0, 4", "r(7, 2), torch.tensor([3, 2, 2]), True, -1.0, 5"],
)
def pad_packed_sequence(out, x, batch_sizes, batch_first, padding_value, total_length):
    padded, lengths = out
    x.g = torch._pack_padded_sequence(padded.g, lengths, batch_first)[0]
