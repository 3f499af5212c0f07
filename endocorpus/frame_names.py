"""How label files name the frames of a recording."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from endocorpus.records import Recording, Span


def frame_index(recording: Recording, num_frames: int) -> Callable[[str], int | None]:
    """How label files name the frames of a recording: the stem of an image, or the number of a video's frame.

    A number finds an image whose stem is the same number otherwise written ("7", "0007"), if there is but one.
    """
    if recording.media.kind != "frames":
        return lambda key: int(key) if _is_number(key) and int(key) < num_frames else None
    stems = [PurePosixPath(path).stem for path in recording.media.paths]
    exact, by_number = _places(stems), _places(map(frame_key, stems))
    return lambda key: exact.get(key, by_number.get(frame_key(key)))


def _places(keys: Iterable[str]) -> dict[str, int]:
    """The place of each key that is there once."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return {key: found[0] for key, found in places.items() if len(found) == 1}


def frame_key(text: str) -> str:
    return str(int(text)) if _is_number(text) else text


def _is_number(text: str) -> bool:
    """Whether this can be a frame's number: Python refuses to read thousands of digits."""
    return text.isdecimal() and len(text) < 20


def frames_from(first: str, last: str | None, index: Callable[[str], int | None], num_frames: int) -> Span | None:
    """The frames from `first` to `last`, both of them in; a number beyond the recording stands for its last frame."""
    start = index(first)
    if start is None:
        return None
    if last is None:
        return Span(start=start, stop=start + 1)
    stop = index(last)
    if stop is None and _is_number(last) and int(last) >= num_frames:
        stop = num_frames - 1
    return Span(start=start, stop=stop + 1) if stop is not None and stop >= start else None
