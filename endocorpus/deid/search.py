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
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import permutations
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt

_SEPARATORS = b" \t\r\n\0_-.,:;/\\^=|'\"()[]+*"
_LOWER = bytes(range(256)).lower()
_BETWEEN = ("", " ", "\u3000", "\u00b7", "^", "=", "_", "-", ",", ", ")  # in names that are not ASCII
_MOST_PARTS = 4  # of a name whose parts are permuted
_LONG = 6  # bytes: fewer come up by chance in a gigabyte of noise
_SHORTEST_WORD, _SHORTEST_NUMBER, _SHORTEST_OTHER = 4, 6, 2  # characters; less would be met everywhere
_BORDERED = 8  # characters of ASCII below which a word or number must not be part of a longer one
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\U([0-9a-fA-F]{8})")
_DATE = re.compile(r"(\d{4})[-./年 ]?(\d{1,2})[-./月 ]?(\d{1,2})日?")


@dataclass(frozen=True, slots=True, eq=False)
class _Forms:
    """Byte strings of 4 bytes and more, for a search whose time hardly depends on how many they are."""

    pairs: npt.NDArray[np.bool_]  # (65536,): whether one begins with these two bytes
    quads: npt.NDArray[np.uint32]  # what they begin with
    by_quad: Mapping[bytes, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sought:
    """What to look for. `too_short` counts the identifiers that cannot be told from chance, so are not looked for.

    `words` are ASCII in lower case without separators, `spellings` bytes as they are; what is long enough for noise
    once more. Not shown by `repr`.
    """

    words: _Forms
    long_words: _Forms
    short_words: tuple[bytes, ...]
    bordered: re.Pattern[bytes] | None
    spellings: _Forms
    long_spellings: _Forms
    too_short: int


def sought(identifiers: Iterable[str]) -> Sought:
    """All forms of some identifiers."""
    words: set[bytes] = set()
    spellings: set[bytes] = set()
    too_short = 0
    for identifier in {unicodedata.normalize("NFKC", text).strip() for text in identifiers} - {""}:
        found = 0
        for text in _arrangements(identifier):
            plain = _squeeze(_ascii(text))
            if text.isascii() or len(plain) >= len(text) - text.count(" "):  # Latin, perhaps with accents
                least = _SHORTEST_NUMBER if plain.isdigit() else _SHORTEST_WORD
                words |= {plain} if len(plain) >= least else set()
                found += len(plain) >= least
            if not text.isascii() and len(text.replace(" ", "")) >= _SHORTEST_OTHER:
                spellings |= _spellings(text)
                found += 1
        too_short += not found
    short = sorted(word for word in words if len(word) < _BORDERED)
    return Sought(
        words=_forms(word for word in words if len(word) >= _BORDERED),
        long_words=_forms(word for word in words if len(word) >= _LONG),
        short_words=tuple(short),
        bordered=_bordered(short),
        spellings=_forms(spellings),
        long_spellings=_forms(form for form in spellings if len(form) >= _LONG),
        too_short=too_short,
    )


def _forms(forms: Iterable[bytes]) -> _Forms:
    by_quad: dict[bytes, list[bytes]] = {}
    for form in sorted(set(forms)):
        by_quad.setdefault(form[:4], []).append(form)
    pairs = np.zeros(1 << 16, dtype=np.bool_)
    pairs[[int.from_bytes(quad[:2]) for quad in by_quad]] = True
    quads = np.array([int.from_bytes(quad) for quad in by_quad], dtype=np.uint32)
    return _Forms(pairs=pairs, quads=quads, by_quad={quad: tuple(found) for quad, found in by_quad.items()})


def _holds(data: bytes, forms: _Forms) -> bool:
    """Whether one of the forms is in `data`."""
    if len(data) < 4 or not forms.by_quad:
        return False
    octets = np.frombuffer(data, dtype=np.uint8)
    pair = octets[:-1].astype(np.uint16) << 8 | octets[1:]
    at = np.flatnonzero(forms.pairs[pair[:-2]])
    quad = pair[at].astype(np.uint32) << 16 | pair[at + 2]
    return any(
        data.startswith(form, place)
        for place in at[np.isin(quad, forms.quads)].tolist()
        for form in forms.by_quad[data[place : place + 4]]
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
    return _holds(_squeeze(data), what.long_words) or _holds(data, what.long_spellings)


def in_text(data: bytes, what: Sought) -> bool:
    """Whether an identifier is in bytes that are text, or a table of texts, in whatever encoding and escaping."""
    escaped = b"\\" in data or b"%" in data or b"&#" in data
    return any(_in_plain_text(form, what) for form in ({data, _unescape(data)} if escaped else {data}))


def _in_plain_text(data: bytes, what: Sought) -> bool:
    if _holds(_squeeze(data), what.words) or _holds(data, what.spellings):
        return True
    return what.bordered is not None and any(
        what.bordered.search(form) is not None
        for form in {data, data.translate(None, b"\0"), _without_accents(data)}
        if any(map(_squeeze(form).__contains__, what.short_words))  # quicker, and mostly enough
    )


_ALIKE = bytes.maketrans(b"oilszb", b"011528")  # letters and digits that a recogniser takes for each other
_LETTERS_FOR_ERROR = 5  # one of so many letters may be wrong
_MOST_ERRORS = 3


def resemblance(what: Sought) -> Callable[[str], bool]:
    """A function that says whether an identifier is in a text as a recogniser reads it from a picture: one letter in
    five, at most three, and of a Chinese name of three letters one, may be wrong, missing or too many."""
    words = {word for forms in what.words.by_quad.values() for word in forms} | set(what.short_words)
    folded = [(word.translate(_ALIKE), min(_MOST_ERRORS, len(word) // _LETTERS_FOR_ERROR)) for word in sorted(words)]
    spelled = {form for forms in what.spellings.by_quad.values() for form in forms}
    names = sorted({name for form in spelled if (name := _as_chinese(form))})

    def resembles(text: str) -> bool:
        text = unicodedata.normalize("NFKC", text)
        latin, chinese = _squeeze(_ascii(text)).translate(_ALIKE), "".join(filter(_is_wide, text))
        found = any(_errors(word, latin) <= allowed for word, allowed in folded)
        return found or any(_errors(name, chinese) <= (len(name) > 2) for name in names)

    return resembles


def _as_chinese(form: bytes) -> str:
    """The letters that are not Latin of a text in UTF-8; empty for bytes that are something else, or too few."""
    try:
        name = "".join(filter(_is_wide, form.decode("utf-8")))
    except UnicodeDecodeError:
        return ""
    return name if len(name) >= _SHORTEST_OTHER else ""


def _is_wide(letter: str) -> bool:
    return "\u2e80" <= letter <= "\ud7af" or letter >= "\U00020000"


def _errors(word: Sequence[Hashable], text: Sequence[Hashable]) -> int:
    """How many letters must at least be changed, added or dropped for `word` to be somewhere in `text`.

    Source: Myers, "A fast bit-vector algorithm for approximate string matching", Journal of the ACM 46, 1999.
    """
    places: dict[Hashable, int] = {}
    for at, letter in enumerate(word):
        places[letter] = places.get(letter, 0) | 1 << at
    every, last = (1 << len(word)) - 1, 1 << len(word) - 1
    more, fewer = every, 0
    errors = least = len(word)
    for letter in text:
        same = places.get(letter, 0)
        diagonal, across = same | fewer, ((same & more) + more ^ more) | same
        up, down = fewer | ~(across | more), more & across
        errors += bool(up & last) - bool(down & last)
        least = min(least, errors)
        up, down = up << 1, down << 1
        more, fewer = (down | ~(diagonal | up)) & every, up & diagonal & every
    return least


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
