"""Looking for known identifiers in bytes, in every way that they could be written there.

An identifier is a name, a number or a date that the study knows. It is looked for in UTF-8, UTF-16 and UTF-32, GBK and
Latin-1, as escapes (JSON, Python, URL, HTML), with its parts in any order (DICOM writes "ZHANG^WEI"), in any case,
and with or without what separates its characters.

Two kinds of places are told apart. In text, short words count, at borders of words. In coded pictures and compressed
tables bytes are as good as random, so only what is long enough not to come up by chance counts there.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import permutations
from urllib.parse import unquote_to_bytes

_SEPARATORS = b" \t\r\n\0_-.,:;/\\^=|'\"()[]+*"
_LOWER = bytes(range(256)).lower()
_BETWEEN = ("", " ", "\u3000", "\u00b7", "^", "=", "_", "-", ",", ", ")  # in names that are not ASCII
_MOST_PARTS = 4  # of a name whose parts are permuted
_LONG = 6  # bytes: fewer come up by chance in a gigabyte of noise
_SHORTEST_WORD, _SHORTEST_NUMBER, _SHORTEST_OTHER = 4, 6, 2  # characters; less would be met everywhere
_BORDERED = 8  # characters of ASCII below which a word or number must not be part of a longer one
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\U([0-9a-fA-F]{8})")
_DATE = re.compile(r"(\d{4})[-./年 ]?(\d{1,2})[-./月 ]?(\d{1,2})日?")


@dataclass(frozen=True, slots=True)
class Sought:
    """What to look for. `too_short` counts the identifiers that cannot be told from chance, so are not looked for.

    `squeezed` are ASCII bytes in lower case without separators; `exact` are bytes as they are. `repr` shows neither.
    """

    squeezed: tuple[bytes, ...]
    bordered: re.Pattern[bytes] | None
    exact: tuple[bytes, ...]
    too_short: int

    def __repr__(self) -> str:
        return f"Sought({len(self.squeezed) + len(self.exact)} forms, {self.too_short} too short)"


def sought(identifiers: Iterable[str]) -> Sought:
    """All forms of some identifiers."""
    squeezed: set[bytes] = set()
    exact: set[bytes] = set()
    too_short = 0
    for identifier in {unicodedata.normalize("NFKC", text).strip() for text in identifiers} - {""}:
        found = 0
        for text in _arrangements(identifier):
            plain = _squeeze(_ascii(text))
            if text.isascii() or len(plain) >= len(text) - text.count(" "):  # Latin, perhaps with accents
                least = _SHORTEST_NUMBER if plain.isdigit() else _SHORTEST_WORD
                squeezed |= {plain} if len(plain) >= least else set()
                found += len(plain) >= least
            if not text.isascii() and len(text.replace(" ", "")) >= _SHORTEST_OTHER:
                exact |= _spellings(text)
                found += 1
        too_short += not found
    words = sorted(word for word in squeezed if len(word) < _BORDERED)
    return Sought(
        squeezed=tuple(sorted(squeezed)), bordered=_bordered(words), exact=tuple(sorted(exact)), too_short=too_short
    )


def _arrangements(identifier: str) -> set[str]:
    """The parts of an identifier in every order, and a date in every order of day, month and year."""
    parts = [part for part in re.split(r"[\s^=,;_·]+", identifier) if part]
    orders = permutations(parts) if 1 < len(parts) <= _MOST_PARTS else [parts]
    out = {" ".join(order) for order in orders}
    if len(parts) == 1 and not identifier.isascii() and 2 <= len(identifier) <= 4:  # family name and given name
        cuts = [(identifier[:cut], identifier[cut:]) for cut in range(1, len(identifier))]
        out |= {f"{one}{between}{two}" for a, b in cuts for one, two in ((a, b), (b, a)) for between in ("", " ")}
    if when := _as_date(identifier):
        out |= {when.strftime(form) for form in ("%Y%m%d", "%d%m%Y", "%m%d%Y")}
        out |= {f"{when.year}年{when.month}月{when.day}日", f"{when.year}年{when.month:02d}月{when.day:02d}日"}
    return out


def _as_date(text: str) -> date | None:
    match = _DATE.fullmatch(text)
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def _ascii(text: str) -> bytes:
    """Latin letters without their accents; other letters go."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore")


def _squeeze(data: bytes) -> bytes:
    """Lower case without separators and zeros, which also makes ASCII of ASCII in UTF-16 and UTF-32."""
    return data.translate(_LOWER, _SEPARATORS)


def _spellings(text: str) -> set[bytes]:
    """The bytes of a text that is not ASCII: encodings, what wrong decoding makes of them, spaces between letters."""
    out: set[bytes] = set()
    letters = text.replace(" ", "")
    for joined in {between.join(letters) for between in _BETWEEN} | {text.replace(" ", b) for b in _BETWEEN}:
        for cased in {joined, joined.upper(), joined.lower(), joined.title()}:
            for form in ("NFC", "NFD"):
                spelled = unicodedata.normalize(form, cased)
                out |= {spelled.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")}
                out.add(spelled.encode("utf-8").decode("latin-1").encode())
                for code in ("gb18030", "big5", "latin-1"):
                    raw = spelled.encode(code, "ignore")
                    if len(raw) >= len(spelled):
                        out |= {raw, raw.decode("latin-1").encode()}
    return {form for form in out if len(form) >= 4}


def _bordered(words: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Short words, with separators between their letters, where no letter (or, for a number, digit) goes on."""
    between = b"[" + re.escape(_SEPARATORS) + b"]{0,3}"
    rules = []
    for word in words:
        kind = rb"\d" if word.isdigit() else rb"[a-z]"
        body = between.join(re.escape(word[at : at + 1]) for at in range(len(word)))
        rules.append(rb"(?<!" + kind + rb")" + body + rb"(?!" + kind + rb")")
    return re.compile(b"|".join(rules), re.IGNORECASE) if rules else None


def in_noise(data: bytes, what: Sought) -> bool:
    """Whether a long enough identifier is in bytes that may be compressed or coded."""
    lower = _squeeze(data)
    return any(word in lower for word in what.squeezed if len(word) >= _LONG) or any(
        form in data for form in what.exact if len(form) >= _LONG
    )


def in_text(data: bytes, what: Sought) -> bool:
    """Whether an identifier is in bytes that are text, or a table of texts, in whatever encoding and escaping."""
    return any(_in_plain_text(form, what) for form in {data, _unescape(data)})


def _in_plain_text(data: bytes, what: Sought) -> bool:
    lower = _squeeze(data)
    if any(word in lower for word in what.squeezed if len(word) >= _BORDERED) or any(f in data for f in what.exact):
        return True
    return what.bordered is not None and any(
        what.bordered.search(form) for form in {data, data.translate(None, b"\0"), _without_accents(data)}
    )


def _without_accents(data: bytes) -> bytes:
    return _ascii(data.decode("utf-8", "replace"))


def _unescape(data: bytes) -> bytes:
    r"""Text with its escapes resolved: \u5f20, \xd5, %E5, &#24352; and bytes that Python smuggles through as \udcd5."""
    text = unquote_to_bytes(_ESCAPE.sub(_character, data))
    if b"&#" in text:
        text = html.unescape(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return text


def _character(match: re.Match[bytes]) -> bytes:
    if match[2]:
        return bytes([int(match[2], 16)])
    code = int(match[1] or match[3], 16)
    if 0xDC80 <= code <= 0xDCFF:
        return bytes([code - 0xDC00])
    return chr(code).encode("utf-8", "surrogatepass") if code <= 0x10FFFF else match[0]
