"""Opening a file of weights that anybody may have made: what is in it, or why nothing of it is taken.

Files of torch are pickles, and a pickle can run code. They are read with `weights_only=True`, in which torch builds
tensors and plain containers and refuses any other name. The published checkpoints hold three names more (a parser's
Namespace, a numpy scalar and its dtype); these become the harmless values below, so that not even argparse or numpy
does anything with what the file says.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from endocorpus.errors import DataError
from endofm.seal import is_whole

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch began its files with until 1.6
_AGAIN = "download it again, and compare its size and sha256 with what its publisher says"

_MISTAKEN = (
    (b"version https://git-lfs", "a pointer of git-lfs, and not the file that it stands for; run `git lfs pull`"),
    (b"\x1f\x8b", "an archive (gzip); unpack it, and name a file inside"),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z); unpack it, and name a file inside"),
    (b"Rar!", "an archive (rar); unpack it, and name a file inside"),
    (b"\x89HDF", "weights of Keras (HDF5), which are of another network"),
    (b"\x93NUMPY", "an array of numpy, which says nothing about the network that it belongs to"),
)
_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)

# A hostile or damaged pickle can make torch's reader stumble in any of these ways.
_STUMBLES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


@dataclass(frozen=True)
class WeightFile:
    """A file whose every byte was read.

    Attributes:
        path: of the file.
        format: how it was written.
        size: in bytes.
        sha256: of all its bytes, 64 hex digits.
        content: what was saved; tensors are on the CPU and, where torch can map the file, not in memory yet.
        about: what a backbone of ours says about itself (`endofm.checkpoint.export_backbone`); empty for others.
    """

    path: Path
    format: str
    size: int
    sha256: str
    content: Mapping[Any, Any]
    about: Mapping[str, Any]


def read_file(path: Path) -> WeightFile:
    """Open a file of safetensors or torch, check its bytes as far as it has checksums, and run nothing of it.

    Raises:
        DataError: no such file; not weights (a web page, an archive, ...); damaged; or more than tensors and plain
            values. The message says which, and what to do.
    """
    try:
        size, head = _begin(path)
        if head[8:9] == b"{":
            content, about = _read_safetensors(path)
            return WeightFile(path, "safetensors", size, _sha256(path), content, about)
        if head.startswith(_ZIP):
            _check_archive(path)
            return WeightFile(path, "torch", size, _sha256(path), _unpickle(path, mapped=True), {})
        if head.startswith(_BEFORE_1_6):
            return WeightFile(path, "torch before 1.6", size, _sha256(path), _unpickle(path, mapped=False), {})
        raise DataError(f"{path}: {_mistaken(head)}")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _begin(path: Path) -> tuple[int, bytes]:
    """Size, and the first bytes."""
    if path.is_dir():
        inside = path / "backbone.safetensors"
        hint = f"; did you mean {inside}?" if inside.exists() else ", and not a file of weights"
        raise DataError(f"{path}: is a folder{hint}")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is a pipe or a device, and not a file of weights")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise DataError(f"{path}: is empty; {_AGAIN}")
    return path.stat().st_size, head


def _mistaken(head: bytes) -> str:
    """What a file is that does not begin like weights."""
    for beginning, said in _MISTAKEN:
        if head.startswith(beginning):
            return said
    if head[257:262] == b"ustar":
        return "an archive (tar); unpack it, and name a file inside"
    if _PAGE.match(head):
        return (
            "a web page, and not weights: the link is dead, or its server wanted an answer first (Google Drive warns "
            "of large files, others want you to sign in); open the link in a browser"
        )
    if head.startswith(_PICKLE):
        return "a pickle that torch.save did not write; it is not opened, since it could run code"
    if not any(byte < 9 for byte in head):
        return f"a text, and not weights; it begins with {head[:40].decode('utf-8', 'replace')!r}"
    return f"neither safetensors nor a file of torch.save; {_AGAIN}"


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("endofm", "{}"))
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it has no __iter__
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cut short, or damaged ({error}); {_AGAIN}") from None
    return content, about if isinstance(about, dict) else {}


def _check_archive(path: Path) -> None:
    """torch ignores the checksums inside its files; holes that a broken download left would become weights of zero."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if not any(entry.filename.endswith("/data.pkl") for entry in entries):
                names = ", ".join(entry.filename for entry in entries[:3])
                raise DataError(f"{path}: an archive (zip) of {names}, ...; unpack it, and name a file inside")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                raise DataError(f"{path}: compressed or encrypted inside, as torch.save never writes it")
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, struct.error, UnicodeError) as error:
        raise DataError(f"{path}: cut short, or damaged ({error}); {_AGAIN}") from None
    if broken is not None or is_whole(path) is False:
        raise DataError(f"{path}: damaged ({broken or 'other bytes than were written'}); {_AGAIN}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpickle(path: Path, *, mapped: bool) -> dict[Any, Any]:
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _STUMBLES as error:
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise DataError(
                f"{path}: is not opened, since it asks for {asked[1]}, and only tensors and plain values are read from "
                "a file that could run code; if you trust whoever made it, load it there and save its weights alone"
            ) from None
        raise DataError(f"{path}: damaged, or not a file of weights ({_first_line(error)}); {_AGAIN}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, and not weights by their names")
    return content


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class Arguments:
    """In place of `argparse.Namespace`: the command line of whoever trained the weights."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("arguments that are not names with values")
        self.values = {key: value for key, value in state.items() if isinstance(key, str)}


class _Dtype:
    """In place of `numpy.dtype`: its code, such as "f8", and its order of bytes."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in {"<", ">", "|"}:
            self.order = str(state[1])


def _scalar(dtype: object, data: object = None) -> int | float | bool | None:
    """In place of numpy's: a plain number, or None for what is not one."""
    if not (isinstance(dtype, _Dtype) and re.fullmatch(r"[fiu][1248]|b1", dtype.code) and isinstance(data, bytes)):
        return None
    if dtype.code == "f1" or len(data) != int(dtype.code[1]):
        return None
    value: int | float | bool = np.frombuffer(data, dtype.order + dtype.code)[0].item()
    return value


# numpy renamed `numpy.core` to `numpy._core` in 2.0; files keep the name of the version that wrote them.
_STAND_INS: list[Any] = [
    (Arguments, "argparse.Namespace"),
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]
