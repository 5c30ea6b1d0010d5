"""What the short runs need."""

import pytest

from tests.servers import need


@pytest.fixture
def need_servers() -> None:
    """Skip where a server is missing, and say what to install."""
    for program, package in (("redis-server", "redis-server"), ("Orthanc", "orthanc")):
        need(program, package)
