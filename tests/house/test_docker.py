"""Every path, port, setting, command and metric that docker/ names is one that the code knows."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pacs.cli import grammar
from pacs.dicomweb import health
from pacs.dicomweb.metrics import Metrics
from pacs.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
NGINX = (DOCKER / "nginx.conf").read_text()
ALERTS = yaml.safe_load((DOCKER / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DOCKER / "grafana" / "pacs.json").read_text())


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


DOCKERFILE = instructions(DOCKER / "Dockerfile")


def only(name: str, stage: list[tuple[str, str]] = DOCKERFILE) -> str:
    (found,) = (rest for instruction, rest in stage if instruction == name)
    return found


def last_stage() -> list[tuple[str, str]]:
    starts = [position for position, (name, _) in enumerate(DOCKERFILE) if name == "FROM"]
    assert len(starts) == 2
    return DOCKERFILE[starts[1] :]


def served() -> Any:
    """The arguments of the image's command, read by our own grammar."""
    entry, command = json.loads(only("ENTRYPOINT")), json.loads(only("CMD", last_stage()))
    assert entry == ["pacs"]
    return grammar.parser().parse_args(command)


# --- the image ----------------------------------------------------------------------------------------------------


def test_the_image_copies_what_is_there_and_what_the_build_needs() -> None:
    copied = [
        word for name, rest in DOCKERFILE if name == "COPY" and "--from" not in rest for word in shlex.split(rest)[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "setup.py", "pacs", "README.md", "LICENSE"} == set(copied)
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    project = (ROOT / "pyproject.toml").read_text()
    assert 'readme = "README.md"' in project
    least = re.search(r'requires-python = ">=3\.(\d+)"', project)
    image = re.search(r"FROM python:3\.(\d+)-slim", (DOCKER / "Dockerfile").read_text())
    assert least and image and int(image[1]) >= int(least[1])


def test_the_image_runs_as_nobody_special_and_serves_where_it_says() -> None:
    stage = last_stage()
    arguments = served()
    assert arguments.command == "serve" and arguments.insecure and arguments.host == "0.0.0.0"
    assert str(arguments.port) == only("EXPOSE", stage)
    assert str(arguments.archive) == only("VOLUME", stage) == "/archive"
    user = only("USER", stage).split(":")[0]
    assert int(user) > 0
    made = next(rest for name, rest in stage if name == "RUN")
    assert f"--uid {user}" in made and "-o pacs -g pacs -m 0750 /archive" in made
    check = only("HEALTHCHECK", stage)
    assert f"http://127.0.0.1:{arguments.port}{health.HEALTH}" in check
    built, path = next(rest for name, rest in DOCKERFILE if "pip install" in rest), only("ENV", stage)
    assert "/opt/pacs/bin/pip install" in built and "PATH=/opt/pacs/bin:" in path
    packages = "gcc libc6-dev"
    assert packages in next(rest for name, rest in DOCKERFILE if "apt-get" in rest)
    assert f"need cc {packages}" in (ROOT / ".ci" / "run").read_text(), "the same compiler as everywhere"


def test_the_health_check_of_the_image_is_true(server: Any) -> None:
    """Its very command, against a server that lives and against none."""
    command = json.loads(only("HEALTHCHECK", last_stage()).partition("CMD ")[2])
    assert command[0] == "python"
    address = f"127.0.0.1:{served().port}"
    assert address in command[2]
    for port, status in ((server.address.rpartition(":")[2], 0), ("9", 1)):
        program = command[2].replace(address, f"127.0.0.1:{port}")
        run = subprocess.run([sys.executable, *command[1:2], program], capture_output=True, check=False)
        assert run.returncode == status, run.stderr


@pytest.mark.skipif("TEST_IMAGE_STEPS" not in os.environ, reason="set TEST_IMAGE_STEPS=1 to build as the image does")
def test_the_steps_of_the_image_from_a_clean_directory(tmp_path: Path) -> None:
    """What COPY takes, the RUN of the first stage, the CMD of the second: natively, in a directory of their own."""
    source, installed = tmp_path / "source", tmp_path / "opt"
    source.mkdir()
    for name, rest in DOCKERFILE:
        if name == "COPY" and "--from" not in rest:
            for word in shlex.split(rest)[:-1]:
                if (ROOT / word).is_dir():
                    shutil.copytree(
                        ROOT / word, source / word, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.c")
                    )
                else:
                    shutil.copy(ROOT / word, source / word)
    step = next(rest for name, rest in DOCKERFILE if name == "RUN" and "pip install" in rest)
    step = step.replace("/opt/pacs", str(installed)).replace("python -m venv", f"{sys.executable} -m venv")
    subprocess.run(["sh", "-ec", step], cwd=source, check=True)
    bare = {"PATH": f"{installed}/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    command = ["pacs", *json.loads(only("CMD", last_stage()))]
    command[command.index("/archive")] = str(tmp_path / "archive")
    command[command.index("8080")] = "0"
    with subprocess.Popen(command, cwd="/", env=bare, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and "pacs is ready at" in process.stdout.readline()
        process.terminate()
    assert process.returncode == 0


# --- the services -------------------------------------------------------------------------------------------------


def test_compose_builds_this_and_mounts_what_is_there() -> None:
    build = SERVICES["pacs"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT and (ROOT / build["dockerfile"]).is_file()
    for name, service in SERVICES.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["networks"] == ["inside"], name
        for volume in service.get("volumes", []):
            there = volume.split(":")[0]
            if there.startswith("./secrets"):
                continue  # the administrator's
            assert (DOCKER / there).is_file() if there.startswith("./") else there in COMPOSE["volumes"], volume
    assert "/archive" in [volume.split(":")[1] for volume in SERVICES["pacs"]["volumes"]]
    assert "ports" not in SERVICES["pacs"], "only nginx may reach it"
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"prometheus", "grafana"}


def environment() -> dict[str, str]:
    """The settings that compose gives the server when nobody set anything."""
    found = {}
    for name, text in SERVICES["pacs"]["environment"].items():
        default = re.fullmatch(r"\$\{(\w+):-(.*)\}", text)
        assert default is None or default[1] == name
        found[name] = default[2] if default else text
    return found


def test_compose_knows_the_settings() -> None:
    settings = Settings.from_environment(environment())
    (subnet,) = COMPOSE["networks"]["inside"]["ipam"]["config"]
    assert settings.trusted_proxies == (subnet["subnet"],)
    assert settings.access_log == "-"
    grace = int(SERVICES["pacs"]["stop_grace_period"].removesuffix("s"))
    assert grace >= settings.shutdown_grace + 5


def test_nginx_listens_where_compose_says_and_asks_the_server() -> None:
    (published,) = SERVICES["nginx"]["ports"]
    assert f"listen {published.split(':')[1]} ssl http2;" in NGINX
    assert f"server pacs:{served().port};" in NGINX and "pacs" in SERVICES
    for path in health.PATHS:
        assert f"location = {path} {{ return 404; }}" in NGINX
    mounted = [volume.split(":")[1] for volume in SERVICES["nginx"]["volumes"]]
    for path in re.findall(r"(/etc/nginx/[\w./-]+)", NGINX):
        assert any(path.startswith(place) for place in mounted), path


def test_prometheus_asks_the_server_and_reads_the_rules() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    assert job["metrics_path"] == health.METRICS
    assert job["static_configs"] == [{"targets": [f"pacs:{served().port}"]}]
    places = {volume.split(":")[1]: volume.split(":")[0] for volume in SERVICES["prometheus"]["volumes"]}
    command = dict(option.split("=", 1) for option in SERVICES["prometheus"]["command"])
    assert places[command["--config.file"]] == "./prometheus.yaml"
    assert command["--storage.tsdb.path"] in places
    folder = Path(command["--config.file"]).parent
    assert [places[str(folder / name)] for name in config["rule_files"]] == ["./alerts.yaml"]
    source = yaml.safe_load((DOCKER / "grafana" / "datasource.yaml").read_text())["datasources"][0]
    assert source["url"] == f"http://prometheus:{SERVICES['prometheus']['ports'][0].split(':')[2]}"
    provider = yaml.safe_load((DOCKER / "grafana" / "dashboards.yaml").read_text())["providers"][0]
    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/pacs.json" in mounted
    used = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel}
    assert used == {source["uid"]}


# --- the queries --------------------------------------------------------------------------------------------------


def known_metrics(server: Any) -> dict[str, set[str]]:
    """Labels by name of every series there is: those of the module, and those of a real answer."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if hasattr(metric, "_labelnames"):
            labels = {*metric._labelnames, "instance", "job"}
            for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric._type, ("",)):
                found[metric._name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    connection = server.connect()
    connection.request("GET", health.METRICS)
    for line in connection.getresponse().read().decode().splitlines():
        match = re.match(r"(pacs_\w+)(?:\{(.*)\})? ", line)
        if match and match[1] not in found:
            found[match[1]] = {"instance", "job", *re.findall(r"(\w+)=", match[2] or "")}
    connection.close()
    return found


def queries() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    assert len(panels) > 30 and len(ALERTS) > 10
    return [*panels, *(rule["expr"] for rule in ALERTS)]


def test_every_query_asks_for_what_there_is(server: Any) -> None:
    known = known_metrics(server)
    for query in queries():
        names = re.findall(r"\b(pacs_\w+|up)\b", query)
        assert names, query
        for name in names:
            assert name == "up" or name in known, f"{name} of {query}"
        labels = set().union(*(known.get(name, {"job"}) for name in names))
        for clause in re.findall(r"by \(([^)]*)\)", query):
            assert {label.strip() for label in clause.split(",")} <= labels, query
        for name, clause in re.findall(r"(pacs_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)(?:=~|!=|!~|=)", clause)) <= known[name], query
        assert query.count("(") == query.count(")") and query.count("{") == query.count("}")


def test_every_metric_is_looked_at(server: Any) -> None:
    """A metric that neither a panel nor an alarm asks for is one too many, but for a few that explain others."""
    asked = " ".join(queries())
    unused = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in known_metrics(server)}
    unused = {name for name in unused if name not in asked}
    assert unused == {"pacs_build_info", "pacs_archive_studies", "pacs_archive_series"}


def test_names_in_alarms_are_names_in_the_code(server: Any) -> None:
    from pacs import errors

    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    for query in queries():
        for code in re.findall(r'code="([^"]+)"', query):
            assert code in codes
        for pattern in re.findall(r'reason=~"([^"]+)"', query):
            assert any(re.fullmatch(pattern, code) for code in codes)
    manual = (ROOT / "docs" / "operations.md").read_text()
    for rule in ALERTS:
        assert rule["alert"] in manual, f"docs/operations.md does not say what to do about {rule['alert']}"
        assert rule["labels"]["severity"] in ("page", "day")
        label = re.search(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        assert label is None or f"by ({label[1]}" in rule["expr"] or f", {label[1]})" in rule["expr"]


# --- systemd ------------------------------------------------------------------------------------------------------


def unit(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DOCKER / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, text = line.partition("=")
            found.setdefault(key, []).append(text)
    return found


def test_the_unit_starts_what_there_is_and_may_write_where_it_has_to() -> None:
    service = unit("pacs.service")
    (start,) = service["ExecStart"]
    program, *command = shlex.split(start)
    arguments = grammar.parser().parse_args(command)
    assert program == "/opt/pacs/bin/pacs" and arguments.command == "serve" and not arguments.insecure
    variables = dict(pair.split("=", 1) for line in service["Environment"] for pair in shlex.split(line))
    settings = Settings.from_environment(variables)
    assert str(arguments.archive).startswith(f"/var/lib/{service['StateDirectory'][0]}/")
    assert settings.access_log.startswith(f"/var/log/{service['LogsDirectory'][0]}/")
    assert variables["PROMETHEUS_MULTIPROC_DIR"] == f"/run/{service['RuntimeDirectory'][0]}"
    assert int(service["TimeoutStopSec"][0]) > settings.shutdown_grace + 5
    assert service["ProtectSystem"] == ["strict"] and service["NoNewPrivileges"] == ["yes"]
    # /proc/sys/kernel/random/boot_id says whether the machine was started anew.
    assert "ProcSubset" not in service
    night = unit("pacs-backup.service")
    for line in night["ExecStart"]:
        arguments = grammar.parser().parse_args(shlex.split(line)[1:])
        writable = night["ReadWritePaths"][0].split()
        assert any(str(arguments.archive).startswith(path) for path in writable)
    backup = grammar.parser().parse_args(shlex.split(night["ExecStart"][0])[1:])
    assert str(backup.archive) == str(grammar.parser().parse_args(command).archive)
    assert str(backup.to) == str(arguments.archive), "what is checked is the copy"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    for name in ("pacs.service", "pacs-backup.service", "pacs-backup.timer"):
        text = (DOCKER / name).read_text().replace("/opt/pacs/bin/pacs", "/bin/true")
        (tmp_path / name).write_text(text)
    names = [str(path) for path in sorted(tmp_path.iterdir())]
    run = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and not run.stderr, run.stderr
