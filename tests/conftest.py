"""One thread for each worker, the same numbers in every run, and the same day for all."""

import gc
import os

import pytest
import sweeps  # noqa: F401  # before the workers start
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers, and of what they start
torch.set_num_threads(1)
gc.set_threshold(700, 50, 100)  # all that the tests hold takes a second to look through


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
