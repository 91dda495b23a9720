# SPDX-License-Identifier: Apache-2.0
"""The Inception v3 of a checkpoint, in one of several precisions.

Whatever captions images gets their features here.
"""

from collections.abc import Callable
from collections.abc import Iterable
import functools
import itertools

import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import encoder_stamp
from im2txt.checkpoints import int8_stamp
from im2txt.encoders import int8
from im2txt.encoders import openvino_int8
from im2txt.encoders import tensorflow_int8
from im2txt.inference_utils import model_flags
from im2txt.ops import folded_inception
from im2txt.runtime import distribution
from im2txt.runtime import quiet_tensorflow


def fingerprint(checkpoint: checkpoints.Checkpoint) -> str:
  """Returns the fingerprint of the Inception v3 of a checkpoint."""
  return encoder_stamp.fingerprint(
    {name: checkpoint.get(name) for name in folded_inception.variables()}
  )


class ImageEncoder:
  """Encodes images; any thread may call it.

  Args:
    prefix: of the checkpoint.
    checkpoint: the checkpoint.
    config: its configuration, which has the size of images.
    precision: one of `model_flags.PRECISIONS`. 'int8' is computed by OpenVINO,
      which is an optional package, and needs the file that `calibrate_encoder`
      writes. It is computed by the processor alone.
    replicas: share the images of a batch.

  Raises:
    ValueError: the Inception v3 of the checkpoint cannot be used, or not in
      this precision.
  """

  def __init__(
    self,
    prefix: str,
    checkpoint: checkpoints.Checkpoint,
    config: configuration.ModelConfig,
    precision: str = 'float32',
    replicas: distribution.Replicas = distribution.ALONE,
  ) -> None:
    if precision not in model_flags.PRECISIONS:
      raise ValueError(
        f'--precision={precision} must be one of '
        + ', '.join(model_flags.PRECISIONS)
      )
    self._prefix = prefix
    self._checkpoint = checkpoint
    self._config = config
    self._replicas = replicas
    self._dtype = tf.bfloat16 if precision == tf.bfloat16.name else tf.float32
    self._in_integers = precision == 'int8'
    self._encode: Callable[[tf.Tensor], tf.Tensor] = (
      self._openvino() if self._in_integers else self._tensorflow()
    )

  def __call__(self, images: tf.Tensor) -> tf.Tensor:
    """Returns the features of images.

    Args:
      images: float32 [batch, height, width, 3] in [-1, 1].

    Returns:
      float32 [batch, 2048].

    Raises:
      ValueError: it is traced, in int8.
    """
    if self._in_integers and not tf.executing_eagerly():
      raise ValueError(
        '--precision=int8 is computed by OpenVINO, which is not part of a graph '
        'of TensorFlow: give another --precision, or --format=tflite'
      )
    return self._encode(images)

  @functools.cached_property
  def folded(self) -> folded_inception.Folded:
    """The weights, see `folded_inception.fold`; float32 for int8.

    Raises:
      ValueError: the Inception v3 of the checkpoint cannot be used.
    """
    # Not within the graph that is being traced where they are used first.
    with tf.init_scope():
      return folded_inception.fold(self._checkpoint.get, self._dtype)

  @functools.cached_property
  def _maps(self) -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(
      lambda images: folded_inception.encode(images, self.folded, pooled=False),
      autograph=False,
    )

  def feature_maps(self, images: tf.Tensor) -> tf.Tensor:
    """Returns the maps whose means over the image are the features.

    In int8 they are those of float32.

    Args:
      images: see `__call__`.

    Returns:
      float32 [batch, rows, columns, 2048].
    """
    return self._maps(images)

  def rounded_in_graph(self, images: tf.Tensor) -> tf.Tensor:
    """Returns the features of int8, by operations of TensorFlow; to be traced.

    It needs no OpenVINO. See `tensorflow_int8`.

    Args:
      images: see `__call__`.

    Returns:
      float32 [batch, 2048].

    Raises:
      ValueError: there is no calibration of this Inception v3.
    """
    return tensorflow_int8.encode(images, self.folded, self.largest)

  def calibrate(
    self, images: Iterable[tf.Tensor], source: str, batch_size: int = 16
  ) -> int8_stamp.Calibration:
    """Returns what int8 needs to know of this Inception v3.

    Args:
      images: float32 [height, width, 3] in [-1, 1].
      source: of the images, for people.
      batch_size: images encoded at once.

    Raises:
      ValueError: there are no images.
    """
    left = iter(images)
    batches = iter(lambda: list(itertools.islice(left, batch_size)), [])
    largest, count = int8.calibrate(self.folded, map(tf.stack, batches))
    if not count:
      raise ValueError(f'{source} has no image that can be decoded')
    return int8_stamp.Calibration(
      fingerprint(self._checkpoint), count, source, largest
    )

  @functools.cached_property
  def largest(self) -> dict[str, float]:
    """The largest outputs of the convolutions, as `calibrate_encoder` found.

    Raises:
      ValueError: there is no calibration of this Inception v3.
    """
    largest = int8_stamp.load(
      self._prefix, fingerprint(self._checkpoint)
    ).largest
    missing = set(folded_inception.convolutions()) - set(largest)
    if missing:
      raise ValueError(
        f'{int8_stamp.FILE_NAME} beside {self._prefix} is damaged: it lacks '
        f'{min(missing)}; run calibrate_encoder again'
      )
    return largest

  def _tensorflow(self) -> Callable[[tf.Tensor], tf.Tensor]:
    try:
      height, width = self._config.image_height, self._config.image_width
      folded = self._replicas.on_each(self.folded)
      encode = self._replicas.by_rows(
        lambda images: folded_inception.encode(images, folded),
        input_signature=[tf.TensorSpec([None, height, width, 3])],
      )
      encode.trace()
      return encode
    except checkpoints.CheckpointError:
      raise
    except ValueError as e:
      raise ValueError(
        f'checkpoint {self._prefix}: the shapes of its InceptionV3/ '
        f'variables are not those of Inception v3 '
        f'({quiet_tensorflow.reason(e)}); give another checkpoint'
      ) from e

  def _openvino(self) -> Callable[[tf.Tensor], tf.Tensor]:
    largest = self.largest
    try:
      return openvino_int8.Encoder(
        self.folded,
        largest,
        self._config.image_height,
        self._config.image_width,
      )
    except ImportError as e:
      raise ValueError(
        '--precision=int8 needs the package openvino: install what '
        'requirements-int8.txt names, or im2txt[int8]'
      ) from e
