"""The course's report: a self-contained HTML page with Table 1, key figures and a link to every lesson."""

from __future__ import annotations

import base64
import csv
import html
import io
from pathlib import Path

from PIL import Image

from s2flib.course.lesson import NotebookRun
from s2flib.files import write_text
from s2flib.images import png_info
from s2flib.presets import get_preset

STYLE = """
body{font:16px/1.55 system-ui,sans-serif;color:#1d2330;max-width:1080px;margin:0 auto;padding:32px 24px}
h1{font-size:30px;margin:0 0 4px}
h2{font-size:21px;margin:40px 0 10px;border-bottom:1px solid #dfe3ea;padding-bottom:6px}
p.sub{color:#5b6474;margin:0 0 18px} table{border-collapse:collapse;width:100%;font-size:14.5px}
th,td{text-align:right;padding:7px 10px;border-bottom:1px solid #e7eaf0}
th:first-child,td:first-child{text-align:left} th{color:#5b6474;font-weight:600}
div.wide{overflow-x:auto} table.numbers{font-size:12.5px} table.numbers td{white-space:nowrap}
table.numbers :is(th,td){padding:6px 5px}
h2 a{color:inherit} td.state{text-align:left;padding-left:28px}
.ok{color:#167a45} .bad{color:#b3261e;font-weight:600}
figure{margin:22px 0} figure img{max-width:100%;height:auto} figcaption{color:#5b6474;font-size:14.5px}
.thumbs{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:22px}
.thumbs figure{margin:0} .label{background:#fff4d6;border-radius:4px;padding:2px 8px;font-size:14px}
footer{margin-top:44px;color:#5b6474;font-size:13.5px;border-top:1px solid #dfe3ea;padding-top:12px}
"""


def read_table1(folder: Path) -> list[list[str]]:
    """Rows of folder/table1.csv, header first; [] when the file does not exist."""
    path = Path(folder) / "table1.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if row]


def print_table1(folder: Path) -> None:
    """Print Table 1 as aligned text, or a line saying that there is none."""
    rows, text = read_table1(folder), Path(folder) / "table1.txt"
    if text.is_file():
        lines = [text.read_text(encoding="utf-8").rstrip()]
    elif rows:
        widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False)).rstrip() for row in rows]
    else:
        lines = ["no Table 1: notebook 07_lambda4 writes it, and it did not run through"]
    print("", *lines, "", sep="\n")


def write_report(folder: Path, results: list[NotebookRun], record: dict) -> Path:
    """Write folder/report.html, with embedded figures and links to the lessons in the same folder."""
    folder = Path(folder)
    preset = get_preset(record["preset"])
    failed = [r for r in results if not r.ok]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>s2flib: the course, {preset.name} preset</title><style>{STYLE}</style>",
        "<h1>From a witness's sketch to a face</h1>",
        f"<p class='sub'>{_text(_subtitle(record))}</p>",
        f"<p><span class='label'>{_text(preset.label)}</span> Every face here is synthetic, except NASA's "
        "portrait of an astronaut (public domain). A generated face is an investigative lead at most, never "
        "evidence.</p>",
    ]
    if failed:
        parts.append(f"<p class='bad'>{len(failed)} of {len(results)} notebooks failed: see the list below.</p>")
    files = sorted((folder / "figures").glob("[!.]*.png"), key=lambda p: p.stat().st_mtime)
    figures = [_read_figure(p) for p in files]
    key = [f for f in figures if f["key"]]
    parts += [_figure(f, 1600) for f in key[:1]]
    parts.append("<h2>Table 1</h2>" + _table(read_table1(folder)))
    parts.append("<h2>The lessons</h2>" + _lessons(folder, results))
    lesson = None
    for figure in key[1:]:
        if figure["lesson"] != lesson:
            lesson = figure["lesson"]
            parts.append(f"<h2><a href='{_text(lesson)}.html'>{_text(lesson)}</a></h2>")
        parts.append(_figure(figure, 1600))
    others = [_figure(f, 640) for f in figures if not f["key"]]
    if others:
        parts.append("<h2>More pictures</h2><div class='thumbs'>" + "".join(others) + "</div>")
    parts.append(f"<footer>{_text(_footer(record))}</footer></html>")
    path = folder / "report.html"
    return write_text(path, "\n".join(parts), overwrite=True)


def _text(value: object) -> str:
    return html.escape(str(value))


def _subtitle(record: dict) -> str:
    minutes = float(record.get("wall_time_s", 0)) / 60
    return f"The course under the {record['preset']} preset, run headless in {minutes:.1f} minutes"


def _footer(record: dict) -> str:
    versions, hardware, git = (record.get(k) or {} for k in ("versions", "hardware", "git"))
    revision = git.get("revision") or "not a git checkout"
    changed = " (with changes)" if git.get("dirty") else ""
    parts = [
        f"s2flib {versions.get('s2flib')}, {revision[:12]}{changed}",
        f"Python {versions.get('python')}, torch {versions.get('torch')}",
        f"{hardware.get('processor')}, {hardware.get('cores')} cores",
        f"started {record.get('started')}",
        f"seeds {record.get('seeds')}",
        "everything else: run.json",
    ]
    return " · ".join(parts)


SPREAD = "runtime_spread_s"


def _table(rows: list[list[str]]) -> str:
    """Rows of table1.csv as HTML. A value shares its cell with its bounds, the runtime with its spread; constant
    columns are listed below.
    """
    if not rows:
        return "<p>Notebook 07 writes it; it was not among this run's notebooks, or did not run through.</p>"
    records = [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]
    bounds = [f"{c}{end}" for c in rows[0] for end in ("_low", "_high") if f"{c}{end}" in rows[0]]
    shared = [*bounds, SPREAD]
    common = {}
    for column in rows[0][1:]:
        filled = {r.get(column, "") for r in records} - {""}
        if len(records) > 1 and len(filled) == 1 and column not in shared and f"{column}_low" not in bounds:
            common[column] = filled.pop()
    shown = [c for c in rows[0] if c not in shared and c not in common]
    body = []
    for record in records:
        cells = []
        for column in shown:
            text = _text(_short_number(record.get(column, "")))
            if column == "runtime_s" and record.get(SPREAD):
                text += f" ± {_text(_short_number(record[SPREAD]))}"
            low, high = record.get(f"{column}_low", ""), record.get(f"{column}_high", "")
            if low and high:
                text += f"<br><small>[{_text(_short_number(low))}, {_text(_short_number(high))}]</small>"
            cells.append(f"<td>{text}</td>")
        body.append("<tr>" + "".join(cells) + "</tr>")
    head = "".join(f"<th>{_text(column.replace('_', ' '))}</th>" for column in shown)
    note = " · ".join(f"{k.replace('_', ' ')}: {v}" for k, v in common.items())
    intervals = "[95 % bootstrap interval over people]" if bounds else ""
    return (
        f"<div class='wide'><table class='numbers'><tr>{head}</tr>{''.join(body)}</table></div>"
        f"<p class='sub'>{_text(' · '.join(filter(None, (note, intervals))))}</p>"
    )


def _short_number(cell: str) -> str:
    """Four decimals for the page; the CSV has all of them."""
    try:
        value = float(cell)
    except ValueError:
        return cell
    return cell if value.is_integer() and "." not in cell else f"{value:.4f}"


def _lessons(folder: Path, results: list[NotebookRun]) -> str:
    rows = []
    for r in results:
        name = f"<a href='{r.name}.html'>{r.name}</a>" if (folder / f"{r.name}.html").is_file() else r.name
        state = "<span class='ok'>ran through</span>" if r.ok else f"<span class='bad'>{_text(r.error)}</span>"
        cells = f"<td>{name}</td><td>{r.cells}</td><td>{r.seconds:.0f}&nbsp;s</td>"
        rows.append(f"<tr>{cells}<td class='state'>{state}</td></tr>")
    return "<table><tr><th>notebook</th><th>cells</th><th>time</th><th></th></tr>" + "".join(rows) + "</table>"


def _read_figure(path: Path) -> dict:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        image.load()
        text = getattr(image, "text", {})
        return dict(
            path=path,
            lesson=path.stem.partition("-")[0],
            image=image.convert("RGB"),
            text=text,
            caption=text.get("Description", path.stem),
            key=text.get("Key") == "True",
        )


def _figure(figure: dict, max_width: int) -> str:
    image = figure["image"]
    if image.width > max_width:
        image = image.resize((max_width, round(image.height * max_width / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # smaller or not, it is still the lesson's picture: the mark and the history stay with it
    image.save(buffer, "PNG", optimize=True, pnginfo=png_info(figure["text"], synthetic=False))
    data = base64.b64encode(buffer.getvalue()).decode()
    link = f"figures/{figure['path'].name}"
    return (
        f"<figure><a href='{_text(link)}'>"
        f"<img src='data:image/png;base64,{data}' alt='{_text(figure['caption'])}'>"
        f"</a><figcaption>{_text(figure['caption'])}</figcaption></figure>"
    )
