import sys
from collections.abc import Callable

import pytest

from cifar_ray.cli.main import run

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process; exit code, and all that it printed."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cifar-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            run()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), " ".join((captured.out + captured.err).split())

    return call
