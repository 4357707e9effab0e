"""Two residual steps with silu and tanh, the gradient of the stream accumulated with +=."""

import torch

CHECK = "run"


def inputs():
    torch.manual_seed(16)
    return torch.randn(5, 4), torch.randn(4, 4) / 2, torch.randn(4, 4) / 2, torch.randn(4)


def run(x0, wa, wb, readout):
    pa = x0 @ wa
    sig = torch.sigmoid(pa)
    ha = pa * sig
    x1 = x0 + ha
    pb = x1 @ wb
    hb = pb.tanh()
    x2 = x1 + hb
    # ~ inplace-corruption: x2 = x1.add_(hb)
    logits = x2 @ readout
    loss = logits.exp().mean()

    logits.g = logits.exp() / logits.numel()
    # ~ wrong-scale: logits.g = logits.exp()
    # ~ missing-factor: logits.g = torch.ones_like(logits) / logits.numel()
    # = logits.g = logits.softmax(0) * loss
    x2.g = torch.outer(logits.g, readout)
    # = x2.g = logits.g[:, None] * readout[None]
    readout.g = x2.T @ logits.g
    # ~ wrong-tensor: readout.g = x1.T @ logits.g
    # ~ missing-gradient:
    hb.g = x2.g * 1
    pb.g = (1 - hb**2) * hb.g
    # ~ wrong-exponent: pb.g = (1 - hb) * hb.g
    # ~ wrong-tensor: pb.g = (1 - pb**2) * hb.g
    # ~ missing-factor: pb.g = hb.g * 1
    wb.g = x1.T @ pb.g
    # ~ wrong-tensor: wb.g = x0.T @ pb.g
    # ~ transposed: wb.g = pb.g.T @ x1
    x1.g = x2.g.clone()
    # ~ lost-path|missing-term: x1.g = torch.zeros_like(x1)
    x1.g += pb.g @ wb.T
    # ~ lost-path|missing-term (x1):
    # ~ overwritten-not-accumulated|lost-path: x1.g = pb.g @ wb.T
    # ~ transposed: x1.g += pb.g @ wb
    # ~ double-counted-path|wrong-term-scale: x1.g += 2 * pb.g @ wb.T
    # = x1.g.addmm_(pb.g, wb.T)
    ha.g = x1.g.clone()
    pa.g = ha.g * sig * (1 + pa * (1 - sig))
    # ~ missing-term|lost-path: pa.g = ha.g * sig
    # ~ wrong-factor|missing-term|missing-factor: pa.g = ha.g * sig * (1 - sig)
    # ~ wrong-term-scale: pa.g = ha.g * sig * (1 - pa * (1 - sig))
    # ~ missing-term|lost-path: pa.g = ha.g * sig * pa * (1 - sig)
    # = pa.g = ha.g * (sig + ha * (1 - sig))
    wa.g = x0.T @ pa.g
    x0.g = x1.g.clone()
    x0.g += pa.g @ wa.T
    # ~ overwritten-not-accumulated|lost-path: x0.g = pa.g @ wa.T
    # ~ double-counted-path|wrong-term-scale: x0.g += pa.g @ wa.T + x1.g
    # = x0.g = x0.g + (wa @ pa.g.T).T
    return loss
