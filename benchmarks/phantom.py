"""How fast the phantom renders: frames per second on one core at 320x256, without and with the encoder.

Run: python benchmarks/phantom.py
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from endocorpus.phantom import frames, plan_recording, render_source, render_video
from endocorpus.phantom.scene import Scene

FRAMES = 200


def main() -> None:
    """Pin to one core where the system can (renderer and encoder share it), then time each part."""
    pinned = hasattr(os, "sched_setaffinity")
    if pinned:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"320x256, {FRAMES} frames, {'pinned to one core' if pinned else 'not pinned: encoder may use another core'}")
    traits = plan_recording(1, frames=FRAMES, overlays=True, outside=False, frozen=False)
    started = perf_counter()
    scene = Scene(traits, 1)
    print(f"setup of a recording     {perf_counter() - started:8.2f} s")
    report("frames only, after setup", FRAMES, lambda: [scene.render(index) for index in range(FRAMES)])
    # Another seed each time, so that nothing is left over from the run before.
    report("in memory, with setup", FRAMES, lambda: sum(1 for _ in frames(traits, 2)))
    with tempfile.TemporaryDirectory() as scratch:
        report("to mp4, with setup", FRAMES, lambda: render_video(Path(scratch, "a.mp4"), traits, 3))
        report("a tree of 4, with truth", 4 * FRAMES,
               lambda: render_source("colonoscopic", Path(scratch, "tree"), seed=4, recordings=4))  # fmt: skip


def report(what: str, count: int, work: Callable[[], object]) -> None:
    """Run ``work`` once; print frames per second of the clock, and per second of processor time, encoder included.

    The second figure is the one to compare on a machine that is busy with other work.
    """
    started, used = perf_counter(), sum(os.times()[:4])
    work()
    seconds, used = perf_counter() - started, sum(os.times()[:4]) - used
    print(f"{what:24} {count / seconds:8.1f} frames/s {count / used:8.1f} frames per core second")


if __name__ == "__main__":
    main()
