"""Random draws that depend only on a seed and a position, never on the order in which they are made."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy import fft

Floats = npt.NDArray[np.float32]


def generator(seed: int, *position: str | int) -> np.random.Generator:
    """A generator for one position, such as ``generator(seed, "noise", recording, frame)``.

    ``seed`` and every integer of ``position`` must be non-negative.
    """
    words = [crc32(part.encode()) if isinstance(part, str) else part for part in position]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], low: float, high: float) -> Floats:
    """Band-passed noise of zero mean and unit deviation that wraps around at both edges.

    ``low`` and ``high`` are the wavelengths, in samples, between which the energy lies. Shape: ``shape``.
    """
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    rows = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    cols = fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    squared = rows * rows + cols * cols
    # A difference of two Gaussians in frequency: no ringing, and the mean (frequency zero) drops out.
    spectrum *= np.exp(-squared * np.float32(low * low / 2)) - np.exp(-squared * np.float32(high * high / 2))
    field: Floats = fft.irfft2(spectrum, s=shape)
    return field / np.float32(field.std() + 1e-9)
