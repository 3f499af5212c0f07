"""The command line as people use it: exit codes, one-line errors, JSON for programs, help that is quick."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import endocorpus.scan
from endocorpus.build import build
from endocorpus.cli import main
from endocorpus.console import echo_table
from endocorpus.corpus.manifest import Corpus, open_corpus
from endocorpus.report.stats import Table
from endocorpus.sources import SOURCES, load_source
from endocorpus.summary import _labels
from endocorpus.walk import walk
from tests.endocorpus.conftest import CONFIG, fingerprint
from tests.endocorpus.conftest import PUBLIC as FOLDER
from tests.endocorpus.phantoms import Trees
from tests.media import write_frames, write_video

PUBLIC = ("--source", "folder", "--privacy", "public")


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output
    return result


def error_line(result: Result) -> str:
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and result.stderr.strip().endswith(lines[0])
    return lines[0]


def test_the_main_command_runs_exactly_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = run("build", "--source", "colonoscopic")
    told = error_line(missing)
    assert missing.exit_code == 2 and "raw/colonoscopic: no such folder" in told
    assert "Get the data from http://www.depeca.uah.es" in told and "`endocorpus fetch colonoscopic" in told
    stand_in = told[told.index("endocorpus phantom") :].split()[1:]
    assert run(*stand_in, "--recordings", 2, "--seconds", 1.2).exit_code == 0
    built = run("build", "--source", "colonoscopic")
    assert built.exit_code == 0, built.output
    assert (tmp_path / "corpora/colonoscopic/corpus.json").exists()
    assert run("verify", "corpora/colonoscopic").exit_code == 0
    info = json.loads(run("info", "corpora/colonoscopic", "--json").stdout)
    assert info["counts"]["recordings"] == 2 and info["source"]["expected"]["recordings"]["count"] == 152


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "folder"])
def test_where_the_raw_files_are_missing_the_way_to_them_is_told_in_short(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = error_line(run("plan", "--source", source))
    sentences = told.split(": no such folder. ")[1].split(". ")
    assert max(map(len, sentences)) < 150 and f"`endocorpus fetch {source} --dest raw/{source}`" in told
    declared = load_source(source)
    if any(archive.url for archive in declared.archives):
        assert sentences[0].startswith("Download the data: `endocorpus fetch")
    elif declared.access != "private":
        assert declared.home in sentences[0]


@pytest.mark.parametrize("below", ["folder", "."])
def test_the_environment_names_the_raw_tree_or_the_folder_of_trees(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "elsewhere" / below / "a.mp4", 30)
    monkeypatch.setenv("ENDOCORPUS_RAW", str(tmp_path / "elsewhere"))
    found = json.loads(run("scan", *PUBLIC, "--json").stdout)
    assert [r["subject"] for r in found["recordings"]] == ["a.mp4"]
    plan = json.loads(run("plan", *PUBLIC, "--json", "--workers", 1).stdout)
    assert plan["recordings"][0]["frames"] == 30 and plan["exclusions"] == []


@pytest.mark.parametrize("spot", ["header", "padding", "json", "mp4", "cut", "cut at a member", "gone", "stray"])
def test_verify_names_the_damaged_shard(spot: str, corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    row = corpus.clips().to_pylist()[2]
    shard = out / "shards" / row["shard"]
    data = bytearray(shard.read_bytes())
    if spot.startswith("cut"):
        data = data[: row["json_offset"] - 512 if "member" in spot else row["mp4_offset"] + 99]
    elif spot not in {"gone", "stray"}:
        at = {"header": 3, "padding": len(data) - 7, "json": row["json_offset"] + 5, "mp4": row["mp4_offset"] + 321}
        data[at[spot]] ^= 0b100
    shard.write_bytes(data)
    if spot == "gone":
        shard.unlink()
    if spot == "stray":
        shutil.copy(shard, out / "shards" / "more.tar")
    for fast in ((), ("--fast",)):
        found = run("verify", out, *fast, "--workers", 1)
        assert found.exit_code == 1
        named = "more.tar" if spot == "stray" else row["shard"]
        assert named in found.stdout and "endocorpus build" in error_line(found)
        if spot in {"json", "mp4"}:
            assert f"{row['key']}.{spot}" in found.stdout
    assert json.loads(run("verify", out, "--json").stdout)["problems"]


@pytest.mark.parametrize("table", ["clips", "recordings", "excluded", "deid", "annotations"])
def test_verify_names_a_damaged_table(table: str, corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    data = bytearray((out / f"{table}.parquet").read_bytes())
    data[len(data) // 3] ^= 1
    (out / f"{table}.parquet").write_bytes(data)
    found = run("verify", out)
    assert found.exit_code == 1 and f"{table}.parquet" in found.stdout


def test_an_undamaged_corpus_verifies(corpus: Corpus) -> None:
    outcome = json.loads(run("verify", corpus.root, "--json", "--workers", 2).stdout)
    assert outcome["problems"] == [] and outcome["clips"] == corpus.descriptor["counts"]["clips"]
    assert outcome["bytes"] == sum(entry["size"] for entry in corpus.descriptor["shards"])


def test_reading_commands_speak_json(corpus: Corpus, raw: Path) -> None:
    assert {s["name"] for s in json.loads(run("sources", "--json").stdout)} == set(SOURCES)
    assert json.loads(run("sources", "colonoscopic", "--json").stdout)["licence_status"] == "unverified"
    assert json.loads(run("report", corpus.root, "--json").stdout)
    assert json.loads(run("info", corpus.root, "--json").stdout)["name"] == "folder"
    scanned = json.loads(run("scan", *PUBLIC, "--root", raw, "--json").stdout)
    assert len(scanned["recordings"]) == 10 and len(scanned["exclusions"]) == 4
    reading = {"sources", "scan", "plan", "verify", "info", "report"}
    assert reading <= set(main.commands)
    for name in reading:
        assert "--json" in {option for p in main.commands[name].params for option in p.opts}, name


def test_reading_commands_speak_to_people(corpus: Corpus, raw: Path) -> None:
    assert "IEEE Transactions" in run("sources", "colonoscopic").stdout
    counts = {line.split()[0]: line for line in run("sources").stdout.splitlines()}
    assert "100 + 13 + 285" in counts["sun"] and "160 + 42 + 61" in counts["ldpolypvideo"]
    assert "视频" in run("scan", *PUBLIC, "--root", raw).stdout
    assert "clips of 5 recordings" in run("info", corpus.root).stdout


def test_info_tells_what_a_corpus_is(tmp_path: Path) -> None:
    write_video(tmp_path / "raw" / "a.mp4", 40)
    shutil.copy(tmp_path / "raw" / "a.mp4", tmp_path / "raw" / "b.mp4")
    write_frames(tmp_path / "raw" / "c", range(60), size=(144, 112))
    built = run(
        *("build", *PUBLIC, "--root", tmp_path / "raw", "--out", tmp_path / "mine", "--workers", 1),
        *("--set", "segment.clip_seconds=4"),
    )
    assert "1 recording repeats another" in built.stdout
    told = {line.split("  ")[0]: line for line in run("info", tmp_path / "mine").stdout.splitlines()}
    for name, words in {
        "source": "folder: A folder of recordings",
        "licence": "(unverified)",
        "privacy": "public",
        "synthetic": "no",
        "settings": "segment.clip_seconds = 4.0",
        "sizes": "160x128 (2 recordings), 144x112 (1 recording)",
        "rates": "25 a second (3 recordings)",
        "labels": "none",
        "annotations": "none",
        "duplicates": "1 recording repeats another",
    }.items():
        assert words in told[name], name


def test_plan_and_info_tell_the_rate_of_the_examination_and_what_is_on_frames(trees: Trees, tmp_path: Path) -> None:
    """Two pictures a second play at thirty."""
    root, _ = trees("kvasir-capsule")
    told = ("--source", "kvasir-capsule", "--root", root, "--workers", 1, "--set", "segment.min_seconds=0.1")
    plan = json.loads(run("plan", *told, "--json").stdout)["recordings"]
    assert {row["rate"] for row in plan} == {"2"} and "30" in {row["nominal_rate"] for row in plan}
    assert "  nominally 30 " in run("plan", *told).stdout
    assert run("build", *told, "--out", tmp_path / "c").exit_code == 0
    info = {line.split("  ")[0]: line for line in run("info", tmp_path / "c").stdout.splitlines()}
    assert "2 a second, nominally 30 (" in info["rates"]
    kinds = Counter(open_corpus(tmp_path / "c").table("annotations")["kind"].to_pylist())
    assert len(kinds) > 1 and all(f"{kind} {rows:,}" in info["annotations"] for kind, rows in kinds.items())


def test_labels_are_told_most_frequent_first_and_not_all() -> None:
    rows = {("finding", f"f{number}"): (1, number) for number in range(7)}
    told = _labels(Table(by=("name", "value"), of=("recordings", "clips"), rows=rows))
    assert told == "finding: f6 (6 clips), f5 (5 clips), f4 (4 clips), f3 (3 clips), and 3 more"


@pytest.mark.parametrize("command", ["info", "verify", "report"])
def test_a_mistyped_corpus_is_a_mistake_in_the_command(command: str, raw: Path, tmp_path: Path) -> None:
    nowhere, elsewhere = run(command, tmp_path / "none"), run(command, raw)
    assert nowhere.exit_code == elsewhere.exit_code == 2
    assert "none: no such folder" in error_line(nowhere) and "not a corpus; that is a folder" in error_line(elsewhere)
    (tmp_path / "begun" / ".build").mkdir(parents=True)
    begun = run(command, tmp_path / "begun")
    assert begun.exit_code == 1 and "run again, finishes it" in error_line(begun)


def test_a_build_ends_with_what_is_not_in_the_corpus(raw: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(raw, tmp_path / "raw"))
    told = (
        "build",
        *PUBLIC,
        "--root",
        tree,
        "--out",
        tmp_path / "c",
        "--workers",
        1,
        "--set",
        "segment.clip_seconds=1",
    )
    first = run(*told)
    counts = open_corpus(tmp_path / "c").descriptor["counts"]
    last = first.stdout.splitlines()[-3:]
    assert last[0].startswith(f"left out, recordings: {counts['excluded_recordings']} (ambiguous_name 2, ")
    assert last[1] == f"left out, other files: {counts['excluded_files']} (unexpected_file 1)"
    assert last[2].endswith(f"{tmp_path / 'c' / 'excluded.parquet'}, and the report") and "gone" not in first.stdout
    (tree / "plain.avi").unlink()
    again = run(*told)
    assert again.exit_code == 0
    assert again.stdout.splitlines()[-1].startswith("1 recording that this corpus held before is gone: c-plain-avi-")
    assert "gone" not in run(*told).stdout


def test_exclusions_come_in_one_order(raw: Path, corpus: Corpus) -> None:
    shown = json.loads(run("plan", *PUBLIC, "--root", raw, "--json", "--workers", 1).stdout)["exclusions"]
    committed = [(row["subject"], row["reason"]) for row in corpus.table("excluded").to_pylist()]
    assert [(row["subject"], row["reason"]) for row in shown] == committed
    for told in (run("plan", *PUBLIC, "--root", raw, "--workers", 1), run("info", corpus.root)):
        lines = [line.split("  ")[0] for line in told.stdout.split("exclusions\n")[1].splitlines()[1:]]
        assert lines == [reason for _, reason in committed]


def test_a_title_is_one_line_whatever_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    echo_table("a title that is longer than its table", ("a", "b"), [])
    echo_table("a title that is longer than its table", ("a", "b"), [("1", "[red]2")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [*["a title that is longer than its table"] * 2, "a  b", "1  [red]2"]


def test_the_rate_of_image_folders_can_be_given(tmp_path: Path) -> None:
    write_frames(tmp_path / "raw", range(60))
    told = ("plan", *PUBLIC, "--root", tmp_path / "raw", "--workers", 1, "--json")
    assert [r["rate"] for r in json.loads(run(*told).stdout)["recordings"]] == ["25"]
    assert [r["rate"] for r in json.loads(run(*told, "--rate", "30000/1001").stdout)["recordings"]] == ["29.97"]
    for bad in ("0", "-1", "fast", "1/0", "1e9"):
        wrong = run(*told, "--rate", bad)
        assert wrong.exit_code == 2 and "expected frames per second" in error_line(wrong)


def test_settings_are_listed(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("[encode]\ncrf = 18\n")
    options = ("--config", tmp_path / "b.toml", "--set", "shards.max_clips=7")
    listed = json.loads(run("config", *options, "--json").stdout)
    (tmp_path / "saved.toml").write_text(run("config", *options).stdout)
    assert json.loads(run("config", "--config", tmp_path / "saved.toml", "--json").stdout) == listed
    assert (listed["encode"]["crf"], listed["shards"]["max_clips"], listed["segment"]["clip_seconds"]) == (18, 7, 5.0)
    wrong = run("config", "--config", tmp_path / "b.toml", "--set", "encode.crff=7")
    assert "--set encode.crff=7: unknown key" in error_line(wrong)


def test_the_report_can_be_written_elsewhere(corpus: Corpus, tmp_path: Path) -> None:
    assert run("report", corpus.root, "--out", tmp_path / "new" / "page.html").exit_code == 0
    assert (tmp_path / "new" / "page.html").read_bytes() == (corpus.root / "report" / "index.html").read_bytes()
    assert run("report", corpus.root, "--out", "/proc/none/page.html").exit_code == 2


def test_an_empty_corpus_is_a_data_problem_that_says_why(raw: Path, tmp_path: Path) -> None:
    vault = ("--vault", tmp_path / "vault")
    private = run("build", "--source", "folder", *vault, "--root", raw, "--out", tmp_path / "c", "--workers", 1)
    assert private.exit_code == 1 and "5 recordings kept back by de-identification" in error_line(private)
    assert run("verify", tmp_path / "c").exit_code == 0
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.mp4").write_text("x")
    empty = run("build", *PUBLIC, "--root", tmp_path / "bad", "--out", tmp_path / "d")
    assert empty.exit_code == 1 and "no clip was written" in error_line(empty) and "not_a_video" in empty.stdout


@pytest.mark.parametrize("command", ["build", "plan"])
@pytest.mark.parametrize(
    ("source", "files", "told"),
    [
        (PUBLIC, [], "holds no video and no numbered frames."),
        (PUBLIC, ["notes.txt", "cover.jpg"], "holds no video and no numbered frames, in 2 files."),
        (("--source", "colonoscopic"), ["a.avi"], "where the source 'colonoscopic' has them, in 1 file."),
    ],
)
def test_a_root_without_recordings_is_refused_before_anything_is_written(
    command: str, source: tuple[str, ...], files: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    for name in files:
        (tmp_path / "raw" / name).touch()
    refused = run(command, *source, "--root", tmp_path / "raw", "--out", tmp_path / "c")
    assert refused.exit_code == 2 and told in error_line(refused)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("command", ["build", "plan"])
def test_the_tree_is_walked_once(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where millions of images lie on a share, a walk takes an hour."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.mp4").touch()
    walked: list[Path] = []
    monkeypatch.setattr(endocorpus.scan, "walk", lambda root: walked.append(root) or walk(root))  # type: ignore[func-returns-value]
    run(command, *PUBLIC, "--root", tmp_path / "raw", "--out", tmp_path / "c")
    assert walked == [tmp_path / "raw"]


def test_plan_shows_the_ids_that_build_gives(tmp_path: Path) -> None:
    write_frames(tmp_path / "raw" / "a", range(30), name="{}.png")

    def planned(*options: object) -> list[str]:
        told = run("plan", *PUBLIC, "--root", tmp_path / "raw", "--workers", 1, "--json", *options)
        return [row["recording"] for row in json.loads(told.stdout)["recordings"]]

    for folder, options, name in (("mine", (), "mine"), ("Ours 2", (), "ours2"), ("c", ("--name", "other"), "other")):
        where = ("--out", tmp_path / folder)
        ids = planned(*where, *options)
        assert len(ids) == 1 and ids[0].startswith(f"{name}-a")
        assert run("build", *PUBLIC, "--root", tmp_path / "raw", *where, *options, "--workers", 1).exit_code == 0
        assert open_corpus(tmp_path / folder).table("recordings")["recording_id"].to_pylist() == ids
        assert planned(*where) == ids, "the corpus has its name"
    assert planned()[0].startswith("folder-a")


def test_plan_marks_a_varying_rate(tmp_path: Path) -> None:
    uneven = "setpts='if(lt(N,20),N,20+3*(N-20))/(25*TB)'"
    write_video(tmp_path / "even.mkv", 40)
    write_video(tmp_path / "uneven.mkv", 40, output=("-vf", uneven, "-fps_mode", "passthrough", "-c:v", "libx264"))
    told = ("plan", *PUBLIC, "--root", tmp_path, "--workers", 1)
    assert [row["varies"] for row in json.loads(run(*told, "--json").stdout)["recordings"]] == [False, True]
    assert [" varies " in line for line in run(*told).stdout.splitlines() if "even" in line] == [False, True]


def test_a_build_outlives_whoever_reads_what_it_prints(tmp_path: Path) -> None:
    """As with `endocorpus build ... 2>&1 | head -1`."""
    write_frames(tmp_path / "raw", range(30))
    command = ["build", *PUBLIC, "--root", tmp_path / "raw", "--out", tmp_path / "c", "--workers", "1"]
    assert leave_at_once(command).wait() == 0
    assert (tmp_path / "c" / "corpus.json").exists()
    (tmp_path / "c" / "shards" / "more.tar").touch()
    assert leave_at_once(["verify", tmp_path / "c", "--workers", "1"]).wait() == 1, "the exit code still tells"


def leave_at_once(command: Sequence[object]) -> subprocess.Popen[bytes]:
    """The command, started with a pipe for its output that has no reader any more."""
    program = [sys.executable, "-m", "endocorpus", *map(str, command)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    process.stdout.close()
    return process


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("build", "--source", "nothing"), "no source 'nothing'; there is: "),
        (("build", "--source", "kolonoscopic"), "no source 'kolonoscopic'; did you mean 'colonoscopic'?"),
        (("fetch", "sunn"), "did you mean 'sun'?"),
        (("sources", "hyperkvasir"), "did you mean 'hyper-kvasir'?"),
        (("phantom", "--source", "real_colon", "--out", "p", "--seed", "1"), "did you mean 'real-colon'?"),
        (("splits", "kumc-oficial"), "did you mean 'kumc-official'?"),
        (("mix", "endofm-pretraining", "--corpus", "{raw}"), "did you mean 'endofm-pretrain'?"),
        (("mix", "endofm-pretrain", "--corpus", "c", "--without-leaks", "polypdag"), "did you mean 'polypdiag'?"),
        (("mix", "endofm-pretrain", "--corpus", "c", "--without-leaks", "kumc-offical:val"), "did you mean 'kumc-o"),
        (("build", "--source", "colonoscopic", "--privacy", "public"), "declares its own"),
        (("build", *PUBLIC, "--root", "{raw}", "--out", "{raw}/c"), "inside the raw tree"),
        (("build", *PUBLIC, "--root", "{raw}", "--out", "/proc/c"), "cannot be written"),
        (("build", *PUBLIC, "--root", "{raw}", "--set", "encode.crff=3"), "did you mean 'encode.crf'?"),
        (("build", *PUBLIC, "--root", "{raw}", "--config", "/none.toml"), "No such file"),
        (("phantom", "--source", "folder", "--out", "{raw}/p", "--seed", "1"), "no phantom layout"),
        (("phantom", "--source", "colonoscopic", "--out", "{raw}", "--seed", "1"), "not empty"),
        (("phantom", "--source", "colonoscopic", "--out", "/proc/p", "--seed", "1"), "cannot be written"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(
    args: tuple[str, ...], told: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = fingerprint(raw)
    result = run(*(arg.replace("{raw}", str(raw)) for arg in args))
    assert result.exit_code == 2 and told in error_line(result)
    assert fingerprint(raw) == before and not any(tmp_path.iterdir())


def test_every_command_and_option_has_help() -> None:
    for name, command in main.commands.items():
        assert command.help and command.help[0].isupper(), name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help or parameter.name == "out", (name, parameter.name)


def test_help_imports_nothing_heavy() -> None:
    """--help must answer in under half a second, so it may not pay for media, tables or torch."""
    listed = "import sys; from endocorpus.cli import main\ntry: main(['build', '--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True)
    heavy = {"av", "numpy", "pandas", "pyarrow", "torch", "pydantic", "rich", "PIL", "skimage", "scipy", "ffmpeg"}
    assert not heavy & set(done.stdout.split()) and "Build a corpus" in done.stdout


# --- places and machines that are not as they should be --------------------------------------------------------------


def program(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    told = [sys.executable, "-m", "endocorpus", *map(str, args)]
    return subprocess.run(told, capture_output=True, text=True, check=False, env=os.environ | environment)


HUMBLY = """
import ctypes, os, sys
for power in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, before whom no folder is closed to root
    ctypes.CDLL(None).prctl(24, power, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-m", "endocorpus", *sys.argv[1:]])
"""


def humbly(*args: object) -> subprocess.CompletedProcess[str]:
    """The program without the powers of root."""
    told = [sys.executable, "-c", HUMBLY, *map(str, args)]
    return subprocess.run(told, capture_output=True, text=True, check=False)


def test_closed_places_are_one_line(corpus: Corpus, raw: Path, tmp_path: Path) -> None:
    inside = tmp_path / "closed" / "x"
    inside.mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    out = shutil.copytree(corpus.root, tmp_path / "c")
    build = ("build", *PUBLIC, "--workers", 1)
    for args in ((*build, "--root", inside), (*build, "--root", raw, "--out", inside / "c"), ("verify", inside)):
        done = humbly(*args)
        assert done.returncode in {1, 2} and "Traceback" not in done.stderr and "Permission denied" in done.stderr, args
    shard = next((out / "shards").iterdir())
    for path in (shard, out / "clips.parquet", out / "report" / "index.html"):
        path.chmod(0)
        done = humbly("verify", out, "--workers", 1)
        assert done.returncode == 1 and "Traceback" not in done.stderr and path.name in done.stdout
        path.chmod(0o644)


def test_names_too_long_are_one_line(raw: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    for args in (
        ("build", *PUBLIC, "--root", long),
        ("build", *PUBLIC, "--root", raw, "--out", long),
        ("verify", long),
    ):
        found = run(*args)
        assert found.exit_code in {1, 2} and "File name too long" in error_line(found)


def test_strangers_in_the_work_area_are_cleared(corpus: Corpus, raw: Path, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    (out / ".build" / "encoded").mkdir(exist_ok=True)
    (out / ".build" / "encoded" / ".DS_Store").write_text("x")
    (out / ".build" / "receipts" / "x").mkdir()
    build(FOLDER, raw, out, CONFIG)
    assert fingerprint(out) == fingerprint(corpus.root)


def test_a_folder_in_place_of_a_shard_is_named(corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    shard = next((out / "shards").iterdir())
    shard.unlink()
    shard.mkdir()
    found = run("verify", out)
    assert found.exit_code == 1 and f"{shard.name}: cannot be read: Is a directory" in found.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_cannot_be_printed_is_escaped(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "raw" / "🫁").mkdir(parents=True)
    (tmp_path / "raw" / "🫁" / "😀.txt").write_text("x")
    write_video(tmp_path / "raw" / "🫁" / "ü.mp4", 30)
    args = (*PUBLIC, "--root", tmp_path / "raw")
    shown = program("scan", *args, "--json", PYTHONIOENCODING=encoding)
    assert shown.returncode == 0, shown.stderr
    assert [r["subject"] for r in json.loads(shown.stdout)["recordings"]] == ["🫁/ü.mp4"]
    built = program("build", *args, "--out", tmp_path / "c", "--workers", 1, PYTHONIOENCODING=encoding)
    assert built.returncode == 0 and "Traceback" not in built.stderr and "U0001f600.txt" in built.stdout


def test_names_of_files_are_unicode_or_nothing_is_done(tmp_path: Path) -> None:
    write_video(tmp_path / "raw" / "ü.mp4", 30)
    posix = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}
    done = program("scan", *PUBLIC, "--root", tmp_path / "raw", **posix)
    assert done.returncode == 2 and "PYTHONUTF8=1" in done.stderr and "Traceback" not in done.stderr
