"""Whole runs on real clips: that they resume to the last bit, and stop when told to."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from safetensors.torch import load_file

from endocorpus.corpus.files import sole_user
from endocorpus.corpus.manifest import open_corpus, write_descriptor
from endocorpus.errors import DataError, UsageError
from endofm import pretrain as module
from endofm.books import Books
from endofm.checkpoint import latest_checkpoint, load_checkpoint
from endofm.cli import main
from endofm.config import PretrainConfig, load_config
from endofm.pretrain import PretrainResult, pretrain
from endofm.seal import seal
from tests.endofm.conftest import ClipSpec, MakeCorpus, write_corpus, write_mix

TINY = (
    "views.global_frames=[2, 4]",
    "views.local_frames=[2, 2]",
    "views.global_size=32",
    "views.local_size=16",
    "model.embed_dim=16",
    "model.depth=2",
    "model.num_heads=2",
    "model.image_size=32",
    "model.drop_path=0.2",
    "objective.prototypes=32",
    "objective.head_hidden=16",
    "objective.head_bottleneck=8",
    "objective.freeze_last_layer=2 steps",
    "optim.warmup=2 steps",
    "run.length=20 steps",
    "run.batch_size=4",
    "run.num_workers=0",
    "run.checkpoint_every=10",
)
TIMING = {"clips_per_s", "tflop_per_s", "memory_gib", "data_wait_share"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Bits depend on the number of threads; the processes started here use one as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def configure(*overrides: str) -> PretrainConfig:
    return load_config("debug", [*TINY, *overrides])


def train(config: PretrainConfig, corpus: Path, run_dir: Path) -> PretrainResult:
    return pretrain(config, [corpus], run_dir, console=Console(file=io.StringIO()))


def metrics(run_dir: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def state(run_dir: Path) -> dict[str, Any]:
    path = latest_checkpoint(run_dir)
    assert path is not None
    checkpoint = load_checkpoint(path)
    return {"step": checkpoint.step, "objective": checkpoint.objective, "optimizer": checkpoint.optimizer}


def assert_same_bits(left: Any, right: Any, where: str = "") -> None:
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same_bits(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, list):
        assert_same_bits(dict(enumerate(left)), dict(enumerate(right)), where)
    else:
        assert left == right, where


def assert_same_run(left: Path, right: Path) -> None:
    assert metrics(left) == metrics(right)
    assert_same_bits(state(left), state(right))
    assert (left / "backbone.safetensors").read_bytes() == (right / "backbone.safetensors").read_bytes()


@pytest.fixture(scope="module")
def straight(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("straight")
    result = train(configure(), corpus, run_dir)
    assert (result.steps, result.total_steps, result.exit_code) == (20, 20, 0)
    return run_dir


def test_a_run_leaves_what_it_promises(straight: Path) -> None:
    rows = metrics(straight)
    assert [row["step"] for row in rows] == list(range(20))
    for key in ("loss", "lr", "weight_decay", "ema", "teacher_entropy", "feature_spread", "grad_norm"):
        assert all(key in row for row in rows), key
    assert [row["clips_seen/tiny"] for row in rows] == [4.0 * step for step in range(1, 21)]
    assert {row["bad_clips"] for row in rows} == {0.0}
    timed = json.loads((straight / "metrics.jsonl").read_text().splitlines()[0])
    assert timed.keys() >= TIMING
    teacher = {key: value for key, value in state(straight)["objective"].items() if key.startswith("teacher.backbone.")}
    exported = {f"teacher.backbone.{key}": value for key, value in load_file(straight / "backbone.safetensors").items()}
    assert_same_bits(teacher, exported)
    found = {str(path.relative_to(straight)) for path in straight.rglob("*") if path.is_file()}
    checkpoints = {f"checkpoints/step-000000{step}.pt" for step in (10, 20)}
    assert found == {"metrics.jsonl", "corpora.json", "config.toml", "backbone.safetensors", "lock"} | checkpoints


def test_the_student_comes_to_agree_with_the_teacher(corpus: Path, tmp_path: Path) -> None:
    """With the centre held still, for it moves the targets faster than so small a run can follow."""
    train(
        configure("run.length=30 steps", "optim.lr_per_256_clips=0.2", "objective.centre_momentum=1"), corpus, tmp_path
    )
    losses = [row["loss"] for row in metrics(tmp_path)]
    assert losses[-1] < 0.1 * losses[0]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from endofm import pretrain as module
from endofm.books import Books
from endofm.config import load_config

corpus, run_dir, kill_at, *overrides = sys.argv[1:]
apply_views = module.apply_views

def deadly(batch, device):
    if batch.positions_B[0] >= int(kill_at) * 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return apply_views(batch, device)

module.apply_views = deadly
module.pretrain(load_config("debug", overrides), [Path(corpus)], Path(run_dir))
"""


def test_killed_and_resumed_is_the_same_run_bit_for_bit(corpus: Path, tmp_path: Path, straight: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(corpus), str(tmp_path), "13", *TINY]
    process = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert len(metrics(tmp_path)) == 13, "rows after the checkpoint exist, and will be replaced"
    assert state(tmp_path)["step"] == 10
    (tmp_path / "checkpoints" / ".step-00000013.pt.partial").write_bytes(b"killed while writing")

    assert train(configure(), corpus, tmp_path).exit_code == 0
    assert_same_run(tmp_path, straight)


VCL = (
    *(one for one in TINY if one.startswith(("model.", "run.", "optim."))),
    *("views.size=32", "views.frames=4", "objective.concepts=8", "objective.concept_width=8", "objective.projection=8"),
    *("objective.queue=8", "objective.frozen_share=0.3", "objective.local_after=0.3", "run.device=cpu"),
    *("run.precision=fp32", "run.sharding=none"),
)
KINDS = {
    "dino": ("debug", TINY),
    "masked": ("debug", (*TINY, "objective.kind=masked")),
    "vcl": ("endofm-vcl", VCL),
    "adapters": ("debug", (*TINY, "model.adapters=st12", "model.adapter_width=4")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_any_step(corpus: Path, tmp_path: Path, kind: str) -> None:
    """Also while some weights are frozen and have no moments yet, just before that ends, and just after."""
    recipe, sets = KINDS[kind]
    every = ("run.length=7 steps", "run.checkpoint_every=1", "run.keep_checkpoints=99")
    config = load_config(recipe, [*sets, *every])
    train(config, corpus, tmp_path / "straight")
    for step in (1, 2, 3, 5):
        run_dir = tmp_path / str(step)
        shutil.copytree(tmp_path / "straight", run_dir)
        (run_dir / "backbone.safetensors").unlink()
        for path in (run_dir / "checkpoints").iterdir():
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()
        assert train(config, corpus, run_dir).exit_code == 0
        assert_same_run(run_dir, tmp_path / "straight")


def test_settings_that_came_later_had_their_defaults(corpus: Path, tmp_path: Path, straight: Path) -> None:
    """A run goes on with the next version, which knows one setting more."""
    run_dir = tmp_path / "run"
    shutil.copytree(straight, run_dir)
    newest = latest_checkpoint(run_dir)
    assert newest is not None
    content = torch.load(newest, weights_only=True)
    del content["config"]["model"]["attends"], content["config"]["views"]["clamp"]
    torch.save(content, newest)
    seal(newest)
    assert train(configure(), corpus, run_dir).exit_code == 0
    content["config"]["views"]["clamp"] = False
    torch.save(content, newest)
    seal(newest)
    with pytest.raises(UsageError, match=r"begun with views\.clamp = False, and now it is True"):
        train(configure(), corpus, run_dir)


def test_rows_that_a_crash_of_the_machine_took_are_missed(corpus: Path, tmp_path: Path) -> None:
    config = configure("run.checkpoint_every=4", "run.length=12 steps")
    train(config, corpus, tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]) + '3\n{"step": 6')
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()
    text = io.StringIO()
    pretrain(config, [corpus], tmp_path, console=Console(file=text, width=300))
    assert "lacks the rows of 3 of the 8 steps done" in text.getvalue()


def test_a_corpus_that_is_not_released_is_told_once(corpus: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(corpus, tmp_path / "other"))
    write_descriptor(other, {**open_corpus(other).descriptor, "released": False})
    for place, times in ((corpus, 0), (other, 1)):
        text = io.StringIO()
        run_dir = tmp_path / f"run-{times}"
        pretrain(configure("run.length=3 steps"), [place], run_dir, console=Console(file=text, width=80))
        assert text.getvalue().count("warning: not released") == times


def test_what_is_said_of_a_start_is_about_that_start(corpus: Path, tmp_path: Path) -> None:
    """A run that began here with weights of a file, and never came to a checkpoint, is not this one."""
    tmp_path.joinpath("weights.json").write_text('{"file": "of-another-run.pth"}')
    train(configure("run.length=3 steps"), corpus, tmp_path)
    assert b"of-another-run" not in (tmp_path / "backbone.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_run_after_its_step(
    corpus: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    apply_views, handler = module.apply_views, signal.getsignal(number)

    def interrupt(batch: Any, device: torch.device) -> list[torch.Tensor]:
        if batch.positions_B[0] == 3 * 4:
            signal.raise_signal(number)
        return apply_views(batch, device)

    monkeypatch.setattr(module, "apply_views", interrupt)
    text = io.StringIO()
    result = pretrain(configure(), [corpus], tmp_path, console=Console(file=text, width=200))
    assert re.search(r"stopping after this step with a checkpoint \(about \d+ s\);", text.getvalue())
    assert (result.steps, result.backbone, result.exit_code) == (4, None, 75)
    assert state(tmp_path)["step"] == len(metrics(tmp_path)) == 4
    assert not (tmp_path / "backbone.safetensors").exists()
    assert signal.getsignal(number) is handler

    assert train(configure(), corpus, tmp_path).exit_code == 0
    assert_same_run(tmp_path, straight)


def test_a_run_outlives_whoever_reads_what_it_prints(corpus: Path, tmp_path: Path) -> None:
    """As with `endofm pretrain ... 2>&1 | head -2`; what is promised to nobody is kept as well."""
    sets = [word for override in (*TINY, "run.length=100000 steps", "run.log_every=1") for word in ("--set", override)]
    program = [sys.executable, "-m", "endofm", "pretrain", "--config", "debug", *sets]
    process = subprocess.Popen(
        [*program, "--corpus", str(corpus), "--run-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    while process.poll() is None and latest_checkpoint(tmp_path) is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 75
    assert state(tmp_path)["step"] == len(metrics(tmp_path)) >= 10


def test_a_second_signal_does_not_wait(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(batch: Any, device: torch.device) -> list[torch.Tensor]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still here")

    monkeypatch.setattr(module, "apply_views", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(configure(), corpus, tmp_path)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_serves(
    corpus: Path, tmp_path: Path, straight: Path
) -> None:
    shutil.copytree(straight, tmp_path / "run")
    newest = latest_checkpoint(tmp_path / "run")
    assert newest is not None
    newest.write_bytes(newest.read_bytes()[:-1000])
    text = io.StringIO()
    assert pretrain(configure(), [corpus], tmp_path / "run", console=Console(file=text, width=300)).exit_code == 0
    assert (
        "step-00000020.pt: damaged, and set aside; the steps after step-00000010.pt are done again" in text.getvalue()
    )
    assert_same_run(tmp_path / "run", straight)
    assert (newest.parent / "step-00000020.pt.damaged").exists()
    for path in newest.parent.glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 2 checkpoints is whole"):
        train(configure(), corpus, tmp_path / "run")


def test_numbers_that_are_fetched_late_are_the_same(
    corpus: Path, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which is asked for them every now and then."""
    monkeypatch.setattr(Books, "settle_every", 7)
    train(configure(), corpus, tmp_path)
    assert_same_run(tmp_path, straight)


def test_parts_of_a_step_are_the_step(corpus: Path, tmp_path: Path) -> None:
    rows = {}
    for parts in (1, 2, 4):
        train(configure("model.drop_path=0", f"run.accumulate={parts}"), corpus, tmp_path / str(parts))
        rows[parts] = [row["loss"] for row in metrics(tmp_path / str(parts))]
    assert rows[2] == pytest.approx(rows[1], rel=1e-4) == rows[4]
    with pytest.raises(UsageError, match="cannot be shared equally by 1 processes in 3 parts"):
        train(configure("run.accumulate=3"), corpus, tmp_path / "three")


def test_two_runs_do_not_share_a_folder(corpus: Path, tmp_path: Path) -> None:
    with sole_user(tmp_path / "lock", "held by the test"), pytest.raises(UsageError, match="another run is training"):
        train(configure(), corpus, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_complete_run_started_again_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    config, handler = configure("run.length=3 steps"), signal.getsignal(signal.SIGTERM)
    train(config, corpus, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is handler
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert train(config, corpus, tmp_path).exit_code == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("objective.teacher_momentum=0.99", r"objective\.teacher_momentum = 0\.996, and now it is 0\.99"),
        ("views.local_frames=[2, 4]", r"views\.local_frames = \[2, 2\], and now it is \[2, 4\]"),
        ("run.seed=1", r"run\.seed = 0, and now it is 1"),
    ],
)
def test_another_configuration_is_not_resumed(corpus: Path, straight: Path, override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train(configure(override), corpus, straight)


def test_where_and_how_often_may_change(corpus: Path, straight: Path) -> None:
    changes = ("run.num_workers=1", "run.checkpoint_every=7", "run.keep_checkpoints=3", "run.log_every=1")
    assert train(configure(*changes, "run.device=auto"), corpus, straight).exit_code == 0


def test_other_clips_are_not_resumed(corpus: Path, straight: Path, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    other = make_corpus("other", [[ClipSpec(1, 4, 32, 32)]])
    with pytest.raises(UsageError, match="other clips: 7 of tiny then, 7 of tiny and 1 of other now; go on"):
        pretrain(configure(), [corpus, other], straight, console=Console(file=io.StringIO()))
    fewer = write_corpus(tmp_path, "tiny", [[ClipSpec(8, 4, 32, 32), ClipSpec(9, 4, 32, 32)]])
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(UsageError, match="7 of tiny then, 2 of tiny now"):
        train(configure(), fewer, tmp_path / "run")
    (tmp_path / "run" / "corpora.json").unlink()
    with pytest.raises(UsageError, match="other clips: now there are 7 of tiny and 1 of other; go on"):
        pretrain(configure(), [corpus, other], tmp_path / "run", console=Console(file=io.StringIO()))


def test_what_is_refused_leaves_no_folder(corpus: Path, tmp_path: Path) -> None:
    for corpora, override in (([corpus], "run.length=0.1 epochs"), ([tmp_path / "none"], "run.seed=0")):
        with pytest.raises((UsageError, DataError)):
            pretrain(configure(override), corpora, tmp_path / "run", console=Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()


def test_no_more_workers_than_cores(corpus: Path, tmp_path: Path) -> None:
    """torch would warn, which fails a test here."""
    cores, text = len(os.sched_getaffinity(0)), io.StringIO()
    config = configure("run.length=3 steps", f"run.num_workers={cores + 5}")
    pretrain(config, [corpus], tmp_path, console=Console(file=text, width=200))
    assert (
        f"decoding in {cores} processes, one for each core, instead of run.num_workers = {cores + 5}" in text.getvalue()
    )


def test_a_mixture_is_the_training_set(corpus: Path, tmp_path: Path) -> None:
    mix = write_mix(tmp_path / "m.parquet", {"tiny": corpus}, [("tiny", "tiny-1", 1), ("tiny", "tiny-4", 7)])
    run_dir, console = tmp_path / "run", Console(file=io.StringIO())
    words = ["pretrain", "--corpus", corpus, "--mix", mix, "--config", "debug", "--run-dir", run_dir]
    sets = [word for each in (*TINY, "run.length=2 epochs") for word in ("--set", each)]
    done = CliRunner().invoke(main, [str(word) for word in (*words, *sets)])
    assert done.exit_code == 0, done.output
    assert len(metrics(run_dir)) == 4, "eight clips an epoch, four a step"
    config = configure("run.length=2 epochs")
    assert pretrain(config, [corpus], run_dir, mix=mix, console=console).steps == 4
    other = write_mix(tmp_path / "o.parquet", {"tiny": corpus}, [("tiny", "tiny-1", 2), ("tiny", "tiny-4", 6)])
    for changed in (other, None):
        with pytest.raises(UsageError, match=r"other clips: .* and the same mixture"):
            pretrain(config, [corpus], run_dir, mix=changed, console=console)


def test_another_number_of_threads_is_mentioned(corpus: Path, straight: Path) -> None:
    text = io.StringIO()
    pretrain(configure("run.threads=2"), [corpus], straight, console=Console(file=text, width=200))
    assert "number of threads has changed" in text.getvalue()


def test_clips_too_short_for_the_views_are_mentioned_at_the_start(corpus: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    pretrain(configure("run.length=3 steps"), [corpus], tmp_path, console=Console(file=text, width=200))
    assert "fewer frames than the longest view, which has 4: 1 of 7;" in text.getvalue().split("step 1/3")[0]


def test_a_step_that_is_no_number_moves_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply_views = module.apply_views

    def poisoned(batch: Any, device: torch.device) -> list[torch.Tensor]:
        views = apply_views(batch, device)
        if batch.positions_B[0] == 5 * 4:
            views[0][0, 0, 0, 0, 0] = torch.nan
        return views

    monkeypatch.setattr(module, "apply_views", poisoned)
    text = io.StringIO()
    sets = ("run.checkpoint_every=1", "run.keep_checkpoints=99", "run.skipped_steps=1", "run.health_every=1")
    pretrain(configure(*sets), [corpus], tmp_path, console=Console(file=text, width=300))
    before, after, later = (load_checkpoint(tmp_path / "checkpoints" / f"step-0000000{step}.pt") for step in (5, 6, 7))
    student = [key for key in before.objective if key.startswith("student.")]
    assert_same_bits({k: before.objective[k] for k in student}, {k: after.objective[k] for k in student})
    assert_same_bits(before.optimizer["state"], after.optimizer["state"])
    assert all(value.isfinite().all() for value in after.objective.values())
    assert any(not torch.equal(after.objective[key], later.objective[key]) for key in student)
    assert [row["step"] for row in metrics(tmp_path) if row["loss"] is None] == [5]
    assert "step 5: skipped: the loss is nan" in text.getvalue()
    assert metrics(tmp_path)[-1]["feature_rank"] > 1, "features that are no numbers would have ended the run here"
    with pytest.raises(DataError, match=r"step 5: .* in 1 steps in a row"):
        train(configure("run.skipped_steps=0"), corpus, tmp_path / "none")


def test_a_loss_that_is_no_number_stops_the_run(corpus: Path, tmp_path: Path) -> None:
    config = configure("optim.lr_per_256_clips=1e30", "run.checkpoint_every=20")
    with pytest.raises(DataError, match=r"step \d+: the loss is nan.*clips: tiny-\d(, tiny-\d){3}\."):
        train(config, corpus, tmp_path)
    assert latest_checkpoint(tmp_path) is None


def test_weights_that_are_worth_nothing_are_not_kept(corpus: Path, tmp_path: Path) -> None:
    """The loss is finite whatever their size, since every layer is normalised."""
    lost = ("optim.lr_per_256_clips=1e30", "run.checkpoint_every=1", "run.keep_checkpoints=9")
    with pytest.raises(DataError, match=r"step-00000002\.pt: not written.*diverged.*Checkpoints before it are sound"):
        train(configure(*lost), corpus, tmp_path / "a")
    assert all(value.abs().max() < 100 for value in state(tmp_path / "a")["objective"].values())
    with pytest.raises(DataError, match="diverged"):
        train(configure(*lost, "run.length=1 steps", "optim.warmup=0 steps"), corpus, tmp_path / "b")
    assert not list(tmp_path.rglob("*.safetensors")) and latest_checkpoint(tmp_path / "b") is None


def test_a_corpus_is_no_place_for_a_run(corpus: Path, tmp_path: Path) -> None:
    before = sorted(corpus.rglob("*"))
    for run_dir in (corpus, corpus / "shards", corpus / "runs" / "first"):
        with pytest.raises(UsageError, match="is the folder of a corpus, or inside one"):
            train(configure(), corpus, run_dir)
    assert sorted(corpus.rglob("*")) == before


@pytest.mark.parametrize("size", ["16k", "400k"])
def test_a_full_disk_is_one_line(corpus: Path, tmp_path: Path, size: str) -> None:
    (tmp_path / "small").mkdir()
    told = [sys.executable, "-m", "endofm", "pretrain", "--corpus", corpus, "--config", "debug"]
    told += ["--run-dir", tmp_path / "small" / "run", *(f"--set={value}" for value in TINY)]
    told += ["--set=run.checkpoint_every=1", "--set=run.keep_checkpoints=99"]
    mount = f'mount -t tmpfs -o size={size} tmpfs {tmp_path / "small"} && exec "$@"'
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*apart, mount, "-", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    done = subprocess.run([*apart, mount, "-", *map(str, told)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "No space left" in done.stderr.splitlines()[-1]


def test_workers_do_not_change_the_run(corpus: Path, tmp_path: Path, straight: Path) -> None:
    train(configure("run.num_workers=2"), corpus, tmp_path)
    assert metrics(tmp_path) == metrics(straight)
    assert_same_bits(state(tmp_path), state(straight))


def test_a_run_needs_a_whole_step(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.length = '0\.1 epochs'"):
        train(configure("run.length=0.1 epochs"), corpus, tmp_path)
