"""Bad clips are counted once each, written down, and not put up with in any number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endocorpus.errors import DataError
from endofm.data.quarantine import Quarantine, Replaced, most_bad_clips


def bad(key: str, position: int = 0) -> Replaced:
    return Replaced(position, "tiny", key, f"why {key}", "other")


def keep(path: Path, start_step: int = 0, most: int = 2, writes: bool = True) -> Quarantine:
    return Quarantine(path / "quarantine.jsonl", start_step=start_step, most=most, writes=writes)


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "quarantine.jsonl").read_text().splitlines()]


def test_nothing_bad_leaves_no_file(tmp_path: Path) -> None:
    keep(tmp_path).add(3, [])
    assert list(tmp_path.iterdir()) == []


def test_different_clips_count_and_every_one_is_told(tmp_path: Path) -> None:
    quarantine = keep(tmp_path)
    quarantine.add(3, [bad("a", 12), bad("b", 13)])
    quarantine.add(7, [bad("a", 30)])
    assert len(quarantine) == 2
    assert [(row["step"], row["position"], row["key"]) for row in rows(tmp_path)] == [
        (3, 12, "a"), (3, 13, "b"), (7, 30, "a"),
    ]  # fmt: skip
    assert rows(tmp_path)[0] == {
        "step": 3, "position": 12, "corpus": "tiny", "key": "a", "reason": "why a", "by": "other",
    }  # fmt: skip
    with pytest.raises(DataError, match=r"quarantine\.jsonl: 3 bad clips, and 2 are allowed .*; the last: why c"):
        quarantine.add(8, [bad("c")])
    assert len(rows(tmp_path)) == 4, "what stops the run is told as well"


def test_a_resumed_run_counts_what_was_and_forgets_what_happens_again(tmp_path: Path) -> None:
    keep(tmp_path).add(3, [bad("a")])
    keep(tmp_path, start_step=4).add(5, [bad("b")])
    with (tmp_path / "quarantine.jsonl").open("a") as file:
        file.write('{"step": 6, "ke')  # torn by a crash
    reader = keep(tmp_path, start_step=5, writes=False)
    assert len(reader) == 1 and len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 3
    resumed = keep(tmp_path, start_step=5)
    assert len(resumed) == 1 and [row["key"] for row in rows(tmp_path)] == ["a"]
    for quarantine in (resumed, reader):
        quarantine.add(5, [bad("b")])
        with pytest.raises(DataError, match="3 bad clips"):
            quarantine.add(6, [bad("c")])
    assert [row["key"] for row in rows(tmp_path)] == ["a", "b", "c"], "one process writes"


@pytest.mark.parametrize(
    ("share", "clips", "most"),
    [(0.001, 33_000, 33), (0.001, 1_500, 10), (0.001, 7, 3), (0.0, 33_000, 0), (1.0, 100, 50), (0.001, 1, 0)],
)
def test_how_many_may_be_bad(share: float, clips: int, most: int) -> None:
    assert most_bad_clips(share, clips) == most
