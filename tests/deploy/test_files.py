"""What ships the service agrees with itself and with the code."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from botocore.credentials import ContainerProvider

from transcription_site.env import BASE_DIR, Environment
from transcription_site.settings import _database

COMPOSE = yaml.safe_load((BASE_DIR / "docker-compose.yml").read_text())["services"]
SUPERVISOR = configparser.RawConfigParser()
SUPERVISOR.read(BASE_DIR / "deploy" / "supervisord.conf")
PROGRAMS = ["web", "worker-chunks", "worker-local", "worker-control", "sweeper"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_run_and_production_start_the_same_commands(program):
    assert SUPERVISOR[f"program:{program}"]["command"] == COMPOSE[program]["command"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_run_and_production_leave_the_same_time_for_an_orderly_end(program):
    stop_seconds = SUPERVISOR[f"program:{program}"]["stopwaitsecs"]
    assert COMPOSE[program]["stop_grace_period"] == f"{stop_seconds}s"


def test_every_service_has_a_health_check_and_comes_back():
    assert {*PROGRAMS, "caddy", "migrate", "postgres", "redis"} == set(COMPOSE)
    for name in set(COMPOSE) - {"migrate"}:
        assert COMPOSE[name]["restart"] == "always", name
        assert COMPOSE[name]["healthcheck"]["test"], name


def test_postgresql_takes_the_connections_of_the_scale_that_the_readme_shows():
    shown = dict(re.findall(r"--scale ([\w-]+)=(\d+)", (BASE_DIR / "README.md").read_text()))
    assert shown
    processes = {program: int(shown.get(program, 1)) for program in PROGRAMS}
    processes["worker-chunks"] *= Environment.model_fields["worker_processes"].default
    each = _database("postgres://u:p@h/n")["OPTIONS"]["pool"]["max_size"]
    (allowed,) = re.findall(r"max_connections=(\d+)", COMPOSE["postgres"]["command"])
    assert sum(processes.values()) * each + 20 <= int(allowed)  # the rest for those who look


def test_every_variable_reaches_the_containers_unless_they_fix_it_themselves():
    given = {name.removesuffix("_FILE") for name in COMPOSE["web"]["environment"]}
    fixed = {"VAR_DIR", "WEB_HOST", "WEB_PORT"}
    assert {field.upper() for field in Environment.model_fields} - given == fixed


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_boto3_reads_itself_reaches_the_containers_and_is_never_empty(program):
    # As `botocore.credentials` looks whether they are there, and not whether they say anything.
    given = COMPOSE[program]["environment"]
    for name in (
        *("AWS_DEFAULT_REGION", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        ContainerProvider.ENV_VAR,
        ContainerProvider.ENV_VAR_FULL,
        ContainerProvider.ENV_VAR_AUTH_TOKEN,
        ContainerProvider.ENV_VAR_AUTH_TOKEN_FILE,
    ):
        assert given[name] is None, name


@pytest.mark.parametrize("program", ["web", "worker-local"])
def test_recordings_are_kept_on_a_disk_while_they_come_in_and_are_cut(program):
    folder = COMPOSE[program]["environment"]["TMPDIR"]
    assert f"scratch:{folder}" in COMPOSE[program]["volumes"]
    assert folder not in COMPOSE[program]["tmpfs"]


def test_the_proxy_lets_through_what_the_service_takes():
    caddyfile = (BASE_DIR / "deploy" / "Caddyfile").read_text()
    sizes = re.findall(r"request_body @(\w+) \{\s+max_size (\S+)", caddyfile)
    largest = Environment.model_fields["recording_max_bytes"].default
    form = 24 * Environment.model_fields["audio_max_bytes"].default + 10_000_000
    assert dict(sizes) == {
        "file": f"{{$RECORDING_MAX_BYTES:{largest}}}",
        "other": f"{form // 1_000_000}MB",
    }
    # Caddy takes its default only where the variable is not there at all.
    given = COMPOSE["caddy"]["environment"]["RECORDING_MAX_BYTES"]
    assert given == f"${{RECORDING_MAX_BYTES:-{largest}}}"


@pytest.mark.parametrize("program", [*PROGRAMS, "migrate"])
def test_a_model_s_folder_is_there_for_every_process_that_looks_for_it_at_its_start(program):
    assert "models:/models" in COMPOSE[program]["volumes"]


def test_the_secrets_are_files_that_only_the_folder_s_owner_reaches(tmp_path):
    (tmp_path / "deploy").mkdir()
    shutil.copy(BASE_DIR / "deploy" / "make-secrets", tmp_path / "deploy")
    for _ in range(2):  # what is there is kept
        subprocess.run([tmp_path / "deploy" / "make-secrets"], check=True, stdout=subprocess.PIPE)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    declared = yaml.safe_load((BASE_DIR / "docker-compose.yml").read_text())["secrets"]
    assert {Path(secret["file"]).name for secret in declared.values()} == set(made)
    assert made["postgres_password.txt"] in made["database_url.txt"]
    assert len(made["secret_key.txt"]) == 64
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("suffix", ["", "-whisper", "-dev"])
def test_the_locks_are_exact_and_name_no_place(suffix):
    text = (BASE_DIR / f"requirements{suffix}.txt").read_text()
    assert not re.search(r"https?:|file:/|^\s*-|/", text, re.MULTILINE)
    packages = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert packages
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line) for line in packages)


def test_the_image_holds_every_package_of_the_service():
    shipped = (BASE_DIR / ".dockerignore").read_text().splitlines()
    for package in ("asr", "deploy", "jobs", "templates", "transcription_site", "manage.py"):
        assert f"!{package}" in shipped
