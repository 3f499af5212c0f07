"""What is known to identify a private recording: the names of its files and folders, and all that its header says.

It is read again when clips are checked, stays in the memory of that process, and is compared with what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydicom import dcmread

from endocorpus.deid.search import Sought, sought
from endocorpus.media.probe import open_video
from endocorpus.records import Media, MediaFacts

_OURS = {"videohandler", "isom", "iso2", "iso5", "iso6", "avc1", "mp41", "mp42", "isomiso2avc1mp41"}
"""Values that a file of any recorder has, and clips as well: in words of mp4, ISO 14496-12."""
_NAMES = {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "DA", "DT", "AS"}  # value representations, DICOM PS3.5, 6.2
_DAY = re.compile(r"((?:19|20)\d\d)[-./:]?(\d\d)[-./:]?(\d\d)")
_SPLIT = re.compile(r"[\W_]+")
_RUN = re.compile(r"\d+|[a-zA-Z\u00c0-\u024f]+|[^\W\d_a-zA-Z\u00c0-\u024f]+")  # digits, Latin letters, other letters
_LONGEST = 200  # characters; more is a text, of which the words are looked for


def identifiers(media: Media, facts: MediaFacts, root: Path) -> Sought:
    """What to look for in the clips of a private recording, in all its forms.

    Raises:
        OSError: a file cannot be read any more. Messages may carry its path.
    """
    texts, path = set(_of_path(media)), root / media.paths[0]
    if media.kind == "video":
        texts |= set(_of_dicom(path) if facts.container == "dicom" else _of_header(path))
    return sought(texts)


def _of_path(media: Media) -> Iterator[str]:
    """Names of folders, and of the file; of a sequence of pictures, whose names are numbers, of folders alone."""
    path = PurePosixPath(media.paths[0])
    for part in (*path.parent.parts, *((path.stem,) if media.kind == "video" else ())):
        yield from _words(part)


def _of_header(path: Path) -> Iterator[str]:
    with open_video(path) as container:
        tables = [container.metadata, *(stream.metadata for stream in container.streams)]
        tables += [chapter["metadata"] for chapter in container.chapters()]
        for table in tables:
            for value in table.values():
                yield from _words(value)


def _of_dicom(path: Path) -> Iterator[str]:
    for element in dcmread(path, stop_before_pixels=True).iterall():
        if element.VR in _NAMES:
            for value in element.value if element.VM > 1 else [element.value]:
                yield from _words(str(value))


def _words(text: str) -> Iterator[str]:
    """A text as a whole, if it is short, each of its words and of their parts, and the dates in it."""
    if text.lower() in _OURS:
        return
    if len(text) <= _LONGEST:
        yield " ".join(_SPLIT.split(text))
    yield from _SPLIT.split(text)
    yield from _RUN.findall(text)
    yield from ("-".join(parts) for parts in _DAY.findall(text))
