"""Section 13 of docs/deploy.md: API and workers as a role that cannot change the audit trail."""

import sys
from collections.abc import Callable

import pytest
from stack import Stack, run

pytestmark = pytest.mark.docker
PASSWORD = "letters0and1digits"


def test_an_installation_moves_to_a_role_of_its_own_which_runs_jobs_and_cannot_change_the_audit_trail(
    stack_with: Callable[..., Stack],
):
    stack = stack_with()
    stack.add_bccd()
    before = stack.submit()
    assert stack.wait_until_ended(before)["status"] == "succeeded"

    stack.inside("postgres", "psql", "-U", "frs", "-c", f"CREATE ROLE frs_service LOGIN PASSWORD '{PASSWORD}'")
    env, owner_url = stack.source / ".env", stack.setting("FRS_DATABASE_URL")
    service_url = owner_url.replace(f"frs:{stack.setting('POSTGRES_PASSWORD')}@", f"frs_service:{PASSWORD}@")
    assert service_url != owner_url
    renamed = env.read_text().replace("\nFRS_DATABASE_URL=", "\nFRS_DATABASE_OWNER_URL=")
    env.write_text(f"{renamed}\nFRS_DATABASE_URL={service_url}\n")
    stack.up()

    after = stack.submit()
    assert stack.wait_until_ended(after)["status"] == "succeeded"
    assert {job["id"] for job in stack.client.get("/jobs")["data"]} == {before, after}
    count = "import sys; from sqlalchemy import create_engine, text\n"
    count += "with create_engine(sys.argv[1]).connect() as c: print(c.execute(text(sys.argv[2])).rowcount)"

    def execute(statement: str) -> str:
        url = stack.setting("FRS_DATABASE_URL").replace("postgresql:", "postgresql+psycopg:")
        return stack.inside("api", "python", "-c", count, url, statement)

    assert int(execute("SELECT * FROM audit")) > 0
    for statement in (
        "DELETE FROM audit",
        "UPDATE audit SET action = 'none'",
        "DROP TRIGGER audit_refuses_changes ON audit",
    ):
        with pytest.raises(AssertionError, match=r"permission denied|must be owner"):
            execute(statement)
    for service in ("api", "worker"):
        assert stack.setting("POSTGRES_PASSWORD") not in stack.inside(service, "env")

    run([sys.executable, str(stack.source / "docker" / "rotate_passwords.py")], cwd=stack.source, env=stack.environment)
    stack.wait_until_healthy()
    assert PASSWORD not in stack.setting("FRS_DATABASE_URL")
    assert int(execute("SELECT * FROM audit")) > 0
