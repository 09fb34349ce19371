import json
from pathlib import Path

import pytest

from cifar_ray.errors import InputError
from cifar_ray.images.labels import CIFAR10, check_labels, read_labels


def test_labels_are_read_from_lines_and_from_json(tmp_path: Path) -> None:
    lines, listed = tmp_path / "labels.txt", tmp_path / "labels.json"
    lines.write_text("\n".join(CIFAR10) + "\n")
    listed.write_text(json.dumps(CIFAR10))
    assert read_labels(lines) == read_labels(listed) == list(CIFAR10)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["a"], "at least 2"),
        (["a", "b", "a"], "more than once: 'a'"),
        (["a", ""], "empty"),
        (["a", " b"], "blanks"),
        (["a", "b\x1b[2J"], "control"),
        (["a", 3], "not strings"),
    ],
)
def test_labels_that_do_not_serve_are_refused_with_the_reason(labels: list, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_labels(labels, "here")


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.json", "{}"), ("l.json", "["), ("l.csv", "a,b"), ("l.txt", "a\n\nb\n")],
)
def test_a_label_file_of_another_kind_is_refused_by_name(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=name):
        read_labels(path)


def test_a_label_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        read_labels(tmp_path / "absent.txt")
