"""How each source lies on disk: which recordings there are, and the files that come with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest

from endocorpus.phantom.camera import HALF_ANGLE
from endocorpus.phantom.draws import generator
from endocorpus.phantom.traits import Lesion, Light, Traits


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One recording of a layout: its path in the tree, and what it must show."""

    path: str
    light: Light
    lesion: Lesion
    lumen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``places`` lists the first ``n`` recordings; ``sidecars`` gives the text files that come with them."""

    recordings: int
    places: Callable[[int], tuple[Place, ...]]
    sidecars: Callable[[int, Mapping[str, Traits]], dict[str, str]]


# Folder, stem of the lesion folders, and how many lesions the real set has.
_CLASSES: tuple[tuple[str, str, Lesion, int], ...] = (
    ("Adenoma", "adenoma", "adenoma", 40),
    ("Hyperplasic", "hyperplasic", "hyperplastic", 21),
    ("Serrated", "serrated", "serrated", 15),
)
_UCI_CLASS: dict[str, int] = {"hyperplasic": 1, "serrated": 2, "adenoma": 3}
_UCI_FEATURES = 698


def _colonoscopic_lesions() -> list[tuple[str, str, Lesion, int]]:
    """Every lesion of the set. The first four are far apart in number and kind; the rest take turns over classes."""
    first = [(*_CLASSES[0][:3], 1), (*_CLASSES[0][:3], 40), (*_CLASSES[1][:3], 1), (*_CLASSES[2][:3], 15)]
    columns = [
        [(folder, stem, lesion, number + 1) for number in range(count)] for folder, stem, lesion, count in _CLASSES
    ]
    rest = [row for turn in zip_longest(*columns) for row in turn if row is not None and row not in first]
    return first + rest


def _colonoscopic_places(recordings: int) -> tuple[Place, ...]:
    """Both lights of every lesion; an odd number leaves the last lesion with white light only."""
    places = (
        Place(path=f"{folder}/{stem}_{number:02d}/videos/{light}.mp4", light=light, lesion=lesion, lumen=lumen)
        for lumen, (folder, stem, lesion, number) in enumerate(_colonoscopic_lesions())
        for light in ("WL", "NBI")
    )
    return tuple(islice(places, recordings))


def _colonoscopic_sidecars(seed: int, recordings: Mapping[str, Traits]) -> dict[str, str]:
    """``data.txt``, the feature table (one column per recording), and ``cam.xml`` per lesion."""
    files = {}
    for path, traits in recordings.items():
        files[f"{path.rsplit('/', 2)[0]}/cam.xml"] = _camera_xml(traits)
    stems = [path.split("/")[1] for path in recordings]
    rows = [
        ",".join(stems),
        ",".join(str(_UCI_CLASS[stem.rsplit("_", 1)[0]]) for stem in stems),
        ",".join("1" if traits.light == "WL" else "2" for traits in recordings.values()),
    ]
    features = generator(seed, "features").random((_UCI_FEATURES, len(stems)))
    rows += [",".join(f"{value:.6f}" for value in row) for row in features]
    files["data.txt"] = "\n".join(rows) + "\n"
    return files


def _camera_xml(traits: Traits) -> str:
    """The calibration of the phantom's lens: equidistant, image radius = focal * angle."""
    focal, (x, y) = traits.field.reach() / HALF_ANGLE, traits.field.centre
    return (
        '<?xml version="1.0"?>\n<camera>\n'
        f'  <image width="{traits.width}" height="{traits.height}"/>\n'
        f'  <projection model="equidistant" focal="{focal:.4f}" cx="{x:.2f}" cy="{y:.2f}"/>\n'
        "</camera>\n"
    )


LAYOUTS: dict[str, Layout] = {
    "colonoscopic": Layout(recordings=152, places=_colonoscopic_places, sidecars=_colonoscopic_sidecars),
}
