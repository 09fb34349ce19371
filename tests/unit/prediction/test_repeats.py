from cifar_ray.prediction.repeats import num_repeated


def test_repeats_are_rows_whose_key_came_before() -> None:
    keys = [f"a/{number % 700}.jpg" for number in range(1000)]
    assert num_repeated(keys) == 300
    assert num_repeated(["a", "b", "a", "a", "B"]) == 2
    assert num_repeated([]) == 0
