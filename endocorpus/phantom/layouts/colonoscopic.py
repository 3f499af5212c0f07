"""Colonoscopic: a folder per lesion, filmed in white light and in narrow band; a feature table at the root."""

from __future__ import annotations

from itertools import islice, zip_longest
from typing import Any

from endocorpus.phantom.camera import HALF_ANGLE
from endocorpus.phantom.draws import generator
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import RATE, plan_recording
from endocorpus.phantom.traits import Lesion, Light, Traits

# Folder, stem of the lesion folders, and how many lesions the real set has.
_CLASSES: tuple[tuple[str, str, Lesion, int], ...] = (
    ("Adenoma", "adenoma", "adenoma", 40),
    ("Hyperplasic", "hyperplasic", "hyperplastic", 21),
    ("Serrated", "serrated", "serrated", 15),
)
_LIGHTS: tuple[Light, ...] = ("WL", "NBI")
_UCI_CLASS: dict[str, int] = {"hyperplasic": 1, "serrated": 2, "adenoma": 3}
_UCI_FEATURES = 698


def _lesions() -> list[tuple[str, str, Lesion, int]]:
    """Every lesion of the set. The first four are far apart in number and kind; the rest take turns over classes."""
    first = [(*_CLASSES[0][:3], 1), (*_CLASSES[0][:3], 40), (*_CLASSES[1][:3], 1), (*_CLASSES[2][:3], 15)]
    columns = [
        [(folder, stem, lesion, number + 1) for number in range(count)] for folder, stem, lesion, count in _CLASSES
    ]
    rest = [row for turn in zip_longest(*columns) for row in turn if row is not None and row not in first]
    return first + rest


def _items(request: Request) -> tuple[Item, ...]:
    """Both lights of every lesion; an odd number leaves the last lesion with white light only."""
    places = (
        (f"{folder}/{stem}_{number:02d}/videos/{light}.mp4", lumen, light, lesion)
        for lumen, (folder, stem, lesion, number) in enumerate(_lesions())
        for light in _LIGHTS
    )
    return tuple(
        Item(
            path=path,
            traits=plan_recording(
                request.seed, lumen=lumen, recording=index, light=light, lesion=lesion, size=request.size,
                frames=request.frames(RATE), frame_counter=request.frame_counter,
            ),
        )
        for index, (path, lumen, light, lesion) in enumerate(islice(places, request.recordings))
    )  # fmt: skip


def _files(request: Request, truths: Truths) -> Files:
    """``cam.xml`` per lesion, and ``data.txt``, the feature table (one column per recording)."""
    lenses = {f"{path.rsplit('/', 2)[0]}/cam.xml": _camera_xml(truth.traits) for path, truth in truths.items()}
    yield from lenses.items()
    stems = [path.split("/")[1] for path in truths]
    rows = [
        ",".join(stems),
        ",".join(str(_UCI_CLASS[stem.rsplit("_", 1)[0]]) for stem in stems),
        ",".join("1" if truth.traits.light == "WL" else "2" for truth in truths.values()),
    ]
    features = generator(request.seed, "features").random((_UCI_FEATURES, len(stems)))
    rows += [",".join(f"{value:.6f}" for value in row) for row in features]
    yield "data.txt", ("\n".join(rows) + "\n").encode()


def _camera_xml(traits: Traits) -> bytes:
    """The calibration of the phantom's lens: equidistant, image radius = focal * angle."""
    focal, (x, y) = traits.field.reach() / HALF_ANGLE, traits.field.centre
    return (
        '<?xml version="1.0"?>\n<camera>\n'
        f'  <image width="{traits.width}" height="{traits.height}"/>\n'
        f'  <projection model="equidistant" focal="{focal:.4f}" cx="{x:.2f}" cy="{y:.2f}"/>\n'
        "</camera>\n"
    ).encode()


def _traps(request: Request) -> tuple[Trap, ...]:
    paths = [item.path for item in _items(request)]
    lesions = {path.rsplit("/", 1)[0] for path in paths}
    twin = Trap(
        path="Adenoma/adenoma_01/videos/WL.mp4",
        name="same-as",
        expect="One leak group with kumc train2019/adenoma_01.",
    )
    alone = [lesion for lesion in sorted(lesions) if f"{lesion}/NBI.mp4" not in paths]
    return (
        twin,
        *(
            Trap(path=f"{lesion}/WL.mp4", name="missing-partner", expect="The lesion is kept with its one recording.")
            for lesion in alone
        ),
        *(
            Trap(path=path, name="same-lesion", expect="Stands on the same side of every split as its WL recording.")
            for path in paths if path.endswith("NBI.mp4")
        ),
        *(
            Trap(path=path, name="green-picture", expect="Narrow band light is kept: it is no broken colour.")
            for path in paths if path.endswith("NBI.mp4")
        ),
        *(
            Trap(path=path, name="spelling", expect="The finding is hyperplastic, which the site writes without t.")
            for path in paths if path.startswith("Hyperplasic")
        ),
    )  # fmt: skip


def _labels(request: Request) -> dict[str, Any]:
    return {
        item.path: {
            "labels": {"finding": item.path.split("/")[1].rsplit("_", 1)[0], "light": item.traits.light},
            "frames": {},
        }
        for item in _items(request)
    }


LAYOUT = Layout(recordings=152, default=7, items=_items, files=_files, traps=_traps, labels=_labels)
