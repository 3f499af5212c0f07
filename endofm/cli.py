"""The command line: a thin skin, one library call per command; torch is imported inside the commands."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from endocorpus import __version__
from endocorpus.console import Commands, echo_json
from endocorpus.errors import DataError, UsageError
from endofm.cli_bench import bench
from endofm.cli_options import LocalFolder, config_option, corpus_option, set_option
from endofm.cli_weights import weights


class _Commands(Commands):
    interrupted = "interrupted; the same command goes on from the last checkpoint, if there is one"

    def tell(self, error: DataError | UsageError) -> None:
        """What is wrong with the command is wrong for all processes of a machine: the first one says so."""
        if isinstance(error, DataError) or os.environ.get("LOCAL_RANK", "0") == "0":
            super().tell(error)
        else:
            time.sleep(2)  # torchrun ends the others once one has ended, and the first may not have spoken yet


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="endofm")
def main() -> None:
    """Pre-train an endoscopy video transformer on corpora made by `endocorpus`.

    Exit codes: 0 done, 1 a problem with data, 2 a problem with the command, 75 stopped by a signal; the same
    command goes on.
    """


@main.command()
@corpus_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The PNG to write.")
@config_option
@set_option
@click.option("--clips", "num_clips", type=click.IntRange(1, 64), default=4, show_default=True, help="How many.")
def preview(
    corpora: tuple[Path | str, ...], out: Path, config_name: str, overrides: tuple[str, ...], num_clips: int
) -> None:
    """Draw what the model sees: the views of the first clips, after all augmentation."""
    from endofm.config import load_config
    from endofm.preview import draw_views

    config = load_config(config_name, overrides)
    try:
        note = draw_views(corpora, config.views, out, seed=config.run.seed, num_clips=num_clips, data=config.data)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
    if note:
        click.echo(note, err=True)
    click.echo(f"views drawn into {out}")


@main.command()
@corpus_option
@click.option(
    "--run-dir", type=click.Path(file_okay=False, path_type=Path), help="Default: runs/ and the config's name."
)
@click.option(
    "--mix",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of `endocorpus mix --out`: its clips alone, as often as it says.",
)
@click.option(
    "--probe",
    type=LocalFolder(),
    help="Folder of a labelled corpus: every probe.every steps the nearest neighbours of each of its clips vote on its "
    "label, which is probe.label.",
)
@click.option(
    "--stream",
    type=click.Choice(["indexed", "sequential"]),
    help="Any clip at any time, or shards from front to back; the same as --set data.stream=.",
)
@config_option
@set_option
def pretrain(
    corpora: tuple[Path | str, ...],
    run_dir: Path | None,
    mix: Path | None,
    probe: Path | None,
    stream: str | None,
    config_name: str,
    overrides: tuple[str, ...],
) -> None:
    """Pre-train, or go on with a run that was interrupted: the same command. Several processes: under torchrun."""
    from endofm.config import load_config
    from endofm.pretrain import pretrain as run_pretraining
    from endofm.stopping import REQUEUE, Stopped

    config = load_config(config_name, [*overrides, *([f"data.stream={stream}"] if stream else [])])
    run_dir = run_dir or Path("runs") / Path(config_name).stem
    try:
        result = run_pretraining(config, corpora, run_dir, mix=mix, probe=probe)
    except Stopped:
        click.echo("stopped before the first step; the same command starts again", err=True)
        raise SystemExit(REQUEUE) from None
    if result.backbone is None:
        if result.is_main:
            click.echo(f"stopped after step {result.steps} of {result.total_steps}; the same command goes on", err=True)
        raise SystemExit(result.exit_code)
    if result.is_main:
        click.echo(f"{result.steps} steps done; backbone: {result.backbone}")


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="OUT.html", help="Default: RUN/report.html.")
@click.option(
    "--corpus",
    type=LocalFolder(),
    help="Show some of its clips beside those that the run's features find nearest.",
)
def report(run_dir: Path, out: Path | None, corpus: Path | None) -> None:
    """Draw the curves of a run, finished or not, into one HTML page, after what went wrong in words."""
    from endofm.report import write_report

    click.echo(f"report: {write_report(run_dir, out, corpus=corpus)}")


@main.command()
@click.argument("config_name", metavar="[NAME]", default="endofm")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(config_name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print a configuration as TOML for --config, every setting with its value.

    NAME is endofm (the default), another recipe of docs/recipes.md, debug, or a file.
    """
    from endocorpus.settings import to_toml
    from endofm.config import load_config

    settings = load_config(config_name, overrides)
    if as_json:
        echo_json(settings.model_dump(mode="json"))
    else:
        click.echo(to_toml(settings), nl=False)


main.add_command(weights)
main.add_command(bench)
