"""The page of a run shows its rows, says what went wrong, and reads what a killed or working run leaves."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from endocorpus.errors import DataError, UsageError
from endofm.cli import main
from endofm.data.clips import load_clips
from endofm.pretrain import pretrain
from endofm.report import write_report
from endofm.report.curves import charts
from endofm.report.neighbours import neighbours
from endofm.report.page import plain, read_rows
from tests.endofm.test_loader import damage
from tests.endofm.test_pretrain import configure

HEALTHY = {"loss": 5.0, "loss_at_chance": 6.2, "grad_norm": 1.0, "teacher_information": 0.3, "lr": 1e-3}


def write_rows(run_dir: Path, rows: list[dict[str, Any]], tail: str = "") -> Path:
    run_dir.mkdir(exist_ok=True)
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return run_dir


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


@given(
    values=st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=2, max_size=600), start=st.integers(0, 10**6)
)
def test_a_curve_keeps_order_and_stays_in_its_frame(values: list[float], start: int) -> None:
    rows = [{"step": start + index, "loss": value} for index, value in enumerate(values)]
    (chart,) = charts(rows)
    assert (chart.first_step, chart.last_step) == (start, start + len(values) - 1)
    assert (chart.low, chart.high) == (min(values), max(values))
    drawn = points(chart.lines[0].path)
    assert all(88 <= x <= 632 and 14 <= y <= 176 for x, y in drawn + points(chart.lines[0].band))
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    if len(values) <= 260 and chart.high - chart.low > 1e-6:
        assert len(drawn) == len(values)
        heights = [176 - 162 * (value - chart.low) / (chart.high - chart.low) for value in values]
        assert [y for _, y in drawn] == pytest.approx(heights, abs=0.051)


def test_a_value_that_is_missing_is_a_gap() -> None:
    (chart,) = charts([{"step": step, "loss": None if step in (3, 4) else 1.0 * step} for step in range(8)])
    assert chart.lines[0].path.count("M") == 2 and len(points(chart.lines[0].path)) == 6
    assert charts([{"step": 0, "loss": None}]) == [], "nothing to draw"


def test_a_peak_shows_in_the_range_of_a_long_run() -> None:
    rows = [{"step": step, "grad_norm": 100.0 if step == 5000 else 1.0} for step in range(10_000)]
    (chart,) = charts(rows)
    assert min(y for _, y in points(chart.lines[0].band)) == 14
    assert min(y for _, y in points(chart.lines[0].path)) > 150


def test_the_page_says_what_went_wrong(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"step": step, **HEALTHY, "clips_seen/a": 4 * step, "bad_clips": 2} for step in range(300)
    ]
    for step in range(50, 160):
        rows[step]["teacher_information"] = 0.001
    rows[7] |= {"loss": None, "grad_norm": None}
    run_dir = write_rows(tmp_path / "<run>", rows)
    (run_dir / "config.toml").write_text('[run]\nwandb = "<b>"\n')
    done = CliRunner().invoke(main, ["report", str(run_dir)])
    assert done.exit_code == 0, done.output
    page = (run_dir / "report.html").read_text()
    assert "Step 7 was skipped" in page
    assert "Step 149: ALARM: for 100 steps the teacher has said the same" in page
    assert "Bad clips that were replaced by others: 2" in page
    assert "not complete" in page and "1,196" in page
    assert "<b>" not in page and "<run>" not in page and "&lt;b&gt;" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_a_run_in_which_nothing_went_wrong(tmp_path: Path) -> None:
    run_dir = write_rows(tmp_path / "run", [{"step": step, **HEALTHY} for step in range(3)])
    (run_dir / "backbone.safetensors").touch()
    page = write_report(run_dir, tmp_path / "page.html").read_text()
    assert "No alarm, no skipped step, no bad clip" in page and ", complete" in page
    assert write_report(run_dir, tmp_path / "again.html").read_text() == page


def test_a_row_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    run_dir = write_rows(tmp_path / "run", [{"step": 0, **HEALTHY}], tail='{"step": 1, "lo')
    assert [row["step"] for row in read_rows(run_dir / "metrics.jsonl")] == [0]


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (None, UsageError, "is no run: there is no metrics.jsonl"),
        (b"", UsageError, "has not done a step yet"),
        (b'{"loss": 1}\n{"step": 1}\n', DataError, "line 1 is no row"),
        (b'{"step": 0, "loss": 1, "grad_norm": 1}\n[]\n', DataError, "line 2 is no row"),
        (b'{"step": 0, "loss": 1, "grad_norm": 1}\nhello\n', DataError, "line 2 is no row"),
        (b'{"step": 0}\n', DataError, "line 1 is no row"),
        (b'{"step": 1e400, "loss": 1, "grad_norm": 1}\n', DataError, "line 1 is no row"),
        (b'{"step": 0, "loss": 1, "grad_norm": 1' + b"0" * 400 + b"}\n", DataError, "line 1 is no row"),
        (b'{"step": 0, "loss": 1, "grad_norm": 1, "teacher_information": 1}\n', DataError, "line 1 is no row"),
        (b"\xff\xfe\n", DataError, "cannot be read"),
    ],
)
def test_what_is_no_run(tmp_path: Path, content: bytes | None, kind: type[Exception], said: str) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(kind, match=said):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_infinity_is_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 0, "loss": Infinity, "grad_norm": 1}\n{"step": 1, "loss": 2, "grad_norm": 1}\n'
    )
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert all(value is None or math.isfinite(value) for row in rows for value in row.values())


def test_a_single_value_is_told_and_not_drawn(tmp_path: Path) -> None:
    rows = [{"step": step, **HEALTHY, **({"feature_rank": 12.5} if step == 1 else {})} for step in range(3)]
    page = write_report(write_rows(tmp_path / "run", rows)).read_text()
    figure = next(part for part in page.split("<figure>") if "Directions in use" in part)
    assert "12.5" in figure and "One value so far, at step 1." in figure and "<svg" not in figure
    assert "<svg" in next(part for part in page.split("<figure>") if "<strong>Loss" in part)


def test_chance_is_drawn_beside_the_probe() -> None:
    rows = [{"step": step, "knn_balanced_accuracy": 0.4, "knn_at_chance": 0.25} for step in range(2)]
    (chart,) = charts(rows)
    assert [line.key for line in chart.lines] == ["knn_balanced_accuracy", "knn_at_chance"] and chart.low == 0.25


@given(st.floats(-1e300, 1e300))
def test_labels_have_room(value: float) -> None:
    assert len(plain(value)) <= 11 and float(plain(value).replace(",", "")) == pytest.approx(value, rel=1e-3)


def test_the_page_takes_no_other_file_s_place(tmp_path: Path) -> None:
    run_dir = write_rows(tmp_path / "run", [{"step": 0, **HEALTHY}])
    before = (run_dir / "metrics.jsonl").read_bytes()
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "folder.html").mkdir()
    for out in (run_dir / "metrics.jsonl", Path("/dev/full"), tmp_path / "pipe.html", tmp_path / "folder.html"):
        done = CliRunner().invoke(main, ["report", str(run_dir), "--out", str(out)])
        assert done.exit_code == 2 and "ends in .html" in done.output
    assert (run_dir / "metrics.jsonl").read_bytes() == before and (tmp_path / "pipe.html").is_fifo()


def test_an_address_is_no_folder(tmp_path: Path) -> None:
    run_dir = write_rows(tmp_path / "run", [{"step": 0, **HEALTHY}])
    for command in (["report", str(run_dir), "--corpus"], ["pretrain", "--corpus", str(tmp_path), "--probe"]):
        done = CliRunner().invoke(main, [*command, "https://example.org/corpus"])
        assert done.exit_code == 2 and "error: https://example.org/corpus: is an address" in done.output


def test_neighbours_are_of_other_leak_groups(corpus: Path, tmp_path: Path) -> None:
    pretrain(configure("run.length=3 steps"), [corpus], tmp_path, console=Console(file=io.StringIO()))
    rows, damaged = neighbours(tmp_path, corpus)
    assert damaged == ()
    assert len(rows) == 7, "every clip of a small corpus is asked about"
    for asked, *others in rows:
        assert asked.cosine == 1 and len(others) == 5
        assert asked.key not in {other.key for other in others}, "each clip here is a leak group of its own"
        cosines = [other.cosine for other in others]
        assert cosines == sorted(cosines, reverse=True)
        assert all(picture.image.startswith("data:image/jpeg;base64,") for picture in (asked, *others))
    done = CliRunner().invoke(main, ["report", str(tmp_path), "--corpus", str(corpus)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.html").read_text().count("<img") == 7 * 6
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    damage(copy, load_clips([copy]), "tiny-4")
    page = write_report(tmp_path, corpus=copy).read_text()
    assert "Left out, being damaged: tiny-4." in page and page.count("<img") == 6 * 6
    (tmp_path / "backbone.safetensors").unlink()
    assert [row[0].key for row in neighbours(tmp_path, corpus)[0]] == [row[0].key for row in rows], "from a checkpoint"
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(DataError, match="no weights and configuration of this run yet"):
        neighbours(tmp_path, corpus)
