"""HTML pieces. Every text from outside goes through `text`; nothing else may put a name on the page."""

import html
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
    """Escaped for element content and for quoted attributes."""
    return html.escape(str(value), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """Fixed digits; a dash where there is no value."""
    return '–' if value is None else f'{value:.{digits}f}'


def signed(value: float | None, digits: int = 3) -> str:
    """With its sign (a true minus), none where it rounds to zero; a dash where there is no value."""
    if value is None:
        return '–'
    if round(value, digits) == 0:
        return f'{0:.{digits}f}'
    return f'{value:+.{digits}f}'.replace('-', '−')


def compact(value: float | None) -> str:
    """Four significant digits, for values of any size."""
    return '–' if value is None else f'{value:.4g}'.replace('-', '−')


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f'{value:,}'.replace(',', '\u202f')


def listing(names: Sequence[str]) -> str:
    """Escaped names as `a, b and c`."""
    parts = [f'<b>{text(name)}</b>' for name in names]
    return parts[0] if len(parts) == 1 else ', '.join(parts[:-1]) + ' and ' + parts[-1] if parts else ''


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = '') -> str:
    """A table of escaped cells; the first column is the row's heading."""
    head = ''.join(f'<th scope="col">{text(cell)}</th>' for cell in headers)
    body = ''.join(
        f'<tr><th scope="row">{text(row[0])}</th>' + ''.join(f'<td>{text(cell)}</td>' for cell in row[1:]) + '</tr>'
        for row in rows
    )
    title = f'<caption>{text(caption)}</caption>' if caption else ''
    return f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, content: str) -> str:
    """Folded `content` (already markup) under an escaped summary."""
    return f'<details><summary>{text(summary)}</summary>{content}</details>'


def section(title: str, content: str, *, note: str = '') -> str:
    """A section of the page; `note` and `content` are markup, the title is escaped."""
    lead = f'<p class="note">{note}</p>' if note else ''
    return f'<section><h2>{text(title)}</h2>{lead}{content}</section>\n'
