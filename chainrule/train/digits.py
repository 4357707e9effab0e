"""The handwritten digits of scikit-learn: 1797 images of 8x8 pixels, cut into train and held-out once and for all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

TRAIN = 1437  # four fifths


@dataclass(frozen=True)
class Digits:
    """Images as rows of 64 pixels between 0 and 1, labels from 0 to 9."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


def digits(seed: int = 0) -> tuple[Digits, Digits]:
    """The train and the held-out digits."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = torch.tensor(loaded.data, dtype=torch.float32) / 16
    labels = torch.tensor(loaded.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train, held_out = order[:TRAIN], order[TRAIN:]
    return Digits(images[train], labels[train]), Digits(images[held_out], labels[held_out])
