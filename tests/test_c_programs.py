"""Engine "c": random programs of matrices, which write into their arguments, against aten in float64."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from in_c import compiled, r, wide
from torch import Tensor

Operation = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
OPERATIONS: list[Operation] = [  # of a matrix, another one, and one that it can be multiplied with
    lambda x, y, z: x.tanh(),
    lambda x, y, z: x.t() * 0.5,
    lambda x, y, z: x - x.mean(1, keepdim=True),
    lambda x, y, z: x + x.sum(0),
    lambda x, y, z: x.softmax(1),
    lambda x, y, z: torch.where(x > 0, x, x * 0.1),
    lambda x, y, z: x * y if x.shape == y.shape else x.amax(1, keepdim=True) * x,
    lambda x, y, z: x @ z * 0.3 if z is not None else x.sigmoid(),
    lambda x, y, z: (x.t() @ x).tanh(),
    lambda x, y, z: x.reshape(x.shape[1], x.shape[0]),
    lambda x, y, z: torch.cat([x, x.flip(1)], 1)[:, ::2],
    lambda x, y, z: x[: (x.shape[0] + 1) // 2],
]


def random_program(seed: int) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """Some operations on matrices; what was made last goes into new values of the arguments, too."""
    choose = random.Random(seed)
    sizes = [choose.choice([1, 2, 3, 5, 8, 17]) for _ in range(3)]
    shapes = [(choose.choice(sizes), choose.choice(sizes)) for _ in range(4)]
    steps = [(choose.choice(OPERATIONS), choose.random(), choose.random()) for _ in range(choose.randint(3, 14))]

    def program(*given: Tensor) -> tuple[Tensor, ...]:
        values = list(given)
        for operation, one, other in steps:
            x, y = values[int(one * len(values))], values[int(other * len(values))]
            fits = [v for v in values if v.shape[0] == x.shape[1]]
            values.append(operation(x, y, fits[int(other * len(fits))] if fits else None))
        made = values[len(given) :][-3:]
        news = [a - 0.1 * next((v for v in reversed(made) if v.shape == a.shape), a) for a in given]
        return (*news, *made, values[-1].sum())

    return program, [r(*shape) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(30))
def test_random_programs(seed: int, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    program, args = random_program(seed)
    args = [a.to(dtype) for a in args]
    wanted = program(*map(wide, args))
    mine = [a.clone() for a in args]
    step = compiled(program, mine, {k: k for k in range(len(args))})
    near = 1e-11 if dtype == torch.float64 else 1e-4
    for a, b in zip([*mine, *step(*mine)], wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=near, atol=near, msg=step.source)
