# SPDX-License-Identifier: Apache-2.0
"""Images of requests: received, taken apart and decoded, within limits."""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import json
from typing import Any
from typing import NamedTuple

from starlette import formparsers
from starlette import requests
from starlette.datastructures import UploadFile

from im2txt.data import image_formats
from im2txt.serving import errors
from im2txt.serving import options as options_lib

_READ = image_formats.READ.split(', ')
# Parts of a form that are no files.
_MOST_FIELDS = 100
# Characters of base64 per byte, and some for what is around them.
_BASE64 = 1.4


class Image(NamedTuple):
  """An image of a request.

  Attributes:
    name: str, as the client calls it; '' if it does not.
    data: bytes of the file; or the `errors.RequestError` of what is none.
  """

  name: str
  data: bytes | errors.RequestError


class Memory:
  """Counts the bytes of all requests that are in memory.

  Args:
    most: bytes at a time.
  """

  def __init__(self, most: int) -> None:
    self._most = most
    self._held = 0

  @contextlib.contextmanager
  def holding(self) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes so many bytes, for the time of a context.

    It raises a `errors.RequestError` of status 429 if there are not so many.
    """
    own = 0

    def take(size: int) -> None:
      nonlocal own
      if self._held + size > self._most:
        raise errors.RequestError(
          429, 'the requests of all clients take too much memory', 1
        )
      own += size
      self._held += size

    try:
      yield take
    finally:
      self._held -= own


class _Parser(formparsers.MultiPartParser):
  """Keeps parts in memory, where they are counted, and not on disk.

  Attributes:
    is_whole: whether the end of the form has come.
  """

  spool_max_size = 1 << 40
  is_whole = False

  def on_end(self) -> None:
    self.is_whole = True


async def _chunks(
  request: requests.Request, limit: int, take: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
  """Yields the body as it comes, while it is within the limits.

  Raises:
    errors.RequestError: it is larger than `limit`, or than memory allows.
  """
  too_large = errors.RequestError(
    413, f'the request is larger than the {limit} bytes that are taken'
  )
  declared = request.headers.get('content-length', '')
  if declared.isdigit() and int(declared) > limit:
    raise too_large
  size = 0
  try:
    async for chunk in request.stream():
      size += len(chunk)
      if size > limit:
        raise too_large
      take(len(chunk))
      yield chunk
  except requests.ClientDisconnect as error:
    raise errors.RequestError(400, 'the request broke off') from error


async def images_of(
  request: requests.Request,
  options: options_lib.Options,
  take: Callable[[int], None],
) -> list[Image]:
  """Returns the images of a request: one as the body, or several of a form.

  Args:
    request: with an image as its body, or multipart/form-data, of which every
      file is an image.
    options: limits.
    take: see `Memory.holding`.

  Raises:
    errors.RequestError: there is no image, there are too many, or it is too
      large.
  """
  chunks = _chunks(request, options.max_request_bytes, take)
  kind = request.headers.get('content-type', '').partition(';')[0].strip()
  if kind.lower() == 'multipart/form-data':
    return await _of_form(request, options, chunks)
  body = b''.join([chunk async for chunk in chunks])
  if not body:
    raise errors.RequestError(
      400,
      'no image: send one as the body, or files as multipart/form-data',
    )
  return [Image('', body)]


async def _of_form(
  request: requests.Request,
  options: options_lib.Options,
  chunks: AsyncGenerator[bytes, None],
) -> list[Image]:
  most = options.max_request_images
  parser = _Parser(
    request.headers, chunks, max_files=most, max_fields=_MOST_FIELDS
  )
  try:
    form = await parser.parse()
    if not parser.is_whole:
      raise formparsers.MultiPartException('it breaks off')
  except (formparsers.MultiPartException, KeyError) as error:
    if 'Too many files' in str(error):
      raise _too_many(options) from error
    raise errors.RequestError(
      400, f'damaged multipart/form-data ({error})'
    ) from error
  async with contextlib.AsyncExitStack() as stack:
    stack.push_async_callback(form.close)
    images = [
      Image(value.filename or '', await value.read())
      for _, value in form.multi_items()
      if isinstance(value, UploadFile)
    ]
  if not images:
    raise errors.RequestError(
      400, 'no image: the form has no file (a part with a file name)'
    )
  return images


def _too_many(options: options_lib.Options) -> errors.RequestError:
  return errors.RequestError(
    413,
    f'more than the {options.max_request_images} images that a request may '
    'have',
  )


async def instances_of(
  request: requests.Request,
  options: options_lib.Options,
  take: Callable[[int], None],
) -> list[Image]:
  """Returns the images of a request in the format of TensorFlow Serving.

  That is JSON, {"instances": [{"b64": "..."}, ...]}; an instance may be an
  object whose only value is that. Or it is {"inputs": ...}, with one such
  value or a list of them, by itself or as the only value of an object.

  Args: see `images_of`.

  Raises: see `images_of`.
  """
  # More than the memory of all requests would be refused again and again.
  limit = min(
    int(options.max_request_bytes * _BASE64), options.max_bytes_at_once
  )
  body = b''.join([chunk async for chunk in _chunks(request, limit, take)])
  # Other clients need not wait for a large one.
  return await asyncio.to_thread(_parse_instances, body, options)


def _parse_instances(body: bytes, options: options_lib.Options) -> list[Image]:
  try:
    content = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise errors.RequestError(400, f'not JSON: {error}') from error
  if (
    not isinstance(content, dict)
    or len({'instances', 'inputs'} & {*content}) != 1
  ):
    raise errors.RequestError(
      400, 'neither "instances" nor "inputs" is in the JSON object'
    )
  instances = content.get('instances')
  if instances is None:
    instances = _inner(content.get('inputs'))
    if isinstance(instances, dict):
      instances = [instances]
  if not isinstance(instances, list) or not instances:
    raise errors.RequestError(400, 'no list of images: [{"b64": "..."}, ...]')
  if len(instances) > options.max_request_images:
    raise _too_many(options)
  return [Image('', _bytes_of(instance)) for instance in instances]


def _inner(value: Any) -> Any:
  """Returns the only value of an object that is none of base64."""
  if isinstance(value, dict) and len(value) == 1 and 'b64' not in value:
    return next(iter(value.values()))
  return value


def _bytes_of(instance: Any) -> bytes | errors.RequestError:
  value = _inner(instance)
  encoded = value.get('b64') if isinstance(value, dict) else None
  if not isinstance(encoded, str):
    return errors.RequestError(400, 'not an image as {"b64": "..."}')
  try:
    return base64.b64decode(encoded, validate=True)
  except (binascii.Error, ValueError) as error:
    return errors.RequestError(400, f'not base64 ({error})')


def decode(
  image: Image, process: Callable[[bytes], Any], options: options_lib.Options
) -> Any:
  """Decodes an image; any thread may call it.

  What a file claims of itself is checked before it takes memory.

  Args:
    image: `Image`.
    process: what decodes bytes; raises ValueError.
    options: limits.

  Returns:
    What `process` returns.

  Raises:
    errors.RequestError: it is too large (413), of a kind that is not read
      (415), empty (400) or damaged (422).
  """
  data = image.data
  if isinstance(data, errors.RequestError):
    raise data
  if not data:
    raise errors.RequestError(400, 'the file is empty')
  if len(data) > options.max_image_bytes:
    raise errors.RequestError(
      413,
      f'the file has {len(data)} bytes, more than the '
      f'{options.max_image_bytes} that are taken',
    )
  status = 415
  try:
    header = image_formats.read_header(data)
    status = 413
    pixels = header.width * header.height
    if pixels > options.max_image_pixels:
      raise ValueError(
        f'too large, {header.width} x {header.height} pixels: no more than '
        f'{options.max_image_pixels} are taken'
      )
    header.check_size()
    status = 422
    return process(data)
  except ValueError as error:
    if status == 415 and image_formats.kind_of(data) in _READ:
      status = 422
    raise errors.RequestError(status, str(error)) from error
  except MemoryError as error:
    raise errors.RequestError(413, 'too little memory to decode it') from error
