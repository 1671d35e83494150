from typing import Literal

from api.http.schemas import ResponseModel


class Health(ResponseModel):
    status: Literal["ok"] = "ok"


class Version(ResponseModel):
    frs: str
    python: str
