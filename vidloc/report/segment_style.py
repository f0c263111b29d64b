"""Style and script of what a page shows of segments, as text."""

CSS = """
:root{--yes:#2a7d4f;--no:#b23b3b;--k5:#c9ccd2}
@media (prefers-color-scheme:dark){:root{--yes:#5cbd86;--no:#ec8178;--k5:#4a4f58}}
.k5{background:var(--k5)}
.films{display:grid;gap:38px;margin-top:1.2rem}
.film figcaption{font-weight:500;overflow-wrap:anywhere;margin:0 0 .5rem}
.film figcaption .note{font-weight:400;margin-left:.4em}
.screen{display:grid;grid-template-columns:minmax(0,1fr);gap:10px 22px;align-items:start}
@media (min-width:860px){.screen{grid-template-columns:minmax(0,360px) minmax(0,1fr)}}
.screen .missing{border:1px dashed var(--rule);border-radius:6px;padding:1.2rem;margin:0;color:var(--soft);
font-size:.9rem}
.screen video{max-height:46vh;object-fit:contain}
.reel{overflow-x:auto;overflow-y:hidden;padding:2px 2px 4px}
.lanes{position:relative;min-width:100%;width:calc(100%*var(--zoom,1));border-radius:4px}
.lanes[role=slider]{cursor:pointer}
.lanes:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
.lanes .axis{position:relative;height:20px;font-size:.76rem;color:var(--soft);border-bottom:1px solid var(--rule)}
.lanes .axis i{position:absolute;top:0;height:100%;font-style:normal;padding-left:4px;border-left:1px solid var(--rule);
white-space:nowrap;line-height:16px}
.lanes .axis .late{border:0;padding:0 3px 0 0;transform:translateX(-100%);border-right:1px solid var(--rule)}
.lane{padding:5px 0 6px;border-bottom:1px solid var(--rule)}
.lane .class{position:sticky;left:0;display:inline-block;max-width:100%;padding-left:5px;
font-size:.82rem;line-height:1.3;overflow-wrap:anywhere}
.lane .band{position:relative;display:block;height:12px;margin-top:2px;background:var(--track);border-radius:2px;
overflow:hidden}
.lane .band i{position:absolute;top:0;bottom:0;min-width:2px;border-radius:2px}
.lane .band .wrong{top:50%;outline:1px solid var(--track)}
.band .true{background:var(--ink)}
.band .guess,.band .other{--of:var(--yes);background:var(--tone);
--tone:color-mix(in srgb,var(--of) calc(var(--strength)*100%),var(--track))}
.band .wrong{--of:var(--no);background:repeating-linear-gradient(115deg,var(--tone) 0 3px,
color-mix(in srgb,var(--tone) 35%,var(--track)) 3px 5px)}
.film-keys .swatch.guess{background:var(--yes)}
.film-keys .swatch.guess.wrong{height:6px;background:repeating-linear-gradient(115deg,var(--no) 0 3px,
color-mix(in srgb,var(--no) 35%,var(--track)) 3px 5px)}
.now{position:absolute;top:0;bottom:0;left:0;width:2px;margin-left:-1px;background:var(--accent);pointer-events:none;
display:none}
.lanes[role=slider] .now{display:block}
.steer{display:flex;flex-wrap:wrap;gap:6px 8px;align-items:center;margin:.5rem 0 0;font-size:.86rem;max-width:none}
.steer[hidden]{display:none}
.steer button{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--rule);border-radius:6px;
padding:5px 10px;min-height:34px;cursor:pointer}
.steer button[aria-pressed=true]{border-color:var(--accent);color:var(--accent)}
.steer button:focus-visible{outline:2px solid var(--accent)}
.steer .said{color:var(--soft);overflow-wrap:anywhere;flex-basis:100%;min-height:3.1em}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,280px),1fr));gap:22px 34px;margin:1rem 0}
.chart figcaption{font-size:.9rem;font-weight:500;margin-bottom:.3rem}
.columns{position:relative;display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:8px;height:140px;margin-top:22px;
border-bottom:1px solid var(--soft)}
.column{position:relative;display:flex;align-items:flex-end;justify-content:center;gap:2px;height:100%;min-width:0}
.column i{position:relative;display:block;flex:0 1 34px;background:var(--accent);
border-radius:2px 2px 0 0;min-height:1px}
.column i.second{background:var(--hatch)}
.column i.none{background:none}
.column b{position:absolute;z-index:1;bottom:calc(100% + 1px);left:50%;transform:translateX(-50%);font-size:.74rem;
font-style:normal;font-weight:500;line-height:1.35;white-space:nowrap;
text-shadow:0 0 2px var(--paper),0 0 2px var(--paper),0 0 3px var(--paper),0 0 3px var(--paper)}
.column .second b{display:none}
.columns .level{position:absolute;left:0;right:0;border-top:1px dashed var(--ink)}
.columns .level.second{border-color:var(--second)}
.chart .under{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:8px;font-size:.8rem;
text-align:center;line-height:1.25;margin-top:4px}
.under small{display:block;color:var(--soft);font-size:.7rem;overflow-wrap:anywhere}
.swatch.level{height:0;width:20px;border-radius:0;background:none;border-top:1px dashed var(--ink)}
.swatch.hatched{background:var(--hatch)}
.bars.profile{--name:fit-content(60px);max-width:760px}
.two>div{min-width:0}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:8px 44px}
.two h4{margin:.4rem 0;font-size:.92rem;font-weight:500}
@media (max-width:600px){.lanes .axis .late{color:transparent}}
"""

# A click on a timeline, its arrow keys and its buttons move the video; the line follows the video.
SCRIPT = """
for (const film of document.querySelectorAll('.film')) {
  const video = film.querySelector('video'), lanes = film.querySelector('.lanes');
  if (!video || !lanes) continue;
  const seconds = Number(lanes.dataset.seconds), start = Number(video.dataset.start);
  const now = film.querySelector('.now'), said = film.querySelector('.said'), reel = film.querySelector('.reel');
  const pieces = [...lanes.querySelectorAll('[data-from]')].map((piece) => (
    {from: Number(piece.dataset.from), to: Number(piece.dataset.to), said: piece.dataset.said}));
  const starts = [...new Set(pieces.map((piece) => piece.from))].sort((a, b) => a - b);
  const button = film.querySelector('.play');
  video.controls = false;
  button.hidden = false;
  button.addEventListener('click', () => video.play());
  video.addEventListener('play', () => { button.hidden = true; video.controls = true; });
  let time = 0;
  const show = (at) => {
    time = at;
    now.style.left = 100 * Math.min(at / seconds, 1) + '%';
    const here = pieces.filter((piece) => piece.from <= at && at < piece.to).map((piece) => piece.said);
    const words = at.toFixed(1) + ' s' + (here.length ? ' · ' + here.join(' · ') : '');
    said.textContent = words;
    lanes.setAttribute('aria-valuenow', at.toFixed(1));
    lanes.setAttribute('aria-valuetext', words);
    const x = now.offsetLeft;
    if (x < reel.scrollLeft || x > reel.scrollLeft + reel.clientWidth) reel.scrollLeft = x - reel.clientWidth / 3;
  };
  const follow = () => {
    show(start + video.currentTime);
    if (!video.paused && !video.ended) requestAnimationFrame(follow);
  };
  video.addEventListener('play', follow);
  for (const name of ['seeked', 'timeupdate', 'loadedmetadata']) {
    video.addEventListener(name, () => show(start + video.currentTime));
  }
  const go = (at) => {
    const end = video.duration ? start + video.duration : seconds;
    const aim = Math.min(Math.max(at, start), Math.min(seconds, end));
    video.currentTime = aim - start;
    show(aim);
  };
  const step = (ways) => {
    const next = ways > 0 ? starts.find((at) => at > time + 0.25) : starts.findLast((at) => at < time - 0.25);
    if (next !== undefined) go(next);
  };
  const at = (event) => {
    const box = lanes.getBoundingClientRect();
    return seconds * (event.clientX - box.left) / box.width;
  };
  lanes.setAttribute('role', 'slider');
  lanes.setAttribute('aria-label', 'Time in ' + lanes.dataset.name);
  lanes.setAttribute('aria-valuemin', '0');
  lanes.setAttribute('aria-valuemax', seconds.toFixed(1));
  lanes.tabIndex = 0;
  film.querySelector('.steer').hidden = false;
  lanes.addEventListener('click', (event) => go(at(event)));
  lanes.addEventListener('pointermove', (event) => {
    if (event.pointerType === 'mouse' && event.buttons === 1) go(at(event));
  });
  lanes.addEventListener('keydown', (event) => {
    const moves = {
      ArrowLeft: () => go(time - 1), ArrowRight: () => go(time + 1), ArrowDown: () => go(time - 1),
      ArrowUp: () => go(time + 1), Home: () => go(start), End: () => go(seconds), PageUp: () => step(-1),
      PageDown: () => step(1), ' ': () => (video.paused ? video.play() : video.pause()),
    };
    if (event.ctrlKey || event.altKey || event.metaKey || !moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });
  film.querySelector('.back').addEventListener('click', () => step(-1));
  film.querySelector('.on').addEventListener('click', () => step(1));
  const zoom = film.querySelector('.zoom');
  zoom.addEventListener('click', () => {
    const wide = zoom.getAttribute('aria-pressed') !== 'true';
    zoom.setAttribute('aria-pressed', wide);
    lanes.style.setProperty('--zoom', wide ? 4 : 1);
    show(time);
  });
  go(Number(video.dataset.moment));
}
"""
