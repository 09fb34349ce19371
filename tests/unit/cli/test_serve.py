"""What a user does wrong with `serve` is told before anything starts."""

import socket
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli


def test_two_models_of_one_name(cli: Cli) -> None:
    from cifar_ray.models.bundle import Bundle

    box = Bundle.default().path
    code, told = cli("serve", f"mine={box}", f"mine={box}")
    assert code == 2
    assert "Two models would be called mine." in told


def test_a_place_with_an_equals_sign_in_it_is_a_place(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cifar_ray.models.bundle import Bundle

    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").symlink_to(Bundle.default().path)
    for place in (tmp_path / "lr=0.1", "lr=0.1", f"mine={tmp_path / 'lr=0.1'}"):
        code, told = cli("serve", place, place)
        assert code == 2
        assert "Two models would be called" in told
    for place in (tmp_path / "lr=0.2", f"mine={tmp_path / 'lr=0.2'}"):
        code, told = cli("serve", place)
        assert code == 2
        assert "lr=0.2: a bundle is a folder" in told


def test_a_bundle_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    code, told = cli("serve", tmp_path / "nowhere")
    assert code == 2
    assert "There is no bundle at" in told


@pytest.mark.parametrize("option", ["--allow-urls-from", "--allow-origin"])
def test_an_origin_that_is_none(cli: Cli, option: str) -> None:
    code, told = cli("serve", option, "https://example.com/folder")
    assert code == 2
    assert f"{option}: an origin ends with its host or port" in told


def test_a_file_of_keys_that_is_absent_or_holds_none(cli: Cli, tmp_path: Path) -> None:
    code, told = cli("serve", "--api-key-file", tmp_path / "keys")
    assert code == 2
    assert "Cannot read --api-key-file" in told
    (tmp_path / "keys").write_text("# none yet\n")
    code, told = cli("serve", "--api-key-file", tmp_path / "keys")
    assert code == 2
    assert "must hold an API key a line" in told


def test_a_port_that_is_taken(cli: Cli) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, told = cli("serve", "--port", taken.getsockname()[1])
    assert code == 2
    assert "Give another --port" in told
