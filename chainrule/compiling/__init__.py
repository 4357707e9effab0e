"""The fast step: forward, derived backward and update as one known program, without autograd.

`derive` (with the kernels of the rule book) -> `lowering` (one functional graph of aten operations) -> an engine.
"""
