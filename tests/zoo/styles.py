"""Ways of writing: modules, classes, closures, lambdas, helper functions, in-place steps, cut paths."""

from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.registry import normal, positive, whole, zoo

torch.manual_seed(11)


class Block(nn.Module):
    """A residual block, as modules are written."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


BLOCKS = nn.Sequential(Block(4), Block(4), nn.Linear(4, 3)).double()
SEQUENTIAL = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.LogSoftmax(dim=1)).double()
CENTRES = normal(3, 4)


@zoo(lambda n: (normal(n, 4), whole(3, n)))
def residual_module(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(BLOCKS(x), y)


@zoo(lambda n: (normal(n, 4), whole(3, n)))
def sequential_module(xb: Tensor, yb: Tensor) -> Tensor:
    return F.nll_loss(SEQUENTIAL(xb), yb)


zoo(lambda n: (normal(n, 4),), name="a_module_itself")(BLOCKS)


@zoo(lambda n: (normal(n, 4),))
def closing_over_a_tensor(x: Tensor) -> Tensor:
    d = ((x[:, None] - CENTRES) ** 2).sum(-1)
    return (-d).logsumexp(1).mean()


class Lin:
    """A layer with __call__, as courses write it."""

    def __init__(self, w: Tensor, b: Tensor) -> None:
        self.w, self.b = w, b

    def __call__(self, inp: Tensor) -> Tensor:
        self.inp = inp
        self.out = inp @ self.w + self.b
        return self.out


class Relu:
    def __call__(self, inp: Tensor) -> Tensor:
        self.inp = inp
        self.out = inp.clamp_min(0.0) - 0.5
        return self.out


class Mse:
    def __call__(self, inp: Tensor, targ: Tensor) -> Tensor:
        self.inp, self.targ = inp, targ
        self.out = (inp.squeeze(-1) - targ).pow(2).mean()
        return self.out


class Model:
    def __init__(self, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> None:
        self.layers = [Lin(w1, b1), Relu(), Lin(w2, b2)]
        self.loss = Mse()

    def __call__(self, x: Tensor, targ: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.loss(x, targ)


@zoo(lambda n: (normal(n, 4), normal(4, 5), normal(5), normal(5, 1), normal(1), normal(n)))
def classes_with_call(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, y: Tensor) -> Tensor:
    return Model(w1, b1, w2, b2)(x, y)


zoo(lambda n: (normal(n, 4), normal(n)), name="an_object_called")(
    Model(normal(4, 5), normal(5), normal(5, 1), normal(1))
)
zoo(lambda n: (normal(n, 3), normal(3)), name="a_lambda")(lambda x, w: (x @ w).tanh().mean())
zoo(lambda n: (normal(n, 3), normal(3)), name="a_lambda_of_lambdas")(
    lambda x, w: (lambda h: (lambda k: k * h)(h.exp()))(x * w)
)
zoo(lambda n: (normal(n, 3), normal(n, 3)), name="a_partial")(partial(F.mse_loss, reduction="sum"))


@zoo(lambda n: (normal(n, 4), normal(4, 4), normal(4)))
def in_place_steps(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    h = x @ w
    h += b
    h = h.relu_()
    return h.sum(1).pow(2).mean()


@zoo(lambda n: (normal(n, 4), normal(n, 4)))
def running_total(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros(4, dtype=torch.float64)
    for row in (a * b).mean(0), a.mean(0), b.pow(2).mean(0):
        total += row
    return total.sin()


@zoo(lambda n: (normal(n, 4), normal(4)), smooth=False)
def region_without_gradient(x: Tensor, w: Tensor) -> Tensor:
    h = x * w
    with torch.no_grad():
        scale = h.abs().max() + 1
    return (h / scale).exp().sum()


@zoo(lambda n: (normal(n, 4), normal(4)), smooth=False)
def detached_target(x: Tensor, w: Tensor) -> Tensor:
    online = (x * w).tanh()
    target = online.detach() * 0.9 + 0.1
    return ((online - target) ** 2).mean() + (x.detach() * x).sum()


@zoo(lambda n: (normal(n, 4),), smooth=False)
def straight_through(x: Tensor) -> Tensor:
    hard = (x > 0).to(x.dtype)
    soft = x.sigmoid()
    return ((hard - soft).detach() + soft).pow(2).sum()


zoo(lambda n: (normal(n, 4),), name="straight_through_identity", smooth=False)(
    lambda x: (((x > 0).double() - x).detach() + x).pow(2).sum()
)


@zoo(lambda n: (normal(n, 2), {"first": {"w": normal(2, 3)}, "rest": [normal(3, 3), normal(3, 1)]}))
def nested_parameters(x: Tensor, params: dict) -> Tensor:
    h = x @ params["first"]["w"]
    return reduce(lambda a, w: a.tanh() @ w, params["rest"], h).pow(2).sum()


@zoo(lambda n: (normal(n, 3), normal(n, 3)))
def the_same_name_again(x: Tensor, y: Tensor) -> Tensor:
    x = x * y
    x = x + y
    x = x.exp() * x
    return x.sum()


@zoo(lambda n: (normal(n, 3), normal(3)))
def names_that_clash(sum: Tensor, F: Tensor) -> Tensor:
    float = sum * F
    lambda_ = float.exp()
    return (lambda_ + float).sum()


def twice(f, x):
    return f(f(x))


@zoo(lambda n: (normal(n, 3), normal(3, 3)))
def function_that_takes_a_function(x: Tensor, w: Tensor) -> Tensor:
    return twice(lambda h: torch.sin(h @ w), x)


@zoo(lambda n: (normal(n, 3), positive(3), normal(3)))
def an_argument_that_does_not_matter(x: Tensor, scale: Tensor, unused: Tensor) -> Tensor:
    ignored = unused * 2
    kept = x / scale + 0 * ignored.detach()
    return kept.pow(2).sum()


@zoo(lambda n: (normal(n, 3),))
def returns_a_value_half_way(x: Tensor) -> Tensor:
    y = x.exp()
    z = y.sum()
    z.sin()
    return y


@zoo(lambda n: (normal(n, 3),))
def no_operation_between(x: Tensor) -> Tensor:
    return x.sum()


@zoo(lambda n: (normal(n, 3), normal(n, 3)))
def written_with_functions(a: Tensor, b: Tensor) -> Tensor:
    return torch.sum(torch.mul(torch.add(a, b), torch.sub(a, b)).div(torch.add(torch.square(b), 1)))
