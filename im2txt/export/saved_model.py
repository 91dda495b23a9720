# SPDX-License-Identifier: Apache-2.0
"""Exports a model as a SavedModel, from image files to captions.

It needs nothing but TensorFlow: images are decoded, captions searched and words
looked up in the graph.
"""

from collections.abc import Callable
import os
import shutil

import numpy as np
import tensorflow as tf

from im2txt.export import decoding
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.ops import image_processing
from im2txt.runtime import files
from im2txt.runtime import quiet_tensorflow

BATCHING = 'batching_parameters.txt'

_Outputs = dict[str, tf.Tensor]


class CaptionModule(tf.Module):
  """A model whose signatures caption images.

  All return {'captions': string [batch, beam_size], best first;
  'log_probabilities': float32 likewise}, and 'confidences', float32 likewise, if
  these were fitted for the model. Where fewer captions were found, the
  rest are '' with -inf and 0. Of captions with equal scores, the one that was found
  first counts as better.

  Args:
    captioner: the model, with the settings of the search.
    exif_orientation: whether files are turned as their EXIF data say.

  Attributes:
    vocabulary: the file of the vocabulary, an asset.
  """

  def __init__(
    self, captioner: captioner_lib.Captioner, exif_orientation: bool = True
  ) -> None:
    super().__init__(name='im2txt')
    self._captioner = captioner
    self._exif_orientation = exif_orientation
    model = captioner.model
    # tf.Module finds the variables in these.
    self._models = [m for m, _ in getattr(model, 'members', [(model, None)])]
    self.vocabulary = tf.saved_model.Asset(captioner.vocab.file)

  def signatures(self) -> dict[str, Callable[..., _Outputs]]:
    """Returns the functions to save, by name."""

    def traced(
      function: Callable[[tf.Tensor], _Outputs], spec: tf.TensorSpec
    ) -> Callable[..., _Outputs]:
      return tf.function(function, autograph=False).get_concrete_function(spec)

    return {
      'serving_default': traced(
        self._caption_files, tf.TensorSpec([None], tf.string, 'image_bytes')
      ),
      **{
        name: traced(
          self._caption_pixels,
          tf.TensorSpec([None, None, None, 3], dtype, 'pixels'),
        )
        for name, dtype in (
          ('from_pixels', tf.uint8),
          ('from_float_pixels', tf.float32),
        )
      },
      'from_features': traced(
        self._caption_features,
        tf.TensorSpec(
          [None, self._captioner.model.feature_size], tf.float32, 'features'
        ),
      ),
    }

  def _caption_files(self, image_bytes: tf.Tensor) -> _Outputs:
    return self._caption_processed(
      image_bytes,
      lambda encoded: self._process(
        decoding.decode(encoded, self._exif_orientation)
      ),
    )

  def _caption_pixels(self, pixels: tf.Tensor) -> _Outputs:
    return self._caption_processed(pixels, self._process)

  def _caption_processed(
    self, images: tf.Tensor, process: Callable[[tf.Tensor], tf.Tensor]
  ) -> _Outputs:
    config = self._captioner.model.config
    batch = tf.map_fn(
      process,
      images,
      fn_output_signature=tf.TensorSpec(
        [config.image_height, config.image_width, 3]
      ),
    )
    return self._caption_features(self._captioner.encode_batch(batch))

  def _process(self, pixels: tf.Tensor) -> tf.Tensor:
    config = self._captioner.model.config
    return image_processing.crop_image(
      image_processing.resize_image(pixels),
      height=config.image_height,
      width=config.image_width,
    )

  def _caption_features(self, features: tf.Tensor) -> _Outputs:
    decoder = self._captioner.decoder
    _, captions, texts = decoder.search_in_graph(features, mark_ties=False)
    outputs = {
      'captions': texts,
      'log_probabilities': tf.cast(
        tf.where(captions.lengths > 0, captions.log_probabilities, -np.inf),
        tf.float32,
      ),
    }
    if decoder.confidence:
      outputs['confidences'] = tf.cast(
        decoder.confidences_in_graph(captions), tf.float32
      )
    return outputs


def save(
  captioner: captioner_lib.Captioner,
  export_dir: str,
  version: int | None = None,
  exif_orientation: bool = True,
  batch_size: int = 16,
) -> str:
  """Saves a model where TensorFlow Serving would look for it.

  Args:
    captioner: see `CaptionModule`, as exif_orientation.
    export_dir: gets a directory named by the version, which has its name only
      once it is whole; and `BATCHING`.
    version: of the model; None: the training step.
    exif_orientation: whether files are turned.
    batch_size: the largest batch of TensorFlow Serving.

  Returns:
    The directory of the version.

  Raises:
    ValueError: there is such a version.
    OSError: it could not be written.
  """
  if version is None:
    version = captioner.global_step
  directory = os.path.join(export_dir, str(version))
  if os.path.exists(directory):
    raise ValueError(
      f'{directory} exists: remove it, or give another --version'
    )
  os.makedirs(export_dir, exist_ok=True)
  temporary = files.unfinished(directory)
  shutil.rmtree(temporary, ignore_errors=True)
  module = CaptionModule(captioner, exif_orientation)
  try:
    with files.naming(directory), quiet_tensorflow.without_log_lines():
      tf.saved_model.save(module, temporary, module.signatures())
      files.sync_tree(temporary)
      files.rename((temporary, directory))
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  with files.writing(os.path.join(export_dir, BATCHING)) as f:
    f.write(batching_parameters(batch_size).encode())
  return directory


def batching_parameters(batch_size: int) -> str:
  """Returns the content of TensorFlow Serving's --batching_parameters_file.

  One batch at a time takes all cores, so there is one thread. The others are
  the defaults of im2txt's own server.

  Args:
    batch_size: the largest.
  """
  return ''.join(
    f'{name} {{ value: {value} }}\n'
    for name, value in (
      ('max_batch_size', batch_size),
      ('batch_timeout_micros', 5000),
      ('max_enqueued_batches', max(1, 128 // batch_size)),
      ('num_batch_threads', 1),
    )
  )
