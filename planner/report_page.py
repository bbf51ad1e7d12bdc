"""The report's HTML: tables, badges, panels, and the page around them.

Whatever comes from a file (model names, tasks, sentences) is escaped here or in the
figures; nothing else in the report may write markup. The page forbids itself the network
by a Content-Security-Policy, so that it is the same offline.
"""

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_UNITS = {
    "tokens": "tokens",
    "s": "s",
    "usd": "USD",
    "flop": "FLOP",
    "bytes": "B",
    "eflop": "eFLOP",
}


@dataclass(frozen=True)
class Markup:
    """HTML that is safe to place as it is; a plain string is escaped."""

    text: str


def escape(text: object) -> str:
    """Text as HTML shows it."""
    return html.escape(str(text))


def amount(value: float, unit: str) -> str:
    """A quantity for reading: "21.4 GFLOP", "0.0021 USD"."""
    name = _UNITS.get(unit, unit)
    if unit in ("usd", "s") or abs(value) < 1000:
        return f"{value:,.0f} {name}" if abs(value) >= 1000 else f"{value:.3g} {name}"
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            gap = "" if unit in ("flop", "bytes") else " "
            return f"{value / size:.3g} {prefix}{gap}{name}"
    return f"{value:.3g} {name}"


def unit_label(unit: str) -> str:
    """The unit's name on an axis."""
    return _UNITS.get(unit, unit)


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> "12.3 %"."""
    return f"{100 * value:.{digits}f}\u202f%"


def interval(mean: float, low: float, high: float) -> str:
    """A share with its interval."""
    return f"{100 * mean:.1f}\u202f% ({100 * low:.1f}\u2013{100 * high:.1f})"


def badge(source: str) -> Markup:
    """How a figure is known: measured, transferred or assumed."""
    return Markup(f'<span class="badge {escape(source)}">{escape(source)}</span>')


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Markup]],
    *,
    numeric: Sequence[int] = (),
) -> Markup:
    """A table that turns into a list of cards on a narrow screen."""
    head = "".join(
        f'<th scope="col"{_class(i in numeric)}>{escape(c)}</th>'
        for i, c in enumerate(columns)
    )
    body = []
    for row in rows:
        cells = "".join(
            f'<td data-label="{escape(columns[i])}"{_class(i in numeric)}>'
            f"<span>{cell.text if isinstance(cell, Markup) else escape(cell)}</span></td>"
            for i, cell in enumerate(row)
        )
        body.append(f"<tr>{cells}</tr>")
    return Markup(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _class(numeric: bool) -> str:
    return ' class="num"' if numeric else ""


def paragraph(text: str, kind: str = "") -> Markup:
    """A paragraph of plain text."""
    return Markup(
        f'<p class="{escape(kind)}">{escape(text)}</p>'
        if kind
        else f"<p>{escape(text)}</p>"
    )


def bullets(items: Iterable[str]) -> Markup:
    """A list of plain sentences."""
    return Markup("<ul>" + "".join(f"<li>{escape(i)}</li>" for i in items) + "</ul>")


def details(summary: str, *content: Markup) -> Markup:
    """Content that is folded away until asked for."""
    return Markup(
        f"<details><summary>{escape(summary)}</summary>"
        f"{''.join(c.text for c in content)}</details>"
    )


def tiles(items: Iterable[tuple[str, str, str]]) -> Markup:
    """Headline figures: label, figure, remark."""
    return Markup(
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><div class="label">{escape(label)}</div>'
            f'<div class="figure">{escape(figure)}</div>'
            f'<div class="remark">{escape(remark)}</div></div>'
            for label, figure, remark in items
        )
        + "</div>"
    )


def legend(entries: Iterable[tuple[str, str, str]]) -> Markup:
    """A legend outside the plots: kind ("line", "band", a marker), colour, text."""
    return Markup(
        '<div class="legend">'
        + "".join(
            f'<span><i class="{escape(kind)}" style="--c:{escape(colour)}"></i>'
            f"{escape(text)}</span>"
            for kind, colour, text in entries
        )
        + "</div>"
    )


def section(identity: str, title: str, *content: Markup) -> Markup:
    """A titled part of the page."""
    return Markup(
        f'<section id="{escape(identity)}"><h2>{escape(title)}</h2>'
        f"{''.join(c.text for c in content)}</section>"
    )


def panels(figures: Iterable[tuple[str, go.Figure]], *, wide: bool = False) -> Markup:
    """Plots side by side where there is room, under each other where there is not."""
    listed = []
    for title, figure in figures:
        # "<" would let a hostile name close the script element
        content = str(figure.to_json()).replace("<", "\\u003c")
        listed.append(
            f'<figure><figcaption>{escape(title)}</figcaption><div class="plot" role="img" '
            f'aria-label="{escape(title)}">'
            f'<script type="application/json">{content}</script></div></figure>'
        )
    return Markup(f'<div class="panels{" wide" if wide else ""}">{"".join(listed)}</div>')


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str, Markup]]) -> str:
    """The whole file; `sections` are (id, name in the contents, markup)."""
    contents = "".join(
        f'<a href="#{escape(identity)}">{escape(name)}</a>'
        for identity, name, _ in sections
    )
    body = "".join(markup.text for _, _, markup in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p>"
        f"<nav>{contents}</nav></header>\n<main>{body}</main>\n"
        "<noscript><p>The plots need JavaScript; the tables do not.</p></noscript>\n"
        f"<script>{get_plotlyjs()}</script>\n<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def as_json(value: object) -> str:
    """JSON that cannot close the element it is placed in."""
    return json.dumps(value).replace("<", "\\u003c")


_STYLE = """
:root{--bg:#fdfdfc;--fg:#1c1e21;--soft:#5b6168;--line:#dcdfe3;--card:#f4f5f6;--link:#0060a8}
@media (prefers-color-scheme:dark){:root{--bg:#15171a;--fg:#e6e7e9;--soft:#a0a6ad;
--line:#33373d;
--card:#1f2226;--link:#74b8f0}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--fg);line-height:1.5;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
header,main,noscript{display:block;max-width:1240px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:1.65rem;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:1.25rem;line-height:1.3;margin:0 0 6px}
header p,.soft{color:var(--soft);margin:0 0 12px}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;border-bottom:1px solid var(--line);
padding-bottom:12px}
nav a{color:var(--link);text-decoration:none;font-size:.92rem}nav a:hover{
text-decoration:underline}
section{margin:34px 0 0;scroll-margin-top:8px}
section>p,section>ul,li{max-width:76ch}.scroll+p{margin-top:10px}
p.lead{font-size:1.12rem;margin:8px 0 16px}
main{padding-bottom:60px}
.tiles{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(min(100%,215px),
1fr))}
.tile{background:var(--card);border-radius:8px;padding:12px 16px}
.tile .label,.tile .remark{color:var(--soft);font-size:.88rem}
.tile .figure{font-size:1.5rem;font-weight:600;line-height:1.3;
font-variant-numeric:tabular-nums}
.panels{display:grid;gap:18px;grid-template-columns:repeat(auto-fit,minmax(min(100%,
360px),1fr))}
.panels.wide{grid-template-columns:minmax(0,1fr)}
figure{margin:10px 0 0;min-width:0}
figcaption{font-weight:600;font-size:.95rem;margin-bottom:2px;overflow-wrap:anywhere}
.plot{min-height:330px;width:100%}
.wide .plot{min-height:420px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:10px 0 0;font-size:.88rem}
.legend span{display:inline-flex;align-items:center;gap:7px;overflow-wrap:anywhere}
.legend i{display:inline-block;flex:none;width:22px;height:12px}
.legend i.circle,.legend i.square,.legend i.diamond,.legend i.triangle-up,
.legend i.pentagon,
.legend i.cross,.legend i.star,.legend i.hexagon,.legend i.x,.legend i.hourglass{
width:12px;height:12px;background:var(--c)}
.legend i.circle{border-radius:50%}
.legend i.diamond{clip-path:polygon(50% 0,100% 50%,50% 100%,0 50%)}
.legend i.triangle-up{clip-path:polygon(50% 0,100% 100%,0 100%)}
.legend i.pentagon{clip-path:polygon(50% 0,100% 38%,81% 100%,19% 100%,0 38%)}
.legend i.cross{clip-path:polygon(33% 0,67% 0,67% 33%,100% 33%,100% 67%,67% 67%,67% 100%,
33% 100%,
33% 67%,0 67%,0 33%,33% 33%)}
.legend i.x{clip-path:polygon(20% 0,50% 30%,80% 0,100% 20%,70% 50%,100% 80%,80% 100%,
50% 70%,
20% 100%,0 80%,30% 50%,0 20%)}
.legend i.star{clip-path:polygon(50% 0,61% 35%,98% 35%,68% 57%,79% 91%,50% 70%,21% 91%,
32% 57%,
2% 35%,39% 35%)}
.legend i.hexagon{clip-path:polygon(25% 5%,75% 5%,100% 50%,75% 95%,25% 95%,0 50%)}
.legend i.hourglass{clip-path:polygon(0 0,100% 0,50% 50%,100% 100%,0 100%,50% 50%)}
.legend i.ring{width:13px;height:13px;border-radius:50%;border:2.5px solid var(--c)}
.legend i.tick{width:0;height:14px;border-left:3px solid var(--c)}
.legend i.line{height:0;border-top:2.5px solid var(--c)}
.legend i.dash{height:0;border-top:2.5px dashed var(--c)}
.legend i.band{background:var(--c);opacity:.28}
table{border-collapse:collapse;width:100%;margin:14px 0 0;font-size:.92rem}
th{text-align:left;font-weight:600;color:var(--soft);border-bottom:1px solid var(--fg);
vertical-align:bottom;padding:5px 14px 5px 0}
td{border-bottom:1px solid var(--line);vertical-align:top;padding:6px 14px 6px 0;
overflow-wrap:break-word;max-width:34ch}
td:first-child{min-width:13ch}
td:last-child{max-width:60ch}
th:last-child,td:last-child{padding-right:0}
.scroll{overflow-x:auto}
th.num,td.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.num{white-space:normal}
.badge{display:inline-block;border:1px solid currentColor;border-radius:9px;padding:0 8px;
font-size:.8rem;white-space:nowrap}
.badge.measured{color:#00795a}.badge.transferred{color:#0067a5}.badge.assumed{color:#a84f00}
@media (prefers-color-scheme:dark){.badge.measured{color:#3ecfa5}.badge.transferred{
color:#74b8f0}
.badge.assumed{color:#f0a35e}}
details{margin:14px 0 0}summary{cursor:pointer;color:var(--link)}
.bar{display:inline-block;height:.62em;border-radius:2px;background:var(--link);
margin-right:7px}
@media (max-width:720px){
header,main{padding-left:16px;padding-right:16px}
table,tbody,tr,td{display:block;width:auto}thead{display:none}td,td:last-child{
max-width:none}
tr{border-bottom:1px solid var(--line);padding:9px 0}
td,td.num{border:0;overflow-wrap:anywhere;display:grid;grid-template-columns:minmax(96px,
34%) minmax(0,1fr);gap:12px;
padding:2px 0;text-align:left;white-space:normal}
td::before{content:attr(data-label);color:var(--soft);font-size:.88rem}
td:first-child{font-weight:600}
.plot{min-height:300px}.wide .plot{min-height:360px}
}
"""

# Colours follow the reader's light or dark setting; plots inside a folded part are drawn
# when it opens, since a hidden element has no width.
_SCRIPT = """
(function(){
var dark=matchMedia('(prefers-color-scheme: dark)'),
touch=matchMedia('(pointer: coarse)').matches;
function theme(){return dark.matches?{fg:'#e6e7e9',soft:'#a0a6ad',grid:'#2b2f35',
axis:'#555b63',
bg:'#1f2226'}:{fg:'#1c1e21',soft:'#4c5259',grid:'#e9ebed',axis:'#9aa0a6',bg:'#ffffff'}}
function dress(layout){var t=theme();layout.font=Object.assign({},layout.font,{color:t.fg});
layout.paper_bgcolor='rgba(0,0,0,0)';layout.plot_bgcolor='rgba(0,0,0,0)';
layout.hoverlabel={bgcolor:t.bg,bordercolor:t.axis,font:{color:t.fg,size:13},align:'left'};
layout.dragmode=touch?false:'zoom';
Object.keys(layout).forEach(function(k){if(/^[xy]axis/.test(k)){var a=layout[k];
a.gridcolor=t.grid;a.linecolor=t.axis;a.tickcolor=t.axis;a.zerolinecolor=t.grid;
a.fixedrange=touch;}});
(layout.shapes||[]).forEach(function(s){if(s.name==='fg')s.line.color=t.fg;});
(layout.annotations||[]).forEach(function(a){if(a.name!=='own')a.font=Object.assign({},
a.font,
{color:t.soft});});return layout}
function ink(data){var t=theme();data.forEach(function(d){if(d.meta==='fg'){
if(d.line)d.line.color=t.fg;if(d.marker)d.marker.color=t.fg;
if(d.error_x)d.error_x.color=t.fg;
if(d.error_y)d.error_y.color=t.fg;}
if(d.meta==='ring'){d.marker.line.color=t.fg;d.textfont={color:t.fg,size:12};}});
return data}
function draw(div){if(!div.spec){
div.spec=JSON.parse(div.querySelector('script').textContent);
div.replaceChildren();
if(div.spec.layout.height)div.style.minHeight='0';}
Plotly.react(div,ink(div.spec.data),dress(div.spec.layout),
{responsive:true,displayModeBar:false,displaylogo:false,doubleClick:'reset'})}
function all(root){root.querySelectorAll('.plot').forEach(function(div){
if(div.offsetParent!==null)draw(div)})}
all(document);
document.querySelectorAll('details').forEach(function(d){
d.addEventListener('toggle',function(){if(d.open)all(d)})});
dark.addEventListener('change',function(){all(document)});
})();
"""
