"""The page `/docs`: Swagger UI from the files of the package `fastapi_offline`, without any other host."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, Response

_FILES = Path(str(files("fastapi_offline"))) / "static"
# All addresses are relative to the page, so that they are right behind the prefix of a proxy.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Feature-Richness distillation</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page. Swagger UI sets styles inline."""
router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def get_page() -> Response:
    """Return the page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
async def get_script() -> Response:
    """Return the script that starts Swagger UI."""
    return Response(_SCRIPT, media_type="text/javascript")


@router.get("/docs/swagger-ui-bundle.js")
async def get_bundle() -> Response:
    """Return the program of Swagger UI."""
    return FileResponse(_FILES / "swagger-ui-bundle.js", media_type="text/javascript")


@router.get("/docs/swagger-ui.css")
async def get_style() -> Response:
    """Return the style sheet of Swagger UI."""
    return FileResponse(_FILES / "swagger-ui.css", media_type="text/css")
