"""One offline HTML page: its style, sections and tables. No script, no request; a policy in the page forbids both."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

STYLE = """
:root { color-scheme: light; --ink: #22252a; --grey: #6b727c; --rule: #e4e7eb; --blue: #2f6db3; --red: #c8352b }
* { box-sizing: border-box }
body { margin: 0; background: #f6f7f9; color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif }
main { max-width: 1060px; margin: 0 auto; padding: 28px 18px 60px }
header h1 { margin: 0; font-size: 1.7rem; overflow-wrap: anywhere }
header p { margin: 2px 0 14px; color: var(--grey) }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 18px 0 0; font-size: .92rem }
a { color: var(--blue); text-decoration: none } a:hover { text-decoration: underline }
section { background: white; border: 1px solid var(--rule); border-radius: 10px; margin: 18px 0; padding: 18px 22px }
h2 { margin: 0 0 10px; font-size: 1.2rem } h3 { margin: 0 0 4px; font-size: 1rem }
section > p { margin: 4px 0 12px; color: var(--grey) }
.tiles { display: flex; flex-wrap: wrap; gap: 12px }
.tiles div { flex: 1 1 112px; background: white; border: 1px solid var(--rule); border-radius: 10px;
  padding: 10px 14px }
.tiles strong { display: block; font-size: 1.35rem; line-height: 1.25; white-space: nowrap;
  font-variant-numeric: tabular-nums }
.tiles span { color: var(--grey); font-size: .85rem; line-height: 1.3; display: block }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 22px 30px }
figure { margin: 0 } svg { display: block; width: 100%; height: auto; font-family: inherit }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 4px 0 0; font-size: .88rem }
.legend span { display: flex; align-items: center; gap: 6px }
svg.sample { width: 26px; height: 8px }
.matrix { overflow-x: auto } .matrix svg { min-width: 320px }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 16px 12px }
.samples img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #f0f2f4; border-radius: 6px }
.samples figcaption { font-size: .84rem; line-height: 1.3; margin-top: 4px; overflow-wrap: anywhere }
.samples b { color: var(--red) } .samples small { color: var(--grey); display: block }
img { image-rendering: pixelated; max-width: 100%; display: block }
img.smooth { image-rendering: auto } img.heat { width: min(100%, 640px); border: 1px solid var(--rule) }
img + h3 { margin-top: 16px }
.scroll { overflow: auto; max-height: 34rem }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums }
th { text-align: left; color: var(--grey); font-weight: 600; border-bottom: 2px solid var(--rule); white-space: nowrap;
  position: sticky; top: 0; background: white }
td, th { padding: 5px 14px 5px 0; vertical-align: top } td { border-bottom: 1px solid var(--rule) }
td { overflow-wrap: break-word } td.number, th.number { text-align: right; white-space: nowrap }
td.bar { min-width: 90px } td.bar i { display: block; height: 9px; margin-top: 8px; border-radius: 3px;
  background: var(--blue) }
pre { margin: 0; overflow-x: auto; font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace }
@media (max-width: 560px) { section { padding: 14px } td, th { padding-right: 10px } }
@media print { body { background: white } section { break-inside: avoid } .scroll { max-height: none } }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Section(NamedTuple):
    """A part of the page; ``body`` is HTML. One without a body is left out."""

    key: str
    title: str
    body: str
    note: str = ""


class Bar(float):
    """A cell of a table that is drawn: a share from 0 to 1."""


def document(title: str, subtitle: str, tiles: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page. ``tiles`` are large figures, each with what it is."""
    shown = [section for section in sections if section.body]
    links = "".join(f'<a href="#{section.key}">{escape(section.title)}</a>' for section in shown)
    figures = "".join(
        f"<div><strong>{escape(figure)}</strong><span>{escape(name)}</span></div>" for name, figure in tiles
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>"
        f'<div class="tiles">{figures}</div><nav>{links}</nav>\n{"".join(map(_section, shown))}</main></body></html>\n'
    )


def _section(section: Section) -> str:
    note = f"<p>{escape(section.note)}</p>" if section.note else ""
    return f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{note}{section.body}</section>\n'


def table(header: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> str:
    """A table of texts, escaped here, and bars; ``numbers`` are the columns that stand to the right."""
    if not rows:
        return ""
    aligned = [' class="number"' if column in numbers else "" for column in range(len(header))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(header, aligned, strict=True))
    body = "".join(
        "<tr>" + "".join(_cell(value, kind) for value, kind in zip(row, aligned, strict=True)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object, kind: str) -> str:
    if isinstance(value, Bar):
        return f'<td class="bar"><i style="width:{100 * value:.1f}%"></i></td>'
    return f"<td{kind}>{escape(str(value))}</td>"
