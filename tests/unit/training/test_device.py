"""What a thread that trains sets for itself."""

from threading import Thread

import torch

from cifar_ray.training.device import use_threads

SUBNORMAL = 1e-39
ENOUGH_FOR_TWO_THREADS = 2**20


def test_subnormal_numbers_are_zero_in_all_threads_of_one_that_trains_and_only_then() -> None:
    numbers = torch.full((ENOUGH_FOR_TWO_THREADS,), SUBNORMAL)
    left: list[int] = []

    def count() -> None:
        torch.set_flush_denormal(False)
        with use_threads(2):
            left.append(int(torch.count_nonzero(numbers * 0.5 > 0)))
        left.append(int(torch.tensor([SUBNORMAL]).mul(0.5).count_nonzero()))

    thread = Thread(target=count)
    thread.start()
    thread.join()
    assert left == [0, 1]
