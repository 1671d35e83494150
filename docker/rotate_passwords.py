"""`make rotate-passwords`: new passwords of PostgreSQL and Redis for the running containers. Standard library only.

Jobs continue from their last checkpoint. If the script is interrupted, run it again: `.env.next` contains the new
passwords before the first change and replaces .env once PostgreSQL uses them.
"""

import subprocess
import sys

from backup import ROOT, BackupError, compose, compose_command, exclusive_lock, wait_for_postgres
from env import new_password, write

ENV, NEXT = ROOT / ".env", ROOT / ".env.next"
URLS = {"POSTGRES_PASSWORD": "FRS_DATABASE_URL", "REDIS_PASSWORD": "FRS_BROKER_URL"}
"""The setting that contains the password too."""


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
    set_postgres_password(values(NEXT.read_text())["POSTGRES_PASSWORD"])
    NEXT.replace(ENV)
    compose("up", "--detach")
    print(f"PostgreSQL and Redis have new passwords; {ENV} contains them. Update .env of other hosts with workers.")


def renew(env: str) -> str:
    """Return the text of .env with new passwords."""
    current = values(env)
    for name, url in URLS.items():
        old, new = current[name], new_password()
        if not old or f":{old}@" not in current[url]:
            raise BackupError(f"{url} does not contain {name}: change both by hand.")
        lines = [
            line.replace(old, new) if line.startswith((f"{name}=", f"{url}=")) else line for line in env.splitlines()
        ]
        env = "\n".join(lines) + "\n"
    return env


def values(env: str) -> dict[str, str]:
    """Return the variables of .env; the last assignment counts."""
    return {name: value for name, is_setting, value in (line.partition("=") for line in env.splitlines()) if is_setting}


def set_postgres_password(password: str) -> None:
    """Pass the statement on standard input, so that the password is on no command line."""
    client = ("psql", "--quiet", "--username=frs", "--dbname=frs", "--set=ON_ERROR_STOP=1")
    statement = f"ALTER ROLE frs PASSWORD '{password}';\n"
    subprocess.run(compose_command("exec", "-T", "postgres", *client), cwd=ROOT, input=statement, text=True, check=True)


if __name__ == "__main__":
    main()
