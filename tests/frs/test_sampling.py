import random

import numpy as np
import torch

from frs.training.sampling import BatchSampler, ImageDraw, seeded


def batches(first: int, end: int = 10, images: int = 7, size: int = 3) -> list[list[ImageDraw]]:
    return list(BatchSampler(images, size, seed=5, first=first, end=end))


def test_every_epoch_has_every_image_once_in_a_new_order() -> None:
    draws = [draw for batch in batches(0, end=6) for draw in batch]
    first, second = [[d.image for d in draws if d.epoch == epoch] for epoch in (0, 1)]
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_batches_are_the_same_from_any_first_step() -> None:
    whole = batches(0)
    assert all(batches(first) == whole[first:] for first in range(11))


def shards(processes: int, images: int = 7, size: int = 4) -> list[list[list[int]]]:
    """Return the images of each process at each step of two epochs."""
    steps = range(2 * -(-images // size))
    batches_by_rank = [list(BatchSampler(images, size, 5, 0, len(steps), rank, processes)) for rank in range(processes)]
    return [[[draw.image for draw in batches[step]] for batches in batches_by_rank] for step in steps]


def test_the_shards_of_a_batch_together_are_the_batch() -> None:
    whole = [[draw.image for draw in batch] for batch in batches(0, end=4, images=8, size=4)]
    assert [sum(step, []) for step in shards(2, images=8)] == whole
    assert all(len(shard) == 1 for step in shards(4, images=8) for shard in step)


def test_a_short_last_batch_is_filled_with_images_of_its_epoch() -> None:
    first, last, *_ = shards(2)
    assert [len(shard) for shard in last] == [2, 2]
    images = [image for step in (first, last) for shard in step for image in shard]
    assert sorted(set(images)) == list(range(7)) and len(images) == 8
    assert [len(shard) for shard in shards(4, images=1)[0]] == [1, 1, 1, 1]


def test_the_seed_changes_the_order() -> None:
    assert BatchSampler(50, 4, 0, 0, 1).order(0) != BatchSampler(50, 4, 1, 0, 1).order(0)


def test_seeding_depends_on_the_draw_and_restores_the_generators() -> None:
    def numbers() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = numbers()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    with seeded(3, ImageDraw(1, 2)):
        inside = numbers()
    assert numbers() == expected
    with seeded(3, ImageDraw(1, 2)):
        assert numbers() == inside
    with seeded(3, ImageDraw(2, 2)):
        assert numbers() != inside
