"""Strict settings: TOML in, frozen typed values out, and an unknown key names the nearest known one.

Both packages configure themselves through this module, so that a typing error is an error everywhere.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError
from pydantic.fields import FieldInfo

from endocorpus.errors import UsageError, did_you_mean

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Base of every configuration table: frozen, strict about types, no unknown keys, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def by_kind(default: str) -> Discriminator:
    """Tells the classes of a section apart, as in
    ``Annotated[Annotated[A, Tag("a")] | Annotated[B, Tag("b")], by_kind("a")]``.

    Each has a field `kind` with its tag as default; a table without one means `default`.
    """
    return Discriminator(
        lambda given: given.get("kind", default) if isinstance(given, dict) else getattr(given, "kind", None)
    )


def load_settings(
    kind: type[S],
    path: Path | None = None,
    overrides: Iterable[str] = (),
    *,
    defaults: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    bases: Mapping[str, Path] = MappingProxyType({}),
) -> S:
    """Read settings of `kind` from a TOML file, then apply `section.key=value` overrides on top.

    A section may be one of several classes, which its `kind` tells apart (`by_kind`). Where a file or an override
    chooses another one, the settings below it that the new class has as well stay, and the others go.

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
    table = _laid_over(kind, defaults, _read_with_base(kind, path, bases) if path else {})
    _refuse_unknown(kind, table, where, also=("base",) if bases else ())
    overrides = list(overrides)
    for override in sorted(overrides, key=_chooses_a_kind, reverse=True):
        above: dict[str, Any] = {}
        _set(above, override)
        table = _laid_over(kind, table, above)
        _set(table, override)
        _refuse_unknown(kind, table, f"--set {override}")
    try:
        # TOML has no tuples: python-mode strictness would refuse its lists, JSON-mode strictness takes them.
        return kind.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(_where_it_stands(kind, first["loc"]))
        got = "" if isinstance(first["input"], Mapping) else f" (got {first['input']!r})"
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] in {"list_type", "tuple_type"} and not isinstance(first["input"], Mapping):
            said = f"expected a list such as {json.dumps([first['input']] * 2)}"
        raise UsageError(f"{_to_blame(overrides, key, said) or where}: {key}: {said}{got}") from None


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


def _to_blame(overrides: Iterable[str], key: str, said: str) -> str | None:
    """The override that made `key` wrong: it sets it or, where none does, a neighbour that the message names."""
    section, given = key.rpartition(".")[0], {override.partition("=")[0].strip(): override for override in overrides}
    direct = [override for override in given.values() if _touches(override, key)]
    named = [override for name, override in given.items() if name in {f"{section}.{word}" for word in said.split()}]
    return next((f"--set {override}" for override in reversed(direct or named)), None)


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


def _read_with_base(kind: type[BaseModel], path: Path, bases: Mapping[str, Path]) -> dict[str, Any]:
    table = _read_toml(path)
    if not bases or "base" not in table:
        return table
    base = table.pop("base")
    if base not in bases:
        raise UsageError(f"{path}: base = {base!r} is not a shipped configuration ({', '.join(sorted(bases))})")
    return _laid_over(kind, _read_toml(bases[base]), table)


def _laid_over(kind: type[BaseModel], below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """As `_merged`; where `above` chooses another class for a section, without what only the one before knows."""
    both = _merged(below, above)
    for name, field in kind.model_fields.items():
        before, now = _settings_of(field, below.get(name)), _settings_of(field, both.get(name))
        if before is not now and now is not None and isinstance(both.get(name), dict):
            kept = now.model_fields.keys() | above[name].keys()
            both[name] = {key: value for key, value in both[name].items() if key in kept}
    return both


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over tables: a value of `above` hides that of `below`."""
    both = {key: dict(value) if isinstance(value, Mapping) else value for key, value in {**below, **above}.items()}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            both[key] = _merged(below[key], above[key])
    return both


def _chooses_a_kind(override: str) -> bool:
    """These come first, so that the order in which overrides are given does not matter."""
    return override.partition("=")[0].strip().endswith(".kind")


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


def _refuse_unknown(root: type[BaseModel], table: Mapping[str, Any], where: str, also: Iterable[str] = ()) -> None:
    for name, field in root.model_fields.items():
        members, given = _members(field.annotation), table.get(name)
        if members and isinstance(given, Mapping) and given.get("kind", _default_kind(field)) not in members:
            raise UsageError(f"{where}: {name}.kind = {given['kind']!r} is none of {', '.join(members)}")
    known = _known_keys(root, table)
    for key in _keys(table):
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}{_hint(root, key, known | dict.fromkeys(also, ''))}")


def _hint(root: type[BaseModel], key: str, known: Mapping[str, str]) -> str:
    """What may have been meant. A key of the right name in the wrong section is the commonest mistake, so names count
    before sections."""
    section, _, leaf = key.rpartition(".")
    members = _members(root.model_fields[section].annotation) if section in root.model_fields else {}
    others = [kind for kind, member in members.items() if leaf in member.model_fields]
    if others:
        return f"; it is a setting of {section}.kind = {' or '.join(repr(kind) for kind in others)}"
    beside = [k for k in known if k.rpartition(".")[0] == (section if section in known else "")]
    near = [k for k in known if k.rpartition(".")[2] == leaf]
    near = near or [k for k in beside if k.rpartition(".")[2].startswith(f"{leaf}_")]
    near = near or [k for k in beside if section and _mentions(known[k], leaf.replace("_", " "))]
    if near:
        return f"; did you mean {near[0]!r}?"
    # All keys together are too many to read.
    elsewhere = known.keys() - {section}
    return did_you_mean(key, sorted(elsewhere if difflib.get_close_matches(key, elsewhere) else beside))


def _mentions(description: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", description, re.IGNORECASE) is not None


def _keys(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def _known_keys(kind: type[BaseModel], table: object, prefix: str = "") -> dict[str, str]:
    """Keys in the order of their declaration, with what is said of them; `table` tells which classes are chosen."""
    known: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        known[prefix + name] = field.description or ""
        given = table.get(name) if isinstance(table, Mapping) else None
        nested = _settings_of(field, given)
        if nested is not None:
            known |= _known_keys(nested, given, f"{prefix}{name}.")
    return known


def _settings_of(field: FieldInfo, given: object) -> type[BaseModel] | None:
    """The settings class that `given` is read as; None where the field holds plain values, or the kind is unknown."""
    members = _members(field.annotation)
    if members:
        return members.get(
            given.get("kind", _default_kind(field)) if isinstance(given, Mapping) else _default_kind(field)
        )
    return next(iter(_classes(field.annotation)), None)


def _default_kind(field: FieldInfo) -> str:
    return str(getattr(field.default, "kind", ""))


def _members(annotation: object) -> dict[str, type[BaseModel]]:
    """The classes that a section may be, by the `kind` that chooses each; empty where there is nothing to choose."""
    return {found.model_fields["kind"].default: found for found in _classes(annotation) if "kind" in found.model_fields}


def _classes(annotation: object) -> list[type[BaseModel]]:
    """The settings classes behind an annotation such as `ViewConfig`, `ViewConfig | None`, `Annotated[A | B, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return _classes(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [found for part in get_args(annotation) for found in _classes(part)]
    return []


def _where_it_stands(kind: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The place of an error as keys: pydantic names the chosen class of a section as well."""
    keys = [str(part) for part in place]
    field = kind.model_fields.get(keys[0]) if keys else None
    return keys[:1] + keys[2:] if field and len(keys) > 1 and keys[1] in _members(field.annotation) else keys
