"""How commands of both packages talk to people: one line for an error, exit code 1 for data and 2 for usage."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from endocorpus.errors import DataError, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


# Of the system's errors, those that say something about places and the machine; any other one is a bug.
_OF_THE_COMMAND = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_OF_THE_MACHINE = {*_OF_THE_COMMAND, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
_OF_THE_MACHINE |= {errno.ENOMEM, errno.EMFILE, errno.ENFILE}


class Commands(click.Group):
    """A group of commands, listed in the order they are used; expected errors end in one line and an exit code."""

    interrupted = "interrupted; finished work is kept, the same command continues"

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        with outlives_readers():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            _refuse_other_encodings()
            return super().invoke(ctx)
        except (UsageError, DataError) as error:
            self.tell(error)
            sys.exit(2 if isinstance(error, UsageError) else 1)
        except OSError as error:
            if error.errno not in _OF_THE_MACHINE:
                raise
            where = error.filename2 or error.filename
            click.echo(f"error: {f'{where}: ' if where else ''}{error.strerror}", err=True)
            sys.exit(2 if error.errno in _OF_THE_COMMAND else 1)
        except KeyboardInterrupt:
            click.echo(self.interrupted, err=True)
            sys.exit(130)

    def tell(self, error: DataError | UsageError) -> None:
        """Say what went wrong."""
        click.echo(f"error: {error}", err=True)


def _refuse_other_encodings() -> None:
    """What a file's name says, and so what becomes of it, must not depend on the language settings of a machine."""
    if sys.getfilesystemencoding() != "utf-8":
        raise UsageError(
            f"Python takes names of files for {sys.getfilesystemencoding()} here, in which most names in the world "
            "cannot be told; set PYTHONUTF8=1 in the environment, or a locale such as C.UTF-8"
        )


@contextmanager
def outlives_readers() -> Iterator[None]:
    """Inside, work goes on in silence when nobody reads standard output or standard error any more.

    `head` leaves a pipe when it has seen enough, and a terminal may be closed; neither says anything about a run that
    takes days, whose exit code then still tells how it ended.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_outliving(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as Python has it where a stream was closed before it began
                stream.flush()
        sys.stdout, sys.stderr = before


class _Outliving(io.FileIO):
    """A file descriptor that becomes a sink once its reader is gone."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in {errno.EPIPE, errno.EIO}:  # a pipe without a reader, a terminal that is gone
                raise
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, self.fileno())
            os.close(sink)
            return memoryview(data).nbytes


def _outliving(stream: TextIO) -> TextIO:
    """`stream` over the same descriptor; itself where it has none, as in tests that capture what is printed."""
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return stream
    raw = _Outliving(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",  # a name that cannot be printed must not end a run
        line_buffering=bool(stream.line_buffering),
    )


def echo_json(value: object) -> None:
    """Print a value as JSON for programs; characters that the output cannot take become JSON's own escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=str)
    click.echo(text)


def echo_table(title: str, header: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for people, without its header where there is no row; cells are never read as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=None, pad_edge=False, show_header=any(header))
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 10_000  # a program or a file reads: a line is a row, nothing is folded
    if title:  # not the table's own, which is folded to the width of the table
        console.print(Text(title, style="bold"), soft_wrap=True)
    if rows:
        console.print(table)


def duration(seconds: float) -> str:
    """Seconds below a minute, minutes below an hour, hours beyond: ``11.4 s``, ``12.5 min``, ``1,234.5 h``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3597:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"
