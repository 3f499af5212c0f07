"""From a private folder to a corpus that may leave the house: reviewed, signed, released, with the real commands."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import endocorpus.build
import endocorpus.plan
from endocorpus.cli import main
from endocorpus.corpus.files import digest_bytes
from endocorpus.corpus.manifest import Corpus, open_corpus, table_bytes, write_descriptor
from endocorpus.deid.attest import ATTESTATION, Check, Measure
from endocorpus.deid.chain import public_key, sha256
from endocorpus.deid.describe import clip_hashes, clips_digest, load_attestation
from endocorpus.deid.evidence import findings_of, masks_of
from endocorpus.deid.keys import new_signing_key
from endocorpus.deid.pseudonym import new_key
from endocorpus.records import RecordingPlan
from endocorpus.release import REVIEWS, settle, standing, take_in
from endocorpus.rows import Row, deid_row
from endocorpus.sources.layout import Source
from tests.browser import browser
from tests.endocorpus.conftest import show_all
from tests.media import write_video

NAMES = ("Müller Hans", "王小明")
HASH = "ab" * 32


def finding(recording: int) -> Row:
    """What de-identification found in the recordings of these tests, by their place."""
    box = {"start": 30, "stop": 50, "left": 32, "top": 16, "right": 96, "bottom": 48}
    return {
        "measures": [str(measure) for measure in Measure],
        "doubts": ["few_frames"] if recording == 2 else [],
        "crop": {"left": 16, "top": 0, "right": 144, "bottom": 128},
        "boxes": [box] if recording == 1 else [],
        "outside": [],
        "outside_frames": 5 if recording == 0 else 0,
        "parameters": HASH,
        "checks": [{"what": str(check), "count": 0} for check in Check],
    }


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    for name in NAMES:
        assert name not in result.output
    return result


@pytest.fixture(scope="module", autouse=True)
def cleared() -> Iterator[None]:
    """Recordings pass with made-up findings: this is about what is done with findings, not about making them."""
    with pytest.MonkeyPatch.context() as patch:
        known: dict[str, int] = {}

        def row(plan: RecordingPlan, source: Source) -> Row:
            return deid_row(plan, source) | finding(known.setdefault(plan.recording.recording_id, len(known) % 3))

        patch.setattr(endocorpus.plan, "decide", show_all)
        patch.setattr(endocorpus.build, "deid_row", row)
        yield


class Site:
    """A private folder, a signing key, and the corpus that is built with them."""

    def __init__(self, folder: Path, recordings: int = 3) -> None:
        self.folder, self.root, self.out = folder, folder / "raw", folder / "c"
        self.key_file, self.page = folder / "site.key", folder / "review.html"
        self.key = new_signing_key(self.key_file)
        new_key(folder / "names.key")
        for number in range(recordings):
            self.add(number)

    def names(self, options: tuple[object, ...]) -> tuple[object, ...]:
        return ("--key", self.folder / "names.key") if "public" not in options else ()

    def add(self, number: int) -> None:
        write_video(self.root / NAMES[number % 2] / f"{number}.mp4", 52 + 2 * number)

    def build(self, *options: object, key: bool = True) -> Result:
        common = ("--source", "folder", "--root", self.root, "--out", self.out, "--name", "ward", "--workers", 1)
        settings = ("--set", "segment.clip_seconds=1.0", *(("--signing-key", self.key_file) if key else ()))
        return run("build", *common, *settings, *self.names(options), *options)

    @property
    def corpus(self) -> Corpus:
        return open_corpus(self.out)

    def review(self, *options: object, rejected: int | None = None) -> Path:
        """Have a page made and decide on all of it; `rejected` is the place of a clip in the page's order."""
        assert run("review", self.out, "--out", self.page, *options).exit_code == 0
        text = self.page.read_text(encoding="utf-8")
        about = json.loads(re.findall(r'id="about">(.*?)</script>', text)[0])
        keys = re.findall(r'class="clip">.*?"key": "(.*?)"', text)
        decided = {key: "rejected" if i == rejected else "accepted" for i, key in enumerate(keys)}
        who = {"kind": "endocorpus review 1", "complete": True, "reviewer": "Dr. Ada Muster", "date": "2026-11-23"}
        path = self.folder / f"decisions-{sha256(text.encode())[:8]}-{rejected}.json"
        path.write_text(json.dumps({**about, **who, "decisions": decided}))
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Built and attested, not reviewed. Do not change it: copy it."""
    site = Site(tmp_path_factory.mktemp("site"))
    assert site.build().exit_code == 0
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    """A copy of `made` with the same key."""
    shutil.copytree(made.folder, tmp_path / "s")
    copy = object.__new__(Site)
    copy.folder, copy.root, copy.out = tmp_path / "s", tmp_path / "s/raw", tmp_path / "s/c"
    copy.key_file, copy.page, copy.key = tmp_path / "s/site.key", tmp_path / "s/review.html", made.key
    return copy


def test_from_a_private_folder_to_a_released_corpus(site: Site) -> None:
    before = site.build()
    assert before.exit_code == 0 and "NOT RELEASED\n  Nobody has reviewed it" in before.stdout
    assert site.corpus.released is False and "no: Nobody has reviewed" in run("info", site.out).stdout

    shown = run("review", site.out, "--out", site.page)
    clips = site.corpus.descriptor["counts"]["clips"]
    assert f"{clips} clips of {clips} to decide on" in shown.stdout and "if none is rejected: all" in shown.stdout

    done = site.build("--decisions", site.review())
    assert done.exit_code == 0, done.output
    assert f"reviewed by Dr. Ada Muster: all {clips} clips were shown, no leak seen" in done.stderr
    hex_key = public_key(site.key)
    assert f"released: signed with the key {hex_key}" in done.stdout
    assert site.corpus.released is True and json.loads(run("info", site.out, "--json").stdout)["released"] is True
    verified = run("verify", site.out, "--signer", hex_key)
    assert verified.exit_code == 0 and "released: yes" in verified.stdout, verified.output
    assert json.loads(run("verify", site.out, "--fast", "--json").stdout)["released"] is True

    page = run("deid", "report", site.out, "--signer", hex_key)
    assert page.exit_code == 0 and "RELEASED: nothing below is open." in page.stdout
    text = " ".join(page.stdout.split())
    assert "Dr. Ada Muster, on 2026-11-23" in text and "with the public key that this site gave" in text
    told = json.loads(run("deid", "report", site.out, "--json").stdout)
    assert told["open"] == [] and told["key_is_known"] is False and told["review"]["shown"] == clips
    said = {c.key: c.sha256 for r in load_attestation(site.corpus).recordings for c in r.clips}
    assert said == clip_hashes(site.corpus)


def release(site: Site) -> None:
    done = site.build("--decisions", site.review())
    assert done.exit_code == 0 and site.corpus.released, done.output


def test_a_build_that_changes_nothing_changes_nothing(site: Site) -> None:
    release(site)
    written = {name: (site.out / name).read_bytes() for name in ("corpus.json", ATTESTATION)}
    for options in ({"key": False}, {"key": True}):
        assert "released: signed" in site.build(**options).stdout
        assert {name: (site.out / name).read_bytes() for name in written} == written
    settle(site.corpus, site.key, "2031-01-01")  # an attestation that says the same keeps its date
    assert (site.out / ATTESTATION).read_bytes() == written[ATTESTATION]


@pytest.mark.parametrize("key", [True, False])
def test_a_corpus_that_changed_is_not_released(site: Site, key: bool) -> None:
    release(site)
    site.add(3)
    again = site.build(key=key)
    assert again.exit_code == 0 and "NOT RELEASED" in again.stdout and not site.corpus.released
    assert (site.out / ATTESTATION).exists() == key
    assert ("Nobody has reviewed it" if key else "has no attestation") in again.stdout
    found = run("deid", "report", site.out)
    assert found.exit_code == (0 if key else 1)
    assert "NOT RELEASED:" in found.stdout if key else "nobody has signed for it" in found.stderr
    assert run("verify", site.out).exit_code == 0


def test_a_rejected_clip_takes_its_recording_out_for_good(site: Site) -> None:
    decisions = site.review(rejected=0)
    before = {row["key"]: row["recording_id"] for row in site.corpus.clips().to_pylist()}
    lost = before[next(k for k, v in json.loads(decisions.read_text())["decisions"].items() if v == "rejected")]
    others = {key for key, recording in before.items() if recording != lost}
    done = site.build("--decisions", decisions)
    assert done.exit_code == 0 and "1 leak seen" in done.stderr and "kept out from now on: 1 recording" in done.stderr
    for options in ((), ("--decisions", decisions)):  # also where the same command is given again
        assert set(site.corpus.clips().column("key").to_pylist()) == others and not site.corpus.released
        [row] = [r for r in site.corpus.table("excluded").to_pylist() if r["reason"] == "rejected"]
        assert (row["stage"], row["unit"], row["files"]) == ("deid", "recording", 1)
        assert site.build(*options).exit_code == 0
    common = ("--source", "folder", "--root", site.root, "--out", site.out, "--name", "ward", "--workers", 1)
    planned = json.loads(run("plan", *common, *site.names(()), "--json").stdout)
    assert lost not in {row["recording"] for row in planned["recordings"]}
    assert "rejected" in {row["reason"] for row in planned["exclusions"]}

    release(site)  # the corpus that is left is another one, and is reviewed as such
    assert "Not written at all (rejected): 1 recordings." in run("deid", "report", site.out).stdout
    assert site.build(key=False).exit_code == 0 and site.corpus.released
    assert set(site.corpus.clips().column("key").to_pylist()) == others
    assert run("verify", site.out, "--signer", public_key(site.key)).exit_code == 0


def test_a_rejection_holds_at_once(site: Site) -> None:
    """The build that would take the recording out may never come to its end."""
    release(site)
    taken = take_in(site.out, site.review("--seed", 7, rejected=1), site.key)
    assert len(taken.recordings) == 1 and site.corpus.released is False


def test_a_build_that_is_killed_releases_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release(site)
    site.add(3)

    def killed(*_: object) -> Corpus:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(endocorpus.build, "settle", killed)
        assert site.build().exit_code == 130
    assert site.corpus.released is False and run("info", site.out).exit_code == 0
    assert run("verify", site.out, "--fast").exit_code == 1  # the attestation is still that of other clips
    assert site.build().exit_code == 0 and run("verify", site.out, "--fast").exit_code == 0


def test_what_a_reviewer_rejected_is_not_forgotten(site: Site) -> None:
    assert site.build("--decisions", site.review(rejected=0)).exit_code == 0
    [review] = (site.out / REVIEWS).iterdir()
    text = review.read_bytes()
    review.unlink()
    refused = site.build()
    assert refused.exit_code == 1 and "is missing, so it is not known any more" in refused.stderr
    assert any("cannot be read" in line for line in run("verify", site.out, "--fast").stdout.splitlines())
    review.write_bytes(text.replace(b"rejected", b"accepted", 1))
    refused = site.build()
    assert refused.exit_code == 1 and "was changed" in refused.stderr
    assert run("verify", site.out, "--fast").exit_code == 1


def test_decisions_that_cannot_be_believed_change_nothing(site: Site) -> None:
    decisions = site.review()
    before = (site.out / "corpus.json").read_bytes()
    unsigned = site.build("--decisions", decisions, key=False)
    assert unsigned.exit_code == 2 and "--signing-key" in unsigned.stderr
    good = json.loads(decisions.read_text())
    for change, what in (
        ({"complete": False}, "a draft"),
        ({"clips_digest": HASH}, "of another corpus"),
        ({"seed": 5}, "of another page"),
        ({"sample": 10**6}, "of another page"),
        ({"sample": 0}, "wrong: sample"),
    ):
        decisions.write_text(json.dumps(good | change))
        refused = site.build("--decisions", decisions)
        assert refused.exit_code == 1 and what in refused.stderr, (change, refused.output)
    inside = site.out / "site.key"
    shutil.copy(site.key_file, inside)
    refused = site.build("--signing-key", inside)
    assert refused.exit_code == 2 and "lies in" in refused.stderr
    inside.unlink()
    assert (site.out / "corpus.json").read_bytes() == before and not list(site.out.glob(f"{REVIEWS}/*"))


def test_a_small_sample_releases_nothing(site: Site) -> None:
    done = site.build("--decisions", site.review("--sample", 2))
    assert done.exit_code == 0 and "2 of " in done.stderr and "at most 77.64 %" in done.stderr
    assert "allows for leaks in up to 77.64 % of clips" in done.stdout and not site.corpus.released
    assert "RELEASED" in site.build("--decisions", site.review()).stdout.upper() and site.corpus.released


def test_a_review_counts_for_the_key_that_signed_it(site: Site) -> None:
    release(site)
    other = site.folder / "other.key"
    new_signing_key(other)
    done = site.build("--signing-key", other, key=False)
    assert done.exit_code == 0 and "Nobody has reviewed it" in done.stdout and not site.corpus.released
    wrong = run("verify", site.out, "--signer", public_key(site.key))
    assert wrong.exit_code == 1 and "is of another key" in wrong.stdout
    assert "released: signed" in site.build().stdout


def test_verify_names_what_is_wrong_with_a_release(site: Site) -> None:
    release(site)
    path, before = site.out / ATTESTATION, (site.out / ATTESTATION).read_bytes()
    hex_key = public_key(site.key)

    def problems(*options: object) -> str:
        found = run("verify", site.out, "--fast", *options)
        assert found.exit_code == 1
        return found.stdout

    path.write_bytes(before.replace(b'"frames":25', b'"frames":26', 1))
    assert f"{ATTESTATION}: link 1 was changed" in problems()
    assert "no: " in run("info", site.out).stdout
    path.unlink()
    assert (
        "has no attestation" in problems("--signer", hex_key) and "says that the corpus is released, but" in problems()
    )
    path.write_bytes(before)
    assert "another key" in problems("--signer", "ab" * 32)
    assert run("verify", site.out, "--fast", "--signer", hex_key.upper()).exit_code == 0
    assert run("verify", site.out, "--signer", "xyz").exit_code == 2


def test_a_flag_that_nobody_signed_for_is_noticed(site: Site) -> None:
    write_descriptor(site.out, {**site.corpus.descriptor, "released": True})
    found = run("verify", site.out, "--fast")
    assert found.exit_code == 1 and "says that the corpus is released, but: Nobody has reviewed it" in found.stdout
    assert standing(site.corpus).released is False
    assert site.build().exit_code == 0 and site.corpus.released is False


def test_a_descriptor_names_no_file_outside(site: Site) -> None:
    for strange in ({"../../etc/passwd": HASH}, ["/dev/zero"]):
        write_descriptor(site.out, {**site.corpus.descriptor, REVIEWS: strange})
        assert "corpus.json: lists reviews that no build writes" in run("verify", site.out, "--fast").stdout


def test_findings_hold_a_corpus_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = endocorpus.build.deid_row

    def row(plan: RecordingPlan, source: Source) -> Row:
        return plain(plan, source) | {
            "checks": [{"what": str(Check.READ_AGAIN), "count": 2}],
            "measures": ["pixel barrier"],
        }

    monkeypatch.setattr(endocorpus.build, "deid_row", row)
    assert site.build().exit_code == 0
    done = site.build("--decisions", site.review())
    assert done.exit_code == 0 and "NOT RELEASED\n  Checks of the written clips found 6 things" in done.stdout
    assert "'burnt-in text' was not applied to 3 of 3" in done.stdout
    public = site.build("--privacy", "public", "--out", site.folder / "public", key=False)
    assert "NOT RELEASED\n  Checks of the written clips found 6 things" in public.stdout


def test_a_public_corpus_is_released_by_its_source(site: Site) -> None:
    public = site.folder / "public"
    done = site.build("--privacy", "public", "--out", public, key=False)
    assert "released: public, by its source" in done.stdout and open_corpus(public).released
    assert not (public / ATTESTATION).exists() and run("verify", public).exit_code == 0
    assert "released: signed with the key" in site.build("--privacy", "public", "--out", public).stdout
    assert "Public: it may be used because" in run("deid", "report", public).stdout
    refused = run("verify", site.out, "--signer", "cd" * 32)
    assert refused.exit_code == 1


def test_what_the_table_tells_becomes_outlines_scores_and_statements(site: Site) -> None:
    corpus = site.corpus
    clips = {row["key"]: row for row in corpus.clips().to_pylist()}
    masks, findings = masks_of(corpus), findings_of(corpus)
    said = {row["recording_id"]: row for row in corpus.table("deid").to_pylist()}
    assert set(masks) == set(clips) and set(findings) == set(said)
    for key, mask in masks.items():
        row, told = clips[key], said[clips[key]["recording_id"]]
        hit = bool(told["boxes"]) and row["start_frame"] < 50 and row["stop_frame"] > 30
        assert bool(mask.boxes) == hit
        share = 64 * 32 / (128 * 128) if hit else 0.0  # of what the crop shows
        assert mask.score == pytest.approx(len(told["doubts"]) + hit + share, abs=0.02), (key, mask)
        if hit:
            scale = row["width"] / 128
            [box] = mask.boxes
            assert (box.left, box.top) == (int(16 * scale), int(16 * row["height"] / 128))
            assert box.start == max(0, 30 - row["start_frame"])
            assert findings[row["recording_id"]].masked_pixels[key] > 0
    assert sum(bool(mask.score) for mask in masks.values()) >= 3
    first = next(iter(findings.values()))
    assert set(first.measures) == set(Measure) and first.checks == dict.fromkeys(Check, 0) and first.parameters == HASH
    assert {f.outside_ms for f in findings.values()} == {0, 200}


def test_clips_beside_what_was_left_out_as_outside_come_earlier(site: Site) -> None:
    corpus = site.corpus
    name = next(row["recording_id"] for row in corpus.table("deid").to_pylist() if row["outside_frames"])
    table = corpus.clips().to_pylist()
    first, second = sorted((row for row in table if row["recording_id"] == name), key=lambda row: row["start_frame"])
    assert masks_of(corpus)[first["key"]].score == masks_of(corpus)[second["key"]].score == 0
    for start, stop, scores in ((0, 20, (1, 1)), (3, first["stop_frame"], (1, 0))):  # a gap between them, one before
        changed = {**first, "start_frame": start, "stop_frame": stop}
        rewrite(corpus, "clips", [changed if row is first else row for row in table])
        masks = masks_of(site.corpus)
        assert (masks[first["key"]].score, masks[second["key"]].score) == scores


def rewrite(corpus: Corpus, table: str, rows: list[Row]) -> None:
    data = table_bytes(table, rows)
    (corpus.root / f"{table}.parquet").write_bytes(data)
    entry = {"rows": len(rows), "size": len(data), "xxh3_128": digest_bytes(data)}
    tables = {**corpus.descriptor["tables"], table: entry}
    write_descriptor(corpus.root, {**corpus.descriptor, "tables": tables})


def test_a_person_reviews_in_a_browser_and_the_build_believes_it(site: Site, tmp_path: Path) -> None:
    assert run("review", site.out, "--out", site.page).exit_code == 0
    clips = site.corpus.descriptor["counts"]["clips"]
    with browser(tmp_path / "b") as seen:
        seen.open(site.page)
        for _ in range(clips):
            seen.until("document.body.dataset.visible === 'true'")
            seen.press("a")
        seen.click("#reviewer")
        seen.type("Ada 王")
        seen.click("#save")
        seen.until("document.getElementById('message').textContent === 'Saved.'")
        saved = tmp_path / "b" / "downloads" / "review-ward.json"
        for _ in range(3000):
            if saved.exists() and saved.stat().st_size:
                break
            seen.value("new Promise((done) => setTimeout(done, 20))")
        done = site.build("--decisions", saved)
        assert seen.errors == []
    assert done.exit_code == 0 and "reviewed by Ada 王: all" in done.stderr and site.corpus.released, done.output
    assert load_attestation(site.corpus).corpus.clips_digest == clips_digest(site.corpus)
