"""One recorder for all tests that only look at what it records of their own processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import what_the_live_connector_lacks
from tests.kernel.live import History, Recording


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """Run a recorder as long as the session; that it ends well is part of the tests."""
    lacking = what_the_live_connector_lacks()
    if lacking is not None:
        pytest.skip(lacking)
    database = tmp_path_factory.mktemp("recording") / "history.db"
    with Recording(database) as recording:
        yield recording
        status = recording.stop()
        assert status == 0, recording.said
        assert "nothing lost" in recording.said


@pytest.fixture(scope="session")
def history(recording: Recording) -> Iterator[History]:
    """Open the history that the session's recorder writes."""
    with History(recording.database) as history:
        yield history


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Name a place for a database of the test's own."""
    return tmp_path / "history.db"
