"""The page that describes every request, made from the OpenAPI description; it loads nothing from elsewhere."""

from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; } code { font-family: ui-monospace, monospace; }
.method { display: inline-block; min-width: 3.5rem; font-weight: 700; }
table { border-collapse: collapse; width: 100%; } td { border-top: 1px solid #8885; padding: .25rem .6rem .25rem 0; }
td { vertical-align: top; } p { margin: .3rem 0; }
"""


def page(openapi: dict[str, Any]) -> str:
    """HTML with each operation: what it does, its fields, and its answers."""
    schemas = openapi["components"]["schemas"]
    sections = [
        _section(method, path, operation, schemas)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(openapi["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1><p>Send <code>Authorization: Bearer TOKEN</code> with every request but /health. "
        f'The machine-readable description: <a href="openapi.json">openapi.json</a>.</p>{"".join(sections)}</html>'
    )


def _section(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = schemas.get(body.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
    rows = [(name, field.get("description", ""), _kind(field)) for name, field in fields.items()]
    answers = [(code, answer["description"], "") for code, answer in operation["responses"].items()]
    return (
        f'<h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>'
        f"<p>{escape(operation.get('description', ''))}</p>{_table(rows)}{_table(answers)}"
    )


def _table(rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(words)}</td><td>{escape(kind)}</td></tr>"
        for name, words, kind in rows
    )
    return f"<table>{lines}</table>"


def _kind(field: dict[str, Any]) -> str:
    choices = field.get("anyOf", [field])
    return " or ".join(choice.get("type", "object") for choice in choices if choice.get("type") != "null")
