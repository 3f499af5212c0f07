"""The report page and its statistics: what the page says is what the tables say, and it says it safely."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import re
import shutil
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from endocorpus.build import build
from endocorpus.config import BuildConfig
from endocorpus.console import duration
from endocorpus.corpus.files import digest_bytes
from endocorpus.corpus.manifest import Corpus, open_corpus, table_bytes
from endocorpus.errors import DataError
from endocorpus.records import REASON_TEXT, Reason
from endocorpus.report import page
from endocorpus.report.charts import chart
from endocorpus.report.notices import NOT_EXAMINED, expected_rows
from endocorpus.report.page import render, write_report
from endocorpus.report.sheet import contact_sheet, spread
from endocorpus.report.stats import BRIGHTNESS_EDGES, LENGTH_EDGES, SHARPNESS_EDGES, Stats, compute, histogram
from endocorpus.report.text import count, plain, rate, size
from endocorpus.sources import load_source
from endocorpus.sources.layout import Expected, FrameFolders, Sidecars, Source
from tests.endocorpus.conftest import NAMES
from tests.media import write_frames, write_video

HOSTILE = "<script>alert(1)</script>\u202e Größe 内視鏡 " + "x" * 150 + ".bin"
_VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser would see: tags, the texts of definition lists and the tables by their caption."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.facts: dict[str, list[str]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.text, self._term, self._caption = "", "", ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "dd":
            self.facts.setdefault(self._term, []).append("")
        elif tag == "dt":
            self._term = ""
        elif tag == "caption":
            self._caption = ""
        elif tag == "tbody":
            self.tables[self._caption] = []
        elif tag == "tr" and "tbody" in self.open:
            self.tables[self._caption].append([])
        elif tag in ("td", "th") and "tbody" in self.open:
            self.tables[self._caption][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "dt" in self.open:
            self._term += data
        elif "dd" in self.open:
            self.facts[self._term][-1] += data
        elif "caption" in self.open:
            self._caption += data
        elif "tbody" in self.open and ("td" in self.open or "th" in self.open):
            self.tables[self._caption][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def _source() -> Source:
    layout = (
        FrameFolders(
            pattern=r"(?P<case>case\d)/(?P<finding>[^/]+)/frame_(?P<frame>\d+)\.png",
            recording="{case}-{finding}",
            case="{case}",
            case_basis="patient",
            rate=Fraction(30000, 1001),
            labels={"finding": "{finding}"},
        ),
        Sidecars(pattern=r"labels\.csv"),
    )
    expected = {
        "recordings": Expected(count=9, status="unverified"),
        "cases": Expected(count=3, status="exact"),
        "clips": Expected(count=400, status="approximate"),
        "lesions": Expected(count=7, status="unverified"),
    }
    folder = load_source("folder", "public")
    return dataclasses.replace(folder, layout=layout, expected=expected, home="http://example.org/set", year=2020)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("raw")
    write_frames(root / "case1" / "polyp", range(60))
    write_frames(root / "case1" / "normal", range(200))
    write_frames(root / "case2" / "polyp", range(40), size=(144, 112))
    write_frames(root / "case3" / "polyp", range(5), size=(144, 112))  # too short
    (root / "labels.csv").write_text("a,b\n")
    hostile = root / HOSTILE
    hostile.parent.mkdir(parents=True)
    hostile.write_bytes(b"x")
    return build(_source(), root, tmp_path_factory.mktemp("corpora") / "tiny", BuildConfig(), name="tiny")


@pytest.fixture(scope="module")
def quarantined(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("private") / "Jane Doe"
    write_frames(root / "Doe 1950-01-01", range(30))
    out = tmp_path_factory.mktemp("corpora") / "private"
    return build(load_source("folder"), root, out, BuildConfig(), names=NAMES)


@pytest.fixture(scope="module")
def html(corpus: Corpus) -> str:
    return render(corpus)


@pytest.fixture(scope="module")
def seen(html: str) -> Page:
    return Page(html)


def _with_excluded(corpus: Corpus, folder: Path, rows: list[dict[str, Any]]) -> Corpus:
    """A copy of a corpus with other exclusions."""
    for table in ("recordings", "clips", "deid", "annotations"):
        shutil.copy(corpus.root / f"{table}.parquet", folder)
    data = table_bytes("excluded", rows)
    (folder / "excluded.parquet").write_bytes(data)
    (folder / "shards").symlink_to(corpus.root / "shards")
    entry = {"rows": len(rows), "size": len(data), "xxh3_128": digest_bytes(data)}
    tables = {**corpus.descriptor["tables"], "excluded": entry}
    return Corpus(root=folder, descriptor={**corpus.descriptor, "tables": tables})


def _excluded(reason: Reason, subject: str) -> dict[str, Any]:
    return {
        "subject": subject,
        "unit": "file",
        "stage": "scan",
        "reason": str(reason),
        "detail": f"why {subject}",
        "files": 1,
        "frames": None,
    }


def test_key_figures_are_those_of_the_tables(corpus: Corpus, seen: Page) -> None:
    recordings, clips = corpus.table("recordings").to_pylist(), corpus.clips().to_pylist()
    assert seen.facts["Recordings"] == ["3", "1 left out"]
    assert seen.facts["Cases"] == ["2", "2 by patient"]
    assert seen.facts["Clips"] == [str(len(clips))]
    assert len(clips) == 4
    assert seen.facts["Frames"] == [str(sum(row["num_frames"] for row in recordings))] == ["300"]
    assert seen.facts["Length"][0] == "10.0 s"  # 300 * 1001 / 30000
    shards = corpus.descriptor["shards"]
    assert seen.facts["In shards"] == [size(sum(tar["size"] for tar in shards)), count(len(shards), "shard")]
    assert "307 files found = 300 kept + 1 sidecar + 6 excluded" in seen.text
    assert "300 in recordings, 300 in clips" in seen.text


def test_breakdowns_and_labels_are_those_of_the_tables(seen: Page) -> None:
    assert seen.tables["Picture size"] == [
        ["144 x 112", "1", "1", "40", "1.3 s"],
        ["160 x 128", "2", "3", "260", "8.7 s"],
    ]
    assert seen.tables["Frame rate"] == [["29.97 (30000/1001)", "3", "4", "300", "10.0 s"]]
    assert seen.tables["Label: finding"] == [["normal", "1", "2"], ["polyp", "2", "2"]]
    assert sum(int(row[1]) for row in seen.tables["Clip length of clips"]) == 4
    assert ["segment.clip_seconds", "5.0"] in seen.tables["Configuration"]


def test_recordings_of_a_varying_rate_are_counted_first(corpus: Corpus, seen: Page, tmp_path: Path) -> None:
    assert "varies" not in seen.text
    uneven = "setpts='if(lt(N,20),N,20+3*(N-20))/(25*TB)'"
    for name, options in (("even", ()), ("uneven", ("-vf", uneven, "-fps_mode", "passthrough"))):
        write_video(tmp_path / "raw" / f"{name}.mkv", 40, output=(*options, "-c:v", "libx264"))
    mixed = build(load_source("folder", "public"), tmp_path / "raw", tmp_path / "mixed", BuildConfig())
    text = Page(render(mixed)).text
    told = text.index("The frame rate of 1 of 2 recordings varies.")
    assert (
        text.rindex("Read this first") < told < text.rindex("Key figures")
        and "All their frames are there, in 1 clip," in text
    )


def test_expected_counts_alarm_only_where_they_are_known(corpus: Corpus, seen: Page) -> None:
    rows = {row[0]: row[1:] for row in seen.tables["Found beside expected"]}
    assert rows["Recordings"][:3] == ["9", "4", "unverified"]
    assert "no fault" in rows["Recordings"][3]
    assert rows["Clips"][:3] == ["400", "4", "approximate"]
    assert rows["Clips"][3] == "Differs: 396 fewer than there should be."
    assert rows["Cases"] == ["3", "3", "exact", "Agrees."]  # found, whether or not they can be used
    assert rows["Lesions"][1:] == ["", "unverified", "Not counted by this version."]
    assert [row.what for row in expected_rows(corpus.descriptor) if row.alarm] == ["clips"]
    assert "The source is not as it should be. Found: 4 of 400 (clips)." in seen.text


def test_source_licence_and_privacy_are_plain(seen: Page) -> None:
    assert "The licence is unverified." in seen.text
    assert seen.facts["Licence"] == ["LicenseRef-unknown (unverified)"]
    assert seen.facts["Redistribution"] == ["Not known."]
    assert seen.facts["Year"] == ["2020"]
    assert seen.facts["How to get it"] == ["From its owner only."]
    assert seen.facts["Privacy"][0].startswith("Public, on the word of its owner")
    assert seen.facts["Home page"] == ["http://example.org/set"]
    assert seen.text.count(NOT_EXAMINED) == 2  # above the figures, and where de-identification is described
    assert seen.tables["Who cleared the recordings"][0][1:] == ["cleared", "3"]
    assert "1 recording left out, and 1 file that is no part of a recording" in seen.text


def test_nothing_is_loaded(html: str, seen: Page) -> None:
    assert "default-src 'none'" in html
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in seen.tags}
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    for tag, attrs in seen.tags:
        for name, value in attrs.items():
            if name in ("src", "srcset", "data", "poster", "action", "background", "xlink:href"):
                assert (value or "").startswith("data:image/jpeg;base64,"), (tag, name)
            elif name == "href":
                assert tag == "a"
            assert not name.startswith("on"), (tag, name)


def test_page_is_accessible(seen: Page) -> None:
    names = [tag for tag, _ in seen.tags]
    assert names.count("h1") == 1
    assert {"header", "nav", "main", "footer"} <= set(names)
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert names.count("table") == names.count("caption") == len(seen.tables)  # captions differ from each other
    assert all(attrs.get("scope") in ("col", "row") for attrs in seen.all("th"))
    assert all(attrs.get("alt") for attrs in seen.all("img"))
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in seen.all("svg"))
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in seen.all("a") if str(a["href"]).startswith("#")} <= set(ids)
    assert seen.all("html")[0]["lang"] == "en"


def test_hostile_names_are_text(html: str, seen: Page) -> None:
    assert "<script" not in html
    assert "\u202e" not in html
    assert any(row[0].startswith("<script>alert(1)</script>") for row in seen.tables["Left out: Unexpected file"])
    assert "Größe 内視鏡" in seen.text


def test_bytes_are_deterministic_and_name_no_machine(corpus: Corpus, html: str, tmp_path: Path) -> None:
    write_report(corpus, tmp_path / "one.html")
    write_report(open_corpus(corpus.root), tmp_path / "two.html")
    one = (tmp_path / "one.html").read_bytes()
    assert one == (tmp_path / "two.html").read_bytes() == html.encode()
    assert one == (corpus.root / "report" / "index.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "two.html"]
    assert str(corpus.root.parent) not in html


def test_thumbnails_show_the_clips(corpus: Corpus, seen: Page) -> None:
    images = seen.all("img")
    assert len(images) == 3
    for attrs in images:
        data = base64.b64decode(str(attrs["src"]).split(",")[1])
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "JPEG"
            assert picture.size == (160, int(str(attrs["height"])))
            pixels = np.asarray(picture)
        assert pixels.mean() > 30
        assert pixels.std() > 10
        assert pixels[..., 0].mean() > 1.5 * pixels[..., 2].mean()  # red as drawn: channels are not swapped
    clips = {row["key"]: row for row in corpus.clips().to_pylist()}
    for thumbnail in contact_sheet(corpus):
        assert clips[thumbnail.key]["start_frame"] == 0
        assert thumbnail.frame in clips[thumbnail.key]["keyframes"]
    assert len(contact_sheet(corpus, most=2)) == 2


def test_damaged_shard_is_an_error(corpus: Corpus, tmp_path: Path) -> None:
    copy = _with_excluded(corpus, tmp_path, [])
    (tmp_path / "shards").unlink()
    with pytest.raises(DataError, match="No such file"):
        render(copy)
    (tmp_path / "shards").mkdir()
    for tar in (corpus.root / "shards").iterdir():
        (tmp_path / "shards" / tar.name).write_bytes(tar.read_bytes().replace(b"ftyp", b"ftyq"))
    with pytest.raises(DataError, match="damaged"):
        write_report(copy, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_corpus_without_clips_says_so_first(quarantined: Corpus) -> None:
    html = render(quarantined)
    seen = Page(html)
    first = seen.text.index("This corpus holds no clips. The one recording found was left out")
    assert first < seen.text.index("The licence is unverified.") < seen.text.index("Key figures", first)
    assert seen.facts["Recordings"] == ["0", "1 left out"]
    assert seen.facts["Length"][0] == "0.0 s"
    assert REASON_TEXT[Reason.IN_DOUBT] in seen.text
    assert "No recording was cleared." in seen.text
    assert seen.all("img") == seen.all("svg") == []
    assert NOT_EXAMINED in seen.text
    assert not re.search("Doe|1950", html)


def test_every_reason_appears_with_its_sentence(corpus: Corpus, tmp_path: Path) -> None:
    rows = [_excluded(reason, f"file-{reason}") for reason in Reason]
    seen = Page(render(_with_excluded(corpus, tmp_path, rows)))
    for reason in Reason:
        assert REASON_TEXT[reason] in seen.text
        assert seen.tables[f"Left out: {str(reason).replace('_', ' ').capitalize()}"] == [
            [f"file-{reason}", "scan", "1", f"why file-{reason}"]
        ]


def test_long_lists_fold_and_end(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_ROWS", 30)
    rows = [_excluded(Reason.EMPTY_FILE, f"empty-{i:03d}") for i in range(47)]
    rows += [_excluded(Reason.DAMAGED, f"damaged-{i:03d}") for i in range(20)]
    html = render(_with_excluded(corpus, tmp_path, rows))
    seen = Page(html)
    assert len(seen.tables["Left out: Empty file"]) == 30
    assert "17 more of this reason are in" in seen.text
    assert html.index("List of 30 left out: empty file") < html.index("empty-000")
    assert len(seen.tables["Left out: Damaged"]) == 20
    assert "left out: damaged</summary>" not in html
    assert "The sums do not agree. Only 368 of 307 files are accounted for" in seen.text


def test_statistics_add_and_are_json(corpus: Corpus, quarantined: Corpus) -> None:
    one, other = compute(corpus), compute(quarantined)
    both = one + other
    assert both == other + one
    assert both.files_found == one.files_found + other.files_found
    assert both.recordings_excluded == 2
    assert both.clips == 4
    assert both.clip_seconds == one.clip_seconds
    assert both.brightness.lowest == one.brightness.lowest
    assert both.reasons.rows.keys() == {("unexpected_file",), ("too_short",), ("in_doubt",)}
    written = json.loads(json.dumps(both.to_json(), allow_nan=False))
    assert written["seconds"] == pytest.approx(10.01, abs=1e-5)
    assert "microseconds" not in written
    smallest = {"width": 144, "height": 112, "recordings": 1, "clips": 1, "frames": 40}
    assert written["sizes"][0] == smallest | {"seconds": pytest.approx(1.334667)}
    assert written.keys() == {f.name.replace("microseconds", "seconds") for f in dataclasses.fields(Stats)}
    with pytest.raises(ValueError, match="do not add"):
        _ = one.sizes + one.codecs
    with pytest.raises(ValueError, match="different bins"):
        _ = one.brightness + one.sharpness


def test_histogram_bins_hold_their_upper_edge_and_keep_what_lies_beyond() -> None:
    found = histogram([0.0, 0.999, 1.0, 1.001, 5.0, 1e9, -1.0], LENGTH_EDGES)
    assert found.counts == (4, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    assert histogram([255.0, 256.0], BRIGHTNESS_EDGES).counts[-1] == 2
    assert all(a < b for edges in (LENGTH_EDGES, SHARPNESS_EDGES) for a, b in itertools.pairwise(edges))
    assert (found + histogram([], LENGTH_EDGES)) == found


def test_charts_fit_their_frame() -> None:
    for values in ([], [3.0], [0.5] * 5000 + [4.5], [5.0, 700.0]):
        drawn = chart(histogram(values, LENGTH_EDGES), title="Length", unit="s", note="")
        assert sum(bar.count for bar in drawn.bars) == len(values)
        for bar in drawn.bars:
            assert 12 <= bar.x < bar.x + bar.width <= 308
            assert 19.9 <= bar.y <= bar.y + bar.height <= 108.1
            assert (bar.height > 1) == (bar.count > 0)
        assert len(drawn.ticks) <= 8
    assert chart(histogram([], LENGTH_EDGES), title="", unit="s", note="").summary == "No clips."


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([5.0], "1 clip, 5 s."),
        ([5.0, 5.0], "2 clips, all of 5 s."),
        ([5.0, 1.4, 5.0], "3 clips, from 1.4 to 5 s; most often 4 to 5 s (2)."),
        ([5.0, 1.4], "2 clips, from 1.4 to 5 s; most often 1 to 2 s and 4 to 5 s (1 each)."),
        ([0.5, 1.5, 2.5, 3.5], "4 clips, from 0.5 to 3.5 s."),
    ],
)
def test_charts_are_told_without_contradiction(values: list[float], told: str) -> None:
    assert chart(histogram(values, LENGTH_EDGES), title="", unit="s", note="").summary == told


def test_rates_come_in_order_and_lengths_as_they_were_asked_for(corpus: Corpus, tmp_path: Path) -> None:
    for name, fps in (("a", 30), ("b", 5), ("c", Fraction(30000, 1001))):
        write_video(tmp_path / "raw" / f"{name}.mp4", 150 if name == "c" else 30, rate=fps)
    built = build(load_source("folder", "public"), tmp_path / "raw", tmp_path / "c", BuildConfig())
    seen = Page(render(built))
    assert [row[0] for row in seen.tables["Frame rate"]] == ["5", "29.97 (30000/1001)", "30"]
    assert compute(built).clip_seconds.highest == 5.0


def test_spread_is_even_and_starts_at_the_first() -> None:
    rows: list[dict[str, Any]] = [{"n": n} for n in range(100)]
    chosen = [row["n"] for row in spread(rows, 48)]
    assert len(chosen) == len(set(chosen)) == 48
    assert chosen[0] == 0
    assert {b - a for a, b in itertools.pairwise(chosen)} == {2, 3}
    assert spread(rows[:3], 48) == rows[:3]


def test_numbers_read_well() -> None:
    sizes = {0: "0 bytes", 1: "1 byte", 999: "999 bytes", 716800: "716.8 kB", 999_960: "1.0 MB", 10**12: "1.0 TB"}
    assert {n: size(n) for n in sizes} == sizes
    durations = {0.0: "0.0 s", 11.4: "11.4 s", 59.96: "1.0 min", 750.0: "12.5 min", 3599.0: "1.0 h", 4e6: "1,111.1 h"}
    assert {s: duration(s) for s in durations} == durations
    assert [rate(r) for r in ("25", "30000/1001")] == ["25", "29.97 (30000/1001)"]
    assert [plain(v) for v in (0.0, 5.0, 1.4014, 520.3, 999.7, 8192.0)] == ["0", "5", "1.4", "520", "1,000", "8,192"]
