"""The engine "torch": a step as straight-line calls of torch, in memory planned ahead."""
