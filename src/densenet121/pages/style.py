"""Style sheet of the pages: system fonts, one blue, one orange; light, dark and print."""

CSS = """
:root {
  color-scheme: light dark;
  --back: #f5f7f9; --card: #ffffff; --ink: #1c2430; --faint: #5b6775; --line: #e1e7ed;
  --blue: #2457c5; --orange: #b04c12; --bar: #e4ecfa; --note: #fff6e5; --note-line: #eccb8d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #11151b; --card: #191f28; --ink: #e4e9ef; --faint: #9aa6b4; --line: #2b333e;
    --blue: #8fb1ff; --orange: #f0a06c; --bar: #26344f; --note: #2b2415; --note-line: #5c4a20;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
header p { margin: 0; color: var(--faint); }
h1 { margin: 2px 0 4px; font-size: 28px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 4px; font-size: 18px; }
h3 { margin: 24px 0 8px; font-size: 15px; }
h2 + p, section > p { margin: 0 0 16px; color: var(--faint); max-width: 75ch; }
section {
  margin-top: 24px; padding: 24px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px;
}
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 24px; }
.card { flex: 1 1 120px; padding: 14px 16px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
.card b { display: block; font-size: 22px; line-height: 1.4; font-weight: 650;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.card span { display: block; color: var(--faint); font-size: 13px; overflow-wrap: anywhere; }
.card.main { flex-grow: 1.5; flex-basis: 240px; }
.card.main b { color: var(--blue); }
.notes { background: var(--note); border-color: var(--note-line); }
.notes ul, .missing ul { margin: 8px 0 0; padding-left: 20px; }
.missing { color: var(--faint); }
.missing li, .notes li { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th, td { padding: 6px 10px; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; unicode-bidi: isolate; }
th { color: var(--faint); font-weight: 600; font-size: 13px; white-space: nowrap; }
td:not(.figure) { min-width: 14ch; }
td.figure, th.figure { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
td.share { background: linear-gradient(to right, var(--bar) var(--share), transparent 0)
  no-repeat left 24px top 5px / calc(100% - 30px) 22px; }
tr:last-child td { border-bottom: 0; }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr));
  gap: 8px 40px; }
.pairs > div { min-width: 0; }
.pairs td:first-child { width: 42%; color: var(--faint); }
.plot { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #ffffff;
  border-radius: 6px; }
.errors { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
  gap: 24px 16px; }
.errors figure { margin: 0; min-width: 0; break-inside: avoid; font-size: 13px; line-height: 1.4; }
.errors .image { display: flex; height: 136px; align-items: center; justify-content: center;
  background: var(--back); border-radius: 6px; color: var(--faint); text-align: center; }
.errors img { border-radius: 3px; width: 128px; height: 128px; object-fit: contain; }
.errors .image + .image { margin-top: 4px; }
.errors figcaption { margin-top: 8px; overflow-wrap: anywhere; }
.errors figcaption > * { display: block; unicode-bidi: isolate; }
.errors .wrong { color: var(--orange); font-weight: 600; }
.errors .path { color: var(--faint); font-size: 12px; }
a { color: var(--blue); }
.scroll + p, .scroll + .plot { margin-top: 16px; }
details { margin-top: 16px; }
summary { cursor: pointer; color: var(--blue); }
footer { margin-top: 24px; color: var(--faint); font-size: 13px; }
@media (max-width: 520px) { main { padding: 24px 12px; } section { padding: 16px; }
  .pairs { grid-template-columns: 1fr; } }
@media print {
  body { background: #ffffff; font-size: 11pt; }
  main { max-width: none; padding: 0; }
  section, .card { border-color: #cccccc; }
  tr, .plot, .card { break-inside: avoid; }
  td.share, .errors .image { print-color-adjust: exact; }
}
"""
