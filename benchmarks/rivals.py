"""What a user would pick instead: Orthanc with its DICOMweb plugin; and nginx, the limit for files as they are.

Orthanc is taken from ORTHANC_ROOT, a folder that holds unpacked Debian packages (`python -m benchmarks.rivals fetch
DIR` fills it with the newest of a suite, beside the system), else from the system's packages orthanc and
orthanc-dicomweb. nginx is taken from PATH. Both run with their own durability on, without logging of requests.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pydicom

from benchmarks.servers import Server, StartError
from benchmarks.workload import Instance
from pacs import ingest, transcode, uids

FETCHED_PACKAGES = ("orthanc", "orthanc-dicomweb")


class Orthanc(Server):
    """Orthanc with fast documented settings."""

    name = "Orthanc"
    root = "/dicom-web"

    @property
    def storage(self) -> Path:
        return self.folder / "db"

    def start(self) -> None:
        command, plugins, environment = self._installation()
        configuration = {
            "StorageDirectory": str(self.storage),
            "IndexDirectory": str(self.storage),
            "Plugins": plugins,
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "OrthancExplorerEnabled": False,
            "WebDavEnabled": False,
            "DicomServerEnabled": False,
            "StorageCompression": False,
            "SyncStorageArea": True,
            "OverwriteInstances": False,
            "HttpThreadsCount": 50,
            "KeepAlive": True,
            "KeepAliveTimeout": 60,
            "TcpNoDelay": True,
            "HttpCompressionEnabled": False,
            "MaximumStorageCacheSize": 1024,
            "StorageAccessOnFind": "Never",
            "MetricsEnabled": False,
            "SaveJobs": False,
            "DicomWeb": {
                "Enable": True, "Root": f"{self.root}/", "EnableWado": False, "Host": self.host, "Ssl": False,
                "StudiesMetadata": "Full", "SeriesMetadata": "Full", "EnableMetadataCache": True,
                "MetadataWorkerThreadsCount": 4,
            },
        }  # fmt: skip
        self.storage.mkdir()
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(configuration))
        self.spawn([*command, str(file)], environment)
        self.wait_until(None)

    def _installation(self) -> tuple[list[str], list[str], dict[str, str]]:
        root = Path(os.environ.get("ORTHANC_ROOT", "/"))
        plugins = sorted(root.glob("usr/share/orthanc/plugins/libOrthancDicomWeb.so*")) or sorted(
            root.glob("usr/lib/**/libOrthancDicomWeb.so*")
        )
        if not (root / "usr/sbin/Orthanc").exists() or not plugins:
            raise StartError("Orthanc is not there: install orthanc and orthanc-dicomweb, or set ORTHANC_ROOT")
        if root == Path("/"):
            self.version = "Orthanc " + _dpkg_version("orthanc") + ", DICOMweb " + _dpkg_version("orthanc-dicomweb")
            return ["/usr/sbin/Orthanc"], [str(plugins[-1].resolve())], {}
        # Packages of another suite need the C library they were built with, and its loader.
        self.version = (root / "version").read_text().strip() if (root / "version").exists() else f"Orthanc in {root}"
        loader = next(iter(root.glob("usr/lib*/ld-linux-x86-64.so.2")), None) or next(
            iter(root.glob("usr/lib/ld-linux-*.so.1"))
        )
        libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu"))
        dictionaries = ":".join(str(path) for path in root.glob("usr/share/dcmtk*/*.dic"))
        command = [str(loader), "--library-path", libraries, str(root / "usr/sbin/Orthanc")]
        return command, [_inside(root, plugins[-1])], {"DCMDICTPATH": dictionaries}


def _inside(root: Path, path: Path) -> str:
    """Where a link of an unpacked package leads, whose absolute target counts from `root`."""
    while path.is_symlink():
        target = path.readlink()
        path = root / target.relative_to("/") if target.is_absolute() else path.parent / target
    return str(path.resolve())


def _dpkg_version(package: str) -> str:
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout or "of unknown version"


class Nginx(Server):
    """Ready-made answers as static files. Nothing is stored by it: `prepare` writes them."""

    name = "nginx"
    root = "/dicom-web"
    media_type = "application/octet-stream"

    def start(self) -> None:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(program).exists():
            raise StartError("nginx is not there: install nginx-light")
        run = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
        self.version = run.stderr.strip().rpartition(" ")[2].replace("/", " ")
        self.folder.chmod(0o755)
        (self.folder / "html").mkdir()
        (self.folder / "tmp").mkdir(mode=0o777)
        paths = " ".join(f"{kind}_temp_path {self.folder}/tmp;" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.getuid() == 0 else ""
        configuration = self.folder / "nginx.conf"
        configuration.write_text(f"""
            {user} worker_processes {os.cpu_count()}; daemon off; pid {self.folder}/pid; error_log stderr warn;
            events {{ worker_connections 1024; }}
            http {{
              access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
              keepalive_timeout 300; keepalive_requests 10000000;
              open_file_cache max=20000 inactive=600s; open_file_cache_valid 600s;
              client_body_temp_path {self.folder}/tmp; {paths}
              server {{
                listen {self.host} backlog=1024; root {self.folder}/html;
                location ~ /frames/ {{ default_type 'multipart/related; type="{self.media_type}"; boundary=x'; }}
                location ~ /metadata$ {{ default_type application/dicom+json; }}
              }}
            }}""")
        self.spawn([program, "-p", str(self.folder), "-c", str(configuration), "-e", "stderr"])
        self.wait_until(None)

    def prepare(self, instances: list[Instance]) -> None:
        """Write the answers that a DICOMweb server would give for `instances`, all of one series."""
        import io

        series = self.folder / f"html{self.root}/studies/{instances[0].study}/series/{instances[0].series}"
        metadata = []
        for instance in instances:
            frames = series / "instances" / instance.instance / "frames"
            frames.mkdir(parents=True)
            content_type, body = self.frame(instance)
            head = f"--x\r\nContent-Type: {content_type}\r\n\r\n".encode()
            (frames / "1").write_bytes(head + body + b"\r\n--x--\r\n")
            ds = pydicom.dcmread(io.BytesIO(instance.data), stop_before_pixels=True)
            metadata.append(ds.to_json_dict(bulk_data_threshold=1024, bulk_data_element_handler=lambda _: "bulk"))
        (series / "metadata").write_text(json.dumps(metadata, separators=(",", ":")))


    def frame(self, instance: Instance) -> tuple[str, bytes]:
        """Content type and bytes of the frame: native samples here."""
        return self.media_type, instance.pixels


class CompressedNginx(Nginx):
    """The same with frames as this archive stores them: the physical limit for equal bytes."""

    name = "nginx, HTJ2K"
    media_type = "image/jphc"

    def start(self) -> None:
        super().start()
        self.version += " with HTJ2K frames"

    def frame(self, instance: Instance) -> tuple[str, bytes]:
        identity = ingest.identify(instance.data)
        assert identity.geometry is not None
        samples = transcode.decode_native(instance.pixels, identity.geometry, big_endian=False)
        codestream = transcode.encode_frame(samples, identity.geometry).codestream
        return f"{self.media_type}; transfer-syntax={uids.HTJ2K_LOSSLESS_RPCL}", codestream


# --- the newest Orthanc of Debian, unpacked beside the system -------------------------------------------------------


def fetch(target: Path, suite: str) -> None:
    """Download Orthanc, its plugin and all they need with apt's state kept aside, and unpack them into `target`."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pacs-benchmark-apt-") as folder:
        work = Path(folder)
        for name in ("lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        (work / "status").touch()
        (work / "sources.list").write_text(
            f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {_mirror()} {suite} main\n"
        )
        options = {
            "Dir::Etc::sourcelist": work / "sources.list", "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": work / "lists", "Dir::Cache": work / "cache", "Dir::State::status": work / "status",
            "APT::Sandbox::User": "root",
        }  # fmt: skip
        apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
        subprocess.run([*apt, "update"], check=True)
        subprocess.run(
            [*apt, "install", "-y", "--no-install-recommends", "--download-only", *FETCHED_PACKAGES], check=True
        )
        packages = sorted((work / "cache/archives").glob("*.deb"))
        for package in packages:
            subprocess.run(["dpkg", "-x", str(package), str(target)], check=True)
        names = {path.name.split("_")[0]: path.name.split("_")[1].split("%")[0] for path in packages}
        (target / "version").write_text(f"Orthanc {names['orthanc']}, DICOMweb {names['orthanc-dicomweb']}\n")


def _mirror() -> str:
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]:
        if path.is_file():
            for word in path.read_text().split():
                if word.startswith("http") and word.rstrip("/").endswith("/debian"):
                    return word
    return "http://deb.debian.org/debian"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    parser.add_argument("action", choices=["fetch"])
    parser.add_argument("folder", type=Path, help="where to unpack; name it in ORTHANC_ROOT afterwards")
    parser.add_argument("--suite", default="trixie", help="Debian suite (default: %(default)s)")
    arguments = parser.parse_args()
    fetch(arguments.folder, arguments.suite)
    print((arguments.folder / "version").read_text().strip())


if __name__ == "__main__":
    main()
