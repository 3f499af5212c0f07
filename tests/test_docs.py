"""Documents cannot drift: what they tell to type exists and works, what they link to is there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import endocorpus.cli
import endofm.cli
from endocorpus.corpus.schema import TABLES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
COMMANDS: dict[str, click.Group] = {"endocorpus": endocorpus.cli.main, "endofm": endofm.cli.main}


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def tour() -> list[str]:
    section = README.split("## A tour\n")[1].split("Before and after:")[0]
    return shell_lines(section)


def test_the_tour_is_what_make_demo_runs() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo", "REAL_MEDIA=none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    ran = [line.removeprefix("cd demo && ") for line in done.stdout.splitlines() if line.startswith("cd demo && ")]
    assert ran == tour() and len(ran) <= 10


def test_the_demo_names_the_report_of_real_media_where_it_makes_one(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    for media, wanted in ((tmp_path, True), (tmp_path / "none", False)):
        command = ["make", "--no-print-directory", "--dry-run", "--always-make", "demo", f"REAL_MEDIA={media}"]
        last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        assert "demo/views.png" in last and ("demo/corpora/real/report/index.html" in last) == wanted


def test_lines_under_the_tour_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but `info`, whose corpus the tour builds."""
    section = README.split("Before and after:")[1].split("Your own recordings")[0]
    monkeypatch.chdir(tmp_path)
    phantom = ["phantom", "--source", "colonoscopic", "--out", "raw/colonoscopic", "--seed", "1"]
    done = CliRunner().invoke(endocorpus.cli.main, [*phantom, "--recordings", "1", "--seconds", "1.2"])
    assert done.exit_code == 0, done.output
    for line in shell_lines(section):
        command, _, file = line.partition(" > ")
        program, *args = shlex.split(command)
        if "info" not in args:
            done = CliRunner().invoke(COMMANDS[program], args)
            assert done.exit_code == 0, done.output
            if file:
                Path(file).write_text(done.stdout)
    for program, args in (("endocorpus", ["config", "--config", "build.toml"]), ("endofm", ["config", "mine.toml"])):
        done = CliRunner().invoke(COMMANDS[program], [*args, "--json"])
        assert "4.0" in done.stdout or "200 steps" in done.stdout, done.output


def test_prose_of_the_readme_is_narrow() -> None:
    """Tables and lists of links cannot be folded."""
    lines = [line for line in README.splitlines() if not line.startswith(("|", "More: "))]
    assert [line for line in lines if len(line) > 120] == []


def test_make_targets_that_documents_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    told = {name for page in PAGES for name in re.findall(r"[`\n]make (?:[A-Z]+=\S+ )?([a-z]+)[`\s]", page.read_text())}
    assert {"demo", "test", "check"} <= told <= targets
    runs = re.findall(r"^make ([a-z]+)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert "test" in runs and set(runs) <= targets
    assert [line for line in shell_lines(README) if line.startswith("make")] == ["make demo", "make test"]


def test_commands_that_documents_name_exist_with_their_options() -> None:
    told = [line for page in PAGES for line in shell_lines(page.read_text(encoding="utf-8"))]
    told += [line for page in PAGES for line in re.findall(r"`((?:endocorpus|endofm) [^`\n]+)`", page.read_text())]
    checked = 0
    for line in told:
        words = shlex.split(line)
        if words[0] in COMMANDS and len(words) > 1 and not words[1].startswith("-"):
            command: click.Command = COMMANDS[words[0]]
            for word in words[1:]:
                if not isinstance(command, click.Group):
                    break
                assert word.rstrip(",") in command.commands, line
                command = command.commands[word.rstrip(",")]
            options = {opt for param in command.params for opt in param.opts}
            assert {word.split("=")[0] for word in words if word.startswith("--")} <= options | {"--help"}, line
            checked += 1
    assert checked > 10


def test_every_command_is_in_the_documents() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for program, group in COMMANDS.items():
        for name in group.commands:
            assert re.search(rf"{program}[^\n]*\b{name}\b", text) or f"`{name}`" in text, (program, name)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), (page.name, target)


def test_the_tree_in_the_readme_is_the_tree() -> None:
    block = README.split("## The tree")[1].split("```")[1]
    package = ""
    for line in block.splitlines():
        words = line.split("   ")[0].split()
        if not words:
            continue
        if not line.startswith(" "):
            package = words[0] if line.rstrip().endswith("/") else ""
        for word in words:
            if re.fullmatch(r"[\w./-]+(?:\.py|/)", word):
                assert (ROOT / word).exists() or (ROOT / package / word).exists(), word


def test_every_table_is_described() -> None:
    page = (ROOT / "docs" / "corpus-format.md").read_text(encoding="utf-8")
    assert all(f"`{name}.parquet`" in page for name in TABLES)


def test_the_project_names_no_place_of_a_machine() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in tracked.stdout.decode().split("\0") if name]
    media = [name for name in names if Path(name).suffix.lower() in {".mp4", ".avi", ".tar", ".jpg", ".dcm", ".mkv"}]
    assert not media
    home = str(ROOT.parent).encode()
    assert not [name for name in names if len(home) > 4 and home + b"/" in (ROOT / name).read_bytes()]


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's commands, one after the other; the toy run is cut to a few steps."""
    monkeypatch.chdir(tmp_path)
    for line in tour():
        program, *args = shlex.split(line)
        if "phantom" in args:
            args += ["--seconds", "2.4"]
        if "pretrain" in args:
            args += ["--set", "run.length=12 steps", "--set", "run.num_workers=1"]
        done = subprocess.run([sys.executable, "-m", program, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
    assert (tmp_path / "views.png").stat().st_size > 10_000
    assert (tmp_path / "corpora/colonoscopic/report/index.html").exists()
    assert (tmp_path / "runs/debug/backbone.safetensors").exists() and (tmp_path / "runs/debug/report.html").exists()
    rows = [json.loads(line) for line in (tmp_path / "runs/debug/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(12)) and all(0 < row["loss"] < 100 for row in rows)
    page = (ROOT / "docs" / "from-python.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    shutil.copy(next((tmp_path / "raw/colonoscopic").rglob("*.mp4")), tmp_path / "my-video.mp4")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("torch.Size([1, 64])") == 2 and "leak_group" in done.stdout


def test_the_wheel_holds_the_facts_and_the_configurations(tmp_path: Path) -> None:
    """What is installed from a wheel, away from the checkout, knows its sources, report template and configurations."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").iterdir()
    shutil.unpack_archive(wheel, tmp_path / "site", format="zip")
    ask = (
        "import endocorpus, endofm.config, endocorpus.report.page as page; from endocorpus.sources import *;"
        "print(endocorpus.__file__, load_source('colonoscopic').title, endofm.config.load_config('debug').run.length)"
    )
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout and "Colonoscopic" in done.stdout and "steps" in done.stdout
    assert (tmp_path / "site" / "endocorpus" / "manifests" / "sources" / "colonoscopic.toml").exists()


def test_programs_say_their_version() -> None:
    for name, group in COMMANDS.items():
        done = CliRunner().invoke(group, ["--version"])
        assert done.exit_code == 0 and done.output.startswith(name)
