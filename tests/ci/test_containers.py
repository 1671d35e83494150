"""Checks of the container files that need no Docker engine; `make test-docker` runs the containers."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from store.settings import EXAMPLE_PASSWORD, Settings
from store.settings_report import COMPOSE_VARIABLES, OTHER_VARIABLES, unknown_variables, variable

ROOT = Path(__file__).parents[2]
ROLES = ("migrate", "api", "worker")
IMAGES = ("api", "worker")


def parse(name):
    return yaml.safe_load((ROOT / name).read_text())


SERVICES = parse("docker-compose.yml")["services"]
STAGES = dict(re.findall(r"(?ms)^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", (ROOT / "docker/Dockerfile").read_text()))
"""The stages of the Dockerfile, in its order."""


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_limited(name):
    service = SERVICES[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and service["pids_limit"] > 0
    assert "max-size" in service["logging"]["options"]
    assert bool(service.get("cap_add")) == (name == "postgres")


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_by_default(name):
    for port in SERVICES[name].get("ports", []):
        assert re.sub(r"\$\{\w+:-(.*?)\}", r"\1", port).startswith("127.0.0.1:")


@pytest.mark.parametrize("service", ["api", "worker"])
def test_the_databases_stop_after_the_services_that_use_them(service):
    """Compose stops containers in reverse order of dependencies; an exited one, such as `migrate`, has no effect."""
    dependencies = SERVICES[service]["depends_on"]
    assert dependencies["postgres"] == dependencies["redis"] == {"condition": "service_healthy"}
    assert dependencies["migrate"] == {"condition": "service_completed_successfully"}


def test_redis_receives_sigterm_and_shows_no_password_on_its_command_line():
    shell, option, script = SERVICES["redis"]["command"]
    assert (shell, option) == ("sh", "-c")
    script = script.replace("$$", "$")
    assert script.startswith("exec "), "otherwise the shell is PID 1 and ignores SIGTERM"
    echo = script.replace("exec redis-server -", 'echo "arguments: $0"; cat')
    result = subprocess.run(
        ["sh", "-c", echo], env={"REDISCLI_AUTH": "s3cret"}, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[1:] == ["requirepass s3cret", "appendonly yes", "protected-mode no"]


def test_a_database_outage_does_not_make_the_api_container_unhealthy():
    assert "GET /health/live " in STAGES["api"]


def test_only_the_override_for_gpus_reserves_gpus():
    assert "deploy" not in SERVICES["worker"]
    override = parse("docker/compose.gpu.yml")["services"].pop("worker")
    assert override.pop("deploy")["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert override == {}


def test_builders_without_buildkit_build_no_torch_for_the_api_image():
    """They build every stage above the target."""
    stages = list(STAGES)
    assert not any("worker.lock" in STAGES[stage] for stage in stages[: stages.index("api")])


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_unprivileged_under_an_unreadable_init(image):
    assert f"FROM base AS {image}\n" in (ROOT / "docker/Dockerfile").read_text()
    assert "\nUSER 10001:10001\n" in STAGES[image] and '\n  CMD ["probe", "-c", ' in STAGES[image]
    assert "install --mode 0711 /bin/bash /usr/local/bin/probe" in STAGES["base"]
    assert "chmod 0711 /usr/bin/tini" in STAGES["base"] and '\nENTRYPOINT ["tini", "--"]\n' in STAGES["base"]


def pins(name):
    """Return the hashes of each pin of a lock file."""
    text = (ROOT / name).read_text().replace("\\\n", "")
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line and line[0] != "#"}


@pytest.mark.parametrize("image", [*IMAGES, "build"])
def test_the_lock_of_an_image_is_a_subset_of_the_lock(image):
    full, subset = pins("requirements.lock"), pins(f"docker/{image}.lock")
    assert subset and subset.items() <= full.items()


def test_the_api_image_has_no_torch_and_the_worker_image_has_all_of_its_packages():
    api, worker = pins("docker/api.lock"), pins("docker/worker.lock")
    assert api.keys() <= worker.keys()
    assert not any(re.match("torch|nvidia-c|onedl", pin) for pin in api)
    assert not any(pin.startswith(("pytest", "moto", "opencv-python==")) for pin in worker)


def make_env(to, *arguments):
    command = [sys.executable, ROOT / "docker" / "env.py", "--output", to, "--datasets", to / "d", "--models", to / "m"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def values(to):
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", (to / ".env").read_text()))


def test_make_env_replaces_the_example_passwords(tmp_path):
    assert make_env(tmp_path).returncode == 0
    settings = values(tmp_path)
    assert EXAMPLE_PASSWORD in (ROOT / ".env.example").read_text()
    assert EXAMPLE_PASSWORD not in (tmp_path / ".env").read_text()
    assert len({settings[f"{name}_PASSWORD"] for name in ("POSTGRES", "REDIS", "GRAFANA")}) == 3
    assert f":{settings['POSTGRES_PASSWORD']}@postgres:" in settings["FRS_DATABASE_URL"]
    assert f":{settings['REDIS_PASSWORD']}@redis:" in settings["FRS_BROKER_URL"]
    assert settings["COMPOSE_FILE"] == (
        "docker-compose.yml:docker/compose.gpu.yml" if Path("/dev/nvidiactl").exists() else "docker-compose.yml"
    )
    assert settings["FRS_DATASETS_DIR"] == str(tmp_path / "d") and (tmp_path / "d").is_dir()


def test_the_files_of_make_env_are_readable_by_their_owner_only(tmp_path):
    make_env(tmp_path)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / ".secrets").stat().st_mode) == 0o700
    assert (tmp_path / ".secrets" / "api-key").read_text().startswith("frs_")


def test_containers_can_read_the_key_of_prometheus_but_other_users_of_the_host_cannot(tmp_path):
    make_env(tmp_path)
    folder = tmp_path / ".secrets" / "prometheus"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "metrics-key").stat().st_mode) == 0o444
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert (folder / "metrics-key").read_text() != (folder.parent / "api-key").read_text()


def test_make_env_keeps_existing_files_and_adds_missing_ones(tmp_path):
    make_env(tmp_path)
    before = (tmp_path / ".env").read_text(), (tmp_path / ".secrets" / "api-key").read_text()
    (tmp_path / ".secrets" / "prometheus" / "metrics-key").unlink()
    command = [sys.executable, ROOT / "docker" / "env.py", "--output", tmp_path]
    subprocess.run(command, capture_output=True, check=True)
    assert before == ((tmp_path / ".env").read_text(), (tmp_path / ".secrets" / "api-key").read_text())
    assert (tmp_path / ".secrets" / "prometheus" / "metrics-key").exists()


def test_make_env_refuses_folders_that_an_existing_env_would_ignore(tmp_path):
    make_env(tmp_path)
    again = make_env(tmp_path)
    assert again.returncode == 1 and "set FRS_DATASETS_DIR" in again.stderr


def test_compose_reads_every_variable_of_the_example_that_is_no_setting():
    files = ("docker-compose.yml", "docker/compose.share.yml")
    read = set(re.findall(r"\$\{(\w+)", "".join((ROOT / name).read_text() for name in files)))
    assert {name for name in read if name.startswith("FRS_")} - set(map(variable, Settings.model_fields)) == set(
        COMPOSE_VARIABLES
    )
    named = re.findall(r"(?m)^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text())
    assert len(named) > 10
    service = {*map(variable, Settings.model_fields), *OTHER_VARIABLES}
    assert [name for name in named if name not in read | service | {"COMPOSE_FILE"} and name[:4] != "AWS_"] == []


@pytest.mark.parametrize("service", ROLES)
def test_every_setting_of_env_reaches_its_process_except_paths_of_the_container(service):
    """`environment` takes precedence over `env_file`; credentials set there would be empty variables, which count."""
    environment = dict(SERVICES[service]["environment"])
    assert SERVICES[service]["env_file"] == ".env"
    assert environment.pop("GRAFANA_PASSWORD") == environment.pop("POSTGRES_PASSWORD") == ""
    owner = "${FRS_DATABASE_OWNER_URL:-}" if service == "migrate" else ""
    assert environment.pop("FRS_DATABASE_OWNER_URL") == owner, "API and workers must not be able to become the owner"
    for name in ("FRS_DATABASE_URL", "FRS_BROKER_URL"):
        assert environment.pop(name) == f"${{{name}:?Run make env first}}"
    assert all(
        name in ("FRS_DATA", "FRS_HEARTBEAT_FILE") or name.endswith(("_ROOT", "_KEY_FILE")) for name in environment
    )
    assert all(path.startswith("/") for path in environment.values())


def test_no_variable_of_the_files_is_reported_as_unknown():
    example = (ROOT / ".env.example").read_text()
    assert list(unknown_variables(dict.fromkeys(re.findall(r"\bFRS_[A-Z_]+", example), ""))) == []
