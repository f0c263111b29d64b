"""The script of timelines, in a browser where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

from vidloc.report import page

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
# What a reader does, and what the page shows after it: seconds of the video, of the playhead and in words.
PROBE = """
window.onload = async () => {
  const film = document.querySelector('.film'), video = film.querySelector('video');
  const lanes = film.querySelector('.lanes'), seconds = Number(lanes.dataset.seconds), seen = {};
  const settled = () => new Promise((done) => setTimeout(done, 150));
  const see = async (name) => {
    await settled();
    const head = parseFloat(film.querySelector('.now').style.left) / 100 * seconds;
    seen[name] = [video.currentTime, head, parseFloat(film.querySelector('.said').textContent),
      Number(lanes.getAttribute('aria-valuenow'))];
  };
  const press = (key) => lanes.dispatchEvent(new KeyboardEvent('keydown', {key, cancelable: true}));
  await settled();
  const box = lanes.getBoundingClientRect();
  const there = {clientX: box.left + box.width / 2, clientY: box.top + 4, bubbles: true};
  lanes.dispatchEvent(new MouseEvent('click', there));
  await see('click');
  press('ArrowRight');
  await see('right');
  press('Home');
  await see('home');
  film.querySelector('.on').click();
  await see('next');
  press('End');
  await see('end');
  film.querySelector('.zoom').click();
  await settled();
  seen.zoom = lanes.getBoundingClientRect().width / box.width;
  seen.role = [lanes.getAttribute('role'), lanes.tabIndex, film.querySelector('.steer').hidden];
  document.body.dataset.seen = JSON.stringify(seen);
};
"""


@pytest.mark.skipif(BROWSER is None, reason='no browser')
def test_clicks_keys_and_buttons_move_the_video(segment_workdir, tmp_path):
    path = page.write_page(segment_workdir, tmp_path / 'page')
    content = path.read_text(encoding='utf-8')
    # The policy of the page would stop the probe.
    content = re.sub(r'<meta http-equiv[^>]*>', '', content).replace('</body>', f'<script>{PROBE}</script></body>')
    path.write_text(content, encoding='utf-8')
    command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path / "browser"}']
    command += ['--virtual-time-budget=20000', '--dump-dom', path.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', shown)[1]))
    seconds = float(re.search(r'data-seconds="([0-9.]+)"', content)[1])
    starts = sorted(map(float, re.findall(r'data-from="([0-9.]+)"', content.split('</figure>')[0])))
    first = next(start for start in starts if start > 0.25)
    expected = {'click': seconds / 2, 'right': seconds / 2 + 1, 'home': 0.0, 'next': first, 'end': seconds}
    for name, time in expected.items():
        assert seen[name] == pytest.approx([time] * 4, abs=0.06), name
    assert seen['zoom'] == pytest.approx(4.0, rel=0.05) and seen['role'] == ['slider', 0, False]
