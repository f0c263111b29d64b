"""The page's style and its script, as text: the page is one file that loads nothing."""

CSS = """
:root{color-scheme:light dark;--paper:#fbfaf8;--card:#fff;--ink:#1d1f23;--soft:#5f646d;--rule:#e3e1dc;--track:#efede8;
--accent:#1f5fa8;--second:#b3541e;--g0:#2f6db3;--g1:#1c8a7a;--g2:#b0478c;--mark:#1d1f23;--shade:#1f5fa8;
--k0:#2f6db3;--k1:#8a63b8;--k2:#d2862a;--k3:#a8503f;--k4:#9a9ea6;
--hatch:repeating-linear-gradient(115deg,var(--second) 0 3px,
color-mix(in srgb,var(--second) 35%,transparent) 3px 5px)}
@media (prefers-color-scheme:dark){:root{--paper:#15171b;--card:#1c1f24;--ink:#e6e7ea;--soft:#a0a6b1;--rule:#30343c;
--track:#272b32;--accent:#79b0ee;--second:#f0a071;--g0:#6aa5e6;--g1:#4fc0ad;--g2:#e283bf;--mark:#fff;--shade:#3f7fca;
--k0:#6aa5e6;--k1:#b596dd;--k2:#e3a55a;--k3:#d07c69;--k4:#7b818c}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:1120px;margin:0 auto;padding:0 28px}
header{padding-top:44px}
h1,h2,h3{line-height:1.2;font-weight:600;letter-spacing:-.01em;overflow-wrap:anywhere}
h1{font-size:2.1rem;margin:.1em 0 .25em}
h2{font-size:1.3rem;margin:0 0 .5rem}
h3{font-size:1rem;margin:1.6rem 0 .4rem}
.eyebrow{margin:0;color:var(--soft);font-size:.82rem;letter-spacing:.06em;text-transform:uppercase}
.meta{color:var(--soft);margin:0 0 1.6rem}
section{border-top:1px solid var(--rule);padding:30px 0 34px}
p{margin:.4rem 0;max-width:74ch;overflow-wrap:anywhere}
.note{color:var(--soft);font-size:.92rem}
.warn{color:var(--second)}
.verdict{border-left:3px solid var(--second);padding:.1rem 0 .1rem .9rem;margin:1rem 0}
.verdict.fine{border-color:var(--g1)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:16px;margin:0 0 34px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:18px 20px 16px}
.card p{margin:0}
.card .label{color:var(--soft);font-size:.88rem}
.card .big{font-size:2.7rem;line-height:1.15;font-weight:600;letter-spacing:-.02em;display:flex;flex-wrap:wrap;
align-items:baseline;column-gap:.18em}
.card .big small{font-size:1rem;font-weight:500;letter-spacing:0;color:var(--soft);white-space:nowrap;
line-height:1.4}
.card .more{font-size:.9rem;color:var(--soft);margin-top:.35rem}
.versus{margin:.5rem 0 .55rem}
.versus i{display:block;height:6px;border-radius:2px;margin:3px 0}
.versus .ours{background:var(--accent)}
.versus .base{background:var(--soft);opacity:.55}
.keys{display:flex;flex-wrap:wrap;gap:4px 18px;color:var(--soft);font-size:.86rem;margin:.6rem 0 .7rem;max-width:none}
.keys span{display:inline-flex;align-items:center;gap:6px}
.swatch{display:inline-block;width:14px;height:11px;border-radius:2px;background:var(--accent)}
.g0,.swatch.g0{background:var(--g0)}.g1,.swatch.g1{background:var(--g1)}.g2,.swatch.g2{background:var(--g2)}
.swatch.mark{width:3px;background:var(--mark)}
.swatch.other{width:11px;background:none;border:2px solid var(--second);border-radius:50%}
.bars{display:grid;gap:5px 10px;font-size:.92rem;--name:fit-content(190px);grid-template-columns:var(--name) 1fr auto}
.bars.wide{grid-template-columns:var(--name) auto 1fr auto}
.bars.compared{grid-template-columns:var(--name) 1fr auto auto}
.bars.wide.compared{grid-template-columns:var(--name) auto 1fr auto auto}
.bar{display:grid;grid-template-columns:subgrid;grid-column:1/-1;align-items:center}
.pair{display:grid;grid-template-columns:minmax(0,1fr);gap:10px 44px;align-items:start}
.pair h3{margin:.6rem 0 .4rem}
.pair .note{contain:inline-size}
@media (min-width:960px){.pair{grid-template-columns:minmax(340px,1fr) minmax(0,auto)}}
.bar .name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.bar .value,.bar .delta{text-align:right}
.bar .delta{color:var(--soft)}
.tag{font-size:.74rem;line-height:1.5;text-align:center;border-radius:3px;background:none}
.tag.g0{background:none;color:var(--g0)}.tag.g1{background:none;color:var(--g1)}.tag.g2{background:none;color:var(--g2)}
.bar .track{position:relative;display:block;height:16px;background:var(--track);border-radius:3px}
.bar .fill{position:absolute;inset:0 auto 0 0;border-radius:3px;background:var(--accent)}
.bar .fill.g0{background:var(--g0)}.bar .fill.g1{background:var(--g1)}.bar .fill.g2{background:var(--g2)}
.bar .mark{position:absolute;top:-2px;bottom:-2px;width:3px;margin-left:-1.5px;background:var(--mark);
outline:1px solid var(--paper)}
.bar .other{position:absolute;top:3px;width:10px;height:10px;margin-left:-5px;border:2px solid var(--second);
border-radius:50%;background:var(--paper)}
.bars.change{grid-template-columns:var(--name) 56px 1fr auto}
.bars.change.wide{grid-template-columns:var(--name) auto 56px 1fr auto}
.bars.levels{--name:fit-content(320px);max-width:760px}
.bars.levels .name{white-space:normal}
.bar .zero{position:absolute;top:-3px;bottom:-3px;width:1px;background:var(--soft)}
.bar .often{height:6px;background:var(--track);border-radius:3px;overflow:hidden}
.bar .often i{display:block;height:100%;background:var(--soft)}
.swatch.often{height:6px;background:var(--soft)}
.bar .parts{overflow:hidden}
.bar .parts i{position:absolute;top:0;bottom:0;border-right:1px solid var(--paper)}
.k0{background:var(--k0)}.k1{background:var(--k1)}.k2{background:var(--k2)}.k3{background:var(--k3)}
.k4{background:var(--k4)}
.beside{display:flex;flex-wrap:wrap;gap:0 60px}
.beside div{min-width:0}
.curve.wide{margin-top:1.6rem}
.curve.wide svg{max-width:520px}
.limit{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
.dot circle{fill:var(--accent);stroke:var(--paper);stroke-width:1}
.dot.g0 circle{fill:var(--g0)}.dot.g1 circle{fill:var(--g1)}.dot.g2 circle{fill:var(--g2)}
.small-curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(136px,1fr));gap:16px 18px;margin:.8rem 0}
.small figcaption{font-size:.84rem;font-weight:500;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.small svg{display:block;width:100%;max-width:220px;height:auto}
.small .final{margin:0;color:var(--soft);font-size:.8rem}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:22px 26px;margin-top:.8rem}
figure{margin:0;min-width:0}
.curve figcaption{font-size:.92rem;font-weight:500;overflow-wrap:anywhere}
.curve svg{display:block;width:100%;max-width:420px;height:auto}
.curve .final{margin:0;color:var(--soft);font-size:.84rem}
.grid{stroke:var(--rule);stroke-width:1}
.tick{fill:var(--soft);font:11px system-ui,sans-serif}
polyline.line{fill:none;stroke:var(--accent);stroke-width:1.8;stroke-linejoin:round}
circle.line{fill:var(--accent)}
polyline.second{stroke:var(--second);stroke-dasharray:5 3}
circle.second{fill:var(--card);stroke:var(--second);stroke-width:1.5}
.curve .keys{margin:.1rem 0 .3rem;gap:2px 12px;font-size:.82rem}
.many polyline{fill:none;stroke:var(--of);stroke-width:1.6;stroke-linejoin:round}
.many circle,.swatch.of{fill:var(--of);background:var(--of)}
.heat rect{fill:var(--shade)}
.heat .ground{fill:var(--track)}
.heat .grid{opacity:0}
.swatch.shade{background:var(--shade)}
.line-key{display:inline-block;width:26px;height:0;border-top:2px solid var(--accent)}
.line-key.second{border-top:2px dashed var(--second)}
details{margin:.5rem 0;font-size:.9rem}
summary{cursor:pointer;color:var(--soft);width:fit-content}
summary:hover{color:var(--ink)}
.scroll{overflow-x:auto;max-height:30rem;margin:.5rem 0}
table{border-collapse:collapse;font-size:.88rem}
caption{text-align:left;color:var(--soft);padding-bottom:.4rem;caption-side:top}
th,td{padding:3px 14px 3px 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule);vertical-align:top}
th:first-child,td.words{text-align:left}
thead th{color:var(--soft);font-weight:500}
tbody th{font-weight:500;white-space:normal;overflow-wrap:anywhere;min-width:8.2em}
.plain td,.plain th{white-space:normal}
.plain td{text-align:left;overflow-wrap:anywhere}
.scroll:has(.confusion){max-height:none}
.confusion td{min-width:36px;padding:6px 3px;text-align:center;border:1px solid var(--paper);
background:color-mix(in srgb,var(--shade) calc(var(--s)*100%),var(--track))}
.confusion td.strong{color:#fff}
.confusion td.diagonal{font-weight:600;border-color:var(--soft)}
.confusion tbody th{white-space:nowrap;border:0;padding:6px 10px 6px 0;min-width:0}
.confusion thead th{border:0;vertical-align:bottom;padding:0 0 6px;text-align:center}
.confusion thead span{writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap}
.videos{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:30px 26px;margin-top:1rem}
video{display:block;width:100%;height:auto;max-height:80vh;background:#18191e;border-radius:6px}
.clip figcaption{font-size:.92rem;margin:0 0 .4rem;font-weight:500;overflow-wrap:anywhere}
.stage{position:relative}
.play{position:absolute;right:12px;bottom:12px;width:46px;height:46px;border:0;border-radius:50%;cursor:pointer;
background:rgb(20 22 26/.72);color:#fff;font-size:17px;line-height:46px;padding:0 0 0 3px}
.play[hidden]{display:none}
.clip .missing{border:1px dashed var(--rule);border-radius:6px;padding:1.2rem;color:var(--soft);font-size:.9rem}
.timeline{position:relative;margin-top:8px;font-size:.82rem;cursor:pointer}
.timeline .row{display:grid;grid-template-columns:92px 1fr;gap:8px;align-items:center;height:21px}
.timeline .name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.timeline .track{position:relative;height:17px;background:var(--track);border-radius:2px}
.timeline .track i{position:absolute;display:block}
.timeline .true{top:0;height:50%;background:var(--ink)}
.timeline .guess{bottom:0;background:var(--hatch)}
.timeline .axis{height:18px;color:var(--soft);margin-bottom:3px}
.timeline .axis .track{background:none;height:12px}
.timeline .axis i{width:1px;top:1px;bottom:0;background:var(--soft)}
.timeline .over{position:absolute;inset:0 0 0 100px;pointer-events:none}
.timeline .head{position:absolute;top:0;bottom:0;width:2px;margin-left:-1px;left:0;background:var(--accent)}
.swatch.true{background:var(--ink);height:7px}
.swatch.guess{background:var(--hatch)}
footer{color:var(--soft);font-size:.86rem;padding-bottom:50px;border-top:1px solid var(--rule);padding-top:18px}
@media (max-width:600px){main,header,footer{padding-left:16px;padding-right:16px}header{padding-top:26px}
h1{font-size:1.6rem}table{font-size:.82rem}th,td{padding-right:9px}
.bars{gap:6px 7px;font-size:.86rem;--name:fit-content(108px)}.tag{display:none}
.bars.wide{grid-template-columns:var(--name) 1fr auto}
.bars.wide.compared{grid-template-columns:var(--name) 1fr auto auto}
.bars.change,.bars.change.wide{grid-template-columns:var(--name) 30px 1fr auto}.bars.levels{--name:fit-content(150px)}
.confusion td{min-width:22px;padding:5px 1px}
.confusion{font-size:.78rem}.confusion tbody th{padding-right:6px}
.card .big{font-size:2.3rem}.timeline .row{grid-template-columns:80px 1fr}.timeline .over{left:88px}}
@media print{body{background:#fff}section{break-inside:avoid}details{display:none}}
"""

# The playhead follows its video; a click on a timeline moves the video there. A player's controls hide the lower
# part of a picture that stands still, so they come with the first play; without scripts they are there at once.
SCRIPT = """
for (const clip of document.querySelectorAll('.clip')) {
  const video = clip.querySelector('video'), line = clip.querySelector('.timeline');
  if (!video || !line) continue;
  const button = clip.querySelector('.play');
  video.controls = false;
  button.hidden = false;
  button.addEventListener('click', () => video.play());
  video.addEventListener('play', () => { button.hidden = true; video.controls = true; });
  const head = line.querySelector('.head'), over = line.querySelector('.over');
  const show = () => {
    head.style.left = 100 * video.currentTime / (video.duration || 1) + '%';
    if (!video.paused) requestAnimationFrame(show);
  };
  for (const name of ['play', 'seeked', 'timeupdate', 'loadedmetadata']) video.addEventListener(name, show);
  line.addEventListener('click', (event) => {
    const box = over.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    if (video.duration) video.currentTime = share * video.duration;
  });
}
"""
