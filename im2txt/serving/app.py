# SPDX-License-Identifier: Apache-2.0
"""The endpoints of a server, an ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from concurrent import futures
import contextlib
import functools
import io
import json
import os
import time
from typing import Any

from absl import logging
from PIL import Image
from starlette import applications
from starlette import requests
from starlette import responses
from starlette import routing
from starlette import types
from starlette.exceptions import HTTPException

from im2txt.inference_utils import caption_lines
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import explanation
from im2txt.inference_utils import library
from im2txt.runtime import files
from im2txt.serving import batcher
from im2txt.serving import errors
from im2txt.serving import metrics
from im2txt.serving import openapi
from im2txt.serving import options as options_lib
from im2txt.serving import page
from im2txt.serving import uploads

MODEL_NAME = 'im2txt'
# Of a caption whose words are explained.
_MOST_WORDS = 100
# Of the time of a request, for which images are accepted: by the speed of late,
# which may fall to half before one is late.
_SHARE = 0.5

Handler = Callable[[requests.Request], Awaitable[responses.Response]]
# What came of an image: its captions, or why it has none.
Outcome = list[captioner_lib.ScoredCaption] | errors.RequestError


class Server:
  """A model behind endpoints.

  Args:
    captioner: a `library.Captioner`.
    options: limits.
    min_confidence: an image has no captions if the confidence in the best is
      less; 0: it always has.
    photos: directory of the examples that the page offers; there may be none.

  Attributes:
    app: the ASGI application.
    is_ready: whether the batches are warm.
    metrics: the `metrics.Metrics` of the server.
  """

  def __init__(
    self,
    captioner: library.Captioner,
    options: options_lib.Options = options_lib.Options(),
    min_confidence: float = 0.0,
    photos: str = files.shipped('photos'),
  ) -> None:
    self._captioner = captioner
    self._html, self._headers = page.read()
    self._examples = {
      name: os.path.join(photos, name)
      for name in (sorted(os.listdir(photos)) if os.path.isdir(photos) else [])
      if name.endswith('.jpg')
    }
    self._options = options
    self._min_confidence = min_confidence
    self._captioned = 0
    self._running = 0
    self._memory = uploads.Memory(options.max_bytes_at_once)
    self._batcher: batcher.Batcher | None = None
    self._decoders: futures.ThreadPoolExecutor | None = None
    self.is_ready = False
    self._is_broken = False
    self.metrics = metrics.Metrics(
      lambda: self._batcher.admitted if self._batcher else 0
    )
    self.app = applications.Starlette(
      routes=[
        self._route('/', self._page),
        self._route('/photos', self._photos),
        self._route('/photos/{name}', self._photo),
        self._route('/v1/captions', self._captions, 'POST'),
        self._route('/v1/beams', self._beams, 'POST'),
        self._route('/v1/attributions', self._attributions, 'POST'),
        self._route(f'/v1/models/{MODEL_NAME}:predict', self._predict, 'POST'),
        self._route(f'/v1/models/{MODEL_NAME}', self._status),
        self._route('/healthz', self._healthz),
        self._route('/readyz', self._readyz),
        self._route('/metrics', self._metrics),
        self._route('/openapi.json', self._openapi),
      ],
      exception_handlers={HTTPException: _http_error},
      lifespan=self._lifespan,
    )

  @contextlib.asynccontextmanager
  async def _lifespan(self, app: types.ASGIApp) -> AsyncIterator[None]:
    del app
    options = self._options
    self._batcher = batcher.Batcher(
      self._caption_batch,
      options.batch_size,
      options.batch_wait_ms / 1000,
      options.queue_size,
      _SHARE * options.request_seconds,
      self._on_batch,
    )
    # No more threads than processors: large photos take much memory on the way.
    self._decoders = futures.ThreadPoolExecutor(
      os.cpu_count(), thread_name_prefix='decode'
    )
    self._batcher.start()
    warming = asyncio.create_task(self._warm_up())
    try:
      yield
    finally:
      self.is_ready = False
      warming.cancel()
      await self._batcher.close()
      self._decoders.shutdown(cancel_futures=True)

  async def _warm_up(self) -> None:
    """Captions batches of nothing, so that no client waits for the first."""
    assert self._batcher
    captioner = self._captioner
    start = time.monotonic()
    blank = await asyncio.get_running_loop().run_in_executor(
      self._decoders, captioner.decode, _blank_jpeg()
    )
    size = 1
    while True:
      try:
        await self._batcher.run(
          functools.partial(captioner.model.caption, [blank] * size)
        )
      except Exception:  # Nobody awaits this task.
        logging.exception('the model fails on a blank image')
        self._is_broken = True
        return
      if size == self._options.batch_size:
        break
      size = min(2 * size, self._options.batch_size)
    self.is_ready = True
    self.metrics.ready.set(1)
    logging.info('ready after %.1f seconds', time.monotonic() - start)

  def _route(self, path: str, handler: Handler, method: str = 'GET') -> Any:
    return routing.Route(
      path, self._observed(path, handler), methods=[method], name=path
    )

  def _observed(self, path: str, handler: Handler) -> Handler:
    """Returns a handler whose errors are JSON, and which the metrics count."""

    async def observed(request: requests.Request) -> responses.Response:
      start = time.monotonic()
      try:
        response = await handler(request)
      except errors.RequestError as error:
        response = _error(error)
      except Exception:  # Of this request; the others go on.
        logging.exception('%s failed', path)
        response = _error(errors.RequestError(500, 'internal error'))
      self.metrics.requests.labels(path, str(response.status_code)).inc()
      self.metrics.request_seconds.labels(path).observe(
        time.monotonic() - start
      )
      return response

    return observed

  def _check_ready(self) -> None:
    """Raises errors.RequestError, status 503, until the batches are warm."""
    if not self.is_ready:
      raise errors.RequestError(503, 'not ready yet: try again later', 1)

  @contextlib.asynccontextmanager
  async def _accepted(
    self,
  ) -> AsyncIterator[tuple[Callable[[int], None], float]]:
    """Accepts a request that brings images, within a context.

    Yields:
      (what takes memory, see `uploads.Memory`; its deadline).

    Raises:
      errors.RequestError: there are too many requests (429), or the server is
        not ready (503).
    """
    self._check_ready()
    if self._running >= self._options.max_requests:
      raise errors.RequestError(
        429, f'{self._running} requests are running: try again later', 1
      )
    deadline = asyncio.get_running_loop().time() + self._options.request_seconds
    self._running += 1
    try:
      with self._memory.holding() as take:
        yield take, deadline
    finally:
      self._running -= 1

  async def _receive(
    self,
    read: Callable[..., Awaitable[list[uploads.Image]]],
    request: requests.Request,
    take: Callable[[int], None],
    deadline: float,
  ) -> list[uploads.Image]:
    """Returns the images that `read` finds in a request, if it comes in time."""
    try:
      async with asyncio.timeout_at(deadline):
        return await read(request, self._options, take)
    except TimeoutError as error:
      raise errors.RequestError(
        408,
        'the request did not come within '
        f'{self._options.request_seconds:g} seconds',
      ) from error

  async def _caption(
    self, images: list[uploads.Image], deadline: float
  ) -> list[Outcome]:
    """Captions the images of a request, each with its own outcome.

    Raises:
      errors.RequestError: there is no room for them (429).
    """
    assert self._batcher
    try:
      with self._batcher.admit(len(images)):
        return list(
          await asyncio.gather(
            *(self._caption_one(image, deadline) for image in images)
          )
        )
    except errors.RequestError:
      self.metrics.images.labels('refused').inc(len(images))
      raise

  async def _caption_one(
    self, image: uploads.Image, deadline: float
  ) -> Outcome:
    assert self._batcher
    try:
      async with asyncio.timeout_at(deadline):
        decoded = await self._decode(image)
        captions = await self._batcher.submit(decoded, deadline)
      self.metrics.images.labels('captioned').inc()
      return captions
    except errors.RequestError as error:
      self.metrics.images.labels('bad').inc()
      return error
    except TimeoutError:
      self.metrics.images.labels('late').inc()
      return errors.RequestError(
        504,
        f'not captioned within {self._options.request_seconds:g} seconds: '
        'send fewer images at once, or try again later',
        1,
      )
    except Exception:
      logging.exception('a batch failed')
      self.metrics.images.labels('failed').inc()
      return errors.RequestError(500, 'the model failed')

  async def _decode(self, image: uploads.Image) -> Any:
    start = time.monotonic()
    try:
      return await asyncio.get_running_loop().run_in_executor(
        self._decoders,
        uploads.decode,
        image,
        self._captioner.decode,
        self._options,
      )
    finally:
      self.metrics.decode_seconds.observe(time.monotonic() - start)

  def _caption_batch(self, images: list) -> list:
    # A sample depends on the number of images before.
    first, self._captioned = self._captioned, self._captioned + len(images)
    return self._captioner.model.caption(images, first)

  def _on_batch(self, images: int, seconds: float) -> None:
    self.metrics.batch_images.observe(images)
    self.metrics.batch_seconds.observe(seconds)

  async def _captions(self, request: requests.Request) -> responses.Response:
    async with self._accepted() as (take, deadline):
      images = await self._receive(uploads.images_of, request, take, deadline)
      outcomes = await self._caption(images, deadline)
    return _response(
      outcomes,
      'images',
      [
        {
          'image': image.name,
          **(
            {'error': outcome.reason, 'status': outcome.status}
            if isinstance(outcome, errors.RequestError)
            else caption_lines.as_dict(outcome, self._min_confidence)
          ),
        }
        for image, outcome in zip(images, outcomes)
      ],
    )

  async def _predict(self, request: requests.Request) -> responses.Response:
    async with self._accepted() as (take, deadline):
      images = await self._receive(
        uploads.instances_of, request, take, deadline
      )
      outcomes = await self._caption(images, deadline)
    return _response(
      outcomes,
      'predictions',
      [
        {'error': outcome.reason}
        if isinstance(outcome, errors.RequestError)
        else self._prediction(outcome)
        for outcome in outcomes
      ],
    )

  def _prediction(
    self, captions: list[captioner_lib.ScoredCaption]
  ) -> dict[str, Any]:
    """Returns captions in the format of TensorFlow Serving."""
    told = caption_lines.as_dict(captions, self._min_confidence)
    columns = {
      'captions': 'caption',
      'log_probabilities': 'log_probability',
      'confidences': 'confidence',
    }
    if all(caption.confidence is None for caption in captions):
      del columns['confidences']
    listed = told.pop('captions')
    return {
      **{name: [c[key] for c in listed] for name, key in columns.items()},
      **told,
    }

  async def _explained(
    self, request: requests.Request, explain: Callable[[Any], Any]
  ) -> Any:
    """Returns explain(the decoded image of a request), called between batches.

    Raises:
      errors.RequestError: the image is bad, there is no room or time for it,
        or the search keeps no steps.
    """
    assert self._batcher
    async with self._accepted() as (take, deadline):
      image, *others = await self._receive(
        uploads.images_of, request, take, deadline
      )
      if others:
        raise errors.RequestError(413, 'more than one image: send one')
      try:
        with self._batcher.admit(1):
          async with asyncio.timeout_at(deadline):
            decoded = await self._decode(image)
            return await self._batcher.run(lambda: explain(decoded))
      except captioner_lib.StepsNotKept as error:
        raise errors.RequestError(400, str(error)) from error
      except TimeoutError as error:
        raise errors.RequestError(
          504, f'not done within {self._options.request_seconds:g} seconds', 1
        ) from error

  async def _beams(self, request: requests.Request) -> responses.Response:
    growth = await self._explained(
      request, lambda image: explanation.grow(self._captioner.model, image)
    )
    return responses.JSONResponse(
      {
        'steps': [
          {
            'partial': [_partial(partial) for partial in step.partial],
            'ended': [_partial(partial) for partial in step.ended],
          }
          for step in growth.steps
        ],
        'captions': [caption.as_dict() for caption in growth.captions],
      }
    )

  async def _attributions(
    self, request: requests.Request
  ) -> responses.Response:
    words = _words(request.query_params.get('words', ''))
    found = await self._explained(
      request,
      lambda image: explanation.attribute(self._captioner.model, image, words),
    )
    return responses.JSONResponse(
      {
        'words': found.words,
        'log_probabilities': found.log_probabilities,
        'maps': found.maps.tolist(),
        'seen': found.seen,
      }
    )

  async def _page(self, request: requests.Request) -> responses.Response:
    del request
    return responses.HTMLResponse(self._html, headers=self._headers)

  async def _photos(self, request: requests.Request) -> responses.Response:
    del request
    return responses.JSONResponse({'photos': list(self._examples)})

  async def _photo(self, request: requests.Request) -> responses.Response:
    path = self._examples.get(request.path_params['name'])
    if not path:
      raise errors.RequestError(404, 'no such photo: see /photos')
    return responses.FileResponse(path, media_type='image/jpeg')

  async def _status(self, request: requests.Request) -> responses.Response:
    del request
    return responses.JSONResponse(
      {
        'model_version_status': [
          {
            'version': str(self._captioner.global_step),
            'state': 'AVAILABLE' if self.is_ready else 'LOADING',
            'status': {'error_code': 'OK', 'error_message': ''},
          }
        ]
      }
    )

  async def _healthz(self, request: requests.Request) -> responses.Response:
    del request
    if self._is_broken:
      raise errors.RequestError(
        500, 'the model fails on a blank image: see the log'
      )
    return responses.JSONResponse({'status': 'ok'})

  async def _readyz(self, request: requests.Request) -> responses.Response:
    del request
    self._check_ready()
    return responses.JSONResponse({'status': 'ready'})

  async def _metrics(self, request: requests.Request) -> responses.Response:
    del request
    return responses.Response(
      self.metrics.text(), media_type='text/plain; version=0.0.4'
    )

  async def _openapi(self, request: requests.Request) -> responses.Response:
    del request
    return responses.JSONResponse(openapi.document(self._options))


def _response(
  outcomes: list[Outcome], key: str, content: list[dict[str, Any]]
) -> responses.Response:
  """Returns the answer to a request.

  Args:
    outcomes: of its images.
    key: of the list in the answer.
    content: of that list.

  Returns:
    Status 200 if an image has captions, else that of the first image.
  """
  first = outcomes[0]
  if isinstance(first, errors.RequestError) and all(
    isinstance(outcome, errors.RequestError) for outcome in outcomes
  ):
    reasons = list(dict.fromkeys(str(outcome) for outcome in outcomes))
    return _error(
      errors.RequestError(
        first.status, '; '.join(reasons[:3]), first.retry_after
      ),
      {key: content},
    )
  return responses.JSONResponse({key: content})


def _partial(partial: explanation.Partial) -> dict[str, Any]:
  """Returns what JSON tells of a partial caption."""
  return {
    **partial._asdict(),
    'alternatives': [
      {'word': word, 'probability': probability}
      for word, probability in partial.alternatives
    ],
  }


def _words(text: str) -> list[str]:
  """Returns the words of a query, a JSON list of str.

  Raises:
    errors.RequestError: it is none, or too long.
  """
  try:
    words = json.loads(text)
    # Half a surrogate pair could not be sent back.
    json.dumps(words, ensure_ascii=False).encode()
  except (ValueError, RecursionError):
    words = None
  if (
    not isinstance(words, list)
    or not 0 < len(words) <= _MOST_WORDS
    or not all(isinstance(word, str) for word in words)
  ):
    raise errors.RequestError(
      400,
      f'no words: give 1 to {_MOST_WORDS} as words=["a", "dog"] in the query',
    )
  return words


def _error(
  error: errors.RequestError, content: dict[str, Any] | None = None
) -> responses.Response:
  retry = (
    {} if error.retry_after is None else {'retry-after': str(error.retry_after)}
  )
  return responses.JSONResponse(
    {'error': error.reason, **(content or {})}, error.status, retry
  )


async def _http_error(
  request: requests.Request, error: Exception
) -> responses.Response:
  """Answers what has no endpoint in JSON, too."""
  assert isinstance(error, HTTPException)
  reason = {
    404: f'there is nothing at {request.url.path}: see /openapi.json',
    405: f'{request.url.path} does not take {request.method}',
  }.get(error.status_code, error.detail)
  return responses.JSONResponse(
    {'error': reason}, error.status_code, error.headers
  )


def _blank_jpeg() -> bytes:
  out = io.BytesIO()
  Image.new('RGB', (64, 64)).save(out, 'JPEG')
  return out.getvalue()
