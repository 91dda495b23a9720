# SPDX-License-Identifier: Apache-2.0
"""Exports a model for TensorFlow Lite, and captions with that.

As in the frozen graph, the search runs outside of it, by three models:

  encoder.tflite        pixels, uint8 [1, height, width, 3], upright and of any
                        size -> features, float32 [1, 2048]
  initial_state.tflite  features, float32 [1, 2048]
                        -> states, float32 [1, state_size], after the image
  step.tflite           words, int32 [n], and states, float32 [n, state_size]
                        -> softmax, float32 [n, vocab_size]; states, the new ones

word_counts.txt has the words, and model.json the `Settings` of the search.
Words that the search excludes have probability 0.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf

from im2txt.encoders import tensorflow_lite
from im2txt.export import decoding
from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config
from im2txt.ops import image_processing
from im2txt.runtime import files
from im2txt.text import vocabulary

_Outputs = dict[str, tf.Tensor]

ENCODER, INITIAL_STATE, STEP = (
  'encoder.tflite',
  'initial_state.tflite',
  'step.tflite',
)
SETTINGS = 'model.json'


@dataclasses.dataclass(frozen=True)
class Settings:
  """The content of model.json.

  Attributes:
    global_step: of the checkpoint.
    precision: one of `tensorflow_lite.PRECISIONS`.
    start_id: id of <S>.
    end_id: id of </S>.
    separator: between words.
    beam_size: see `SearchConfig`, as the next two.
    max_caption_length: see above.
    length_normalization_factor: see above.
  """

  global_step: int
  precision: str
  start_id: int
  end_id: int
  separator: str
  beam_size: int
  max_caption_length: int
  length_normalization_factor: float


def save(
  captioner: captioner_lib.Captioner, export_dir: str, precision: str
) -> None:
  """Writes a model for TensorFlow Lite.

  Args:
    captioner: the model, in float32, with the settings of the search.
    export_dir: gets the files. model.json is there only when all are.
    precision: one of `tensorflow_lite.PRECISIONS`. 'int8' computes Inception v3 in integers by
      what `calibrate_encoder` found, and rounds the weights of the rest.

  Raises:
    ValueError: there is no such calibration, or the search is none that
      `TFLiteCaptioner` has.
    OSError: it could not be written.
  """
  search = captioner.decoder.search
  if not search.is_as_in_2016:
    raise ValueError(
      '--format=tflite has the search of 2016 only: leave out sampling, groups, '
      'rules of repetition, shortest captions, and required words'
    )
  assert search.beam_size and search.length_normalization_factor is not None
  models = {
    name: tensorflow_lite.converted(function, specs, precision, captioner.model)
    for name, (function, specs) in _functions(captioner, precision).items()
  }
  os.makedirs(export_dir, exist_ok=True)
  settings = os.path.join(export_dir, SETTINGS)
  with contextlib.suppress(FileNotFoundError):
    os.remove(settings)
  with open(captioner.vocab.file, 'rb') as f:
    models[vocabulary.FILE_NAME] = f.read()
  for name, content in models.items():
    with files.writing(os.path.join(export_dir, name)) as out:
      out.write(content)
  files.write_json(
    settings,
    dataclasses.asdict(
      Settings(
        captioner.global_step,
        precision,
        captioner.vocab.start_id,
        captioner.vocab.end_id,
        captioner.decoder.separator,
        search.beam_size,
        search.max_caption_length,
        float(search.length_normalization_factor),
      )
    ),
  )


def _functions(
  captioner: captioner_lib.Captioner, precision: str
) -> dict[str, tuple[Callable[..., _Outputs], list[tf.TensorSpec]]]:
  """Returns the functions to convert and their inputs, by file."""
  model = captioner.model

  def encode(pixels: tf.Tensor) -> _Outputs:
    image = image_processing.crop_image(
      image_processing.resize_image(
        tf.image.convert_image_dtype(pixels[0], tf.float32)
      ),
      height=model.config.image_height,
      width=model.config.image_width,
    )
    batch = image[tf.newaxis]
    if precision != 'int8':
      return {'features': captioner.encode_batch(batch)}
    rounded = [
      encoder.rounded_in_graph(batch) for encoder in captioner.encoders
    ]
    return {'features': tf.concat(rounded, 1)}

  def initial_state(features: tf.Tensor) -> _Outputs:
    # TensorFlow Lite multiplies no matrices of float64.
    return {'states': model.initial_state(features, tf.float32)}

  def step(words: tf.Tensor, states: tf.Tensor) -> _Outputs:
    softmax, states = captioner.decoder.step_fn(words, states)
    return {'softmax': softmax, 'states': states}

  return {
    ENCODER: (encode, [tf.TensorSpec([1, None, None, 3], tf.uint8, 'pixels')]),
    INITIAL_STATE: (
      initial_state,
      [tf.TensorSpec([1, model.feature_size], name='features')],
    ),
    STEP: (
      step,
      [
        tf.TensorSpec([None], tf.int32, 'words'),
        tf.TensorSpec([None, model.state_size], name='states'),
      ],
    ),
  }


class TFLiteCaptioner:
  """Captions images by the files of `save`, one at a time.

  Args:
    directory: has the files.
    threads: see `tensorflow_lite.runner`.

  Attributes:
    settings: the content of model.json.

  Raises:
    ValueError: files are missing or damaged.
  """

  def __init__(self, directory: str, threads: int = 1) -> None:
    path = os.path.join(directory, SETTINGS)
    try:
      self.settings = files.read_fields(path, Settings)
      self._encoder, self._initial_state, self._run_step = (
        _open(os.path.join(directory, name), threads)
        for name in (ENCODER, INITIAL_STATE, STEP)
      )
    except (OSError, ValueError) as error:
      raise ValueError(
        f'{directory} has no whole model for TensorFlow Lite ({error}): export '
        'it again'
      ) from error
    self._vocab = vocabulary.Vocabulary(
      os.path.join(directory, vocabulary.FILE_NAME)
    )
    self._generator = caption_generator.CaptionGenerator(
      self._step,
      self.settings.start_id,
      self.settings.end_id,
      search_config.SearchConfig(
        beam_size=self.settings.beam_size,
        max_caption_length=self.settings.max_caption_length,
        length_normalization_factor=self.settings.length_normalization_factor,
      ),
    )

  def caption(
    self, image: bytes | np.ndarray
  ) -> list[captioner_lib.ScoredCaption]:
    """Returns the captions of an image, best first.

    Args:
      image: bytes of a file, of the kinds of `decoding.READ`; or its pixels,
        uint8 [height, width, 3].

    Raises:
      tf.errors.InvalidArgumentError: the file is of another kind, or damaged.
    """
    pixels = (
      decoding.decode(tf.constant(image)).numpy()
      if isinstance(image, bytes)
      else image
    )
    features = self._encoder(pixels=pixels[np.newaxis])['features']
    (found,) = self._generator.beam_search(
      self._initial_state(features=features)['states']
    )
    return [
      captioner_lib.ScoredCaption(
        self.settings.separator.join(
          self._vocab.id_to_word(word)
          for word in caption.sentence[1:]
          if word != self.settings.end_id
        ),
        caption.logprob,
      )
      for caption in found
    ]

  def _step(
    self, words: np.ndarray, states: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    found = self._run_step(words=words.astype(np.int32), states=states)
    return found['softmax'], found['states']


def _open(path: str, threads: int) -> Callable[..., dict[str, Any]]:
  with open(path, 'rb') as f:
    return tensorflow_lite.runner(f.read(), threads)
