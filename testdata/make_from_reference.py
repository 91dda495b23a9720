# SPDX-License-Identifier: Apache-2.0
"""Makes the vectors in this folder from those of the 2016 program.

Usage, from the root of the project:

  python -m testdata.make_from_reference DIRECTORY_OF_THE_REFERENCE_VECTORS

Numbers are copied, never computed by im2txt. What is too large for the project
is cut down, as README.md says of each file.
"""

import hashlib
import json
import os
import shutil
import sys

import numpy as np
import tensorflow as tf

from im2txt import testing

_IMAGES = (
  'c_rgb_1024x683_prog.jpg',
  'd_grey_427x640.jpg',
  'e_cmyk_400x300.jpg',
  'x_rgb_2000x31_422.jpg',
  'x_rgb_53x37_tiny.jpg',
)
_IMAGE_EMBEDDING = 'image_embedding/weights'


def _read_json(*parts):
  with open(os.path.join(*parts), encoding='utf-8') as f:
    return json.load(f)


def _write_json(path, head, key, lines):
  """Writes an object of JSON, with one line per element of its last value.

  Args:
    path: of the file.
    head: dict, what stands before the last value.
    key: of the last value.
    lines: list or dict, the last value.
  """

  def dump(value):
    return json.dumps(value, separators=(',', ':'), ensure_ascii=False)

  brackets = '{}' if isinstance(lines, dict) else '[]'
  if isinstance(lines, dict):
    lines = [f'{dump(name)}:{dump(value)}' for name, value in lines.items()]
  else:
    lines = [dump(value) for value in lines]
  start = ''.join(
    f'{dump(name)}:{dump(value)},\n' for name, value in head.items()
  )
  with open(path, 'w', encoding='utf-8') as f:
    f.write(
      f'{{{start}{dump(key)}:{brackets[0]}\n'
      + ',\n'.join(lines)
      + f'\n{brackets[1]}}}\n'
    )


def _preprocessing(source, target):
  """Images, digests of their pixels, and some of the pixels themselves."""
  os.makedirs(os.path.join(target, 'images'), exist_ok=True)
  decoded = np.load(os.path.join(source, 'decoded_uint8.npz'))
  processed = np.load(os.path.join(source, 'processed_eval_images.npz'))
  digests, pixels = {}, {}
  for name in _IMAGES:
    shutil.copyfile(
      os.path.join(source, 'jpegs', name), os.path.join(target, 'images', name)
    )
    digests[name] = {
      'decoded_shape': decoded[name].shape,
      'decoded_sha256': testing.array_sha256(decoded[name]),
      'processed_sha256': testing.array_sha256(processed[name]),
    }
    pixels[name] = processed[name][::23, ::23]
  _write_json(
    os.path.join(target, 'images', 'digests.json'), {}, 'images', digests
  )
  np.savez_compressed(os.path.join(target, 'images', 'pixels.npz'), **pixels)


def _inference(source, target):
  """The decoder, one step of it, and beam searches."""
  os.makedirs(os.path.join(target, 'inference'), exist_ok=True)
  weights = np.load(os.path.join(source, 'model_small', 'weights.npz'))
  tensors = np.load(os.path.join(source, 'model_small', 'tensors.npz'))
  arrays = {
    f'weights/{name}': weights[name]
    for name in weights.files
    if name != _IMAGE_EMBEDDING
  }
  arrays.update(
    (name, tensors[name]) for name in tensors.files if name != 'features'
  )
  np.savez_compressed(
    os.path.join(target, 'inference', 'decoder.npz'), **arrays
  )
  shutil.copyfile(
    os.path.join(source, 'model_small', 'word_counts.txt'),
    os.path.join(target, 'inference', 'word_counts.txt'),
  )
  searches = _read_json(source, 'model_small', 'beam_cases.json')
  cases = []
  for case in searches.pop('cases'):
    del case['text']  # The ids, in words.
    for caption in case['captions']:
      for name in ('logprob', 'score'):
        caption[name] = round(caption[name], 7)
    cases.append(case)
  _write_json(
    os.path.join(target, 'inference', 'beam_searches.json'),
    searches,
    'cases',
    cases,
  )


def _training(source, target):
  """Five steps of gradient descent, and the records that they train on."""
  directory = os.path.join(target, 'training')
  os.makedirs(directory, exist_ok=True)
  for end in ('index', 'data-00000-of-00001'):
    shutil.copyfile(
      os.path.join(source, 'train_small', f'init_noinception.ckpt.{end}'),
      os.path.join(directory, f'model.ckpt-0.{end}'),
    )
  vectors = np.load(os.path.join(source, 'train_small', 'train_vectors.npz'))
  arrays = {
    name: vectors[name]
    for name in (
      'input_seqs',
      'target_seqs',
      'mask',
      'eval_cross_entropy',
      'eval_weights',
      'image_features',
      'image_embeddings',
    )
  }
  for name in vectors.files:
    if name.startswith(('frozen/after5', 'clip0.1/after5')):
      # An error in one row of this variable would be in all.
      every = 32 if name.endswith(_IMAGE_EMBEDDING) else 1
      arrays[name] = vectors[name][::every]
  np.savez_compressed(os.path.join(directory, 'steps.npz'), **arrays)
  details = _read_json(source, 'train_small', 'train_vectors.json')
  _write_json(
    os.path.join(directory, 'steps.json'),
    {},
    'runs',
    {
      run: {
        name: details[run][name]
        for name in ('batch_loss', 'global_norm_before_clip_as_original')
      }
      for run in ('frozen', 'clip0.1')
    },
  )
  with open(os.path.join(target, 'images', _IMAGES[-1]), 'rb') as f:
    image = f.read()
  with tf.io.TFRecordWriter(os.path.join(directory, 'batch8.tfrecord')) as out:
    for record in tf.data.TFRecordDataset(
      os.path.join(source, 'batch8.tfrecord')
    ).as_numpy_iterator():
      out.write(_with_other_image(record, image))


def _varint(value):
  out = b''
  while value > 127:
    out += bytes([value & 127 | 128])
    value >>= 7
  return out + bytes([value])


def _read_varint(data, place):
  value = shift = 0
  while True:
    byte = data[place]
    place += 1
    value |= (byte & 127) << shift
    shift += 7
    if byte < 128:
      return value, place


def _with_other_image(message, image):
  """Returns a serialized message with another JPEG, and all else as it is.

  The classes of tf.train would write the fields in an order of their own. Here
  every field that holds a JPEG, at whatever depth, is written again.
  """
  if message.startswith(b'\xff\xd8'):
    return image
  if b'\xff\xd8' not in message:
    return message
  out, place = b'', 0
  while place < len(message):
    tag, place = _read_varint(message, place)
    assert tag & 7 == 2, 'only fields with a length can hold a JPEG'
    size, place = _read_varint(message, place)
    field = _with_other_image(message[place : place + size], image)
    place += size
    out += _varint(tag) + _varint(len(field)) + field
  return out


def _records(source, target):
  """A captions file of each split, and digests of all shards from them."""
  directory = os.path.join(target, 'records')
  os.makedirs(directory, exist_ok=True)
  for name in ('train', 'val'):
    captions = _read_json(source, 'preprocess', f'captions_{name}2014.json')
    images = [
      {'id': image['id'], 'file_name': f'{image["id"]}.jpg'}
      for image in captions['images']
    ]
    annotations = [
      {'image_id': entry['image_id'], 'caption': entry['caption']}
      for entry in captions['annotations']
    ]
    _write_json(
      os.path.join(directory, f'captions_{name}2014.json'),
      {'images': images},
      'annotations',
      annotations,
    )
  shutil.copyfile(
    os.path.join(source, 'preprocess', 'preprocess_word_counts.txt'),
    os.path.join(directory, 'word_counts.txt'),
  )
  shards = {}
  temporary = os.path.join(directory, 'shard.tmp')
  for name, records in _read_json(
    source, 'preprocess', 'preprocess_vectors.json'
  )['shards'].items():
    with tf.io.TFRecordWriter(temporary) as out:
      for image_id, tokens, ids, _ in records:
        out.write(_example(image_id, tokens, ids))
    with open(temporary, 'rb') as f:
      shards[name] = {
        'image_ids': [record[0] for record in records],
        'sha256': hashlib.sha256(f.read()).hexdigest(),
      }
  os.remove(temporary)
  _write_json(os.path.join(directory, 'shards.json'), {}, 'shards', shards)


def _example(image_id, tokens, ids):
  """Returns a record as the 2016 program made it, of a stand-in image."""

  def int64(value):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

  def data(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

  def features(values):
    return tf.train.FeatureList(feature=list(values))

  return tf.train.SequenceExample(
    context=tf.train.Features(
      feature={
        'image/image_id': int64(image_id),
        'image/data': data(testing.numbered_jpeg(image_id)),
      }
    ),
    feature_lists=tf.train.FeatureLists(
      feature_list={
        'image/caption': features(data(t.encode()) for t in tokens),
        'image/caption_ids': features(map(int64, ids)),
      }
    ),
  ).SerializeToString(deterministic=True)


def _tokenizer(source, target):
  os.makedirs(os.path.join(target, 'tokenizer'), exist_ok=True)
  vectors = [
    {name: vector[name] for name in ('caption', 'tokens')}
    for vector in _read_json(source, 'tokenizer_vectors.json')
  ]
  _write_json(
    os.path.join(target, 'tokenizer', 'captions.json'), {}, 'captions', vectors
  )


def main(source):
  target = testing.testdata_path()
  for make in (_preprocessing, _inference, _training, _records, _tokenizer):
    make(source, target)


if __name__ == '__main__':
  main(sys.argv[1])
