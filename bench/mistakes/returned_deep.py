"""Three layers with sigmoid, tanh and a squared error; only the gradients are returned."""
# ruff: noqa: F841

import torch

CHECK = "backprop"


def inputs():
    torch.manual_seed(2)
    sizes = [5, 4, 7, 3]
    weights = [torch.randn(m, n) for m, n in zip(sizes[1:], sizes)]
    biases = [torch.randn(m, 1) for m in sizes[1:]]
    return torch.randn(5, 6), torch.randn(3, 6), *weights, *biases


def backprop(x, t, W1, W2, W3, b1, b2, b3):
    n = x.shape[1]  # the examples are columns
    z1 = W1 @ x + b1
    l1 = torch.sigmoid(z1)
    z2 = W2 @ l1 + b2
    l2 = torch.tanh(z2)
    z3 = W3 @ l2 + b3
    loss = ((z3 - t) ** 2).sum() / (2 * n)

    delta3 = (z3 - t) / n
    # ~ wrong-scale: delta3 = (z3 - t) / (2 * n)
    # ~ sign: delta3 = (t - z3) / n
    # ~ wrong-scale: delta3 = z3 - t
    # ~ wrong-axis|wrong-scale: delta3 = (z3 - t) / x.shape[0]
    dW3 = delta3 @ l2.T
    # ~ transposed|wrong-shape: dW3 = l2 @ delta3.T
    # ~ wrong-tensor: dW3 = delta3 @ z2.T
    # ~ wrong-scale: dW3 = delta3 @ l2.T / n
    db3 = delta3.sum(1, keepdim=True)
    # ~ wrong-shape: db3 = delta3.sum(1)
    # ~ wrong-scale: db3 = delta3.mean(1, keepdim=True)
    # = db3 = delta3 @ torch.ones(n, 1)
    d_l2 = W3.T @ delta3
    # ~ upstream-dropped|missing-factor: d_l2 = W3.T @ torch.ones_like(delta3)
    delta2 = d_l2 * (1 - l2**2)
    # ~ wrong-tensor|wrong-factor: delta2 = d_l2 * (1 - z2**2)
    # ~ wrong-exponent|wrong-factor: delta2 = d_l2 * (1 - l2)
    # ~ wrong-factor: delta2 = d_l2 * l2 * (1 - l2)
    # ~ missing-factor: delta2 = d_l2
    # ~ upstream-dropped: delta2 = 1 - l2**2
    # = delta2 = d_l2 / torch.cosh(z2) ** 2
    # = delta2 = d_l2 * (1 - l2) * (1 + l2)
    dW2 = delta2 @ l1.T
    # ~ wrong-tensor|missing-factor: dW2 = d_l2 @ l1.T
    db2 = delta2.sum(1, keepdim=True)
    # ~ missing-gradient: db2 = torch.zeros_like(b2)
    l1_grad = W2.T @ delta2
    # ~ wrong-tensor|missing-factor: l1_grad = W2.T @ d_l2
    grad_z1 = l1_grad * l1 * (1 - l1)
    # ~ missing-factor|wrong-factor: grad_z1 = l1_grad * l1
    # ~ double-applied|wrong-tensor: grad_z1 = l1_grad * torch.sigmoid(l1) * (1 - torch.sigmoid(l1))
    # ~ wrong-exponent|wrong-factor|wrong-term-scale: grad_z1 = l1_grad * l1 * (1 - l1) ** 2
    # = grad_z1 = l1_grad * (l1 - l1.square())
    dW1 = grad_z1 @ x.T
    # ~ missing-factor|wrong-tensor: dW1 = l1_grad @ x.T
    db1 = grad_z1.sum(1, keepdim=True)
    # ~ missing-broadcast-sum|wrong-shape: db1 = grad_z1
    return [dW1, dW2, dW3, db1, db2, db3]
