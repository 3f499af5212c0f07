"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# `make test` draws the same examples everywhere, so that what passes here passes in CI; `make soak` draws fresh ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("fresh", derandomize=False, max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("same")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in the background makes them, and all they start, deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _look_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Many tests build from the same recordings: all of them together look at each once."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDOCORPUS_LOOKS", str(shared / "looks"))
        yield


@pytest.fixture(scope="session")
def real_media() -> Path:
    """A folder with real endoscopy, which is never part of the project: $ENDO_REAL_MEDIA, or beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "media"
    folder = Path(os.environ.get("ENDO_REAL_MEDIA", beside))
    if not (folder / "laparoscopy-720p-10s.mp4").exists():
        pytest.skip("no real endoscopy on this machine; set ENDO_REAL_MEDIA to test with it")
    return folder
