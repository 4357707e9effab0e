"""NumPy code on torch: the numbers of NumPy, each operation recorded at its line, to be run again."""

import types

import numpy as np
import numpy_layers as layers
import pytest
import torch

from chainrule.arrays.array import Array
from chainrule.arrays.numpy_as_torch import as_arrays, as_tensors, is_numpy_code, numpy_as_torch
from chainrule.deriving import arguments_of, derivation, new_recorder, record_call
from chainrule.recording.names import caller
from chainrule.run import run

# A tuple is the shape of a normal array; [n, *shape] are whole numbers below n.
PAIRS = {
    layers.affine: [(3, 2, 5), (10, 4), (4,), (3, 4)],
    layers.relu: [(3, 5), (3, 5)],
    layers.batchnorm: [(5, 3), (3,), (3,), (5, 3)],
    layers.batchnorm_alt: [(5, 3), (3,), (3,), (5, 3)],
    layers.layernorm: [(3, 5), (5,), (5,), (3, 5)],
    layers.spatial_batchnorm: [(2, 3, 4, 1), (3,), (3,), (2, 3, 4, 1)],
    layers.dropout: [(7, 5), (7, 5)],
    layers.conv: [(2, 1, 5, 3), (2, 1, 3, 3), (2,), (2, 2, 3, 2)],
    layers.conv_im2col: [(2, 3, 4, 5), (4, 3, 2, 3), (2, 4, 3, 3)],
    layers.max_pool: [(2, 2, 4, 2), (2, 2, 2, 1)],
    layers.softmax_loss: [(4, 3), [3, 4]],
    layers.svm_loss: [(4, 3), [3, 4]],
    layers.rnn: [(2, 3, 4), (2, 5), (4, 5), (5, 5), (5,), (2, 3, 5)],
    layers.lstm: [(3, 4), (3, 5), (3, 5), (4, 20), (5, 20), (20,), (3, 5), (3, 5)],
    layers.embedding: [(5, 3), [5, 2, 4], (2, 4, 3)],
    layers.attention: [(2, 3, 4), (2, 5, 4), (2, 5, 1), (2, 3, 1)],
    layers.various: [(2, 3), (2, 3)],
}


def _arguments(shapes, seed):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, s[0], s[1:]) if isinstance(s, list) else generator.standard_normal(s) for s in shapes]


def recorded(code, args):
    recorder = new_recorder()
    recorder.every_path = True
    recorder.forward = code
    tensors = as_tensors(args)
    recorder.arguments = arguments_of(code, tensors, {}, caller())
    with numpy_as_torch(code), torch.enable_grad():
        result = record_call(recorder, code, as_arrays(tensors), {})
    return recorder, as_tensors(result)


def _close(ours, theirs):
    ours, theirs = torch.as_tensor(ours), torch.as_tensor(np.asarray(theirs))
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert torch.allclose(ours.double(), theirs.double(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("code", PAIRS, ids=lambda code: code.__name__)
def test_as_numpy_computes(code):
    args = _arguments(PAIRS[code], 1)
    np.random.seed(5)
    expected = code(*[a.copy() for a in args])
    np.random.seed(5)
    recorder, found = recorded(code, args)
    for ours, theirs in zip(found, expected, strict=True):
        _close(ours, theirs)
    for given, again in zip(args, _arguments(PAIRS[code], 1), strict=True):
        assert np.array_equal(given, again)
    assert layers.np is np and layers.exp is np.exp
    for node in recorder.graph.nodes:
        if node.op != "placeholder" and isinstance(node.meta["val"], torch.Tensor):
            site = node.meta["site"]
            assert site.file == layers.__file__ and site.function in (code.__name__, "sigmoid", "<listcomp>"), node
            first = code.__code__.co_firstlineno
            assert site.function == "sigmoid" or site.line > first


@pytest.mark.parametrize("code", PAIRS, ids=lambda code: code.__name__)
def test_the_recorded_nodes_give_what_numpy_gives_on_other_inputs(code):
    _again(code, PAIRS[code], PAIRS[code])


@pytest.mark.parametrize("size", [1, 9])
@pytest.mark.parametrize(
    "code",
    [layers.affine, layers.relu, layers.batchnorm_alt, layers.softmax_loss, layers.svm_loss],
    ids=lambda code: code.__name__,
)
def test_the_recorded_nodes_hold_for_other_batch_sizes(code, size):
    def other(shape):
        if isinstance(shape, list):
            return [shape[0], size]
        return (size, *shape[1:]) if len(shape) > 1 and shape != (10, 4) else shape

    _again(code, PAIRS[code], [other(s) for s in PAIRS[code]])


def _again(code, shapes, other_shapes):
    args, others = _arguments(shapes, 1), _arguments(other_shapes, 2)
    np.random.seed(5)
    expected = code(*[a.copy() for a in others])
    np.random.seed(5)
    recorder, found = recorded(code, args)
    _compared(recorder, found, code, others, expected)


def _compared(recorder, found, code, others, expected):
    nodes = [recorder.entry(t).node for t in found]
    names = dict(zip(code.__code__.co_varnames, others, strict=False))
    known = {
        n: n.meta["val"] if n.meta["operation"] == "drawn" else torch.tensor(names[n.meta["name"]])
        for n in recorder.inputs
    }
    values = run(recorder.graph.nodes, known)
    for node, theirs in zip(nodes, expected, strict=True):
        _close(values[node], theirs)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (layers.affine, "x w b"),
        (layers.batchnorm, "x gamma beta"),
        (layers.layernorm, "x gamma beta"),
        (layers.conv, "x w b"),
        (layers.conv_im2col, "x w"),
        (layers.max_pool, "x"),
        (layers.softmax_loss, "x"),
        (layers.svm_loss, "x"),
        (layers.rnn, "x h0 Wx Wh b"),
        (layers.embedding, "W"),
        (layers.attention, "q k v"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_recorded_has_the_right_gradients(code, names):
    args = _arguments(PAIRS[code], 1)
    recorder, found = recorded(code, args)
    given = dict(zip(code.__code__.co_varnames, args, strict=False))
    upstream = given.get("dout", given.get("dh"))
    derived = derivation(recorder, found[0], names.split(), None if upstream is None else torch.tensor(upstream))
    for name, ours in zip(names.split(), found[1:], strict=False):
        assert torch.allclose(derived.grads[name], ours, rtol=1e-12, atol=1e-12)


def test_loops_that_branch_on_values():
    code, args = layers.svm_loss_naive, _arguments([(4, 3), (5, 4), [3, 5]], 1)
    expected = code(*args)
    recorder, found = recorded(code, args)
    for ours, theirs in zip(found, expected, strict=True):
        _close(ours, theirs)
    nearby = [args[0] * (1 + 1e-6), args[1], args[2]]  # where every branch is the same
    _compared(recorder, found, code, nearby, code(*nearby))


def test_float32_stays_float32():
    args = [a.astype(np.float32) for a in _arguments(PAIRS[layers.layernorm], 1)]
    _, found = recorded(layers.layernorm, args)
    assert all(t.dtype == torch.float32 for t in found)
    for ours, theirs in zip(found, layers.layernorm(*args), strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (0, 3), (1, 4)])
def test_small_and_empty_shapes(shape):
    args = [np.ones(shape), np.full(shape, 2.0)]
    _, found = recorded(layers.relu, args)
    for ours, theirs in zip(found, layers.relu(*args), strict=True):
        _close(ours, theirs)


def test_the_module_is_put_back_after_an_error():
    before = dict(vars(layers))
    with pytest.raises(ZeroDivisionError), numpy_as_torch(layers.affine):
        assert layers.np is not np and layers.exp is not np.exp
        raise ZeroDivisionError
    assert {k: v for k, v in vars(layers).items() if before[k] is not v} == {}


def test_numbers_keep_their_value_when_the_array_changes():
    def nudged(x):
        old = x[0]
        x[0] = old + 1
        up = x.sum()
        x[0] = old
        total = x.sum()
        kept = total
        total += 5
        return up, kept, total, x

    with numpy_as_torch(nudged):
        up, kept, total, x = nudged(as_arrays(np.array([1.0, 2.0])))
    assert (float(up), float(kept), float(total), x.tolist()) == (4.0, 3.0, 8.0, [1.0, 2.0])


def test_views_write_to_their_array():
    def written(x):
        row, turned = x[1], x.T
        row *= 2
        turned[0, 0] = 7
        flat = x.reshape(-1)
        flat[-1] += 1
        copied = x[[0]]
        copied += 100
        return x + 0

    x = np.arange(6.0).reshape(2, 3)
    recorder, found = recorded(lambda x: (written(x),), [x])
    _close(found[0], written(x.copy()))
    assert recorder.entry(found[0]) is not None


def test_index_lists_apart_from_single_places():
    x = np.arange(24.0).reshape(2, 3, 4)
    for index in [(0, slice(None), [1, 2]), (slice(None), 1, [0, 3]), ([0, 1], slice(1, None), 2), (..., None, 1)]:
        _close(as_arrays(x)[index].tensor, x[index])


class Net:
    def __init__(self):
        self.params = {"w": np.array([[1.0, 2.0, 3.0]])}
        self.losses = []

    def step(self, x):
        self.grads = {"w": x.T @ np.ones_like(x @ self.params["w"])}
        return np.sum(x @ self.params["w"])


def test_objects_that_hold_arrays():
    net = Net()
    held = as_arrays(net)
    with numpy_as_torch(net.step):
        loss = held.step(as_arrays(np.ones((2, 1))))
    assert isinstance(held.params["w"], Array) and isinstance(net.params["w"], np.ndarray)
    assert held.losses is net.losses and not hasattr(net, "grads")
    assert float(loss) == 12 and as_tensors(held.grads)["w"].shape == (1, 3)


W = np.ones((2, 2))


def test_global_arrays_are_torch_arrays_for_the_time():
    def total(x):
        W[0] *= 2
        return (x * W).sum()

    before = W
    with numpy_as_torch(total):
        assert float(total(as_arrays(np.ones(2)))) == 6
    assert W is before and W.sum() == 4


def test_closed_over_arrays_and_modules():
    import numpy as array_module

    scale = array_module.ones(2) * 3
    given = types.SimpleNamespace(x=np.ones(2))

    def code(given):
        return array_module.sum(given.x * scale)

    with numpy_as_torch(code):
        assert isinstance(code(as_arrays(given)), Array)
    assert code(given) == 6 and isinstance(scale, np.ndarray)


def test_generators_of_random_numbers():
    def code(x, generator):
        return x * (generator.random(3) < 0.5) / 0.5

    x = np.ones(3)
    with numpy_as_torch(code):
        found = code(as_arrays(x), np.random.default_rng(0))
    _close(found.tensor, code(x, np.random.default_rng(0)))


def test_as_arrays_and_back():
    x = torch.ones(2)
    value = (x, [x, {"k": np.ones(1), "n": None}], 3, "s")
    there = as_arrays(value)
    assert there[0] is there[1][0] and there[0].tensor is x
    back = as_tensors(there)
    assert back[0] is x and back[1][0] is x and back[1][1]["k"].dtype == torch.float64
    plain = (3, ["s"])
    assert as_arrays(plain) is plain


def doubled(x):
    return np.add(x, x)


def only_calls(x):
    return doubled(x)


def test_is_numpy_code():
    assert is_numpy_code(layers.affine, ()) and is_numpy_code(layers.affine, (np.ones(2),))
    assert is_numpy_code(only_calls, ()) and is_numpy_code(Net().step, ()) and is_numpy_code(Net(), ())
    assert not is_numpy_code(layers.affine, (torch.ones(2),))
    assert not is_numpy_code(lambda x: torch.exp(x), ()) and not is_numpy_code(lambda x: x, ())
