"""A site's own head: from folders of labelled images to a file, with held-out figures; and none where it is worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from endocorpus.cli import main
from endocorpus.deid.calibrating import calibrate_folders, load_head, told
from endocorpus.deid.head import outside, shipped_head
from endocorpus.errors import DataError, UsageError

NAME = "TESTCASE^ANNA"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty made-up pictures: pink blotches inside, grey stripes outside. Their names are a person's."""
    rng, folder = np.random.default_rng(6), tmp_path_factory.mktemp("labelled")
    for kind in ("inside", "outside"):
        (folder / kind).mkdir()
        for number in range(20):
            noise = Image.fromarray(rng.integers(0, 90, (6, 8, 3), np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
            picture = np.asarray(noise).astype(np.int16)
            if kind == "inside":
                picture = picture + np.array([140, 60, 50])
            else:
                picture = picture // 3 + 190 * (np.arange(96)[None, :, None] // (5 + number % 3) % 2)
            image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
            image.save(folder / kind / f"{NAME} {number:02}.png")
        (folder / kind / "Thumbs.db").write_bytes(b"no image")
    return folder


def test_a_site_fits_its_own_head(labelled: Path, tmp_path: Path) -> None:
    done = calibrate_folders(labelled, tmp_path / "head.json")
    head = load_head(tmp_path / "head.json")
    assert head == done.head
    assert (done.held_out.inside, done.held_out.outside) == (20, 20)
    assert done.held_out.missed + done.held_out.lost == 0
    picture = np.asarray(Image.open(labelled / "inside" / f"{NAME} 00.png"))
    assert outside(head, picture) < outside(shipped_head(), picture) or outside(head, picture) < -4
    assert "TESTCASE" not in (tmp_path / "head.json").read_text() + "".join(told(done))
    assert done.head.digest() in told(done)[-1] and "0 of 20 outside missed" in told(done)[1]


def test_the_command_writes_the_head_and_says_how_it_did(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.json"
    done = CliRunner().invoke(main, ["deid", "calibrate", str(labelled), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert load_head(out).digest() in done.output and "TESTCASE" not in done.output
    again = CliRunner().invoke(main, ["deid", "calibrate", str(labelled), "--out", str(out)])
    assert again.exit_code == 2 and "there already" in again.output


def test_a_head_that_misses_more_is_not_written(labelled: Path, tmp_path: Path) -> None:
    """Labels the wrong way round: the shipped head says so, and the file stays away."""
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "inside").symlink_to(labelled / "outside")
    (wrong / "outside").symlink_to(labelled / "inside")
    sure = replace(shipped_head(), weights=np.zeros(1280, "<f4").tobytes(), bias=2.0)
    broken = wrong / "inside"
    assert calibrate_folders(wrong, tmp_path / "fits.json", start=sure).held_out.missed == 0
    broken.unlink()
    broken.symlink_to(labelled / "inside")  # one and the same on both sides: nothing can tell them apart
    with pytest.raises(DataError, match="nothing was written"):
        calibrate_folders(wrong, tmp_path / "head.json", start=sure)
    assert not (tmp_path / "head.json").exists()


def test_what_is_missing_or_damaged_is_told_without_a_name(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inside is missing"):
        calibrate_folders(tmp_path, tmp_path / "head.json")
    (tmp_path / "there.json").touch()
    with pytest.raises(UsageError, match="there already"):
        calibrate_folders(labelled, tmp_path / "there.json")
    (tmp_path / "outside").symlink_to(labelled / "outside")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / f"{NAME}.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(DataError, match="image 1 of 1 in inside") as caught:
        calibrate_folders(tmp_path, tmp_path / "head.json")
    assert "TESTCASE" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        load_head(tmp_path / "none.json")
    with pytest.raises(DataError, match="no head"):
        load_head(tmp_path / "there.json")
