"""`make rotate-passwords`: new passwords of PostgreSQL and Redis for the running containers. Standard library only.

Jobs continue from their last checkpoint. If the script is interrupted, run it again: `.env.next` contains the new
passwords before the first change and replaces .env once PostgreSQL uses them.
"""

import re
import subprocess
import sys
from urllib.parse import unquote, urlsplit

from backup import ROOT, BackupError, compose, compose_command, exclusive_lock, wait_for_postgres
from env import new_password, write

ENV, NEXT = ROOT / ".env", ROOT / ".env.next"
URL, OWNER_URL = "FRS_DATABASE_URL", "FRS_DATABASE_OWNER_URL"
"""Settings with the passwords of PostgreSQL's roles; with the second one, the first is that of another role."""


def main() -> None:
    try:
        with exclusive_lock():
            rotate()
    except BackupError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"Command failed: {' '.join(error.cmd)}\nRun make rotate-passwords again: it continues.")


def rotate() -> None:
    """Raises BackupError or CalledProcessError on failure."""
    wait_for_postgres()
    if not NEXT.exists():
        write(NEXT, renew(ENV.read_text()), 0o600)
    compose("stop", "worker", "api")  # a worker returns its jobs, for which it needs its password
    set_postgres_passwords(values(NEXT.read_text()))
    NEXT.replace(ENV)
    compose("up", "--detach")
    print(f"PostgreSQL and Redis have new passwords; {ENV} contains them. Update .env of other hosts with workers.")


def renew(env: str) -> str:
    """Return the text of .env with new passwords."""
    current = values(env)
    urls = {"POSTGRES_PASSWORD": OWNER_URL if current.get(OWNER_URL) else URL, "REDIS_PASSWORD": "FRS_BROKER_URL"}
    for name, url in urls.items():
        old, new = current.get(name), new_password()
        if not old or f":{old}@" not in current.get(url, ""):
            raise BackupError(f"{url} does not contain {name}: change both by hand.")
        env = replace(replace(env, name, old, new), url, f":{old}@", f":{new}@")
    if current.get(OWNER_URL):
        password = urlsplit(current[URL]).password
        if not password:
            raise BackupError(f"{URL} contains no password: change the one of its role by hand.")
        env = replace(env, URL, f":{password}@", f":{new_password()}@")
    return env


def replace(env: str, name: str, old: str, new: str) -> str:
    """Return the text of .env with `new` in place of `old` in the value of this variable."""
    lines = [line.partition("=") for line in env.splitlines()]
    return "".join(f"{key}{sign}{value.replace(old, new) if key == name else value}\n" for key, sign, value in lines)


def values(env: str) -> dict[str, str]:
    """Return the variables of .env, without quotes around their values; the last assignment counts."""
    lines = [line.partition("=") for line in env.splitlines()]
    return {name: re.sub(r"""^(["'])(.*)\1$""", r"\2", value) for name, is_setting, value in lines if is_setting}


def set_postgres_passwords(current: dict[str, str]) -> None:
    """Pass the statements on standard input, so that no password is on a command line."""
    urls = [urlsplit(current[name]) for name in (OWNER_URL, URL) if current.get(name)]
    client = ("psql", "--quiet", "--username=frs", "--dbname=frs", "--set=ON_ERROR_STOP=1")
    statements = "".join(f"ALTER ROLE {quote(url.username)} PASSWORD '{url.password}';\n" for url in urls)
    command = compose_command("exec", "-T", "postgres", *client)
    subprocess.run(command, cwd=ROOT, input=statements, text=True, check=True)


def quote(role: str | None) -> str:
    """Return the role of a URL as an SQL identifier."""
    name = unquote(role or "").replace('"', '""')
    return f'"{name}"'


if __name__ == "__main__":
    main()
