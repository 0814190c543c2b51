"""The page's only style sheet. Every colour has a light and a dark value; none is the only bearer of a meaning."""

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2127; --quiet: #57606a; --edge: #d0d7de; --panel: #f6f8fa;
  --completion: #1a7f37; --disruption: #bc4c00; --failure: #cf222e; --never-started: #8250df; --neutral: #6e7781;
  --running: #0969da; --inside: #ffffff; --p1: #0969da; --p2: #bc4c00; --p3: #1a7f37; --p4: #6e7781; --p5: #8250df;
  --p6: #bf3989; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --ink: #e6edf3; --quiet: #9198a1; --edge: #3d444d;
  --panel: #151b23; --completion: #3fb950; --disruption: #f0883e; --failure: #ff7b72; --never-started: #bc8cff;
  --neutral: #9198a1; --running: #58a6ff; --inside: #0d1117; --p1: #58a6ff; --p2: #f0883e; --p3: #3fb950;
  --p4: #9198a1; --p5: #bc8cff; --p6: #f778ba; } }
* { box-sizing: border-box; }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 1040px; padding: 24px; }
h1 { font-size: 1.6em; margin: 0; } h2 { font-size: 1.25em; margin: 2em 0 .5em; overflow-wrap: anywhere; }
h1, p { overflow-wrap: anywhere; } .quiet { color: var(--quiet); }
dl { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
dl div { background: var(--panel); border: 1px solid var(--edge); border-radius: 6px; padding: 8px 14px; }
dt { color: var(--quiet); font-size: .85em; } dd { font-size: 1.15em; font-variant-numeric: tabular-nums; margin: 0; }
figure { margin: 16px 0; overflow-x: auto; } figure svg { min-width: 640px; }
figcaption { color: var(--quiet); font-size: .9em; }
svg { display: block; height: auto; width: 100%; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .tick { fill: var(--quiet); font-size: 11px; }
svg .inside { fill: var(--inside); } .grid { stroke: var(--edge); stroke-width: 1; }
.steps { fill: none; stroke-width: 2.5; } .lost { fill: none; stroke: var(--quiet); stroke-dasharray: 4 4; }
.bar.completion { fill: var(--completion); } .bar.disruption { fill: var(--disruption); }
.bar.failure { fill: var(--failure); } .bar.never-started { fill: var(--never-started); }
.bar.neutral { fill: var(--neutral); } .bar.running { fill: var(--running); }
.steps.completion { stroke: var(--completion); } .steps.disruption { stroke: var(--disruption); }
.steps.failure { stroke: var(--failure); } .steps.never-started { stroke: var(--never-started); }
.steps.neutral { stroke: var(--neutral); } .steps.running { stroke: var(--running); }
.bar.phase-detect { fill: var(--p1); } .bar.phase-drain { fill: var(--p2); } .bar.phase-prepare { fill: var(--p3); }
.bar.phase-queue { fill: var(--p4); } .bar.phase-start { fill: var(--p5); } .bar.phase-first-step { fill: var(--p6); }
.wide { overflow-x: auto; margin: 12px 0; } .wide:focus-visible { outline: 2px solid var(--running); }
table { border-collapse: collapse; font-size: .9em; font-variant-numeric: tabular-nums; width: 100%; }
caption { color: var(--quiet); padding: 4px 0; text-align: left; }
th, td { border-bottom: 1px solid var(--edge); padding: 5px 10px; text-align: left; vertical-align: top; }
th { font-weight: 600; } .word { white-space: nowrap; } td { max-width: 360px; overflow-wrap: break-word; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 16px; list-style: none; padding: 0; font-size: .9em; }
.legend svg { display: inline-block; height: 12px; vertical-align: -1px; width: 12px; }
@media print { body { max-width: none; } }
"""
