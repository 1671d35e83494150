"""Sample the images of a batch as a function of (seed, batch number) alone, so that training can start anywhere."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
import torch


class ImageDraw(NamedTuple):
    """One image in one epoch; with the seed it fixes every random choice of augmentation."""

    epoch: int
    image: int


class BatchSampler:
    """A batch sampler for torch's DataLoader: the batches `first` to `end` - 1 of a run.

    Each epoch is a new permutation of all images. One iterator covers all epochs, so the loader's workers start once.
    With several processes, each receives an equal part of every batch; if the last batch of an epoch cannot be split
    evenly, it is filled up with images of the same epoch.
    """

    def __init__(
        self, images: int, batch_size: int, seed: int, first: int, end: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.first, self.end = first, end
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.end - self.first

    def __iter__(self) -> Iterator[list[ImageDraw]]:
        per_epoch = -(-self.images // self.batch_size)
        order: list[int] = []
        for number in range(self.first, self.end):
            epoch, batch = divmod(number, per_epoch)
            if batch == 0 or not order:
                order = self.order(epoch)
            images = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [ImageDraw(epoch, image) for image in self.shard(images, order)]

    def order(self, epoch: int) -> list[int]:
        """Return the permutation of all images for `epoch`."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.images).tolist()

    def shard(self, batch: list[int], epoch_order: list[int]) -> list[int]:
        """Return this process's part of a batch: the same number of images in every process."""
        missing = -len(batch) % self.world_size
        size = (len(batch) + missing) // self.world_size
        return [*batch, *islice(cycle(epoch_order), missing)][self.rank * size : (self.rank + 1) * size]


@contextmanager
def seeded(seed: int, draw: ImageDraw) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch (CPU) from (seed, epoch, image), then restore them."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    state = np.random.SeedSequence([seed, draw.epoch, draw.image]).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.default_generator.manual_seed(int(state[2]))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
