"""torch.autograd.Functions: their backward as one of a pair, and what else they promise."""
