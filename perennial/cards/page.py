"""A card's Markdown as a page of HTML. What it says is in `card`; no file is written here."""

from __future__ import annotations

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border: 1px solid #c9c9c9; padding: .25rem .6rem; text-align: left; vertical-align: top }
h2 { margin-top: 2rem } code { background: #f2f2f2; padding: 0 .2rem }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #e8e8e8 } th, td { border-color: #4a4a4a } code { background: #2a2a2a }
}
</style>
</head>
<body>
{{ body }}
</body>
</html>
"""


def render_page(markdown: str, title: str) -> str:
    """The page; HTML within the Markdown is shown as text, and links are to the web only."""
    from jinja2 import Environment
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return Environment(autoescape=True).from_string(_PAGE).render(title=title, body=Markup(body))  # noqa: S704
