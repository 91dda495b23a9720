# SPDX-License-Identifier: Apache-2.0
"""Compares encoders on the images of shards: speed, and what is lost by it.

In one run on the same images, batch by batch in turn, so that other work on the
machine slows all of them alike. Times are of the processor, not of the clock,
so other work counts little.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import time
from typing import Any

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.data import shards
from im2txt.encoders import onnx_int8
from im2txt.encoders import openvino_int8
from im2txt.encoders import tensorflow_int8
from im2txt.encoders import tensorflow_lite
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.metrics import summary
from im2txt.ops import folded_inception
from im2txt.runtime.progress import Progress

BASELINE = 'TensorFlow float32'

_BATCH = 16

# Takes images, float32 [batch, height, width, 3]; returns features.
_Encode = Callable[[np.ndarray], np.ndarray | tf.Tensor]


def make_encoders(
  captioner: captioner_lib.Captioner, threads: int
) -> dict[str, _Encode]:
  """Returns encoders by name, without those whose package is not installed.

  Args:
    captioner: a model in float32, of one checkpoint, which was calibrated.
    threads: of each encoder but TensorFlow's, whose number of threads belongs
      to the process.

  Raises:
    ValueError: it was not calibrated.
  """
  (encoder,) = captioner.encoders
  config = captioner.model.config
  network = encoder.folded, encoder.largest
  size = config.image_height, config.image_width
  in_bfloat16 = {
    name: (tf.cast(weights, tf.bfloat16), tf.cast(bias, tf.bfloat16))
    for name, (weights, bias) in encoder.folded.items()
  }
  found: dict[str, _Encode] = {
    BASELINE: encoder,
    'TensorFlow bfloat16': tf.function(
      lambda images: folded_inception.encode(images, in_bfloat16),
      autograph=False,
      input_signature=[tf.TensorSpec([None, *size, 3])],
    ),
    'TensorFlow Lite int8': _tensorflow_lite(network, size, threads),
  }
  makers: dict[str, Callable[[], _Encode]] = {
    'ONNX Runtime int8': lambda: onnx_int8.make_encoder(
      *network, *size, threads
    ),
    'OpenVINO int8': lambda: openvino_int8.Encoder(*network, *size, threads),
  }
  for name, make in makers.items():
    try:
      found[name] = make()
    except ImportError as error:
      logging.warning('%s is left out: %s', name, error)
  return found


def _tensorflow_lite(
  network: tuple[Any, Any], size: tuple[int, int], threads: int
) -> _Encode:
  run = tensorflow_lite.runner(
    tensorflow_lite.converted(
      lambda images: {'features': tensorflow_int8.encode(images, *network)},
      [tf.TensorSpec([1, *size, 3], name='images')],
      'int8',
    ),
    threads,
  )
  # Of one image at a time, as it has no use for more.
  return lambda images: np.concatenate(
    [run(images=image[np.newaxis])['features'].copy() for image in images]
  )


def compare(
  captioner: captioner_lib.Captioner,
  encoders: Mapping[str, _Encode],
  paths: Sequence[str],
  max_images: int = 0,
) -> dict[str, dict[str, float]]:
  """Captions images by the features of each encoder.

  Args:
    captioner: searches the captions.
    encoders: of `make_encoders`.
    paths: shards with the images and their references.
    max_images: the first images; 0 for all.

  Returns:
    Name of an encoder -> name of a figure -> value:
      'images/s', of the encoder, and 'x float32', against `BASELINE`;
      'captions/s', of both encoder and search, and 'x float32 (captions)';
      'cider', and 'cider, difference' from `BASELINE`'s;
      'captions changed', of the best ones, against `BASELINE`'s.
  """
  examples = shards.captions_by_image(paths, max_images)
  seconds = dict.fromkeys(encoders, 0.0)
  searching = dict.fromkeys(encoders, 0.0)
  captions: dict[str, dict[int, str]] = {name: {} for name in encoders}
  timed = 0
  with Progress('Comparing', len(examples), 'images') as progress:
    for batch in shards.image_batches(paths, examples, _BATCH):
      ids = [image_id for image_id, _ in batch]
      images = np.stack(
        [captioner.decode(data, exif_orientation=False) for _, data in batch]
      )
      if not any(captions.values()):  # The first batch is to warm up, too.
        for encode in encoders.values():
          captioner.decoder.caption(np.asarray(encode(images)))
      for name, encode in encoders.items():
        start = time.process_time()
        features = np.asarray(encode(images))
        middle = time.process_time()
        found = captioner.decoder.caption(features)
        seconds[name] += middle - start
        searching[name] += time.process_time() - middle
        captions[name].update(
          (image_id, best.text) for image_id, (best, *_) in zip(ids, found)
        )
      timed += len(ids)
      progress.update(len(ids))
  references = {i: texts for i, (texts, _) in examples.items()}
  # The search is the same for all.
  search = sum(searching.values()) / len(searching)
  results: dict[str, dict[str, float]] = {}
  for name, of_images in captions.items():
    scores, _ = summary.measure(
      references,
      {i: [text] for i, text in of_images.items()},
      metrics=['cider'],
    )
    results[name] = {
      'images/s': timed / seconds[name],
      'x float32': seconds[BASELINE] / seconds[name],
      'captions/s': timed / (seconds[name] + search),
      'x float32 (captions)': (seconds[BASELINE] + search)
      / (seconds[name] + search),
      'cider': scores['cider'],
      'cider, difference': scores['cider'] - results[BASELINE]['cider']
      if results
      else 0.0,
      'captions changed': sum(
        text != captions[BASELINE][i] for i, text in of_images.items()
      ),
    }
  return results
