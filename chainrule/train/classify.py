"""The same network with one output a digit and the cross-entropy."""

import torch
import torch.nn.functional as F

from chainrule.train.digits import digits

nh = 50
w1, b1 = torch.randn(64, nh) * (2 / 64) ** 0.5, torch.zeros(nh)
w2, b2 = torch.randn(nh, 10) * (1 / nh) ** 0.5, torch.zeros(10)


def lin(inp, w, b):
    return inp @ w + b


def relu(x):
    return x.clamp_min(0.0)


def model(inp):
    l1 = lin(inp, w1, b1)
    l2 = relu(l1)
    return lin(l2, w2, b2)


def forward(inp, targ):
    out = model(inp)
    loss = F.cross_entropy(out, targ)
    return loss


def inputs():
    train, _ = digits()
    return train.images, train.labels
