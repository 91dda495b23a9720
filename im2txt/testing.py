# SPDX-License-Identifier: Apache-2.0
"""What several tests share."""

import io
import os

import numpy as np
from PIL import Image
import pytest


def reference_path(*parts):
  """Returns a path below IM2TXT_REFERENCE_DIR; skips the test without it."""
  directory = os.environ.get('IM2TXT_REFERENCE_DIR')
  if not directory:
    pytest.skip('needs the vectors of the 2016 program: set '
                'IM2TXT_REFERENCE_DIR to their directory')
  return os.path.join(directory, *parts)


def inception_checkpoint(tmp_dir):
  """Returns the Inception v3 checkpoint that lies beside the vectors.

  Args:
    tmp_dir: where its archive is unpacked.
  """
  import tarfile  # pylint: disable=g-import-not-at-top
  archive = reference_path('..', 'inception', 'inception_v3_distilled.tar.gz')
  if not os.path.exists(archive):
    pytest.skip(f'needs {archive}')
  with tarfile.open(archive) as tar:
    tar.extractall(tmp_dir, filter='data')
  return os.path.join(tmp_dir, 'inception_v3.ckpt')


def jpeg(seed=0, height=40, width=60):
  """Returns the bytes of a JPEG of smooth random colours."""
  small = np.random.default_rng(seed).integers(0, 256, [4, 4, 3], np.uint8)
  out = io.BytesIO()
  Image.fromarray(small).resize((width, height)).save(out, 'JPEG')
  return out.getvalue()


def write_shard(path, records):
  """Writes a TFRecord shard.

  Args:
    path: file name.
    records: list of (image id, JPEG bytes, word ids).
  """
  import tensorflow as tf  # pylint: disable=g-import-not-at-top

  def int64(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

  with tf.io.TFRecordWriter(str(path)) as writer:
    for image_id, data, ids in records:
      writer.write(tf.train.SequenceExample(
          context=tf.train.Features(feature={
              'image/image_id': int64([image_id]),
              'image/data': tf.train.Feature(
                  bytes_list=tf.train.BytesList(value=[data])),
          }),
          feature_lists=tf.train.FeatureLists(feature_list={
              'image/caption_ids': tf.train.FeatureList(
                  feature=[int64([i]) for i in ids]),
          })).SerializeToString())
