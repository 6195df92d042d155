"""A metadata server emulator, a clock that only moves when somebody sleeps, and clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from google_guest.metadata.client import MetadataClient
from metadata_server import Emulator


class FakeTime:
    """A clock and the pauses that were taken on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def mds() -> Iterator[Emulator]:
    with Emulator(profile="linux") as emulator:
        yield emulator


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def connect(fake_time: FakeTime) -> Iterator[Callable[..., MetadataClient]]:
    """Make clients whose pauses take no time, without jitter and blind to the environment."""
    made: list[MetadataClient] = []

    def make(endpoint: str | None = None, **options: object) -> MetadataClient:
        settings: dict[str, object] = {
            "environ": {},
            "clock": fake_time.clock,
            "sleep": fake_time.sleep,
            "jitter": lambda: 0.0,
            **options,
        }
        client = MetadataClient(endpoint, **settings)  # type: ignore[arg-type]
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()
