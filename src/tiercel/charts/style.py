"""The report's style sheet: colours by meaning, once for light and once for dark."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --page: #fcfcfb; --panel: #ffffff; --ink: #1c1d20; --faint: #63666d; --grid: #e4e5e8;
  --computed: #b9bcc4; --without: #9b9fa8; --engine: #7a5cc9; --host: #2a78d6; --disk: #e08a1e; --after: #c8431d;
  --good: #17803d; --bad: #c02626; }
@media (prefers-color-scheme: dark) { :root { --page: #141518; --panel: #1c1e22; --ink: #eceef1; --faint: #a0a4ad;
  --grid: #30333a; --computed: #565a64; --without: #7d828d; --engine: #a58bf0; --host: #5ea2f2; --disk: #f0a63f;
  --after: #f2714b; --good: #4cc27a; --bad: #f26d6d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 2px; }
header p, figcaption, main > p { color: var(--faint); margin: 0 0 12px; max-width: 68ch; }
main > h2 { margin-top: 36px; }
figure { margin: 36px 0 0; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, "Segoe UI", sans-serif; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 24px 0 12px; }
.tile { background: var(--panel); border: 1px solid var(--grid); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 30px; line-height: 1.15; font-weight: 650; }
.tile span { color: var(--faint); font-size: 13px; }
.verdict { list-style: none; margin: 0; padding: 12px 16px; border-radius: 10px; background: var(--panel);
  border: 1px solid var(--grid); border-left: 4px solid var(--good); }
.verdict.failed { border-left-color: var(--bad); }
.verdict li::before { content: "\\2713"; color: var(--good); font-weight: 700; margin-right: 8px; }
.verdict.failed li::before { content: "\\2717"; color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 8px; font-size: 13px; color: var(--faint); }
.legend span { display: inline-flex; align-items: center; gap: 6px; }
.key { width: 12px; height: 12px; border-radius: 3px; display: inline-block; background: var(--colour); }
.scroll { overflow-x: auto; margin-top: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--faint); font-weight: 500; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.computed { --colour: var(--computed); } .without { --colour: var(--without); } .engine { --colour: var(--engine); }
.host { --colour: var(--host); } .disk { --colour: var(--disk); } .after { --colour: var(--after); }
.span-lookup { --colour: var(--faint); } .span-load, .span-copy { --colour: var(--disk); }
.span-prefill { --colour: var(--computed); } .span-decode { --colour: var(--engine); }
.span-settle { --colour: var(--computed); } .span-store { --colour: var(--host); } .ink { --colour: var(--ink); }
.mark { fill: var(--colour); } circle.mark { fill-opacity: .75; stroke: var(--page); stroke-width: 1; }
circle.mark.without { fill-opacity: .55; }
.line { fill: none; stroke: var(--colour); stroke-width: 2; stroke-linejoin: round; }
.halo { stroke: var(--page); stroke-width: 5; }
.grid { stroke: var(--grid); stroke-width: 1; } .median { stroke: var(--ink); stroke-width: 2.5; }
.kill { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3; }
.label { fill: var(--faint); paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
.label.strong { fill: var(--ink); font-weight: 600; }
"""
