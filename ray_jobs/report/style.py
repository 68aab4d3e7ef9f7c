"""How reports look: on a screen and a phone, light and dark, and in print.

Colours of lines are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which most colour-blind readers tell
apart; lighter ones of the same order stand on dark ground.
"""

_LIGHT = """
--paper:#fff;--card:#f6f7f9;--ink:#16191d;--soft:#5b6470;--rule:#d9dee4;--accent:#0a5c9e;
--good:#00735a;--fair:#8a5a00;--poor:#b3401a;
--c0:#0072b2;--c1:#d55e00;--c2:#009371;--c3:#b8589a;--c4:#9a7b00;--c5:#3a9ad0;--c6:#7a5cc8;--c7:#6b7280;
"""
_DARK = """
--paper:#14171b;--card:#1d2126;--ink:#eef1f4;--soft:#a3adb8;--rule:#353c45;--accent:#7cc0f5;
--good:#4fd1ab;--fair:#f0b84a;--poor:#ff8f66;
--c0:#56b4e9;--c1:#ff9a4d;--c2:#2fd3a5;--c3:#e69ac6;--c4:#e8cf4a;--c5:#9fd6f7;--c6:#b9a3f5;--c7:#a3adb8;
"""
_CLASSES = "".join(
    f".line{n}{{stroke:var(--c{n})}}.fill{n}{{fill:var(--c{n});background:var(--c{n})}}" for n in range(8)
)

_CHART = (
    """
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--soft)}
svg .title{font-weight:600;fill:var(--ink);font-size:13px}
svg .value{fill:var(--ink)}
svg .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px}
svg .axis{stroke:var(--rule);fill:none}
svg .mark{stroke:var(--soft);stroke-dasharray:3 3;fill:none}
svg .curve{fill:none;stroke-linejoin:round;stroke-linecap:round}
svg .pale{stroke:var(--soft);opacity:.4}
svg .paledot{fill:var(--soft);opacity:.45}
svg .band{opacity:.16;stroke:none}
svg .all{stroke:var(--ink)}svg .allfill{fill:var(--ink)}
"""
    + _CLASSES
)

PICTURE_STYLE = f":root{{{_LIGHT}background:#fff}}{_CHART}"

STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    + """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:68rem;padding:2rem 1.25rem 3rem;background:var(--paper);color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header{border-bottom:1px solid var(--rule);padding-bottom:1.5rem}
h1{font-size:clamp(1.5rem,4vw,2.1rem);line-height:1.2;margin:0 0 1rem;overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:0 0 .4rem;letter-spacing:-.005em}
section{margin-top:2.75rem}
h3,.none{font-size:1rem;margin:1.6rem 0 0}
p{margin:0 0 .6rem}
.kicker{color:var(--soft);font-size:.85rem;margin:0 0 .3rem}
.verdict{font-size:clamp(1.1rem,2.6vw,1.35rem);line-height:1.45;max-width:52rem;margin:0;
 padding-left:1rem;border-left:4px solid var(--accent)}
.verdict.good{border-color:var(--good)}.verdict.fair{border-color:var(--fair)}.verdict.poor{border-color:var(--poor)}
.lead,figcaption,footer,.note{color:var(--soft)}
.lead{max-width:52rem}
.next{margin:1rem 0 0;padding-left:1.2rem;max-width:52rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11.5rem,1fr));gap:.75rem;margin-top:1.5rem}
.tiles>div{background:var(--card);border-radius:.6rem;padding:.85rem 1rem;display:flex;flex-direction:column}
.tiles .label{flex:1}
.tiles p{margin:0}
.tiles+.note{margin-top:.75rem;font-size:.875rem}
.tiles .label{color:var(--soft);font-size:.85rem}
.tiles .value{font-size:1.75rem;line-height:1.25;font-weight:600;font-variant-numeric:tabular-nums}
.tiles .note{font-size:.85rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:1.5rem 2rem;margin-top:1rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr));gap:1.5rem;margin-top:1rem}
figure{margin:0;min-width:0}
figcaption{font-size:.875rem;margin-top:.4rem;overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
svg{display:block;width:100%;height:auto}
"""
    + _CHART
    + """i.all{background:var(--ink)}i.pale{background:var(--soft);opacity:.5}
.span{width:8.5rem;margin-left:auto}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1rem;margin:.4rem 0 0;padding:0;
 font-size:.85rem;color:var(--soft)}
.legend i{display:inline-block;width:.85em;height:.85em;border-radius:.2em;margin-right:.4em;vertical-align:-.08em}
.half{max-width:34rem;margin-top:1rem}
.whole{display:flex;height:1.1rem;border-radius:.35rem;overflow:hidden;margin-top:1rem;gap:2px}
.scroll{overflow-x:auto;margin-top:1rem}
table{border-collapse:collapse;width:100%;font-size:.925rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.4rem .9rem .4rem 0;border-bottom:1px solid var(--rule);vertical-align:middle}
thead th{color:var(--soft);font-weight:500;font-size:.85rem;white-space:nowrap}
tbody th{font-weight:500;overflow-wrap:break-word;max-width:18rem}
.number{text-align:right}
td.number{white-space:nowrap}
.scroll .remark{min-width:14rem;color:var(--soft)}
tr.marked th,tr.marked td{font-weight:650}
td .soft,.soft{color:var(--soft);font-weight:400}
dl{columns:16rem;column-gap:2rem;margin:1rem 0 0;font-size:.875rem}
dl div{display:flex;justify-content:space-between;gap:1rem;border-bottom:1px solid var(--rule);padding:.2rem 0;
 break-inside:avoid}
dt{color:var(--soft);flex:none;max-width:60%;overflow-wrap:anywhere}
dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:0}
dl .marked dt,dl .marked dd{color:var(--ink);font-weight:650}
code{font:.875em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.xray{background:#000;border-radius:.35rem;overflow:hidden}
.xray text{font:600 13px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
.found{stroke:#e69f00;fill:none}.true{stroke:#56b4e9;fill:none;stroke-dasharray:7 4}
.casing{stroke:#000;fill:none;opacity:.65}
.xray .foundtext{fill:#e69f00;paint-order:stroke;stroke:#000;stroke-width:3px}
.xray .truetext{fill:#7cc8f2;paint-order:stroke;stroke:#000;stroke-width:3px}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--rule);font-size:.85rem}
footer p{margin:0 0 .2rem;overflow-wrap:anywhere}
@media (max-width:40rem){body{padding:1.25rem 1rem 2rem}section{margin-top:2.25rem}.tiles{grid-template-columns:1fr 1fr}
 svg text{font-size:15px}svg .title{font-size:16px}
 .tiles .value{font-size:1.4rem}.tiles>div{padding:.7rem .8rem}th,td{padding-right:.7rem}}
"""
    + f"@media print{{:root{{color-scheme:light;{_LIGHT}--card:#fff}}"
    + """
@page{margin:16mm 14mm}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{max-width:none;padding:0;font-size:10.5pt}
.tiles{grid-template-columns:repeat(4,1fr)}.tiles>div{border:1px solid var(--rule)}.tiles .value{font-size:1.35rem}
.grid{grid-template-columns:1fr 1fr}.pictures{grid-template-columns:repeat(3,1fr)}
section{margin-top:1.6rem}dl{columns:3;column-gap:1.2rem;font-size:7.5pt}.tiles{padding-right:1px}h2,h3,.lead{break-after:avoid}figure,tr,.tiles,header,.whole,.legend{break-inside:avoid}
.lead{break-inside:avoid}.scroll{overflow:visible}.scroll svg{min-width:0!important}}
"""
)
