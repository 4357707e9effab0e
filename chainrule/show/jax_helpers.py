"""Functions that emitted JAX code brings with it. Their text is copied as it stands here: each needs `jax` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax

# mypy: disable-error-code="no-untyped-def"


def traced(*values):
    return any(isinstance(v, jax.core.Tracer) for v in values)
