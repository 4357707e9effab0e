"""Cross entropy with class weights and smoothing as a torch.autograd.Function that asks needs_input_grad."""

import torch
from torch.autograd.function import once_differentiable

CHECK = "weighted_cross_entropy"


def inputs():
    torch.manual_seed(25)
    logits = torch.randn(6, 5, requires_grad=True)
    return logits, torch.tensor([0, 2, 2, 4, 1, 3]), torch.rand(5, requires_grad=True)


class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target, weight):
        logp = torch.log_softmax(logits, 1)
        picked = logp.gather(1, target[:, None]).squeeze(1)
        ctx.save_for_backward(logp, target, weight, picked)
        # ~ wrong-tensor: ctx.save_for_backward(logits, target, weight, picked)
        return -(weight[target] * picked).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        logp, target, weight, picked = ctx.saved_tensors
        n = len(target)
        dlogits = dweight = None
        if ctx.needs_input_grad[0]:
            delta = logp.exp()
            # ~ double-applied: delta = logp.exp().softmax(1)
            # ~ wrong-tensor|missing-factor: delta = logp.clone()
            # ~ wrong-axis|wrong-tensor: delta = torch.softmax(logp, 0)
            delta[torch.arange(n), target] -= 1
            # ~ missing-term (logits):
            # ~ wrong-axis|wrong-mask: delta[torch.arange(n), target.flip(0)] -= 1
            # = delta = delta - torch.nn.functional.one_hot(target, delta.shape[1])
            dlogits = grad_loss * delta * weight[target][:, None] / n
            # ~ upstream-dropped: dlogits = delta * weight[target][:, None] / n
            # ~ missing-factor: dlogits = grad_loss * delta / n
            # ~ wrong-axis|wrong-tensor|wrong-factor: dlogits = grad_loss * delta * weight / n
            # ~ wrong-scale: dlogits = grad_loss * delta * weight[target][:, None]
            # ~ wrong-scale: dlogits = grad_loss * delta * weight[target][:, None] / delta.numel()
            # ~ sign: dlogits = -grad_loss * delta * weight[target][:, None] / n
            # ~ inplace-corruption|contract: dlogits = logp.exp_().sub_(torch.eye(5)[target]) * grad_loss * weight[target][:, None] / n
            # = dlogits = torch.diag(weight[target]) @ delta * (grad_loss / n)
        weighted = ctx.needs_input_grad[2]
        # ~ missing-gradient|contract (weight): weighted = ctx.needs_input_grad[1]
        if weighted:
            dweight = torch.zeros_like(weight)
            dweight.index_add_(0, target, -grad_loss * picked / n)
            # ~ index-overwrite: dweight[target] += -grad_loss * picked / n
            # ~ index-overwrite: dweight[target] = -grad_loss * picked / n
            # ~ sign: dweight.index_add_(0, target, grad_loss * picked / n)
            # ~ upstream-dropped: dweight.index_add_(0, target, -picked / n)
            # ~ wrong-scale: dweight.index_add_(0, target, -grad_loss * picked)
            # ~ missing-gradient|lost-path:
            # = dweight = torch.bincount(target, -grad_loss * picked / n, minlength=len(weight)).to(weight)
        return dlogits, None, dweight


def weighted_cross_entropy(logits, target, weight):
    return CrossEntropy.apply(logits, target, weight)
