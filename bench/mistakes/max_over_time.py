"""A convolution by windows and the largest response over time, written to the place it came from."""

import torch
import torch.nn.functional as F

CHECK = "step"


def inputs():
    torch.manual_seed(23)
    signal = torch.randn(4, 9)
    kernel, w = torch.randn(3, 5), torch.randn(5, 3)
    labels = torch.tensor([2, 0, 1, 1])
    return signal, kernel, w, labels


def step(signal, kernel, w, labels):
    windows = signal.unfold(1, 3, 1)  # (4, 7, 3)
    resp = windows @ kernel  # (4, 7, 5)
    best = resp.max(1)
    pooled = best.values
    logits = pooled @ w
    loss = F.nll_loss(F.log_softmax(logits, 1), labels)

    logits.g = (logits.softmax(1) - F.one_hot(labels, 3)) / labels.shape[0]
    # ~ wrong-axis: logits.g = (logits.softmax(0) - F.one_hot(labels, 3)) / labels.shape[0]
    # ~ wrong-scale: logits.g = logits.softmax(1) - F.one_hot(labels, 3)
    # ~ missing-factor|wrong-tensor: logits.g = (logits - F.one_hot(labels, 3)) / labels.shape[0]
    w.g = pooled.T @ logits.g
    # ~ wrong-tensor: w.g = resp.mean(1).T @ logits.g
    # ~ missing-gradient:
    pooled.g = logits.g @ w.T
    resp.g = torch.zeros_like(resp)
    resp.g.scatter_(1, best.indices[:, None], pooled.g[:, None])
    # ~ wrong-mask|wrong-tensor|wrong-axis: resp.g.scatter_(1, resp.argmin(1)[:, None], pooled.g[:, None])
    # ~ upstream-dropped: resp.g.scatter_(1, best.indices[:, None], 1.0)
    # ~ missing-factor|wrong-mask: resp.g += pooled.g[:, None]
    # ~ wrong-mask|wrong-axis|wrong-tensor|unknown: resp.g[:, 0] = pooled.g
    # = resp.g.copy_((resp == pooled[:, None]) * pooled.g[:, None])
    kernel.g = torch.einsum("bti,bto->io", windows, resp.g)
    # ~ missing-broadcast-sum|wrong-shape: kernel.g = windows.transpose(1, 2) @ resp.g
    # ~ wrong-scale: kernel.g = torch.einsum("bti,bto->io", windows, resp.g) / len(signal)
    # = kernel.g = windows.reshape(-1, 3).T @ resp.g.reshape(-1, 5)
    windows_g = resp.g @ kernel.T
    signal.g = torch.zeros_like(signal)
    for i in range(3):
        signal.g[:, i : i + 7] += windows_g[:, :, i]
        # ~ overwritten-not-accumulated|index-overwrite: signal.g[:, i : i + 7] = windows_g[:, :, i]
        # ~ wrong-tensor|wrong-axis|unknown: signal.g[:, i : i + 7] += windows_g[:, :, 2 - i]
        # = signal.g[:, i : i + 7].add_(windows_g.select(2, i))
    return loss
