"""Strict settings: TOML in, frozen typed values out, and an unknown key names the nearest known one.

Both packages configure themselves through this module, so that a typing error is an error everywhere.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from endocorpus.errors import UsageError, did_you_mean

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Base of every configuration table: frozen, strict about types, no unknown keys, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def load_settings(
    kind: type[S],
    path: Path | None = None,
    overrides: Iterable[str] = (),
    *,
    defaults: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    bases: Mapping[str, Path] = MappingProxyType({}),
) -> S:
    """Read settings of `kind` from a TOML file, then apply `section.key=value` overrides on top.

    Args:
        kind: the settings class; its defaults stand where neither file nor overrides say anything.
        path: TOML file, or None for the defaults.
        overrides: strings such as ``"segment.clip_seconds=4.0"``; the value is parsed as TOML, and taken as a
            plain string where it is not valid TOML.
        defaults: tables to start from, below the file and the overrides.
        bases: files that the first line of another one can name, ``base = "debug"``, to change some of their settings.

    Raises:
        UsageError: unreadable file, invalid TOML, unknown key (with the nearest known one), wrong type or range.
    """
    where = str(path) if path else "configuration"
    table = _merged(defaults, _read_with_base(path, bases) if path else {})
    _refuse_unknown(kind, table, where)
    overrides = list(overrides)
    for override in overrides:
        _set(table, override)
        _refuse_unknown(kind, table, f"--set {override}")
    try:
        # TOML has no tuples: python-mode strictness would refuse its lists, JSON-mode strictness takes them.
        return kind.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        to_blame = [f"--set {override}" for override in overrides if _touches(override, key)]
        got = "" if isinstance(first["input"], Mapping) else f" (got {first['input']!r})"
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{to_blame[-1] if to_blame else where}: {key}: {said}{got}") from None


def to_toml(settings: Settings) -> str:
    """Settings as the TOML file that `load_settings` reads as the same; what is None is left out."""
    lines: list[str] = []
    for section, table in settings.model_dump(mode="json").items():
        # Strings, numbers, booleans and lists of them are written in TOML as they are in JSON.
        values = [
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items() if value is not None
        ]
        lines += [f"[{section}]", *values, ""]
    return "\n".join(lines)


def _touches(override: str, key: str) -> bool:
    """Whether an override sets `key`, a part of it, or what it is a part of."""
    ours = f"{override.partition('=')[0].strip()}."
    return ours.startswith(f"{key}.") or f"{key}.".startswith(ours)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None


def _read_with_base(path: Path, bases: Mapping[str, Path]) -> dict[str, Any]:
    table = _read_toml(path)
    if not bases or "base" not in table:
        return table
    base = table.pop("base")
    if base not in bases:
        raise UsageError(f"{path}: base = {base!r} is not a shipped configuration ({', '.join(sorted(bases))})")
    return _merged(_read_toml(bases[base]), table)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over tables: a value of `above` hides that of `below`."""
    both = {key: dict(value) if isinstance(value, Mapping) else value for key, value in {**below, **above}.items()}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            both[key] = _merged(below[key], above[key])
    return both


def _set(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {override}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, leaf = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {override}: {section} is a value, not a section")
    table[leaf] = value


def _refuse_unknown(root: type[BaseModel], table: Mapping[str, Any], where: str) -> None:
    known = _known_keys(root)
    for key in _keys(table):
        if key in known:
            continue
        # A key of the right name in the wrong section is the commonest mistake, so names count before sections.
        section, _, leaf = key.rpartition(".")
        near = [k for k in known if k.rpartition(".")[2] == leaf]
        near = near or [k for k, told in known.items() if k.startswith(f"{section}.") and _mentions(told, leaf)]
        hint = f"; did you mean {near[0]!r}?" if near else did_you_mean(key, sorted(known))
        raise UsageError(f"{where}: unknown key {key!r}{hint}")


def _mentions(description: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", description, re.IGNORECASE) is not None


def _keys(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def _known_keys(kind: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Keys in the order of their declaration, with what is said of them."""
    known: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        known[prefix + name] = field.description or ""
        nested = _settings_of(field.annotation)
        if nested is not None:
            known |= _known_keys(nested, f"{prefix}{name}.")
    return known


def _settings_of(annotation: object) -> type[BaseModel] | None:
    """The settings class behind an annotation such as `ViewConfig` or `ViewConfig | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        return next((found for part in get_args(annotation) if (found := _settings_of(part))), None)
    return None
