"""One scripted server for all tests of backends that are vendors' clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fake_vendor import FakeVendor, vendor


@pytest.fixture(scope="session")
def shared_vendor() -> Iterator[FakeVendor]:
    with vendor() as shared:
        yield shared


@pytest.fixture
def api(shared_vendor: FakeVendor) -> FakeVendor:
    """The server, which remembers nothing of other tests."""
    shared_vendor.reset()
    return shared_vendor
