"""Where the reviewed facts lie: sources, vocabularies, splits, leaks, mixtures. Data that ships with the package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def manifests_folder() -> Path:
    """The folder of the facts: inside an installed package, or at the top of a checkout."""
    installed = _PACKAGE / "manifests"
    return installed if installed.is_dir() else _PACKAGE.parent / "manifests"
