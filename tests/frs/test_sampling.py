import random

import numpy as np
import torch

from frs.sampling import Batches, Draw, seeded


def batches(first: int, steps: int = 10, images: int = 7, size: int = 3) -> list[list[Draw]]:
    return list(Batches(images, size, seed=5, first=first, steps=steps))


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    draws = [draw for batch in batches(0, steps=6) for draw in batch]
    first, second = [[d.image for d in draws if d.epoch == epoch] for epoch in (0, 1)]
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_a_start_at_any_step_sees_the_same_batches() -> None:
    whole = batches(0)
    assert all(batches(first) == whole[first:] for first in range(11))


def test_the_seed_changes_the_order() -> None:
    assert Batches(50, 4, 0, 0, 1).order(0) != Batches(50, 4, 1, 0, 1).order(0)


def test_seeding_is_a_function_of_the_draw_and_leaves_no_trace() -> None:
    def numbers() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = numbers()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    with seeded(3, Draw(1, 2)):
        inside = numbers()
    assert numbers() == expected
    with seeded(3, Draw(1, 2)):
        assert numbers() == inside
    with seeded(3, Draw(2, 2)):
        assert numbers() != inside
