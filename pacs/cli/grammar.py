"""The grammar of the command line: every command with its options and its help.

It loads nothing but argparse; a command's own module is imported when the command runs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pacs import __version__

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_EPILOG = """\
exit status: 0 everything went well, 1 something was refused or is wrong, 2 the command line was not understood.

Settings of the server are environment variables, PACS_<NAME>; docs/settings.md lists them.
"""


class _Format(argparse.HelpFormatter):
    """Fills the paragraphs of a description, which argparse makes one of."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(100, _columns()))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 100


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="pacs",
        description="A DICOMweb archive: stores studies as HTJ2K in a Zarr hierarchy, streams them to viewers.",
        epilog=_EPILOG,
        formatter_class=_Format,
    )
    top.add_argument("--version", action="version", version=f"pacs {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_serve, _store, _fetch, _import, _export, _backup, _check, _reindex, _strays, _info, _bench, _viewer):
        add(commands)
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.\n\n{text}", formatter_class=_Format
    )


def _archive(command: argparse.ArgumentParser, text: str = "folder of the archive") -> None:
    command.add_argument("--archive", metavar="DIR", type=_path, required=True, help=text)


def _path(text: str) -> Path:
    """A name of a file or a folder: an empty one, of a shell's variable that is not set, would be this folder."""
    return Path(_named(text))


def _named(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def _positive(text: str) -> int:
    """A whole number above zero, for argparse."""
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _port(text: str) -> int:
    number = _whole(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return number


def _size(text: str) -> int:
    """Bytes, for argparse: 500M, 4G."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text} is not a number of bytes")
    return max(1, int(_above_zero(number) * _UNITS[unit]))


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def _serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "serve", "serve an archive over HTTP",
        "The page is at http://HOST:PORT/, the DICOMweb root at http://HOST:PORT/dicomweb. Ctrl-C or SIGTERM stops\n"
        "the server after the requests in work; killing it loses nothing that was acknowledged.",
    )  # fmt: skip
    _archive(command, "folder of the archive; created when it does not exist")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    command.add_argument("--port", type=_port, default=8080, help="port to listen on, 0: any (default: %(default)s)")
    command.add_argument(
        "--workers", metavar="N", type=_positive, default=os.cpu_count() or 1,
        help="processes that answer requests (default: one per core, here %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--viewer", action="store_true", help="serve the OHIF viewer at /viewer; `pacs viewer` fetches it once"
    )
    command.add_argument("--demo", action="store_true", help="put a small demo into the archive when it is empty")
    command.add_argument(
        "--insecure", action="store_true",
        help="allow an address that other machines can reach: there is no authentication, whoever reaches it reads "
        "and writes everything",
    )  # fmt: skip
    command.set_defaults(run=_Lazy("serving", "serve"))


def _store(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "store", "upload files and folders by STOW-RS",
        "Folders are searched for DICOM files; what is none is left out. Temporary refusals (429, 502, 503, 504) and\n"
        "lost connections are tried again. Uploading the same files twice changes nothing.",
    )  # fmt: skip
    command.add_argument("paths", metavar="PATH", nargs="+", type=_path, help="file or folder")
    command.add_argument(
        "--url", default="http://127.0.0.1:8080/dicomweb", help="DICOMweb root of the server (default: %(default)s)"
    )
    command.add_argument(
        "--jobs", metavar="N", type=_positive, default=4, help="requests at once (default: %(default)s)"
    )
    command.add_argument(
        "--per-request", metavar="N", type=_positive, default=10, help="instances in a request (default: %(default)s)"
    )
    _header(command)
    command.set_defaults(run=_Lazy("sending", "store"))


def _header(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--header", metavar="'NAME: VALUE'", action="append", default=[], help="HTTP header to send; may be repeated"
    )


def _fetch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "fetch", "download a study, a series, an instance or a frame",
        "URL is that of a DICOMweb server, http://HOST/dicomweb/studies/1.2.3/series/…; any server will do. What is\n"
        "below DIR already is not fetched again, and what broke off goes on: run the same command once more.\n"
        "Files whose name ends in .partial are not finished.",
    )  # fmt: skip
    command.add_argument("url", metavar="URL", help="of a study, a series, an instance, or with npy and zarr a frame")
    command.add_argument(
        "--out", metavar="DIR", type=_path, default=Path(), help="folder to write into (default: here)"
    )
    command.add_argument(
        "--as", dest="form", choices=("dicom", "npy", "zarr"), default="dicom",
        help="dicom: the files that the server received; npy, zarr: decoded frames, one array for a series "
        "(default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--until", choices=("preview", "readable", "lossless"), default="lossless",
        help="how sharp, for npy and zarr: full size of 38 dB or a resolution level of 128 pixels, whichever costs "
        "less, full size of 45 dB, or every sample (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--transfer-syntax", metavar="UID", default="*", help="of DICOM files, instead of that of the exact file"
    )
    command.add_argument(
        "--jobs", metavar="N", type=_positive, default=6, help="requests at once (default: %(default)s)"
    )
    command.add_argument(
        "--patience", metavar="SECONDS", type=_positive, default=180,
        help="how long to go on trying while nothing arrives (default: %(default)s)",
    )  # fmt: skip
    _header(command)
    command.set_defaults(run=_Lazy("fetching", "fetch"))


def _import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "import", "take files and folders straight into an archive",
        "The same as `store`, without a server between; one may be running on the archive all the while.",
    )  # fmt: skip
    command.add_argument("paths", metavar="PATH", nargs="+", type=_path, help="file or folder")
    _archive(command, "folder of the archive; created when it does not exist")
    command.set_defaults(run=_Lazy("sending", "import_"))


def _export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "export", "write out the original files, byte for byte",
        "UID is a Study, Series or SOP Instance UID. Files are written as DIR/<study>/<series>/<instance>.dcm.",
    )  # fmt: skip
    command.add_argument("uids", metavar="UID", nargs="+", help="Study, Series or SOP Instance UID")
    _archive(command)
    command.add_argument("--out", metavar="DIR", type=_path, required=True, help="folder to write into")
    command.set_defaults(run=_Lazy("sending", "export"))


def _backup(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "backup", "copy an archive, or bring its copy up to date",
        "The copy is an archive itself, as it was at one commit; a server may be running on the archive. The next run\n"
        "copies what is new since, and goes on with what was cut short. Every frame is verified on its way: what is\n"
        "damaged in the archive is listed, copied as it is, and the exit status is 1.",
    )  # fmt: skip
    _archive(command)
    command.add_argument(
        "--to", metavar="DIR", type=_path, required=True,
        help="folder of the copy, best on another disk; made when it does not exist",
    )  # fmt: skip
    command.set_defaults(run=_Lazy("backing_up", "backup"))


def _check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "check", "verify every checksum, and the index against the hierarchy",
        "Reads the whole archive and writes nothing; a server may be running on it. What is wrong is listed on\n"
        "standard output, one line each, and the exit status is 1.",
    )  # fmt: skip
    _archive(command)
    command.set_defaults(run=_Lazy("upkeep", "check"))


def _reindex(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "reindex", "rebuild index/ from the files under studies/ alone",
        "Needed when index/ was lost or restored from a backup. No server may be running on the archive. What cannot\n"
        "be read is left out and named, and the exit status is 1; once it can be read again, the next run enters it.",
    )  # fmt: skip
    _archive(command)
    command.set_defaults(run=_Lazy("upkeep", "reindex"))


def _strays(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "strays", "list arrays that no record names, or set them aside",
        "A process that is killed while it stores a large instance may leave frames that nothing will ever name; most\n"
        "are removed at the next start. Of the others nobody can prove that no record of theirs was lost, so nothing\n"
        "is deleted: --set-aside moves them to set-aside/ in the archive. No server may be running on it. Where a log\n"
        "is damaged or says something else than the index, its arrays stay, and the exit status is 1.",
    )  # fmt: skip
    _archive(command)
    command.add_argument("--set-aside", action="store_true", help="move them, instead of listing them alone")
    command.set_defaults(run=_Lazy("upkeep", "strays"))


def _info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "info", "show what an archive holds",
        "Counts, bytes as received and as stored, their ratio, and the version of the format.",
    )  # fmt: skip
    _archive(command)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_Lazy("upkeep", "info"))


def _bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "bench", "measure what a node or a server carries",
        "DIR is a folder on the disk that is to hold an archive: its syncs and reads, the codecs on every core, and a\n"
        "server on a new archive below DIR, loaded with synthetic studies. Everything is removed afterwards, also\n"
        "after Ctrl-C. URL is the DICOMweb root of a server that runs already: what is sent stays there.\n"
        "Words and figures go to the terminal, all of it into NAME.json and, with plots, into NAME.html.\n"
        "`compare` puts two such JSON files beside each other: two nodes, or two versions on one.",
    )  # fmt: skip
    command.usage = "pacs bench [options] DIR|URL\n       pacs bench compare [--out NAME] A.json B.json"
    command.add_argument(
        "target", metavar="DIR|URL", nargs="+", type=_named, help="folder, DICOMweb root, or compare and two reports"
    )
    command.add_argument(
        "--out", metavar="NAME", type=_path,
        help="of the report's files, NAME.json and NAME.html (default: by the time, here; a comparison is written only "
        "if this is given)",
    )  # fmt: skip
    command.add_argument(
        "--size", metavar="BYTES", type=_size, default=2 << 30,
        help="the most that is sent and stored, such as 500M or 4G (default: 2G); a fifth is for the soak",
    )  # fmt: skip
    command.add_argument(
        "--seconds", metavar="S", type=_above_zero, default=3.0,
        help="length of each timed run; the whole takes about 40 times as long (default: 3)",
    )  # fmt: skip
    command.add_argument(
        "--clients", metavar="N", type=_positive, default=0, help="the most clients at once (default: four for a core)"
    )
    command.add_argument(
        "--workers", metavar="N", type=_positive, default=0, help="of the server below DIR (default: one per core)"
    )
    command.add_argument(
        "--soak", metavar="MINUTES", type=_above_zero, default=0.0,
        help="then a steady mixed load for so long: do latency and memory creep?",
    )  # fmt: skip
    command.add_argument("--yes", action="store_true", help="with URL: yes, leave what is sent in that server")
    command.add_argument("--shrink", metavar="N", type=_positive, default=1, help=argparse.SUPPRESS)
    _header(command)
    command.set_defaults(run=_Lazy("benching", "bench"))


def _viewer(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "viewer", "fetch the OHIF viewer for `pacs serve --viewer`",
        "Takes the version that this program knows from the npm registry, by npm and as npm is configured, compares\n"
        "it with the digest that is part of this program, and unpacks it. What is there and whole is left alone.",
    )  # fmt: skip
    command.add_argument(
        "--dir", metavar="DIR", type=_path, help="folder to keep it in (default: PACS_VIEWER, else the user's cache)"
    )
    command.add_argument(
        "--from", metavar="FILE", type=_path, dest="archive", help="the package's archive (.tgz), where there is no npm"
    )
    command.add_argument("--again", action="store_true", help="fetch even if it is there")
    command.set_defaults(run=_Lazy("viewing", "viewer_"))


class _Lazy:
    """A command's function in a module of this package that is imported when the command runs."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, arguments: argparse.Namespace) -> int:
        from importlib import import_module

        return int(getattr(import_module(f"pacs.cli.{self._module}"), self._name)(arguments))
