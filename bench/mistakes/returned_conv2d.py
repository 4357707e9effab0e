"""F.conv2d with relu and average pooling; the gradients by einsum and torch.nn.grad."""

import torch
import torch.nn.functional as F

CHECK = "train_step"


def inputs():
    torch.manual_seed(4)
    return torch.randn(3, 2, 6, 5), torch.tensor([0, 3, 1]), torch.randn(4, 2, 3, 2), torch.randn(4)


def train_step(images, labels, kernel, bias):
    z = F.conv2d(images, kernel, bias)
    a = F.relu(z)
    logits = a.mean((2, 3))
    loss = F.cross_entropy(logits, labels)

    p = F.softmax(logits, dim=1)
    dlogits = (p - F.one_hot(labels, p.shape[1])) / len(labels)
    # ~ wrong-scale: dlogits = p - F.one_hot(labels, p.shape[1])
    # ~ sign: dlogits = (F.one_hot(labels, p.shape[1]) - p) / len(labels)
    # ~ missing-term: dlogits = p / len(labels)
    # ~ wrong-axis|wrong-tensor: dlogits = (F.softmax(logits, dim=0) - F.one_hot(labels, p.shape[1])) / len(labels)
    # ~ wrong-tensor: dlogits = (logits - F.one_hot(labels, p.shape[1])) / len(labels)
    # ~ double-applied: dlogits = (F.softmax(p, dim=1) - F.one_hot(labels, p.shape[1])) / len(labels)
    # = dlogits = p.clone() ;; dlogits[torch.arange(len(labels)), labels] -= 1 ;; dlogits /= len(labels)
    da = dlogits[:, :, None, None].expand_as(a) / (a.shape[2] * a.shape[3])
    # ~ wrong-scale: da = dlogits[:, :, None, None].expand_as(a)
    # ~ wrong-scale: da = dlogits[:, :, None, None].expand_as(a) / a.shape[2]
    # = da = dlogits[:, :, None, None] * torch.ones_like(a) / a[0, 0].numel()
    dz = da * (z > 0)
    # ~ missing-factor: dz = da
    # ~ wrong-mask: dz = da * (z <= 0)
    # ~ wrong-factor: dz = da * z
    # = dz = da * a.sign()
    dbias = dz.sum((0, 2, 3))
    # ~ wrong-axis|wrong-scale: dbias = dz.mean((0, 2, 3))
    # ~ missing-broadcast-sum|wrong-shape: dbias = dz.sum(0)
    # = dbias = torch.einsum("nfhw->f", dz)
    dkernel = torch.nn.grad.conv2d_weight(images, kernel.shape, dz)
    # ~ wrong-tensor|missing-factor: dkernel = torch.nn.grad.conv2d_weight(images, kernel.shape, da)
    # ~ wrong-scale: dkernel = torch.nn.grad.conv2d_weight(images, kernel.shape, dz) / len(images)
    # = dkernel = F.conv2d(images.transpose(0, 1), dz.transpose(0, 1)).transpose(0, 1)
    dimages = torch.nn.grad.conv2d_input(images.shape, kernel, dz)
    # ~ transposed|wrong-tensor|wrong-axis: dimages = torch.nn.grad.conv2d_input(images.shape, kernel.flip(2, 3), dz)
    # = dimages = F.conv_transpose2d(dz, kernel)
    return loss, dimages, dkernel, dbias
