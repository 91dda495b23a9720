# SPDX-License-Identifier: Apache-2.0
"""Tests of app: the endpoints, by requests inside the process."""

import asyncio
import base64
import contextlib
import hashlib
import io
import re
import sys
import threading

import httpx
import numpy as np
from PIL import Image
import pytest

from im2txt import testing
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import library
from im2txt.serving import app as app_lib
from im2txt.serving import options as options_lib

_PREDICT = '/v1/models/im2txt:predict'


class _Model:
  """In the place of the network: a caption tells the size of its image.

  Attributes:
    gate: `threading.Event`, which a batch waits for; set at first.
    begun: `threading.Event`, set when a batch begins.
    batches: list of int, sizes.
    error: what a batch raises, or None.
  """

  def __init__(self):
    self.gate = threading.Event()
    self.gate.set()
    self.begun = threading.Event()
    self.batches = []
    self.error = None

  def caption(self, images, first_image=0):
    del first_image
    self.batches.append(len(images))
    self.begun.set()
    assert self.gate.wait(timeout=60)
    if self.error:
      raise self.error
    return [[captioner_lib.ScoredCaption(i, -1.0)] for i in images]


class _Captioner:
  """In the place of `library.Captioner`."""

  global_step = 7

  def __init__(self):
    self.model = _Model()

  def decode(self, data):
    try:
      with Image.open(io.BytesIO(data)) as image:
        image.load()
        return '{} x {}'.format(*image.size)
    except OSError as error:
      raise ValueError(f'damaged ({error})') from error


@contextlib.asynccontextmanager
async def _serving(captioner=None, wait=True, min_confidence=0.0, **limits):
  """Yields (client, server), in one event loop."""
  server = app_lib.Server(
    captioner or _Captioner(), options_lib.Options(**limits), min_confidence
  )
  async with server.app.router.lifespan_context(server.app):
    async with httpx.AsyncClient(
      transport=httpx.ASGITransport(server.app), base_url='http://server'
    ) as client:
      while wait and not server.is_ready:
        await asyncio.sleep(0.001)
      if wait and isinstance(server._captioner, _Captioner):
        server._captioner.model.batches.clear()
        server._captioner.model.begun.clear()
      yield client, server


def _run(test, **options):
  """Runs test(client, server) against a server of `_Captioner`."""

  async def main():
    async with _serving(**options) as (client, server):
      captioner = server._captioner
      try:
        await test(client, server)
      finally:
        captioner.model.gate.set()

  asyncio.run(main())


def _files(*images):
  return [
    ('image', (f'{i}.jpg', data, 'image/jpeg')) for i, data in enumerate(images)
  ]


def _instances(*images):
  return {'instances': [{'b64': base64.b64encode(d).decode()} for d in images]}


async def _in_thread(event):
  assert await asyncio.to_thread(event.wait, 60)


def test_one_image_as_the_body_and_several_in_a_form():
  async def test(client, server):
    del server
    answer = await client.post('/v1/captions', content=testing.jpeg())
    assert answer.status_code == 200
    assert answer.json() == {
      'images': [
        {
          'image': '',
          'captions': [
            {
              'caption': '60 x 40',
              'log_probability': -1.0,
              'probability': pytest.approx(np.exp(-1)),
            }
          ],
        }
      ]
    }
    answer = await client.post(
      '/v1/captions',
      files=_files(testing.jpeg(), testing.jpeg(width=30)),
      data={'note': 'no file'},
    )
    assert [
      (image['image'], image['captions'][0]['caption'])
      for image in answer.json()['images']
    ] == [('0.jpg', '60 x 40'), ('1.jpg', '30 x 40')]

  _run(test)


def test_confidences_are_told_where_there_are_any():
  class Confident(_Model):
    def caption(self, images, first_image=0):
      return [
        [captioner_lib.ScoredCaption(c.text, -1.0, 0.25) for c in captions]
        for captions in super().caption(images, first_image)
      ]

  async def test(client, server):
    del server
    answer = await client.post('/v1/captions', content=testing.jpeg())
    (caption,) = answer.json()['images'][0]['captions']
    assert caption['confidence'] == 0.25
    encoded = {'b64': base64.b64encode(testing.jpeg()).decode()}
    answer = await client.post(_PREDICT, json={'instances': [encoded]})
    assert answer.json()['predictions'][0]['confidences'] == [0.25]

  captioner = _Captioner()
  captioner.model = Confident()
  _run(test, captioner=captioner)

  async def abstains(client, server):
    del server
    answer = await client.post('/v1/captions', content=testing.jpeg())
    assert answer.json()['images'] == [
      {'image': '', 'captions': [], 'abstained_at_confidence': 0.25}
    ]
    answer = await client.post(_PREDICT, json=_instances(testing.jpeg()))
    assert answer.json()['predictions'] == [
      {
        'captions': [],
        'log_probabilities': [],
        'confidences': [],
        'abstained_at_confidence': 0.25,
      }
    ]

  _run(abstains, captioner=captioner, min_confidence=0.3)


def test_the_format_of_tensorflow_serving():
  async def test(client, server):
    del server
    encoded = {'b64': base64.b64encode(testing.jpeg()).decode()}
    prediction = {'captions': ['60 x 40'], 'log_probabilities': [-1.0]}
    for content in (
      {'instances': [encoded]},
      {'instances': [{'image': encoded}], 'signature_name': 'x'},
      {'inputs': encoded},
      {'inputs': [encoded]},
      {'inputs': {'image': [encoded]}},
      {'inputs': {'image': encoded}},
    ):
      answer = await client.post(_PREDICT, json=content)
      assert answer.status_code == 200, answer.text
      assert answer.json() == {'predictions': [prediction]}
    answer = await client.get('/v1/models/im2txt')
    (version,) = answer.json()['model_version_status']
    assert version['version'] == '7' and version['state'] == 'AVAILABLE'

  _run(test)


@pytest.mark.parametrize(
  'content, reason',
  [
    (b'', 'not JSON'),
    (b'[' * 100_000, 'not JSON'),
    (b'[]', 'neither "instances" nor "inputs"'),
    (b'{"instances": [], "inputs": []}', 'neither "instances" nor "inputs"'),
    (b'{"instances": []}', 'no list of images'),
    (b'{"instances": "a"}', 'no list of images'),
    (b'{"inputs": 3}', 'no list of images'),
    (b'{"instances": [3]}', 'not an image as {"b64": "..."}'),
    (b'{"instances": [{"b64": 3}]}', 'not an image as {"b64": "..."}'),
    (b'{"instances": [{"b64": "%%%%"}]}', 'not base64'),
  ],
)
def test_a_damaged_prediction_is_refused(content, reason):
  async def test(client, server):
    del server
    answer = await client.post(_PREDICT, content=content)
    assert answer.status_code == 400
    assert reason in answer.json()['error']

  _run(test)


def test_bad_images_have_a_reason_and_the_others_captions():
  exif = b'\xff\xd8\xff\xe1'
  bad = [
    (b'', 400, 'the file is empty'),
    (testing.jpeg()[:100], 422, 'damaged'),
    (exif, 422, 'damaged JPEG image: it ends in its header'),
    (b'%PDF-1.4', 415, 'PDF document: this kind is not read'),
    (b'\0' * 100, 415, 'not an image of a kind that is read'),
    (testing.claim_size(testing.jpeg(), 60_000, 60_000), 413, 'too large'),
    (testing.jpeg(height=400, width=700), 413, 'no more than 200000 are'),
    (b'GIF89a' + b'\0' * 50_000, 413, 'the file has 50006 bytes'),
  ]

  async def test(client, server):
    answer = await client.post(
      '/v1/captions',
      files=_files(testing.jpeg(), *(b[0] for b in bad), testing.jpeg()),
    )
    assert answer.status_code == 200
    first, *found, last = answer.json()['images']
    assert 'captions' in first and 'captions' in last
    for (_, status, reason), image in zip(bad, found, strict=True):
      assert 'captions' not in image
      assert image['status'] == status, image
      assert reason in image['error']
    for data, status, reason in bad[1:]:
      for answer in (
        await client.post('/v1/captions', content=data),
        await client.post(_PREDICT, json=_instances(data)),
      ):
        assert answer.status_code == status
        assert reason in answer.json()['error']
    answer = await client.post(
      _PREDICT, json=_instances(testing.jpeg()[:100], testing.jpeg())
    )
    assert 'damaged' in answer.json()['predictions'][0]['error']
    assert answer.json()['predictions'][1]['captions'] == ['60 x 40']
    # Of all that was refused nothing is held.
    assert not server._batcher.admitted and not server._memory._held

  _run(test, max_image_bytes=40_000, max_image_pixels=200_000)


def test_a_request_without_an_image_or_with_too_many_is_refused():
  async def test(client, server):
    del server
    for answer, status, reason in (
      (await client.post('/v1/captions'), 400, 'no image'),
      (
        await client.post(
          '/v1/captions', files={'a': (None, b'a field', None)}
        ),
        400,
        'the form has no file',
      ),
      (
        await client.post(
          '/v1/captions',
          content=b'--x\r\nnonsense',
          headers={'content-type': 'multipart/form-data; boundary=x'},
        ),
        400,
        'damaged multipart/form-data',
      ),
      (
        await client.post(
          '/v1/captions',
          content=b'--x',
          headers={'content-type': 'multipart/form-data'},
        ),
        400,
        'damaged multipart/form-data',
      ),
      (
        await client.post('/v1/captions', files=_files(*[b'a'] * 4)),
        413,
        'more than the 3 images',
      ),
      (
        await client.post('/v1/captions', files=_files(*[b'a'] * 40)),
        413,
        'more than the 3 images',
      ),
      (
        await client.post(_PREDICT, json=_instances(*[b'a'] * 4)),
        413,
        'more than the 3 images',
      ),
      (
        await client.post('/v1/captions', content=b'a' * 10_001),
        413,
        'larger than the 10000 bytes',
      ),
      (
        await client.post('/v1/captions', content=_slowly(b'a' * 6000, 2)),
        413,
        'larger than the 10000 bytes',
      ),
      (await client.get('/nothing'), 404, 'there is nothing at /nothing'),
      (await client.get('/v1/captions'), 405, 'does not take GET'),
    ):
      assert answer.status_code == status, answer.text
      assert reason in answer.json()['error']

  _run(test, max_request_images=3, max_request_bytes=10_000)


async def _slowly(chunk, times, event=None):
  """Yields a chunk some times, and the rest once an event is set."""
  for _ in range(times):
    yield chunk
  if event:
    await event.wait()


def test_requests_of_all_clients_share_batches():
  async def test(client, server):
    model = server._captioner.model
    model.gate.clear()
    first = asyncio.create_task(
      client.post('/v1/captions', content=testing.jpeg())
    )
    await _in_thread(model.begun)
    others = [
      asyncio.create_task(
        client.post('/v1/captions', content=testing.jpeg(width=20 + i))
      )
      for i in range(6)
    ]
    while server._batcher._live() < 6:
      await asyncio.sleep(0.001)
    model.gate.set()
    answers = await asyncio.gather(first, *others)
    assert [
      answer.json()['images'][0]['captions'][0]['caption'] for answer in answers
    ] == ['60 x 40', *(f'{20 + i} x 40' for i in range(6))]
    assert model.batches == [1, 4, 2]

  _run(test, batch_size=4, batch_wait_ms=0.0)


def test_what_there_is_no_room_for_is_refused_and_the_rest_is_answered():
  async def test(client, server):
    model = server._captioner.model
    model.gate.clear()
    accepted = [
      asyncio.create_task(client.post('/v1/captions', content=testing.jpeg()))
      for _ in range(3)
    ]
    while server._batcher.admitted < 3:
      await asyncio.sleep(0.001)
    for answer in (
      await client.post('/v1/captions', content=testing.jpeg()),
      await client.post(_PREDICT, json=_instances(testing.jpeg())),
    ):
      assert answer.status_code == 429
      assert int(answer.headers['retry-after']) >= 1
      assert 'try again later' in answer.json()['error']
    model.gate.set()
    assert [a.status_code for a in await asyncio.gather(*accepted)] == [200] * 3
    answer = await client.post('/v1/captions', content=testing.jpeg())
    assert answer.status_code == 200

  _run(test, queue_size=3, max_request_images=3)


def test_requests_and_their_bytes_at_once_are_limited():
  async def test(client, server):
    go_on = asyncio.Event()
    slow = [
      asyncio.create_task(
        client.post('/v1/captions', content=_slowly(b'a' * 600, 1, go_on))
      )
      for _ in range(2)
    ]
    while server._memory._held < 1200:
      await asyncio.sleep(0.001)
    answer = await client.post('/v1/captions', content=b'a')
    assert answer.status_code == 429
    assert '2 requests are running' in answer.json()['error']
    slow[0].cancel()
    with contextlib.suppress(asyncio.CancelledError):
      await slow[0]
    answer = await client.post('/v1/captions', content=b'a' * 900)
    assert answer.status_code == 429
    assert 'too much memory' in answer.json()['error']
    go_on.set()
    assert (await slow[1]).status_code == 415
    assert not server._memory._held and not server._running

  _run(test, max_requests=2, max_bytes_at_once=1400, max_request_bytes=1000)


def test_what_takes_too_long_is_told_so():
  async def test(client, server):
    model = server._captioner.model
    model.gate.clear()
    answer = await client.post('/v1/captions', content=testing.jpeg())
    assert answer.status_code == 504
    assert 'within 0.05 seconds' in answer.json()['error']
    answer = await client.post(
      '/v1/captions', content=_slowly(b'a', 1, asyncio.Event())
    )
    assert answer.status_code == 408
    assert not server._batcher.admitted

  # The model is let go by the test's end only.
  _run(test, request_seconds=0.05)


def test_a_batch_that_fails_ends_no_more_than_its_requests():
  async def test(client, server):
    server._captioner.model.error = MemoryError()
    answer = await client.post('/v1/captions', content=testing.jpeg())
    assert answer.status_code == 500
    assert answer.json()['error'] == 'the model failed'
    server._captioner.model.error = None
    answer = await client.post('/v1/captions', content=testing.jpeg())
    assert answer.status_code == 200

  _run(test)


def test_it_is_alive_at_once_and_ready_when_batches_are_warm():
  captioner = _Captioner()
  captioner.model.gate.clear()

  async def test(client, server):
    assert (await client.get('/healthz')).status_code == 200
    for answer in (
      await client.get('/readyz'),
      await client.post('/v1/captions', content=testing.jpeg()),
    ):
      assert answer.status_code == 503
      assert answer.headers['retry-after'] == '1'
    model = (await client.get('/v1/models/im2txt')).json()
    assert model['model_version_status'][0]['state'] == 'LOADING'
    captioner.model.gate.set()
    while not server.is_ready:
      await asyncio.sleep(0.001)
    assert (await client.get('/readyz')).status_code == 200
    assert captioner.model.batches == [1, 2, 4, 6]

  _run(test, captioner=captioner, wait=False, batch_size=6)


def test_a_model_that_fails_on_a_blank_image_is_not_well():
  captioner = _Captioner()
  captioner.model.error = ValueError('no weights')

  async def test(client, server):
    while (await client.get('/healthz')).status_code == 200:
      await asyncio.sleep(0.001)
    answer = await client.get('/healthz')
    assert answer.status_code == 500
    assert 'see the log' in answer.json()['error']
    assert (await client.get('/readyz')).status_code == 503

  _run(test, captioner=captioner, wait=False)


def test_metrics_count_what_became_of_images():
  async def test(client, server):
    del server
    await client.post('/v1/captions', files=_files(testing.jpeg(), b'no'))
    await client.post('/v1/captions', content=b'no')
    text = (await client.get('/metrics')).text
    for line in (
      'im2txt_images_total{outcome="captioned"} 1.0',
      'im2txt_images_total{outcome="bad"} 2.0',
      'im2txt_images_total{outcome="refused"} 0.0',
      'im2txt_requests_total{endpoint="/v1/captions",status="200"} 1.0',
      'im2txt_requests_total{endpoint="/v1/captions",status="415"} 1.0',
      'im2txt_batch_images_count 1.0',
      'im2txt_request_seconds_count{endpoint="/v1/captions"} 2.0',
      'im2txt_queued_images 0.0',
      'im2txt_ready 1.0',
    ):
      assert line in text, text

  _run(test)


def test_the_document_tells_of_every_endpoint():
  async def test(client, server):
    document = (await client.get('/openapi.json')).json()
    endpoints = {
      (route.path, method.lower())
      for route in server.app.routes
      for method in route.methods - {'HEAD'}
    }
    assert endpoints == {
      (path, method)
      for path, methods in document['paths'].items()
      for method in methods
    }
    assert '3 images' in document['info']['description']
    schemas = document['components']['schemas']
    named = set()

    def visit(value):
      if isinstance(value, dict):
        named.add(
          value.get('$ref', '#/components/schemas/Image').split('/')[-1]
        )
        value = list(value.values())
      if isinstance(value, list):
        for part in value:
          visit(part)

    visit(document)
    assert named == set(schemas)

  _run(test, max_request_images=3)


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  return path


def test_how_a_caption_came_about(directory):
  captioner = library.Captioner.load(
    directory, beam_size=7, max_caption_length=6
  )
  image = testing.jpeg(2)

  async def main():
    async with _serving(captioner, batch_size=1) as (client, _):
      words = {'words': '["a", "dog"]'}
      return (
        await client.post('/v1/captions', content=image),
        await client.post('/v1/beams', content=image),
        await client.post('/v1/attributions', content=image, params=words),
        [
          await client.post('/v1/beams', content=b'no image'),
          await client.post('/v1/beams', files=_files(image, image)),
          await client.post('/v1/attributions', content=image),
          *[
            await client.post(
              '/v1/attributions', content=image, params={'words': bad}
            )
            for bad in (
              '[',
              '[]',
              '[1]',
              '{}',
              '["a"' + ', "a"' * 200 + ']',
              r'["\ud800"]',  # Half a surrogate pair.
            )
          ],
        ],
      )

  answer, beams, attributions, bad = asyncio.run(main())
  captions = answer.json()['images'][0]['captions']
  assert [c['caption'] for c in beams.json()['captions']] == [
    c['caption'] for c in captions
  ]
  first, second, *_ = beams.json()['steps']
  assert first['partial'][0]['words'] == []
  assert first['partial'][0]['parent'] is None
  assert second['partial'][0]['words'] == [
    first['partial'][0]['alternatives'][0]['word']
  ]
  found = attributions.json()
  assert found['words'] == ['a', 'dog']
  assert len(found['maps']) == 2 and len(found['seen']) == 4
  assert [a.status_code for a in bad] == [415, 413, *[400] * 7]
  assert all(a.json()['error'] for a in bad)


def test_a_search_whose_steps_are_not_kept_is_told(directory):
  captioner = library.Captioner.load(directory, sample=True)

  async def main():
    async with _serving(captioner, batch_size=1) as (client, _):
      return await client.post('/v1/beams', content=testing.jpeg())

  answer = asyncio.run(main())
  assert answer.status_code == 400
  assert 'of a search as in 2016' in answer.json()['error']


def test_the_page_needs_nothing_from_elsewhere():
  async def test(client, server):
    del server
    answer = await client.get('/')
    assert answer.headers['content-type'].startswith('text/html')
    assert not re.search(r'(?:src|href)="(?!data:)', answer.text)
    assert '//' not in re.sub(r'^\s*//.*$', '', answer.text, flags=re.MULTILINE)
    policy = answer.headers['content-security-policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy
    for tag in ('script', 'style'):
      (text,) = re.findall(f'<{tag}>(.*?)</{tag}>', answer.text, re.DOTALL)
      digest = base64.b64encode(hashlib.sha256(text.encode()).digest())
      assert f"{tag}-src 'sha256-{digest.decode()}'" in policy

  _run(test)


def test_example_photos_are_those_of_the_project_and_no_other_files():
  async def test(client, server):
    del server
    photos = (await client.get('/photos')).json()['photos']
    assert len(photos) == 12 and 'bison.jpg' in photos
    answer = await client.get('/photos/bison.jpg')
    assert answer.headers['content-type'] == 'image/jpeg'
    assert Image.open(io.BytesIO(answer.content)).size[0] == 480
    for name in ('README.md', '..%2f..%2fREADME.md', 'none.jpg'):
      assert (await client.get(f'/photos/{name}')).status_code == 404

  _run(test)


def test_captions_are_those_of_the_library(directory):
  captioner = library.Captioner.load(directory)
  images = [testing.jpeg(i) for i in range(5)]
  expected = captioner.caption(images)

  async def main():
    async with _serving(captioner, batch_size=4) as (client, _):
      return (
        await client.post('/v1/captions', files=_files(*images)),
        await client.post(_PREDICT, json=_instances(*images)),
      )

  answer, predictions = asyncio.run(main())
  for captions, image, prediction in zip(
    expected,
    answer.json()['images'],
    predictions.json()['predictions'],
    strict=True,
  ):
    texts = [caption.text for caption in captions]
    assert [c['caption'] for c in image['captions']] == texts
    assert prediction['captions'] == texts
    for found in (
      [c['log_probability'] for c in image['captions']],
      prediction['log_probabilities'],
    ):
      np.testing.assert_allclose(
        found, [c.log_probability for c in captions], atol=1e-5
      )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
