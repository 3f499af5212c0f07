"""The page of a run, from what lies in its folder. It loads nothing and its bytes depend on the folder alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from endocorpus.corpus.files import atomic_file
from endocorpus.errors import DataError, UsageError
from endofm.health import Alarms
from endofm.report.curves import FRAME, HEIGHT, WIDTH, Row, charts

if TYPE_CHECKING:
    from endofm.report.neighbours import Picture


@dataclass(frozen=True)
class Facts:
    """What a reader wants to know before the curves.

    Attributes:
        steps: with a row in the metrics file.
        complete: whether the backbone was exported.
        warnings: alarms, skipped steps and bad clips, in order of their steps.
        clips_seen: of each corpus.
        last: the last row.
    """

    steps: int
    complete: bool
    warnings: tuple[str, ...]
    clips_seen: Mapping[str, int]
    last: Row


def write_report(run_dir: Path, out: Path | None = None, *, corpus: Path | None = None) -> Path:
    """Write the page of the run in `run_dir`, whole or not at all, and return its path.

    Args:
        run_dir: of a run, finished or not; `endofm pretrain` may be at work in it.
        out: of the page; `report.html` in the folder if None.
        corpus: whose clips are shown beside those that the run's features find nearest; none if None.

    Raises:
        UsageError: there is no such run, or `out` is not the name of a page.
        DataError: its files cannot be read, or the page cannot be written.
    """
    out = out or run_dir / "report.html"
    if out.suffix.lower() != ".html" or (out.exists() and not out.is_file()):
        raise UsageError(f"{out}: the page is a plain file whose name ends in .html; name another --out")
    page = render(run_dir, corpus).encode("utf-8")
    try:
        with atomic_file(out) as file:
            file.write(page)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}") from None
    return out


def render(run_dir: Path, corpus: Path | None = None) -> str:
    """The page as text."""
    rows = read_rows(run_dir / "metrics.jsonl")
    pictures: list[list[Picture]] = []
    damaged: tuple[str, ...] = ()
    if corpus is not None:
        from endofm.report.neighbours import neighbours  # torch is not needed for curves

        pictures, damaged = neighbours(run_dir, corpus)
    config = run_dir / "config.toml"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    files = resources.files("endofm.report")
    template = environment.from_string((files / "run.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        name=run_dir.resolve().name,
        facts=facts(rows, run_dir),
        charts=charts(rows),
        neighbours=pictures,
        damaged=damaged,
        size=(WIDTH, HEIGHT),
        frame=FRAME,
        config=config.read_text(encoding="utf-8") if config.exists() else "",
        style=(files / "run.css").read_text(encoding="utf-8"),
    )


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file; a last line that is still being written is left out.

    Raises:
        UsageError: there is no such file, or nothing in it.
        DataError: it cannot be read, or is not what `endofm pretrain` writes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        raise UsageError(f"{path.parent}: is no run: there is no {path.name} in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith("\n"):
            break
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise DataError(f"{path}: line {number} is no row of a run") from None
    if not rows:
        raise UsageError(f"{path.parent}: the run has not done a step yet")
    return rows


def _row(said: Mapping[str, Any]) -> Row:
    """A row with null for what is not finite; something else is one of the errors that `read_rows` knows."""
    row = {str(key): value if value is not None and math.isfinite(value) else None for key, value in said.items()}
    known = {"step", "loss", "grad_norm"} | (
        {"loss_at_chance"} if row.get("teacher_information") is not None else set()
    )
    if not isinstance(row["step"], int) or not known <= row.keys():
        raise TypeError
    return row


def facts(rows: Sequence[Row], run_dir: Path) -> Facts:
    """What the rows and the folder say in words."""
    alarms, warnings = Alarms(), []
    for row in rows:
        step = int(row["step"] or 0)
        if row.get("loss") is None or row.get("grad_norm") is None:
            warnings.append(f"Step {step} was skipped: a number was not finite.")
            continue
        warnings += [f"Step {step}: {said}" for said in alarms.hear({k: v for k, v in row.items() if v is not None})]
    last = rows[-1]
    if bad := int(last.get("bad_clips") or 0):
        warnings.append(f"Bad clips that were replaced by others: {bad:,}; see quarantine.jsonl.")
    seen = {
        key.removeprefix("clips_seen/"): int(value or 0) for key, value in last.items() if key.startswith("clips_seen/")
    }
    return Facts(len(rows), (run_dir / "backbone.safetensors").exists(), tuple(warnings), seen, last)


def plain(value: float) -> str:
    """A value to four digits: ``5.0`` as ``5``, ``0.000123456`` as ``0.0001235``, ``12345.6`` as ``12,346``.

    At most eleven characters, for which the drawings have room."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
