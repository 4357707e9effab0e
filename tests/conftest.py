"""One thread for each worker, the same numbers in every run, and the same day for all."""

import gc
from collections.abc import Iterator

import pytest
import sweeps  # noqa: F401  # before the workers start
import torch

torch.set_num_threads(1)
gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def pytest_collection_finish() -> None:
    keep_what_is_there()


@pytest.fixture(autouse=True, scope="module")
def kept() -> Iterator[None]:
    yield
    keep_what_is_there()


def keep_what_is_there() -> None:
    """Modules, tests and cached cases stay to the end: the collector need not look through them again and again."""
    gc.collect()
    gc.freeze()
