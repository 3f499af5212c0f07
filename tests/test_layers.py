"""The arrows of the design: which room may import which. The contracts stand in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    lint_imports = Path(sys.executable).parent / "lint-imports"
    return subprocess.run([lint_imports, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


def test_arrows_run_one_way() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_a_forbidden_arrow_is_noticed(tmp_path: Path) -> None:
    """The contracts bite: a copy in which the curation side imports torch is refused."""
    import shutil

    for package in ("endocorpus", "endofm"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    segment = tmp_path / "endocorpus" / "segment.py"
    segment.write_text(segment.read_text() + "\nimport torch\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and "endocorpus.segment -> torch" in done.stdout
