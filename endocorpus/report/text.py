"""Numbers as people read them. Nothing here depends on the locale, so a page has the same bytes everywhere."""

from __future__ import annotations

from fractions import Fraction


def number(value: int) -> str:
    """``12345`` as ``12,345``."""
    return f"{value:,}"


def count(value: int, one: str, many: str | None = None) -> str:
    """``1, "file"`` as ``1 file`` and ``2, "file"`` as ``2 files``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def size(value: int) -> str:
    """Bytes in decimal units, as disks are sold: ``716800`` as ``716.8 kB``."""
    if value < 1000:
        return count(value, "byte")
    scaled, unit = float(value), "bytes"
    for unit in ("kB", "MB", "GB", "TB", "PB"):  # noqa: B007 - the unit reached
        scaled /= 1000
        if scaled < 999.95:
            break
    return f"{scaled:,.1f} {unit}"


def rate(value: str) -> str:
    """A fraction of frames per second: ``30000/1001`` as ``29.97 (30000/1001)``."""
    exact = Fraction(value)
    return str(exact) if exact.denominator == 1 else f"{float(exact):.2f} ({exact})"


def plain(value: float) -> str:
    """A value to three digits: ``5.0`` as ``5``, ``520.3001`` as ``520``, ``1.4014`` as ``1.4``."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
