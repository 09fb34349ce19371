"""The harness itself: what is absent skips, or fails where CI promised it."""

import pytest

from tests.required import require


def test_absent_things_skip_with_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIFAR_RAY_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="chromium: not on PATH"):
        require("chromium", None, "not on PATH")


def test_absent_things_that_ci_promised_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_RAY_REQUIRE", "data,chromium")
    with pytest.raises(pytest.fail.Exception, match="chromium is in CIFAR_RAY_REQUIRE"):
        require("chromium", None, "it is not on PATH")
    with pytest.raises(pytest.skip.Exception):
        require("ceph", None, "not installed")


def test_present_things_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_RAY_REQUIRE", "chromium")
    assert require("chromium", "/usr/bin/chromium", "not on PATH") is None
