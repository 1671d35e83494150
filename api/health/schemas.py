from typing import Literal

from api.http.schemas import Answer


class Health(Answer):
    status: Literal["ok"] = "ok"


class Version(Answer):
    frs: str
    python: str
