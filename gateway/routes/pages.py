"""Pages for people: /docs."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

_CDN = "https://cdn.jsdelivr.net"
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def _policy(page: str) -> str:
    """A Content-Security-Policy that lets a page run its own inline scripts and no others."""
    hashes = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in _INLINE.findall(page)
    )
    scripts = " ".join(f"'sha256-{each}'" for each in hashes)
    rules = {
        "default-src": "'none'",
        "script-src": f"{_CDN} {scripts}",
        "style-src": f"{_CDN} 'unsafe-inline'",  # Swagger UI sets styles from its script
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def add_pages(api: FastAPI, root_path: str) -> None:
    """Add them.

    Args:
        api: the application.
        root_path: where a proxy shows the gateway; empty for the top.
    """
    page = get_swagger_ui_html(
        openapi_url=f"{root_path}{api.openapi_url}",
        title=f"{api.title}: API",
        swagger_favicon_url="data:,",
    )
    text = bytes(page.body).decode()
    headers = {
        "content-security-policy": _policy(text),
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
    }

    async def docs() -> HTMLResponse:
        return HTMLResponse(text, headers=headers)

    api.add_api_route("/docs", docs, include_in_schema=False)
