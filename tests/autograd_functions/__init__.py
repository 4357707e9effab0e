"""torch.autograd.Functions, right ones and such as break a promise of their kind."""
