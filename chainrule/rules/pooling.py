"""Pooling and unpooling over windows."""
