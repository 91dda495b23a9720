# SPDX-License-Identifier: Apache-2.0
"""Tests of the page, in a browser without a window.

The browser is Chromium, which the tests do without where it is not installed.
It is spoken to over two pipes, in the Chrome DevTools Protocol.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
import uvicorn

from im2txt import testing
from im2txt.inference_utils import library
from im2txt.serving import app
from im2txt.serving import options as options_lib
from im2txt.serving import process

_CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chrome'))), None
)
_needs_chromium = pytest.mark.skipif(
  not _CHROMIUM, reason='Chromium is not installed'
)

# Resolves once a condition holds; the test's own limit ends what never does.
_UNTIL = """
globalThis.until = condition => new Promise(done => {
  const look = () => condition() ? done(true) : setTimeout(look, 10);
  look();
});
"""


class Browser:
  """A page in a browser without a window.

  Args:
    input_fd: of the pipe that the browser reads.
    output_fd: of the one that it writes.

  Attributes:
    complaints: list of str, what the page's scripts and the browser complained
      of.
  """

  def __init__(self, input_fd, output_fd):
    self._in = os.fdopen(input_fd, 'wb')
    self._out = os.fdopen(output_fd, 'rb')
    self._number = 0
    self._session = None
    self.complaints = []

  def call(self, method, **params):
    """Calls a method of the protocol; returns its result."""
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': params}
    if self._session:
      message['sessionId'] = self._session
    self._in.write(json.dumps(message).encode() + b'\0')
    self._in.flush()
    while True:
      answer = json.loads(self._read())
      if answer.get('id') == self._number:
        assert 'error' not in answer, answer
        return answer['result']
      is_error = (
        answer.get('params', {}).get('entry', {}).get('level') == 'error'
      )
      if answer.get('method') == 'Runtime.exceptionThrown' or is_error:
        self.complaints.append(json.dumps(answer['params']))

  def _read(self):
    read = b''
    while not read.endswith(b'\0'):
      byte = self._out.read(1)
      assert byte, 'the browser ended'
      read += byte
    return read[:-1]

  def open(self, address):
    """Shows a page."""
    self.complaints = []
    self._session = None
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    self._session = self.call(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'DOM'):
      self.call(f'{domain}.enable')
    self.call('Page.addScriptToEvaluateOnNewDocument', source=_UNTIL)
    self.call('Page.navigate', url=address)
    self.run('until(() => document.querySelectorAll("#examples img").length)')

  def run(self, script):
    """Returns the value of a script in the page, once it is there."""
    result = self.call(
      'Runtime.evaluate',
      expression=script,
      awaitPromise=True,
      returnByValue=True,
    )
    assert 'exceptionDetails' not in result, result
    return result['result'].get('value')

  def press(self, key, code, text=''):
    """Presses a key."""
    for kind in ('keyDown', 'keyUp'):
      self.call(
        'Input.dispatchKeyEvent',
        type=kind,
        key=key,
        code=key,
        windowsVirtualKeyCode=code,
        text=text if kind == 'keyDown' else '',
      )

  def choose(self, *paths):
    """Gives files to the input of the page."""
    root = self.call('DOM.getDocument')['root']['nodeId']
    node = self.call('DOM.querySelector', nodeId=root, selector='#files')
    self.call(
      'DOM.setFileInputFiles',
      files=list(map(str, paths)),
      nodeId=node['nodeId'],
    )

  def resize(self, width, height, scheme='light'):
    """Gives the page another size, in pixels, and 'light' or 'dark'."""
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    self.call(
      'Emulation.setEmulatedMedia',
      features=[{'name': 'prefers-color-scheme', 'value': scheme}],
    )

  def screenshot(self, path):
    """Writes a PNG of the whole page."""
    data = self.call(
      'Page.captureScreenshot', captureBeyondViewport=True, format='png'
    )['data']
    with open(path, 'wb') as f:
      f.write(base64.b64decode(data))


@contextlib.contextmanager
def browsing(profile):
  """Yields a `Browser`.

  Args:
    profile: directory for what it writes.
  """
  theirs_in, ours_in = os.pipe()
  ours_out, theirs_out = os.pipe()
  with subprocess.Popen(
    [
      # Not sh, which may know descriptors of one digit only.
      'bash',
      '-c',
      f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}',
      'bash',
      _CHROMIUM,
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      f'--user-data-dir={profile}',
      '--remote-debugging-pipe',
      'about:blank',
    ],
    pass_fds=(theirs_in, theirs_out),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    env={**os.environ, 'HOME': str(profile)},
  ) as chromium:
    os.close(theirs_in)
    os.close(theirs_out)
    try:
      yield Browser(ours_in, ours_out)
    finally:
      chromium.kill()


@pytest.fixture(scope='module', name='address')
def fixture_address(tmp_path_factory):
  """The address of a server of a model of random weights."""
  directory = tmp_path_factory.mktemp('model')
  testing.caption_model(directory)
  captioner = library.Captioner.load(
    directory,
    beam_size=7,
    max_caption_length=6,
    # Otherwise the best caption of random weights has no word.
    length_normalization_factor=3.0,
  )
  served = app.Server(captioner, options_lib.Options(batch_size=1))
  server = uvicorn.Server(
    uvicorn.Config(served.app, log_config=None, lifespan='on')
  )
  with process.bind('127.0.0.1', 0) as bound:
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    while thread.is_alive() and not served.is_ready:
      thread.join(0.01)
    try:
      yield process.address_of(bound)
    finally:
      server.should_exit = True
      thread.join()


@pytest.fixture(scope='module', name='browser')
def fixture_browser(tmp_path_factory):
  with browsing(tmp_path_factory.mktemp('profile')) as browser:
    yield browser


def _captions(browser, number):
  """Returns the captions that the page shows, once there are so many photos."""
  browser.run(
    f'until(() => document.querySelectorAll("article").length === {number} && '
    '!document.getElementById("status").textContent.includes("…"))'
  )
  return browser.run(
    '[...document.querySelectorAll("article")].map(card => '
    '[...card.querySelectorAll(".sentence")].map(s => '
    '[...s.children].map(word => word.textContent).join(" ")))'
  )


@_needs_chromium
def test_an_example_by_keyboard(browser, address):
  browser.open(address)
  assert browser.run('document.querySelectorAll("#examples img").length') == 12
  browser.run('document.querySelector("#choose").focus()')
  for _ in range(2):
    browser.press('Tab', 9)
  assert browser.run('document.activeElement.ariaLabel') == (
    'Caption the example astronaut'
  )
  browser.press('Enter', 13, '\r')
  ((first, *others),) = _captions(browser, 1)
  assert len(others) == 6 and any(others)
  assert browser.run('document.querySelector("#status").textContent') == (
    f'astronaut: {first or "no caption"}'
  )
  assert not browser.complaints


@_needs_chromium
def test_photos_are_chosen_dropped_and_pasted(browser, address, tmp_path):
  for i in range(2):
    (tmp_path / f'{i}.jpg').write_bytes(testing.jpeg(i))
  (tmp_path / 'broken.jpg').write_bytes(testing.jpeg()[:200])
  browser.open(address)
  browser.choose(tmp_path / '0.jpg', tmp_path / '1.jpg')
  assert all(_captions(browser, 2))
  data = base64.b64encode(testing.jpeg(3)).decode()
  browser.run(f"""
    globalThis.transfer = new DataTransfer();
    transfer.items.add(new File(
      [Uint8Array.from(atob('{data}'), c => c.charCodeAt(0))], 'a.jpg',
      {{type: 'image/jpeg'}}));
    document.body.dispatchEvent(new DragEvent(
      'drop', {{dataTransfer: transfer, bubbles: true, cancelable: true}}));
    undefined;
  """)
  dropped = _captions(browser, 3)[0]
  browser.run(
    'document.body.dispatchEvent(new ClipboardEvent('
    '"paste", {clipboardData: transfer, bubbles: true})); undefined'
  )
  assert _captions(browser, 4)[0] == dropped
  browser.choose(tmp_path / 'broken.jpg')
  assert not _captions(browser, 5)[0]
  assert 'No caption: damaged JPEG image' in browser.run(
    'document.querySelector("article").textContent'
  )


@_needs_chromium
def test_a_kind_that_only_the_browser_reads_is_converted(browser, address):
  browser.open(address)
  browser.run("""
    show(new Blob(['<svg xmlns="http://www.w3.org/2000/svg" width="80" ' +
      'height="60"><rect width="50" height="60" fill="red"/></svg>'],
      {type: 'image/svg+xml'}), 'drawing');
    undefined;
  """)
  # `createImageBitmap` takes no SVG, so the server's reason is shown.
  assert not _captions(browser, 1)[0]
  assert 'SVG drawing' in browser.run(
    'document.querySelector("article").textContent'
  )
  browser.run("""
    globalThis.taken = [];
    globalThis.original = fetch;
    globalThis.fetch = (path, options) => {
      taken.push(options.body.type);
      return taken.length > 1 ? original(path, options) : Promise.resolve(
        new Response('{"error": "HEIC image"}', {status: 415}));
    };
    const canvas = document.createElement('canvas');
    canvas.getContext('2d').fillRect(0, 0, 40, 40);
    canvas.toBlob(blob => show(blob, 'photo'), 'image/png');
    undefined;
  """)
  assert _captions(browser, 2)[0]
  assert browser.run('taken') == ['image/png', 'image/jpeg']


@_needs_chromium
def test_a_word_shows_its_regions_and_the_beam_its_steps(browser, address):
  browser.open(address)
  browser.run('document.querySelector("#examples button").click()')
  _captions(browser, 1)
  browser.run('document.querySelector(".sentence button").click()')
  browser.run(
    'until(() => document.querySelector("article").textContent'
    '.includes("Bright regions"))'
  )
  painted = (
    '(() => {const c = document.querySelector("canvas"); return c.width > 1 && '
    'c.getContext("2d").getImageData(0, 0, c.width, c.height).data'
    '.some(value => value)})()'
  )
  assert browser.run(painted)
  browser.run('document.querySelector(".sentence button").focus()')
  browser.press('Escape', 27)
  assert not browser.run(painted)
  browser.run('[...document.querySelectorAll("article button")].at(-1).click()')
  browser.run('until(() => document.querySelector(".beam"))')
  steps = browser.run(
    '[...document.querySelectorAll(".step")].map(s => '
    '[...s.querySelectorAll("button")].map(b => b.firstChild.textContent))'
  )
  assert steps[0] == ['(start)'] and len(steps) > 3
  assert any('(end)' in step for step in steps)
  # The way of the best caption is marked, a word in each step.
  best = browser.run('document.querySelector(".sentence").textContent')
  kept = browser.run(
    '[...document.querySelectorAll(".step button.kept")].map(b => '
    'b.firstChild.textContent)'
  )
  assert ''.join(kept[1:-1]) == best and kept[-1] == '(end)'
  browser.run('document.querySelectorAll(".step")[1].lastChild.click()')
  assert 'The likeliest next words' in browser.run(
    'document.querySelector("article").textContent'
  )
  assert not browser.complaints


@_needs_chromium
def test_a_phone_and_the_dark(browser, address):
  browser.open(address)
  colors = []
  for width, scheme in ((360, 'light'), (1200, 'dark')):
    browser.resize(width, 740, scheme)
    browser.run('document.querySelector("#examples button").click()')
    _captions(browser, len(colors) + 1)
    assert browser.run('document.documentElement.scrollWidth') <= width
    colors.append(
      browser.run(
        '[document.body, document.querySelector("article")].map(e => '
        'getComputedStyle(e).backgroundColor)'
      )
    )
    small = browser.run(
      '[...document.querySelectorAll("button")].filter(b => '
      'b.offsetParent && b.getBoundingClientRect().height < 36).length'
    )
    assert not small
  assert colors[0] != colors[1]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
