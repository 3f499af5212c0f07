"""The script of docs/how-to on a real Slurm of one machine: it needs root, and Debian's slurm-wlm and munge."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from endofm.checkpoint import latest_checkpoint, load_checkpoint
from tests.endofm.test_distributed import SETTINGS

SCRIPT = Path(__file__).parents[2] / "docs" / "how-to" / "pretrain.sbatch"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
MpiDefault=none
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def test_the_script_is_sound_bash() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0
    asked = {name for name in re.findall(r"\$(\w+)", SCRIPT.read_text()) if name.startswith("SLURM_")}
    assert asked == {"SLURM_JOB_NODELIST", "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster of this machine, for as long as the test takes."""
    if os.geteuid() or not all(map(shutil.which, PROGRAMS)):
        pytest.skip("there is no Slurm here, or nobody who may start it")
    cpus = os.cpu_count() or 1
    configuration = tmp_path / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=socket.gethostname(), folder=tmp_path, cpus=cpus))
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=False)  # it may be there already
    daemons = [subprocess.Popen([name, "-D"], stderr=subprocess.DEVNULL) for name in ("slurmctld", "slurmd")]
    try:
        yield tmp_path
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait()


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def wait_for(what: str, path: Path, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        text = path.read_text() if path.exists() else ""
        if what in text:
            return text
        time.sleep(0.2)
    raise AssertionError(f"no {what!r} in {path}: {text}")


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_job_that_is_told_to_stop_is_queued_again_and_ends(corpus: Path, slurm: Path) -> None:
    log, run_dir = slurm / "job.out", slurm / "run"
    sets = [word for value in (*SETTINGS, "run.length=400 steps") for word in ("--set", value)]
    job = ["--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--overcommit", f"--output={log}"]
    training = ["--corpus", corpus, "--config", "debug", "--run-dir", run_dir, *sets]
    deadline = time.monotonic() + 60
    while not (submitted := output_of("sbatch", "--parsable", *job, SCRIPT, *training)).strip():
        assert time.monotonic() < deadline, "the cluster does not come up"
        time.sleep(1)
    number = submitted.strip()
    wait_for("step 1/400", log, 120)
    output_of("scancel", "--signal=USR1", f"{number}.0")
    wait_for("stopped after step", log, 120)
    before = latest_checkpoint(run_dir)
    assert before is not None and load_checkpoint(before).step < 400
    while "JobState=PENDING" not in (state := output_of("scontrol", "show", "job", number)):
        assert "JobState=FAILED" not in state, state
        time.sleep(0.5)
    output_of("scontrol", "update", f"JobId={number}", "StartTime=now")
    assert f"going on from {before}" in wait_for("400 steps done", log, 300)
