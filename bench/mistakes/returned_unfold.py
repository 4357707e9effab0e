"""A convolution by unfold and matmul; its backward pass by fold."""

import torch
import torch.nn.functional as F

CHECK = "conv_step"
STRIDE, PAD = 2, 1


def inputs():
    torch.manual_seed(3)
    return torch.randn(2, 3, 7, 5), torch.randn(4, 3, 3, 3), torch.randn(4), torch.randn(2, 4, 4, 3)


def conv_step(x, w, b, y):
    n, _, h, wd = x.shape
    f, _, kh, kw = w.shape
    oh, ow = (h + 2 * PAD - kh) // STRIDE + 1, (wd + 2 * PAD - kw) // STRIDE + 1
    cols = F.unfold(x, (kh, kw), padding=PAD, stride=STRIDE)
    out = w.reshape(f, -1) @ cols + b[:, None]
    diff = out.reshape(n, f, oh, ow) - y
    loss = 0.5 * diff.pow(2).sum() / n

    dout = (diff / n).reshape(n, f, oh * ow)
    # ~ wrong-scale: dout = diff.reshape(n, f, oh * ow)
    # ~ wrong-scale: dout = (2 * diff / n).reshape(n, f, oh * ow)
    # ~ sign: dout = -(diff / n).reshape(n, f, oh * ow)
    # = dout = diff.flatten(2).div(n)
    db = dout.sum((0, 2))
    # ~ wrong-axis|wrong-scale: db = dout.sum(2).mean(0)
    # ~ missing-broadcast-sum|wrong-shape: db = dout.sum(0)
    # ~ wrong-axis|missing-broadcast-sum|wrong-shape: db = dout.sum((0, 1))
    # = db = dout.sum(0).sum(1)
    dw = (dout @ cols.transpose(1, 2)).sum(0).reshape(w.shape)
    # ~ wrong-shape: dw = (dout @ cols.transpose(1, 2)).sum(0)
    # ~ wrong-axis|wrong-scale: dw = (dout @ cols.transpose(1, 2)).mean(0).reshape(w.shape)
    # ~ missing-term|missing-broadcast-sum|lost-path: dw = (dout[0] @ cols[0].T).reshape(w.shape)
    # ~ transposed|wrong-shape: dw = (cols @ dout.transpose(1, 2)).sum(0).reshape(w.shape)
    # = dw = torch.einsum("nfl,nkl->fk", dout, cols).view(f, -1, kh, kw)
    dcols = w.reshape(f, -1).T @ dout
    # ~ transposed: dcols = w.reshape(-1, f) @ dout
    dx = F.fold(dcols, (h, wd), (kh, kw), padding=PAD, stride=STRIDE)
    # ~ wrong-scale: dx = F.fold(dcols, (h, wd), (kh, kw), padding=PAD, stride=STRIDE) / n
    # ~ sign: dx = -F.fold(dcols, (h, wd), (kh, kw), padding=PAD, stride=STRIDE)
    # ~ missing-gradient: dx = torch.zeros_like(x)
    return loss, dx, dw, db
