"""The words that are planted in recordings, the bytes by which they may be met, and the units that carry them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

LATIN, CHINESE = "KANARIE", "金丝雀"


@dataclass(slots=True)
class Aviary:
    """The words that were planted, by channel, and the file that each one is in."""

    words: dict[str, str] = field(default_factory=dict)
    homes: dict[str, Path] = field(default_factory=dict)

    def word(self, channel: str, chinese: bool = False) -> str:
        """A new word for a channel such as "mp4: title"."""
        assert channel not in self.words
        self.words[channel] = f"{CHINESE if chinese else LATIN}{len(self.words):03d}"
        return self.words[channel]

    def house(self, path: Path) -> Path:
        """Say that the words planted since the last call are in `path`."""
        self.homes |= {channel: path for channel in self.words if channel not in self.homes}
        return path


def forms(word: str) -> list[bytes]:
    """The bytes by which a word may be met: encodings, escapes, and the pairs in which captions carry text."""
    plain = word.encode()
    pairs = b"".join(b"\xfc" + plain[at : at + 2] for at in range(0, len(plain) - 1, 2))
    mangled = [word.encode("gbk").decode("latin-1").encode(), plain.decode("latin-1").encode()]
    escaped = [word.encode("unicode_escape"), repr(plain)[2:-1].encode(), repr(word.encode("gbk"))[2:-1].encode()]
    return list(
        {plain, word.encode("gbk"), word.encode("utf-16-le"), word.encode("utf-16-be"), pairs, *mangled, *escaped}
    )


def met(data: bytes) -> set[str]:
    """Which families of canaries are in `data`, whatever number they have; case does not matter."""
    lower = data.lower()
    families = {"Latin": LATIN, "Chinese": CHINESE}
    return {name for name, stem in families.items() if any(form.lower() in lower for form in forms(stem))}


def sei(kind: int, payload: bytes) -> bytes:
    """An H.264 SEI unit of one message (ITU-T H.264, 7.3.2.3)."""
    size = b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255])
    return b"\0\0\0\1\x06" + _escape(bytes([kind]) + size + payload + b"\x80")


def _escape(rbsp: bytes) -> bytes:
    out = bytearray()
    for byte in rbsp:
        if byte <= 3 and out[-2:] == b"\0\0":
            out.append(3)
        out.append(byte)
    return bytes(out)


def captions(word: str) -> bytes:
    """CEA-708 captions as ATSC A/53 part 4 puts them into user data: GA94, type 3, pairs of bytes."""
    text = word.encode()
    pairs = [text[at : at + 2] for at in range(0, len(text) - 1, 2)]
    return b"GA94\x03" + bytes([0x40 | len(pairs), 0xFF]) + b"".join(b"\xfc" + pair for pair in pairs) + b"\xff"


def hostile_names() -> list[str]:
    """Names of files and folders as hospitals give them: Latin, Chinese, and Chinese in bytes that are no Unicode."""
    gbk = os.fsdecode(f"{CHINESE}007".encode("gbk"))
    return [
        f"{LATIN}001_1977-07-07",
        f"{LATIN}002^VOGEL 100%d [x]",
        f"{CHINESE}003_310101197707071234",
        gbk,
        f"{LATIN}004/{CHINESE}005",
        f"{LATIN.lower()}006",
    ]
