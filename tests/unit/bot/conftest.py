"""Bots talk to the service of the service's own tests."""

from tests.unit.serving.conftest import bundles, make_service

__all__ = ["bundles", "make_service"]
