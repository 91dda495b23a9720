# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of a server."""

from collections.abc import Callable

import prometheus_client

# Seconds: a photo on a fast machine, to the default limit of a request.
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
  """The metrics of one server, in a registry of their own.

  Args:
    queued: returns the number of images accepted and not yet captioned.

  Attributes:
    requests: counter by endpoint and status.
    request_seconds: histogram by endpoint.
    images: counter by outcome: captioned, bad, late, refused or failed.
    batch_images: histogram, images per batch.
    batch_seconds: histogram of the network's time per batch.
    decode_seconds: histogram per image.
    ready: gauge, 1 or 0.
  """

  def __init__(self, queued: Callable[[], float]) -> None:
    registry = self._registry = prometheus_client.CollectorRegistry()
    self.requests = prometheus_client.Counter(
      'im2txt_requests',
      'Requests answered.',
      ['endpoint', 'status'],
      registry=registry,
    )
    self.request_seconds = prometheus_client.Histogram(
      'im2txt_request_seconds',
      'From the start of a request to its answer.',
      ['endpoint'],
      registry=registry,
      buckets=_SECONDS,
    )
    self.images = prometheus_client.Counter(
      'im2txt_images',
      'Images of requests, by what became of them.',
      ['outcome'],
      registry=registry,
    )
    for outcome in ('captioned', 'bad', 'late', 'refused', 'failed'):
      self.images.labels(outcome)
    self.batch_images = prometheus_client.Histogram(
      'im2txt_batch_images',
      'Images per batch.',
      registry=registry,
      buckets=_SIZES,
    )
    self.batch_seconds = prometheus_client.Histogram(
      'im2txt_batch_seconds',
      'Time of the network per batch.',
      registry=registry,
      buckets=_SECONDS,
    )
    self.decode_seconds = prometheus_client.Histogram(
      'im2txt_decode_seconds',
      'Time to decode an image.',
      registry=registry,
      buckets=_SECONDS,
    )
    self.ready = prometheus_client.Gauge(
      'im2txt_ready', '1 once captions are written.', registry=registry
    )
    prometheus_client.Gauge(
      'im2txt_queued_images',
      'Images accepted and not yet captioned.',
      registry=registry,
    ).set_function(queued)

  def text(self) -> bytes:
    """Returns what Prometheus reads."""
    return prometheus_client.generate_latest(self._registry)
