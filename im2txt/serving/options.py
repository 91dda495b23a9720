# SPDX-License-Identifier: Apache-2.0
"""What a server accepts, and how it batches."""

import dataclasses

from im2txt.runtime import flag_dataclasses


@dataclasses.dataclass(frozen=True)
class Options:
  """Limits of a server; each field is a flag of `serve`.

  Raises:
    ValueError: limits exclude one another.
  """

  batch_size: int = flag_dataclasses.field(
    16, 'Images captioned at once, at most.', lower_bound=1
  )
  batch_wait_ms: float = flag_dataclasses.field(
    5.0,
    'How long an image waits for others to fill its batch, while the model is '
    'idle.',
    lower_bound=0,
  )
  queue_size: int = flag_dataclasses.field(
    128,
    'Images accepted and not yet captioned, at most. Requests beyond are '
    'refused with status 429, and before that those that would wait for half '
    'of --request_seconds.',
    lower_bound=1,
  )
  max_requests: int = flag_dataclasses.field(
    256, 'Requests at once; more are refused with status 429.', lower_bound=1
  )
  max_bytes_at_once: int = flag_dataclasses.field(
    500_000_000,
    'Bytes of all requests in memory, at most; more are refused with status 429.',
    lower_bound=1,
  )
  max_request_bytes: int = flag_dataclasses.field(
    64_000_000, 'Bytes of a request, at most.', lower_bound=1
  )
  max_request_images: int = flag_dataclasses.field(
    16, 'Images of a request, at most.', lower_bound=1
  )
  max_image_bytes: int = flag_dataclasses.field(
    20_000_000, 'Bytes of an image file, at most.', lower_bound=1
  )
  max_image_pixels: int = flag_dataclasses.field(
    50_000_000, 'Width times height of an image, at most.', lower_bound=1
  )
  request_seconds: float = flag_dataclasses.field(
    30.0,
    'Time from the start of a request to its answer. What takes longer is '
    'answered with status 504, or 408 while it is still being received.',
    lower_bound=0.001,
  )

  def __post_init__(self) -> None:
    if self.max_request_images > self.queue_size:
      raise ValueError(
        f'--max_request_images={self.max_request_images} is above '
        f'--queue_size={self.queue_size}: such a request would never be '
        'accepted'
      )
    if self.max_request_bytes > self.max_bytes_at_once:
      raise ValueError(
        f'--max_request_bytes={self.max_request_bytes} is above '
        f'--max_bytes_at_once={self.max_bytes_at_once}: such a request would '
        'never be accepted'
      )
