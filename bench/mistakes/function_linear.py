"""A linear layer as a torch.autograd.Function, with a bias that may be None."""

import torch
from torch.autograd import Function

CHECK = "call"


def inputs():
    torch.manual_seed(20)
    return (
        torch.randn(3, 4).T.requires_grad_(),
        torch.randn(5, 3, requires_grad=True),
        torch.randn(5, requires_grad=True),
    )


class LinearFunction(Function):
    @staticmethod
    def forward(ctx, input, weight, bias=None):
        ctx.save_for_backward(input, weight)
        # ~ wrong-tensor|wrong-factor|stale-parameter: ctx.save_for_backward(input, weight + 1)
        ctx.has_bias = bias is not None
        # ~ missing-gradient (bias): ctx.has_bias = False
        output = input.mm(weight.t())
        if bias is not None:
            output = output + bias
        return output

    @staticmethod
    def backward(ctx, grad_output):
        input, weight = ctx.saved_tensors
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = grad_output.mm(weight)
            # ~ wrong-scale: grad_input = grad_output.mm(weight) / grad_output.shape[0]
            # ~ sign: grad_input = -grad_output.mm(weight)
            # ~ upstream-dropped: grad_input = torch.ones_like(grad_output).mm(weight)
            # ~ missing-gradient: grad_input = None
            # = grad_input = torch.einsum("no,oi->ni", grad_output, weight)
        if ctx.needs_input_grad[1]:
            grad_weight = grad_output.t().mm(input)
            # ~ transposed|wrong-shape: grad_weight = input.t().mm(grad_output)
            # ~ contract: grad_weight = grad_output.t().mm(input.view(-1).view(len(grad_output), -1))
            # ~ wrong-scale: grad_weight = grad_output.t().mm(input) / len(input)
            # = grad_weight = input.t().mm(grad_output).t()
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = grad_output.sum(0)
            # ~ wrong-scale: grad_bias = grad_output.mean(0)
            # ~ wrong-axis|wrong-shape: grad_bias = grad_output.sum(1)
            # = grad_bias = grad_output.t().sum(dim=-1)
        return grad_input, grad_weight, grad_bias
        # ~ missing-gradient (bias): return grad_input, grad_weight, None


def call(x, w, b):
    return LinearFunction.apply(x, w, b)
