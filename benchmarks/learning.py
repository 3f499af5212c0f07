"""Does pre-training learn anything? Frozen features of unseen recordings are asked for the kind of lesion they show.

    python -m benchmarks.learning --out runs/learning

Renders two sets of close looks at one lesion each, builds a corpus of either with `endocorpus build`, pre-trains on one
with `endofm pretrain --config tiny`, once per seed, and lets the nearest neighbours in the other vote on the finding:
before, during and after. Raw pixels have the same say. Prints the table, and writes learning.json and learning.svg.
What is there already is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endocorpus.phantom import Field, Lesion, Polyp, Traits, frames, plan_recording, truth_root
from endocorpus.phantom.camera import HALF_ANGLE, Pose
from endocorpus.phantom.camera import Path as CameraPath
from endocorpus.phantom.lumen import lesion_site
from endocorpus.phantom.video import encode as encode_video
from endofm.bench import hardware
from endofm.config import load_config
from endofm.data.views import ViewScheme
from endofm.health import Alarms, effective_rank
from endofm.models import create_backbone
from endofm.probe import Probe, encode, knn, load_probe, raw_pixels

# What is alike in all recordings, so that it cannot tell one from another better than the lesion does. A first version
# left it to chance, and what the runs learned was the direction of the dark end and the complexion of the person.
DOWN, AROUND = math.pi / 2, 0.5  # the lesion lies at six o'clock, as an examiner turns the scope; radians
MUCOSA = (168.0, 104.0, 84.0)  # mean colour of what is not lesion, as the white balance before an examination sees to

# Folder and stem of the Colonoscopic layout, and how far a lesion of that kind rises, as a share of its radius.
KINDS: dict[Lesion, tuple[str, str, float]] = {
    "adenoma": ("Adenoma", "adenoma", 0.85),
    "hyperplastic": ("Hyperplasic", "hyperplasic", 0.55),
    "serrated": ("Serrated", "serrated", 0.45),
}
SIZE, RATE, FRAMES = 96, Fraction(8), 24  # pixels, per second, of a recording
ZOOM, ASIDE = 1.3, 0.48  # radius of the field, and how far its centre lies from that of the picture; in sides of it
CAMERAS = 24
# Seed and number of lesions. Two seeds share no lumen, and the recipe was chosen without a look at the second one.
SETS = {"train": (11, 300), "heldout": (13, 240)}
KNN = "knn_balanced_accuracy"
POINTS = (KNN, "feature_rank", "feature_diversity")
MEANS = ("loss", "loss_at_chance", "teacher_entropy", "teacher_information")
PIXELS = {"raw pixels": 64, "raw pixels, 16 x 16": 16, "mean colour of each frame": 1}


def main() -> None:
    """Parse the command line, do what has not been done, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for recordings, corpora, runs and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs (default: 0 1 2)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, as for endofm")
    arguments = parser.parse_args()
    out, config = arguments.out, load_config("tiny", arguments.set)
    for name, (seed, lesions) in SETS.items():
        make_corpus(out, name, seed, lesions)
    probe = load_probe(out / "heldout", config.probe.label)
    baselines = {name: ask(raw_pixels(side), probe, config.views) for name, side in PIXELS.items()}
    runs = [run(out, arguments.set, seed, probe) for seed in arguments.seeds]
    results = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": hardware(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "clips": {name: lesions for name, (_, lesions) in SETS.items()},
        "config": config.model_dump(mode="json"),
        "baselines": baselines,
        "runs": runs,
    }
    (out / "learning.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "learning.svg").write_text(picture(results), encoding="utf-8")
    print(table(results))


# --- recordings and corpora -------------------------------------------------------------------------------------------


def close_look(seed: int, lumen: int, lesion: Lesion) -> Traits:
    """One lesion that fills a good part of the picture, in white light.

    Its radius, place and surface, the person, the folds and the way of the camera are drawn anew for each lumen.
    """
    angle, depth = lesion_site(seed, lumen)
    radius = float(np.random.default_rng((seed, lumen)).uniform(0.45, 0.6))
    centre = (SIZE * (0.5 - ASIDE * math.cos(angle)), SIZE * (0.5 - ASIDE * math.sin(angle)))
    traits = plan_recording(
        seed, lumen=lumen, recording=watching(seed, lumen), lesion=lesion, size=(SIZE, SIZE), rate=RATE, frames=FRAMES,
        overlays=False, outside=False, frozen=False,
    )  # fmt: skip
    rise = min(0.6, radius * KINDS[lesion][2])
    return replace(
        traits,
        polyps=(Polyp(lesion=lesion, angle=angle, depth=depth, radius=radius, height=rise),),
        field=Field(shape="circle", centre=centre, radius=ZOOM * SIZE, flat=ZOOM * SIZE),
    )


def lumens(seed: int, count: int) -> list[int]:
    """The first lumens whose lesion lies `DOWN`, or not far from there."""
    aside = (abs(math.remainder(lesion_site(seed, lumen)[0] - DOWN, 2 * math.pi)) for lumen in itertools.count())
    return list(itertools.islice((lumen for lumen, off in enumerate(aside) if off < AROUND), count))


def watching(seed: int, lumen: int) -> int:
    """The number of the recording whose camera keeps the lesion nearest to the middle, and neither far nor too near."""
    angle, depth = lesion_site(seed, lumen)
    middle = ASIDE * math.cos(angle), ASIDE * math.sin(angle)

    def miss(recording: int) -> float:
        path, total = CameraPath(seed, recording, angle), 0.0
        for half_seconds in range(math.ceil(2 * FRAMES / RATE)):
            pose = path.at(half_seconds / 2)
            ahead = depth - pose.depth
            x, y = in_picture(pose, math.cos(angle) - pose.offset[0], math.sin(angle) - pose.offset[1], ahead)
            past = 1.0 if ahead < 0.3 else 0.0
            total += (math.dist((x, y), middle) + 0.25 * abs(math.hypot(ahead, 1) - 1.35) + past) ** 2
        return total

    return min(range(lumen, lumen + 1000 * CAMERAS, 1000), key=miss)


def in_picture(pose: Pose, x: float, y: float, z: float) -> tuple[float, float]:
    """Where a point seen from the camera, in lumen axes, appears: to the right of the optical axis and below it, in
    sides of the picture. The inverse of the turns that the phantom's rays make: yaw, pitch, roll."""
    x, z = x * math.cos(pose.yaw) - z * math.sin(pose.yaw), z * math.cos(pose.yaw) + x * math.sin(pose.yaw)
    y, z = y * math.cos(pose.pitch) - z * math.sin(pose.pitch), z * math.cos(pose.pitch) + y * math.sin(pose.pitch)
    x, y = x * math.cos(pose.roll) + y * math.sin(pose.roll), y * math.cos(pose.roll) - x * math.sin(pose.roll)
    scale = math.atan2(math.hypot(x, y), z) / math.hypot(x, y) * ZOOM / HALF_ANGLE
    return x * scale, y * scale


def render(raw: Path, seed: int, lumen: int, number: int) -> None:
    """Write one recording; the kinds take turns over `number`."""
    lesion = tuple(KINDS)[number % len(KINDS)]
    folder, stem, _ = KINDS[lesion]
    path = raw / folder / f"{stem}_{number + 1:03d}" / "videos" / "WL.mp4"
    path.parent.mkdir(parents=True)
    pictures, truths = zip(*frames(close_look(seed, lumen, lesion), seed), strict=True)
    film_THWC = np.stack(pictures).astype(np.float32)
    gains = MUCOSA / film_THWC[np.stack([truth.labels for truth in truths]) == 0].mean(axis=0)
    balanced = np.clip(film_THWC * gains, 0, 255).astype(np.uint8)
    encode_video(path, balanced, (SIZE, SIZE), RATE, crf=20, gop=FRAMES)


def make_corpus(out: Path, name: str, seed: int, lesions: int) -> None:
    """A finished corpus `out/name` of `lesions` close looks, one clip each, unless it is there already."""
    if (out / name / "corpus.json").exists():
        return
    raw = out / "raw" / name
    shutil.rmtree(raw, ignore_errors=True)
    truth_root(raw).mkdir(parents=True, exist_ok=True)
    places = [(lumen, number) for number, lumen in enumerate(lumens(seed, lesions))]
    # By this note a build knows that the tree was rendered, and says so in the corpus.
    (truth_root(raw) / "plan.json").write_text(
        json.dumps({"seed": seed, "by": "benchmarks.learning"}), encoding="utf-8"
    )
    with ProcessPoolExecutor() as pool:
        list(pool.map(render, *zip(*((raw, seed, *place) for place in places), strict=True), chunksize=8))
    call("endocorpus", "build", "--source", "colonoscopic", "--name", name, "--root", raw, "--out", out / name)


def call(module: str, *arguments: str | Path) -> None:
    """One of our commands, in a process of its own; it speaks for itself."""
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


# --- runs -------------------------------------------------------------------------------------------------------------


def ask(network: torch.nn.Module, probe: Probe, views: ViewScheme) -> dict[str, float]:
    """Balanced accuracy of the nearest neighbours of held-out clips, and how many directions the features use."""
    features_ND = encode(network, probe, views)
    accuracy = knn(features_ND, probe.targets_N, probe.groups_N)
    return {"knn": accuracy.balanced, "rank": effective_rank(features_ND)}


def run(out: Path, overrides: Sequence[str], seed: int, probe: Probe) -> dict[str, Any]:
    """One pre-training run, unless it is complete already: the probe before it, and what its metrics file says."""
    run_dir, note = out / f"run-{seed}", out / f"run-{seed}.json"
    settings = [*overrides, f"run.seed={seed}"]
    config = load_config("tiny", settings)
    if not note.exists():
        torch.manual_seed(seed)  # the draw with which the run begins
        before = ask(create_backbone(config.model.shape), probe, config.views)
        options = [part for setting in settings for part in ("--set", setting)]
        began, began_cpu = time.time(), cpu_seconds()
        call(
            "endofm", "pretrain", "--corpus", out / "train", "--probe", out / "heldout", "--config", "tiny",
            "--run-dir", run_dir, *options,
        )  # fmt: skip
        minutes, cpu_minutes = (time.time() - began) / 60, (cpu_seconds() - began_cpu) / 60
        told = {
            "config": config.model_dump(mode="json"),
            "before": before,
            "minutes": minutes,
            "cpu_minutes": cpu_minutes,
        }
        note.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    done: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    if done.pop("config") != config.model_dump(mode="json"):
        raise SystemExit(f"{note}: of another configuration; name another --out, or remove it and {run_dir}")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    alarms = Alarms()
    return done | {
        "seed": seed,
        "steps": len(rows),
        "alarms": [alarm for row in rows for alarm in alarms.hear(row)],
        "least_information": min(row["teacher_information"] for row in rows),
        "curve": list(curve(rows)),
    }


def curve(rows: Sequence[Mapping[str, float]]) -> Iterator[dict[str, float]]:
    """What was measured at each step that was probed; of what every step tells, the mean since the one before."""
    since: list[Mapping[str, float]] = []
    for row in rows:
        since.append(row)
        if KNN in row:
            means = {key: statistics.mean(one[key] for one in since) for key in MEANS}
            yield {"step": row["step"] + 1, **{key: row[key] for key in POINTS}, **means}
            since = []


def cpu_seconds() -> float:
    """CPU time of the processes that were called and have ended."""
    times = os.times()
    return times.children_user + times.children_system


# --- results ----------------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    runs = results["runs"]

    def of(values: Sequence[float]) -> str:
        return f"{statistics.mean(values):.1%} ± {statistics.stdev(values) if len(values) > 1 else 0:.1%}"

    lines = [
        results["hardware"],
        f"{results['date']}, {len(runs)} seeds, {runs[0]['steps']} steps; CPU minutes a run: "
        + ", ".join(f"{run['cpu_minutes']:.1f}" for run in runs),
        "",
        "| features | balanced accuracy of their neighbours |",
        "|---|---|",
        "| chance | 33.3% |",
        *(f"| {name} | {baseline['knn']:.1%} |" for name, baseline in results["baselines"].items()),
        f"| random weights | {of([run['before']['knn'] for run in runs])} |",
        f"| pre-trained | {of([run['curve'][-1]['knn_balanced_accuracy'] for run in runs])} |",
    ]
    alarms = [alarm for run in runs for alarm in run["alarms"]]
    least = min(run["least_information"] for run in runs)
    ends = [run["curve"][-1] for run in runs]
    lines += [
        "",
        f"Alarms: {alarms or 'none'}; least teacher information of any step: {least:.3f}.",
        "At the end: feature rank " + ", ".join(f"{row['feature_rank']:.1f}" for row in ends)
        + ", diversity " + ", ".join(f"{row['feature_diversity']:.2f}" for row in ends) + ".",
    ]  # fmt: skip
    return "\n".join(lines)


PANELS = (
    ("accuracy of neighbours, balanced", (KNN,), 1.0),
    ("teacher: entropy, and below it information", ("teacher_entropy", "teacher_information"), 1.0),
    ("loss, as a share of guessing", ("loss_share",), 1.0),
    ("feature rank", ("feature_rank",), None),
)
COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#7b5ea7", "#b08900")


def picture(results: Mapping[str, Any]) -> str:
    """Four panels over the steps, a line for every seed, as SVG."""
    panels = [panel(results, *PANELS[at], left=20 + 250 * at) for at in range(len(PANELS))]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1020 250" font-family="sans-serif" font-size="11">\n'
        '<rect width="1020" height="250" fill="white"/>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def panel(results: Mapping[str, Any], title: str, keys: Sequence[str], top: float | None, *, left: int) -> str:
    """One panel, 200 wide and 180 high, whose upper left corner is at (`left` + 20, 30)."""
    lines = [(points(run, key), COLOURS[at % len(COLOURS)]) for key in keys for at, run in enumerate(results["runs"])]
    top = top or 1.1 * max(value for line, _ in lines for _, value in line)
    steps = max(run["steps"] for run in results["runs"])
    parts = [f'<text x="{left + 20}" y="20">{title}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = 210 - 180 * share
        parts.append(f'<path d="M{left + 20} {y}h200" stroke="#ddd"/><text x="{left + 16}" y="{y + 4}" '
                     f'text-anchor="end">{top * share:.3g}</text>')  # fmt: skip
    parts.append(f'<text x="{left + 20}" y="226">0</text><text x="{left + 220}" y="226" text-anchor="end">'
                 f"{steps} steps</text>")  # fmt: skip
    if KNN in keys:
        best = max(baseline["knn"] for baseline in results["baselines"].values())
        for value, name in ((best, "best of the pixels"), (1 / 3, "chance")):
            y = 210 - 180 * value / top
            parts.append(f'<path d="M{left + 20} {y:.1f}h200" stroke="#888" stroke-dasharray="4 3"/>'
                         f'<text x="{left + 220}" y="{y + 12:.1f}" text-anchor="end">{name}</text>')  # fmt: skip
    for line, colour in lines:
        places = " ".join(f"{left + 20 + 200 * step / steps:.1f},{210 - 180 * value / top:.1f}" for step, value in line)
        parts.append(f'<polyline points="{places}" fill="none" stroke-width="1.5" stroke="{colour}"/>')
    return "\n".join(parts)


def points(run: Mapping[str, Any], key: str) -> list[tuple[int, float]]:
    """Steps done and the value of one measure; with the value before the first step where it is known."""
    before = {KNN: "knn", "feature_rank": "rank"}.get(key)
    first = [(0, run["before"][before])] if before else []
    return first + [(row["step"], value(row, key)) for row in run["curve"]]


def value(row: Mapping[str, float], key: str) -> float:
    """A measure of the metrics file, or the loss as a share of what guessing would cost."""
    return row["loss"] / row["loss_at_chance"] if key == "loss_share" else row[key]


if __name__ == "__main__":
    main()
