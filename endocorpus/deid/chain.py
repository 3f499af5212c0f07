"""Statements that cannot be changed unseen: JSON lines, each bound to the one before, the last one signed.

A file of n statements has n + 1 lines. A line holds a statement (`body`), its number, the hash of the line before and
its own hash; the last line holds the head's hash and an Ed25519 signature of it. Whoever changes a statement without
the key breaks its line, the one after it, or the signature, and `read_chain` says which comes first.

JSON here is canonical, so that equal statements are equal bytes: sorted keys, no blanks, UTF-8, and no numbers but
integers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from endocorpus.errors import DataError

Body = Mapping[str, Any]
_START = "0" * 64
_LARGEST_INTEGER = 2**53  # beyond it, other readers of JSON round


class BrokenChainError(DataError):
    """The first thing that is wrong with a chain. `link` is its number, or None where it is the signature's line."""

    def __init__(self, where: str, link: int | None, what: str) -> None:
        super().__init__(f"{where}: {'the signature' if link is None else f'link {link}'} {what}")
        self.where, self.link, self.what = where, link, what

    def __reduce__(self) -> tuple[type[BrokenChainError], tuple[str, int | None, str]]:
        return BrokenChainError, (self.where, self.link, self.what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Statements whose links and signature were checked. `signer` is the public key as 64 hex digits; that it is whose
    one thinks is known only if it was compared with one that came another way. `head` is the last link's hash."""

    bodies: tuple[Body, ...]
    signer: str
    head: str


def canonical(value: object) -> bytes:
    """Canonical JSON.

    Raises:
        ValueError: a float, an integer beyond 2**53, text that is no Unicode, or a type that JSON has not (a bug).
    """
    _refuse_inexact(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _refuse_inexact(value: object) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"a name in JSON is text, not {type(key).__name__}")
            _refuse_inexact(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_inexact(item)
    elif isinstance(value, int):
        if abs(value) > _LARGEST_INTEGER:
            raise ValueError("an integer beyond 2**53 is not exact everywhere")
    elif not (value is None or isinstance(value, str)):
        raise ValueError(f"{type(value).__name__} has no canonical form")


def sha256(data: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def public_key(key: bytes) -> str:
    """What others check signatures of this key of 32 bytes with: 64 hex digits that may be published."""
    return Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw().hex()


def write_chain(bodies: Sequence[Body], key: bytes, purpose: str) -> bytes:
    """The signed chain of `bodies` as JSON lines; the bytes depend on the arguments alone.

    Args:
        bodies: at least one.
        key: the 32 bytes of an Ed25519 key.
        purpose: what kind of statement is signed, so that one kind cannot pass for another.
    """
    if not bodies:
        raise ValueError("a chain has at least one link")
    lines, previous = [], _START
    for number, body in enumerate(bodies):
        link = _link(number, previous, body)
        previous = link["hash"]
        lines.append(canonical(link))
    signature = Ed25519PrivateKey.from_private_bytes(key).sign(_message(purpose, previous, len(bodies)))
    seal = {"head": previous, "links": len(bodies), "public_key": public_key(key), "signature": signature.hex()}
    return b"".join(line + b"\n" for line in [*lines, canonical(seal)])


def _link(number: int, previous: str, body: Body) -> dict[str, Any]:
    content = {"link": number, "previous": previous, "body": body}
    return {**content, "hash": sha256(canonical(content))}


def _message(purpose: str, head: str, links: int) -> bytes:
    return canonical({"endocorpus": purpose, "head": head, "links": links})


def read_chain(data: bytes, purpose: str, where: object, signer: str | None = None) -> Chain:
    """Check every link and the signature.

    Args:
        data: what `write_chain` made, from anybody.
        purpose: as it was signed.
        where: what to call the file in an error.
        signer: public key that must have signed it, 64 hex digits; by default any, which the caller must then judge.

    Raises:
        BrokenChainError: it is not as it was signed; names the first link that is not.
    """
    name, lines = str(where), data.split(b"\n")
    bodies: list[Body] = []
    previous = _START
    for number, line in enumerate(lines[:-2]):
        link = _parse(line, name, number, ("body", "hash", "link", "previous"))
        if not isinstance(link["body"], dict):
            raise BrokenChainError(name, number, "holds no statement")
        if link["hash"] != _link(link["link"], link["previous"], link["body"])["hash"]:
            raise BrokenChainError(name, number, "was changed: its content does not have its hash")
        if (link["link"], link["previous"]) != (number, previous):
            what = "does not follow the one before it: a link was taken out, put in, moved or made anew"
            raise BrokenChainError(name, number, what)
        previous = link["hash"]
        bodies.append(link["body"])
    if not bodies or lines[-1]:
        raise BrokenChainError(name, None, "is missing: the file ends too early")
    seal = _parse(lines[-2], name, None, ("head", "links", "public_key", "signature"))
    if (seal["head"], seal["links"]) != (previous, len(bodies)):
        raise BrokenChainError(name, None, "is of other links than these, or links are missing before it")
    _check_signature(seal, _message(purpose, previous, len(bodies)), name, signer)
    return Chain(bodies=tuple(bodies), signer=seal["public_key"], head=previous)


def _parse(line: bytes, name: str, number: int | None, fields: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(line)
        exact = canonical(value) == line  # also refuses twins of a name, blanks and other spellings
    except (ValueError, RecursionError):
        raise BrokenChainError(name, number, "cannot be read") from None
    if not exact or not isinstance(value, dict) or tuple(sorted(value)) != fields:
        raise BrokenChainError(name, number, "is not as it is written by this program")
    return value


def _check_signature(seal: Mapping[str, Any], message: bytes, name: str, signer: str | None) -> None:
    if signer is not None and seal["public_key"] != signer.lower():
        raise BrokenChainError(name, None, "is of another key than the one that was asked for")
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(seal["public_key"]))
        key.verify(bytes.fromhex(seal["signature"]), message)
    except (InvalidSignature, ValueError, TypeError):
        raise BrokenChainError(name, None, "does not fit: these links were not signed with this key") from None
