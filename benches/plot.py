"""Draws time, memory and requests against contents as one SVG of three panels, both axes logarithmic; nothing but the standard library."""

import math

COLOURS = {"verger": "#0b7285", "kopia": "#c2255c"}
PANEL, HEIGHT, LEFT, TOP, GAP = 250, 230, 62, 48, 78


def power(value):
    """A tick in words: 0.03 s, 1,000."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def panel(title, unit, rows, x):
    """One figure over contents. `rows`: {program: [(contents, value)]}."""
    points = [p for series in rows.values() for p in series]
    low_x, high_x = min(p[0] for p in points), max(p[0] for p in points)
    low = math.floor(math.log10(min(p[1] for p in points)))
    high = max(low + 1, math.ceil(math.log10(max(p[1] for p in points))))
    at_x = lambda n: x + PANEL * math.log(n / low_x) / (math.log(high_x / low_x) or 1)
    at_y = lambda v: TOP + HEIGHT * (1 - (math.log10(v) - low) / (high - low))
    out = [f'<text x="{x}" y="{TOP - 18}" class="title">{title}</text>']
    for exponent in range(low, high + 1):
        y = at_y(10 ** exponent)
        out.append(f'<line x1="{x}" x2="{x + PANEL}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
                   f'<text x="{x - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{power(10 ** exponent)}{unit}</text>')
    for n in sorted({p[0] for p in points}):
        label = f"{n / 1e6:.1g} M"
        out.append(f'<line x1="{at_x(n):.1f}" x2="{at_x(n):.1f}" y1="{TOP}" y2="{TOP + HEIGHT}" class="grid"/>'
                   f'<text x="{at_x(n):.1f}" y="{TOP + HEIGHT + 17}" class="tick" text-anchor="middle">{label}</text>')
    for name, series in rows.items():
        path = " ".join(f"{at_x(n):.1f},{at_y(v):.1f}" for n, v in sorted(series))
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        for n, v in sorted(series):
            out.append(f'<circle cx="{at_x(n):.1f}" cy="{at_y(v):.1f}" r="3.5" fill="{COLOURS[name]}">'
                       f'<title>{name}, {n:,} contents: {v:,.4g}{unit}</title></circle>')
        n, v = max(series)
        out.append(f'<text x="{at_x(n):.1f}" y="{at_y(v) - 9:.1f}" class="name" text-anchor="end" fill="{COLOURS[name]}">{name.title()}</text>')
    return out


def draw(title, panels):
    """An SVG. `panels`: [(title, unit, {program: [(contents, value)]})]."""
    width = LEFT + len(panels) * (PANEL + GAP) + 10
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HEIGHT + 58}" role="img" '
           'font-family="system-ui, sans-serif" font-size="12">',
           f'<title>{title}</title>',
           '<style>.grid{stroke:#dee2e6}.tick{fill:#495057;font-size:11px}.title{fill:#212529;font-weight:600}.name{font-weight:600}'
           '</style>', f'<rect width="{width}" height="{TOP + HEIGHT + 58}" fill="#fff"/>']
    for number, (name, unit, rows) in enumerate(panels):
        out += panel(name, unit, rows, LEFT + number * (PANEL + GAP))
    out.append(f'<text x="{LEFT}" y="{TOP + HEIGHT + 44}" class="tick">{title}</text></svg>')
    return "\n".join(out) + "\n"
