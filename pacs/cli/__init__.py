"""The command line: runs one command, and answers for its errors and its exit status. `grammar.py` has the commands.

Each imports what it needs when it runs: `pacs --help` must not wait for codecs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pacs.cli.grammar import parser

OK, WRONG, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. The status is for `sys.exit`."""
    _open_standard_streams()
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # here, where it can be told: the interpreter at its end only grumbles
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):  # who read the output has left, as `head` does
            return 128 + 13
        print(f"pacs: standard output: {error.strerror or error}", file=sys.stderr)
        return WRONG


def _open_standard_streams() -> None:
    """A closed one leads to nowhere: its number must not go to a file of an archive, for a library to print into."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _output_fails() -> bool:
    """Whether standard output is where an OSError comes from that names no file."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _run(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    from pacs.errors import PacsError

    try:
        return int(arguments.run(arguments))
    except PacsError as error:
        print(f"pacs {arguments.command}: {error.message} [{error.code}]", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as error:
        if not error.filename and _output_fails():
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"pacs {arguments.command}: {error.strerror or error}{where}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\npacs {arguments.command}: interrupted", file=sys.stderr)
        return 128 + 2
    return WRONG
