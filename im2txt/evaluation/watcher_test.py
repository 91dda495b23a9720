# SPDX-License-Identifier: Apache-2.0
"""Tests of watcher; evaluate_test has those of whole runs."""

import sys

import pytest
import tensorflow as tf

from im2txt.evaluation import watcher


def test_events_that_are_not_on_the_disk_are_missed(tmp_path):
  writer = tf.summary.create_file_writer(str(tmp_path))
  with writer.as_default(step=1):
    with watcher.writing_events(writer, str(tmp_path)):
      tf.summary.scalar('a', 1.0)
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()

    def damage(content):
      with watcher.writing_events(writer, str(tmp_path)):
        tf.summary.scalar('a', 1.0)
        writer.flush()
        path.write_bytes(content)

    # As on a full disk, where TensorFlow tells nobody.
    for content in (written, written + b'part'):
      with pytest.raises(OSError, match=f'events in --eval_dir={tmp_path}'):
        damage(content)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
