"""Fit the head that tells frames outside the body, and measure it on media that it was not fitted on.

    python -m benchmarks.outside fit --media MEDIA --out endocorpus/deid/data/outside_head.json
    python -m benchmarks.outside measure --media MEDIA --inside FOLDER --inside FILE.mp4 --outside FILE.mp4

MEDIA holds the unpacked packages that `outside_media.py` names. `--inside` is endoscopic video or a folder of frames of
your own: without any, the inside is the renderer's alone; `--outside` is video of anything else. Fit and measurement
share no file, and no seed.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks import outside_media as media
from benchmarks.tissue import Frame, recolour, screen, through_scope, vary, wall
from endocorpus.deid.head import Head, describe, fit, probability, read_head, shipped_head
from endocorpus.deid.head import outside as tell
from endocorpus.deid.measure import face, look_at
from endocorpus.deid.outside import CLEANED, Look, Policy, judge, kept
from endocorpus.deid.outside_look import look_closer, look_frames, merge
from endocorpus.phantom import plan_recording
from endocorpus.phantom.scene import Scene
from endocorpus.records import Box

FIT_SEEDS, MEASURE_SEEDS = range(100, 112), range(6000, 6012)
WALLS, SCREENS = 700, 120


def phantom(seed: int, every: int = 40) -> tuple[list[Frame], list[Frame]]:
    """Frames of one rendered colonoscopy, a fifth of which is out of the body: inside, outside."""
    traits = plan_recording(seed, lumen=seed % 5, recording=seed % 7, light="NBI" if seed % 3 == 0 else "WL",
                            frames=1600, overlays=seed % 2 == 0, outside=True, frozen=False)  # fmt: skip
    scene, found = Scene(traits, seed), ([], [])  # type: tuple[Scene, tuple[list[Frame], list[Frame]]]
    for index in range(0, traits.frames, every):
        frame, truth = scene.render(index)
        found[truth.outside].append(frame)
    return found


def pictures_to_fit(folder: Path, seed: int) -> tuple[list[Frame], list[Frame]]:
    """What is inside and what is outside: each picture as it is, varied, and in the colours of tissue."""
    rng = np.random.default_rng(seed)

    def more(frames: list[Frame], plain: int, count: int, red: int, *, inside: bool) -> list[Frame]:
        def one() -> Frame:
            return frames[rng.integers(len(frames))]

        varied = [vary(one(), rng, inside=inside) for _ in range(count)]
        return [*frames[:plain], *varied, *(recolour(one(), rng) for _ in range(red))]

    rendered = [phantom(number) for number in FIT_SEEDS]
    inside = [frame for tissue, _ in rendered for frame in more(tissue, 40, 40, 50, inside=True)]
    inside += more(media.surgery_stills(folder), 4, 100, 200, inside=True)
    walls = [wall(rng) for _ in range(WALLS)]
    inside += [*walls, *(vary(frame, rng, inside=True) for frame in walls * 2)]
    outside = more([frame for _, rooms in rendered for frame in rooms], 40, 60, 20, inside=False)
    for name in media.FIT_OUTSIDE:
        frames = media.read(folder, name, media.FIT_OUTSIDE)
        outside += more(frames, 40, 80, 40, inside=False)
        if name in media.FIT_SKIN:
            outside += more(media.skin(frames, media.FIT_SKIN[name], 120, seed), 120, 120, 0, inside=False)
    outside += more(media.everyday_stills(), 40, 200, 120, inside=False)
    outside += more(media.skin([media.everyday_stills()[0]], media.ASTRONAUT, 120, seed), 120, 120, 0, inside=False)
    outside += more([screen(rng) for _ in range(SCREENS)], SCREENS, SCREENS, 0, inside=False)
    outside += [np.full((64, 64, 3), grey, np.uint8) for grey in (0, 8, 16, 96, 160, 235, 255)]
    return inside, outside


def fit_head(folder: Path, seed: int, strength: float) -> Head:
    """The head that ships: a function of the media and the seed."""
    inside, outside = pictures_to_fit(folder, seed)
    made = (
        f"benchmarks/outside.py fit, seed {seed}, strength {strength:g}: {len(inside)} pictures inside (rendered "
        f"colonoscopy, drawn walls, 4 stills of a laparoscopy), {len(outside)} outside "
        f"({', '.join(media.FIT_OUTSIDE)}, photographs of scikit-image, rendered rooms, drawn screens)"
    )
    return fit(describe(inside), describe(outside), made=made, strength=strength)


def score(head: Head, frames: Iterable[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Probability of being outside, and of a face, of frames cut to what is not black."""
    frames = list(frames)
    contents: list[Box] = [media.content_of(frame) for frame in frames]
    told = np.array([tell(head, f, content) for f, content in zip(frames, contents, strict=True)])
    return probability(told), np.array([face(f, c) for f, c in zip(frames, contents, strict=True)])


def row(name: str, scores: np.ndarray, faces: np.ndarray) -> None:
    """One line of the table of frames."""
    policy = Policy()
    shares = [float((scores >= least).mean()) for least in (policy.enter, policy.leave)]
    least, middle, most = np.quantile(scores, [0, 0.5, 1])
    print(f"  {name:22} {len(scores):5}  {shares[0]:7.1%} {shares[1]:7.1%} {(faces >= policy.face).mean():7.1%} "
          f"{(faces >= policy.faint_face).mean():7.1%}   {least:.4f} {middle:.4f} {most:.4f}")  # fmt: skip


def plant(
    inside: np.ndarray, outside: np.ndarray, rng: np.random.Generator, *, seconds: int, policy: Policy, key: str
) -> np.ndarray:
    """One recording of 24 frames per second in which 2 seconds of `outside` are planted three times, 30 s apart.

    Args:
        inside, outside: (looks, 2): scores of the head and the face detector, 8 a second. They are walked through.

    Returns:
        Planted segments; those of which any frame is kept if doubts are not, and if they are; frames inside the body
        that are farther than the margin from a planted segment and from the ends, and those of them that are lost if
        doubts are not kept, and if they are; and the part of all frames inside that is lost even if they are.
    """
    rate, frames = 24, seconds * 24
    starts = [int(rng.integers(30 * rate * (k + 1), 30 * rate * (k + 1) + 20 * rate)) for k in range(3)]
    out = np.zeros(frames, bool)
    for start in starts:
        out[start : start + 2 * rate] = True
    first_in, first_out = int(rng.integers(len(inside))), int(rng.integers(len(outside)))

    def look(numbers: Sequence[int]) -> tuple[Look, ...]:
        found = []
        for at in numbers:
            table, first = (outside, first_out) if out[at] else (inside, first_in)
            p, seen = table[(first + at // 3) % len(table)]
            found.append(Look(frame=at, outside=float(p), face=float(seen)))
        return tuple(found)

    pace = Fraction(rate)
    looks = look(look_frames(frames, pace, policy.per_second, key))
    looks = merge(looks, look(look_closer(looks, frames, pace, policy, key)))
    judged = judge(looks, frames, pace, policy)
    reach = int((policy.margin + 1) * rate)
    near = np.convolve(out, np.ones(2 * reach + 1), "same") > 0
    near[: int(policy.head * rate) + 1] = near[frames - int(policy.tail * rate) - 1 :] = True
    leaked, lost = [], []
    for doubts in (False, True):
        keep = np.zeros(frames, bool)
        for span in kept(judged, doubts):
            keep[span.start : span.stop] = True
        leaked.append(sum(bool(keep[start : start + 2 * rate].any()) for start in starts))
        lost.append(int((~near & ~keep).sum()))
    return np.array([len(starts), *leaked, int((~near).sum()), *lost, int((~out & ~keep).sum()) / int((~out).sum())])


def measure(folder: Path, own: list[Path], strange: list[Path], head: Head) -> None:
    """Print frames first, then planted segments."""
    rng = np.random.default_rng(77)
    outside = {name: media.run_of(folder, name) for name in media.MEASURE_OUTSIDE}
    rendered = [phantom(seed) for seed in MEASURE_SEEDS]
    outside["rendered rooms"] = [frame for _, rooms in rendered for frame in rooms]
    outside |= {f"skin of {name}": media.skin(outside[name], box, 30, 78) for name, box in media.MEASURE_SKIN.items()}
    outside |= {f"{name}, in scope": [through_scope(one, rng) for one in frames] for name, frames in [*outside.items()]}
    inside: dict[str, list[Frame]] = {"rendered WL": [], "rendered NBI": []}
    for seed, (tissue, _) in zip(MEASURE_SEEDS, rendered, strict=True):
        inside["rendered NBI" if seed % 3 == 0 else "rendered WL"] += tissue
    for path in own:
        files = sorted(path.glob("[0-9]*.jpg")) if path.is_dir() else [path]
        inside[path.stem] = [frame for file in files for frame in media.read_file(file, media.PER_SECOND)]
    for path in strange:
        outside[path.stem] = list(media.read_file(path, media.PER_SECOND, most=150, skip=20.0))
        outside[f"{path.stem}, in scope"] = [through_scope(one, rng) for one in outside[path.stem]]
    print(f"head {head.digest()[:16]}: {head.made}\n")
    tables: dict[str, dict[str, np.ndarray]] = {}
    for title, groups in (("inside", inside), ("outside", outside)):
        print(f"{title:24} frames  >=enter >=leave    face   faint   min, median, max")
        tables[title] = {}
        for name, frames in groups.items():
            scores, faces = score(head, frames)
            tables[title][name] = np.stack([scores, faces], axis=1)
            row(name, scores, faces)
    people = [table for name, table in tables["outside"].items() if not name.startswith("skin")]
    row("all but skin", *np.concatenate(people).T)
    planted(tables)


def planted(tables: dict[str, dict[str, np.ndarray]]) -> None:
    """Every kind of outside in every kind of inside, twenty recordings each, at two looks a second and closer ones."""
    print(
        "\n2 s planted in 2 minutes: those that left a frame if doubts are dropped, and kept; what was lost, likewise"
    )
    print(f"  {'':25} {'policy':8} segments leaked  kept | of skin leaked  kept |    lost    kept  in all")
    for name, table in tables["inside"].items():
        for called, policy in (("private", Policy()), ("cleaned", CLEANED)):
            rng, total = np.random.default_rng(91), np.zeros((2, 7))
            for kind, other in tables["outside"].items():
                still = kind.startswith("skin") or kind.split(",")[0] in media.STILLS
                shown = np.repeat(other, 8, axis=0) if still else other
                for number in range(20):
                    done = plant(table, shown, rng, seconds=120, policy=policy, key=f"{name}/{kind}/{number}")
                    total[int(kind.startswith("skin"))] += done
            (rest, skin), sums = total[:, :3].astype(int).tolist(), total.sum(axis=0)
            print(f"  {name:25} {called:8} {rest[0]:8} {rest[1]:6} {rest[2]:5} | {skin[0]:7} {skin[1]:6} {skin[2]:5} | "
                  f"{sums[4] / sums[3]:7.2%} {sums[5] / sums[3]:7.2%} {3 * sums[6] / sums[0]:7.1%}")  # fmt: skip


def timed(what: str, work: Callable[[], object], rounds: int = 30) -> None:
    """Medians of the time of one call by the clock, and by the processor: compare the latter on a busy machine."""
    times, used = [], []
    for _ in range(rounds):
        started, spent = perf_counter(), process_time()
        work()
        times.append(perf_counter() - started)
        used.append(process_time() - spent)
    print(f"  {what:36} {1e3 * float(np.median(times)):7.1f} ms, {1e3 * float(np.median(used)):7.1f} ms of a core")


def main() -> None:
    """See the text at the top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "measure", "time"])
    parser.add_argument("--media", type=Path, default=Path("media"))
    parser.add_argument("--inside", type=Path, action="append", default=[])
    parser.add_argument("--outside", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--head", type=Path, help="measure this one instead of the one that ships")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strength", type=float, default=1.0)
    args = parser.parse_args()
    if args.what == "fit":
        head = fit_head(args.media, args.seed, args.strength)
        args.out.write_text(head.to_json())
        size, digest = args.out.stat().st_size, hashlib.sha256(args.out.read_bytes()).hexdigest()
        print(f"{args.out.name} {size:,} bytes sha256 {digest}")
        return
    head = read_head(args.head.read_text()) if args.head else shipped_head()
    if args.what == "measure":
        measure(args.media, args.inside, args.outside, head)
        return
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    print("1920x1080, one thread")
    timed("describe and head, one view", lambda: head.probability(describe([frame])))
    timed("describe and head, eight views", lambda: tell(head, frame))
    timed("face", lambda: face(frame))
    timed("a look", lambda: look_at([(0, frame)], head))


if __name__ == "__main__":
    main()
