"""Corpora as arrays: what the manifest says, in order, refusing what cannot be trained on."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from endocorpus.corpus.manifest import open_corpus, write_descriptor
from endocorpus.corpus.shards import tar_members
from endocorpus.errors import DataError, UsageError
from endofm.data.clips import ClipSet, load_clips
from endofm.data.settings import DataConfig
from endofm.data.stream import ShardReader
from tests.endofm.conftest import SPECS, ClipSpec, MakeCorpus, commit, write_corpus, write_mix


def test_rows_are_those_of_the_manifest(corpus: Path) -> None:
    clips = load_clips([corpus])
    specs = [spec for shard in SPECS for spec in shard]
    assert len(clips) == len(specs) == 7
    assert [clips.key(row) for row in range(7)] == [f"tiny-{spec.number}" for spec in specs]
    assert clips.num_frames_N.tolist() == [spec.num_frames for spec in specs]
    assert clips.height_N.tolist() == [spec.height for spec in specs]
    assert clips.width_N.tolist() == [spec.width for spec in specs]


def test_locations_agree_with_a_plain_tar_reader(corpus: Path) -> None:
    clips = load_clips([corpus])
    members = [(path, *member) for path in sorted((corpus / "shards").iterdir()) for member in tar_members(path)]
    expected = [(path, name, offset, size) for path, name, offset, size in members if name.endswith(".mp4")]
    found = [clips.location(row) for row in range(len(clips))]
    assert [(clip.shard, f"{clip.key}.mp4", clip.offset, clip.size) for clip in found] == expected
    with ShardReader() as reader:
        for clip in found:
            assert len(reader.read(clip)) == clip.size


def test_corpora_follow_one_another(corpus: Path, make_corpus: MakeCorpus) -> None:
    other = make_corpus("other", [[ClipSpec(20, 3, 48, 64)], [ClipSpec(21, 4, 48, 64)]])
    clips = load_clips([other, corpus])
    assert len(clips) == 9
    assert clips.key(0) == "other-20"
    assert clips.location(1).shard == other / "shards" / "other-1.tar"
    assert clips.location(2).shard == corpus / "shards" / "tiny-0.tar"
    with ShardReader() as reader:
        for row in range(9):
            reader.read(clips.location(row))


def test_the_fingerprint_is_of_the_data_and_not_of_its_place(
    corpus: Path, make_corpus: MakeCorpus, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(corpus, tmp_path / "elsewhere"))
    assert load_clips([moved]).fingerprint == load_clips([corpus]).fingerprint
    other = make_corpus("other", [[ClipSpec(20, 3, 48, 64)]])
    both, swapped = load_clips([corpus, other]).fingerprint, load_clips([other, corpus]).fingerprint
    first = SPECS[0][0]
    changed = write_corpus(tmp_path / "changed", "tiny", [[replace(first, num_frames=29), *SPECS[0][1:]], SPECS[1]])
    renamed = rename(Path(shutil.copytree(corpus, tmp_path / "renamed")), "huge")
    prints = {load_clips([corpus]).fingerprint, both, swapped} | {
        load_clips([path]).fingerprint for path in (changed, renamed)
    }
    assert len(prints) == 5


def rename(corpus: Path, name: str) -> Path:
    write_descriptor(corpus, {**open_corpus(corpus).descriptor, "name": name})
    return corpus


def test_corpora_that_are_not_released_are_named(corpus: Path, make_corpus: MakeCorpus) -> None:
    other, third = (make_corpus(name, [[ClipSpec(20, 3, 48, 64)]]) for name in ("other", "third"))
    assert load_clips([corpus, other]).warning == ""
    for folder, said in ((other, {"released": False}), (third, {})):
        kept = {name: value for name, value in open_corpus(folder).descriptor.items() if name != "released"}
        write_descriptor(folder, {**kept, **said})
    found = load_clips([other, corpus, third])
    assert found.unreleased == ("other", "third") and "\n" not in found.warning
    assert found.warning.startswith("warning: not released") and found.warning.endswith(": other, third")


def test_a_corpus_cannot_be_given_twice(corpus: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    with pytest.raises(DataError, match=r"corpus 'tiny' is named twice: .*tiny and .*copy"):
        load_clips([corpus, copy])


def test_nothing_to_train_on_is_a_data_error(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    with pytest.raises(DataError, match="no clips to train on: no corpus was named"):
        load_clips([])
    empty = make_corpus("empty", [])
    with pytest.raises(DataError, match=r"no clips to train on: .*empty"):
        load_clips([empty])


def test_an_unfinished_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a corpus; that is"):
        load_clips([tmp_path])
    with pytest.raises(UsageError, match="none: no such folder"):
        load_clips([tmp_path / "none"])
    (tmp_path / ".build").mkdir()
    with pytest.raises(DataError, match="not a finished corpus"):
        load_clips([tmp_path])


def test_an_empty_corpus_beside_a_full_one_is_fine(corpus: Path, make_corpus: MakeCorpus) -> None:
    assert len(load_clips([make_corpus("empty", []), corpus])) == 7


def edit_clips(corpus: Path, **columns: list[object]) -> None:
    rows = open_corpus(corpus).clips().to_pylist()
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    commit(corpus, open_corpus(corpus).name, rows)


def test_clips_that_were_forgotten_are_left_out(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus("some", [[ClipSpec(1, 3, 48, 64), ClipSpec(2, 3, 48, 64), ClipSpec(3, 3, 48, 64)]])
    edit_clips(corpus, status=["ready", "forgotten", "ready"])
    clips = load_clips([corpus])
    assert [clips.key(row) for row in range(len(clips))] == ["some-1", "some-3"]


def test_impossible_rows_are_refused_at_once(make_corpus: MakeCorpus) -> None:
    corpus = make_corpus("some", [[ClipSpec(1, 3, 48, 64), ClipSpec(2, 3, 48, 64)]])
    edit_clips(corpus, num_frames=[3, 0])
    with pytest.raises(DataError, match=r"a clip has num_frames below 1; run `endocorpus verify"):
        load_clips([corpus])


def test_a_large_set_is_cheap_to_send_to_workers(tmp_path: Path) -> None:
    count = 20_000
    root = tmp_path / "large"
    (root / "shards").mkdir(parents=True)
    for index in range(count // 1000):
        (root / "shards" / f"large-{index}.tar").touch()
    row = dict.fromkeys(("source", "recording_id", "case_id", "leak_group", "licence", "consent"), "x")
    numbers = dict.fromkeys(("json_offset", "json_size", "start_frame", "stop_frame", "stride"), 1)
    sizes = {"num_frames": 150, "rate_num": 30, "rate_den": 1, "width": 320, "height": 256, "keyframes": [0]}
    rest = {"json_xxh3_128": "0" * 32, "labels": [], "quality": {"mean_luma": 1.0, "sharpness": 1.0}, "status": "ready"}
    rest |= {"masks_offset": None, "masks_size": None, "masks_xxh3_128": None}
    rows = [
        row | numbers | sizes | rest
        | {"key": f"recording-{i // 10:08}-{i:010}", "shard": f"large-{i // 1000}.tar"}
        | {"mp4_offset": i * 80_000, "mp4_size": 70_000, "mp4_xxh3_128": f"{i:032x}"}
        for i in range(count)
    ]  # fmt: skip
    commit(root, "large", rows)
    clips = load_clips([root])
    packed = pickle.dumps(clips)
    assert len(packed) < 90 * count
    copy: ClipSet = pickle.loads(packed)
    assert copy.location(12_345) == clips.location(12_345)
    assert copy.location(12_345).offset == 12_345 * 80_000
    assert copy.location(12_345).xxh3_128 == (12_345).to_bytes(16, "big")
    assert copy.fingerprint == clips.fingerprint
    assert len(np.unique(copy.shard_index_N)) == 20


def test_a_mixture_is_trained_on_as_it_says(corpus: Path, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    other = make_corpus("other", [[ClipSpec(20, 3, 48, 64)], [ClipSpec(21, 4, 48, 64)]])
    found = {"tiny": corpus, "other": other}
    chosen = [("tiny", "tiny-7", 1), ("other", "other-21", 3), ("tiny", "tiny-2", 2)]
    mix = write_mix(tmp_path / "m.parquet", found, chosen)
    clips = load_clips([corpus, other], mix=mix)
    assert [clips.key(row) for row in range(len(clips))] == ["tiny-7"] + ["other-21"] * 3 + ["tiny-2"] * 2
    assert clips.num_frames_N.tolist() == [24, 4, 4, 4, 21, 21] and clips.width_N.tolist()[0] == 80
    with ShardReader() as reader:
        for row in range(len(clips)):
            reader.read(clips.location(row))
    swapped = load_clips([other, corpus], mix=mix)
    assert swapped.fingerprint == clips.fingerprint
    assert [swapped.location(row) for row in range(6)] == [clips.location(row) for row in range(6)]


def test_the_fingerprint_covers_the_mixture(corpus: Path, tmp_path: Path) -> None:
    whole = [("tiny", f"tiny-{spec.number}", 1) for shard in SPECS for spec in shard]
    prints = [load_clips([corpus]).fingerprint]
    for chosen in (whole, whole[::-1], whole[1:], [*whole[:-1], (*whole[-1][:2], 2)]):
        mix = write_mix(tmp_path / "m.parquet", {"tiny": corpus}, chosen)
        prints.append(load_clips([corpus], mix=mix).fingerprint)
    assert len(set(prints)) == 5
    again = write_mix(tmp_path / "n.parquet", {"tiny": corpus}, whole)
    assert load_clips([corpus], mix=again).fingerprint == prints[1]


def test_a_mixture_that_does_not_fit_the_corpora_is_refused(
    corpus: Path, make_corpus: MakeCorpus, tmp_path: Path
) -> None:
    other = make_corpus("other", [[ClipSpec(20, 3, 48, 64), ClipSpec(21, 4, 48, 64)]])
    mix = write_mix(
        tmp_path / "m.parquet", {"tiny": corpus, "other": other}, [("tiny", "tiny-1", 1), ("other", "other-20", 1)]
    )
    with pytest.raises(DataError, match=r"1 of 2, such as other-20 of 'other'; add --corpus for other"):
        load_clips([corpus], mix=mix)
    edit_clips(other, status=["forgotten", "ready"])
    with pytest.raises(DataError, match=r"1 of 2, such as other-20 of 'other'; write the mixture again"):
        load_clips([corpus, other], mix=mix)
    edit_clips(other, status=["ready", "ready"], mp4_xxh3_128=["0" * 32, "1" * 32])
    with pytest.raises(DataError, match=r"encoded anew since: 1, such as other-20 of 'other'"):
        load_clips([corpus, other], mix=mix)
    empty = write_mix(tmp_path / "e.parquet", {}, [])
    with pytest.raises(DataError, match="there are no clips to train on"):
        load_clips([corpus], mix=empty)


def test_an_exclusion_list_leaves_clips_and_recordings_out(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    corpus = make_corpus("some", [[ClipSpec(number, 3, 48, 64) for number in range(1, 7)]])
    edit_clips(corpus, recording_id=["r1", "r1", "r1", "r2", "r2", "r3"])
    listed = tmp_path / "not.txt"

    def keys(text: str, mix: Path | None = None) -> list[str]:
        listed.write_text(text)
        clips = load_clips([corpus], mix, DataConfig(exclude=listed))
        assert clips.shard_clips_S.tolist() == [6]
        assert sum(count for _, count in clips.corpora) == len(clips)
        return [clips.key(row) for row in range(len(clips))]

    assert keys("# consent withdrawn\nr1\n\n  some-5  # blurred\n") == ["some-4", "some-6"]
    mix = write_mix(tmp_path / "m.parquet", {"some": corpus}, [("some", "some-6", 2), ("some", "some-1", 1)])
    assert keys("some-1\nr2", mix) == ["some-6", "some-6"]
    assert keys("") == [f"some-{number}" for number in range(1, 7)]
    assert load_clips([corpus], None, DataConfig(exclude=listed)).fingerprint == load_clips([corpus]).fingerprint
    listed.write_text("some-2")
    assert load_clips([corpus], None, DataConfig(exclude=listed)).fingerprint != load_clips([corpus]).fingerprint
    with pytest.raises(DataError, match=r"not\.txt, line 2: 'r4' is no clip and no recording .*\(and 1 more lines\)"):
        keys("r1\nr4\nr5\n")
    with pytest.raises(DataError, match=r"not\.txt: there are no clips left to train on"):
        keys("r1\nr2\nr3\n")
    with pytest.raises(UsageError, match=r"none\.txt: No such file .*data\.exclude"):
        load_clips([corpus], None, DataConfig(exclude=tmp_path / "none.txt"))


def test_every_clip_knows_its_corpus(corpus: Path, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    other, third = make_corpus("other", [[ClipSpec(20, 3, 48, 64)]]), make_corpus("third", [[ClipSpec(30, 3, 48, 64)]])
    clips = load_clips([corpus, other, third])
    assert [clips.corpus(row) for row in range(9)] == ["tiny"] * 7 + ["other", "third"]
    found = {"tiny": corpus, "other": other, "third": third}
    mix = write_mix(tmp_path / "m.parquet", found, [("third", "third-30", 2), ("tiny", "tiny-7", 1)])
    mixed = load_clips([corpus, other, third], mix)
    assert [mixed.corpus(row) for row in range(3)] == ["third", "third", "tiny"]
    assert mixed.corpora == (("third", 2), ("tiny", 1)) and mixed.shard_numbers().tolist() == [0, 0, 1]
    swapped = load_clips([third, other, corpus], mix)
    assert swapped.corpora == mixed.corpora and swapped.shard_numbers().tolist() == mixed.shard_numbers().tolist()
