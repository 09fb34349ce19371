"""What all pages share."""

import pytest

from cifar_ray.pages import page_environment, percent


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *((None, "–"), (0, "0.0 %"), (1, "100.0 %"), (0.1234, "12.3 %")),
        *((0.99999, "> 99.9 %"), (1e-6, "< 0.1 %")),
    ],
)
def test_shares_are_not_rounded_to_all_or_nothing(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_other_peoples_text_is_escaped_and_its_control_characters_are_seen() -> None:
    template = page_environment("cifar_ray.training.evaluation").from_string(
        "{{ name | printable }}"
    )
    assert template.render(name="<b>\x1b[31m.png") == r"&lt;b&gt;\x1b[31m.png"
