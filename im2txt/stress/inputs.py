# SPDX-License-Identifier: Apache-2.0
"""Small good files of every kind, and the functions that read them."""

import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import io
import json
import os
import random
import shutil
import tempfile
from typing import Any
from typing import NamedTuple

import numpy as np
from PIL import Image
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt.checkpoints import best as best_checkpoint
from im2txt.checkpoints import encoder_stamp
from im2txt.checkpoints import reader as checkpoint_reader
from im2txt.data import build as build_lib
from im2txt.data import caption_files
from im2txt.data import image_formats
from im2txt.data import jpeg_check
from im2txt.data import shards
from im2txt.inference_utils import image_decoder
from im2txt.input_pipeline import captions as captions_lib
from im2txt.input_pipeline import image_batches
from im2txt.ops import image_processing
from im2txt.runtime import workers
from im2txt.stress import mutations
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

_SIZE = (24, 16)
_PREFIX = 'model.ckpt-7'
# Readers that rightly refuse some good files.
REFUSED_BY: Mapping[str, frozenset[str]] = collections.defaultdict(
  frozenset,
  {
    'training': frozenset(['animated GIF', 'BMP', 'TIFF', 'WebP']),
  },
)


# Reads the files in a directory.
Reader = Callable[[str], object]


class Part(NamedTuple):
  """A part of a file that is protected by a CRC.

  Attributes:
    name: name of the file.
    start: first byte of the part.
    end: end of the part.
    crc: position of the CRC.
  """

  name: str
  start: int
  end: int
  crc: int


class Good(NamedTuple):
  """A good input.

  Attributes:
    kind: kind of the readers for it.
    files: content of each file by name.
    parts: parts with a CRC. Half of the damage is to these, with a CRC that
      fits, so that it is not found at once.
  """

  kind: str
  files: dict[str, bytes]
  parts: tuple[Part, ...] = ()

  def damage(
    self, rng: random.Random, others: Sequence[bytes]
  ) -> dict[str, bytes]:
    """Returns the files with one of them damaged.

    Args:
      rng: source of the damage.
      others: contents of files to splice with.
    """
    if self.parts and rng.random() < 0.5:
      name, start, end, crc = rng.choice(self.parts)
      data = mutations.mutate_in_place(rng, self.files[name], start, end)
      data = (
        data[:crc] + mutations.masked_crc(data[start:end]) + data[crc + 4 :]
      )
    else:
      name = rng.choice(sorted(self.files))
      data = mutations.mutate(rng, self.files[name], others)
    return {**self.files, name: data}


def put(directory: str, contents: Mapping[str, bytes]) -> None:
  """Replaces the content of a directory with these files."""
  for entry in os.scandir(directory):
    if entry.is_dir(follow_symlinks=False):
      shutil.rmtree(entry.path)
    else:
      os.remove(entry.path)
  for name, data in contents.items():
    with open(os.path.join(directory, name), 'wb') as f:
      f.write(data)


def goods(kind: str) -> dict[str, Good]:
  """Returns the good inputs of a kind by name."""
  makers: dict[str, Callable[[], dict[str, Good]]] = {
    'images': _images,
    'records': _records,
    'checkpoints': _checkpoints,
    'vocabularies': _vocabularies,
    'json': _json,
  }
  return makers[kind]()


def readers(kind: str) -> dict[str, dict[str, Reader]]:
  """Returns the readers by name, for each kind of `Good`."""
  makers: dict[str, Callable[[], dict[str, dict[str, Reader]]]] = {
    'images': _image_readers,
    'records': _record_readers,
    'checkpoints': _checkpoint_readers,
    'vocabularies': _vocabulary_readers,
    'json': _json_readers,
  }
  return makers[kind]()


def _bytes_of(directory: str, name: str) -> bytes:
  with open(os.path.join(directory, name), 'rb') as f:
    return f.read()


# Images ----------------------------------------------------------------------


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
  out = io.BytesIO()
  image.save(out, kind, **options)
  return out.getvalue()


def _image(mode: str = 'RGB') -> Image.Image:
  pixels = np.random.default_rng(0).integers(
    0, 256, [*_SIZE[::-1], 4], np.uint8
  )
  return Image.fromarray(pixels, 'RGBA').convert(mode)


def _images() -> dict[str, Good]:
  exif = Image.Exif()
  exif[274] = 6
  encoded = {
    'JPEG': _encode(_image(), 'JPEG'),
    'progressive JPEG': _encode(_image(), 'JPEG', progressive=True),
    'gray JPEG': _encode(_image('L'), 'JPEG'),
    'CMYK JPEG': _encode(_image('CMYK'), 'JPEG'),
    'turned JPEG': _encode(_image(), 'JPEG', exif=exif),
    'PNG': _encode(_image(), 'PNG'),
    'PNG with alpha': _encode(_image('RGBA'), 'PNG'),
    'PNG of a palette': _encode(_image('P'), 'PNG'),
    'GIF': _encode(_image('P'), 'GIF'),
    'animated GIF': _encode(
      _image('P'),
      'GIF',
      save_all=True,
      append_images=[_image('L').convert('P')],
    ),
    'BMP': _encode(_image(), 'BMP'),
    'TIFF': _encode(_image(), 'TIFF'),
    'WebP': _encode(_image(), 'WebP'),
  }
  return {
    name: Good('image', {'image': data}) for name, data in encoded.items()
  }


def _image_readers() -> dict[str, dict[str, Reader]]:
  # TensorFlow's threads must be set before it is used.
  workers.worker_tensorflow()
  decoder = image_decoder.ImageDecoder(64, 64)

  @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])
  def process(encoded: tf.Tensor) -> tf.Tensor:
    return image_processing.process_image(
      image_processing.check_size(encoded),
      is_training=True,
      height=64,
      width=64,
      ordering=0,
      seed=tf.constant([1, 2], tf.int64),
    )

  def train(directory: str) -> None:
    # ImageBatches leaves out an image with this error.
    try:
      process(tf.constant(_bytes_of(directory, 'image')))
    except tf.errors.InvalidArgumentError as error:
      raise ValueError('cannot be decoded') from error

  def prepare(directory: str) -> None:
    data = _bytes_of(directory, 'image')
    reason = jpeg_check.why_undecodable(data)
    if reason is None:
      # As for every image that is accepted.
      image_formats.read_header(data)
    elif '\n' in reason:
      raise RuntimeError(f'not one line: {reason}')

  return {
    'image': {
      'captioning': lambda directory: decoder.decode(
        _bytes_of(directory, 'image')
      ),
      'preparation': prepare,
      'training': train,
      'pages': lambda directory: image_formats.thumbnail(
        _bytes_of(directory, 'image'), 32
      ),
    }
  }


# Records ---------------------------------------------------------------------


def _shard(
  records: Sequence[Sequence[bytes]],
) -> tuple[bytes, tuple[Part, ...]]:
  """Returns (content of a shard, its parts)."""
  with tempfile.TemporaryDirectory(prefix='im2txt_fuzz_') as directory:
    path = os.path.join(directory, 'shard')
    with shards.Writer(path) as writer:
      for record in records:
        writer.write(record)
    data = _bytes_of(directory, 'shard')
  parts: list[Part] = []
  start = 0
  while start < len(data):
    begin = start + shards.HEADER_BYTES
    end = begin + int.from_bytes(data[start : start + 8], 'little')
    parts += [
      Part('shard', start, start + 8, start + 8),
      Part('shard', begin, end, end),
    ]
    start = end + shards.FOOTER_BYTES
  return data, tuple(parts)


def _records() -> dict[str, Good]:
  jpeg = _encode(_image(), 'JPEG')
  words = (['<S>', 'a', 'dog', '.', '</S>'], [1, 3, 4, 5, 2])
  result = {}
  for name, records in (
    ('default', [shards.serialize(number, jpeg, *words) for number in (1, 2)]),
    (
      'compact',
      [
        shards.serialize_compact(number, jpeg, [words, words])
        for number in (1, 2)
      ],
    ),
  ):
    data, parts = _shard(records)
    result[name] = Good('shard', {'shard': data}, parts)
  return result


def _record_readers() -> dict[str, dict[str, Reader]]:
  config = configuration.ModelConfig(
    vocab_size=10, batch_size=2, image_height=64, image_width=64
  )

  def path(directory: str) -> str:
    return os.path.join(directory, 'shard')

  def captions(directory: str) -> None:
    captions_lib.read_captions([path(directory)]).check_ids(10)

  def train(directory: str) -> None:
    next(
      image_batches.ImageBatches([path(directory)], config).from_step(seed=1)
    )

  return {
    'shard': {
      'records': lambda directory: collections.deque(
        shards.read(path(directory)), 0
      ),
      'first record': lambda directory: shards.read_record(path(directory), 0),
      'captions': captions,
      'training': train,
    }
  }


# Checkpoints -----------------------------------------------------------------

_VALUES: dict[str, np.ndarray | np.int64] = {
  'seq_embedding/map': np.ones([5, 4], np.float32),
  'lstm/basic_lstm_cell/kernel': np.ones([8, 16], np.float32),
  'lstm/basic_lstm_cell/bias': np.zeros([16], np.float32),
  'logits/weights': np.ones([4, 5], np.float32),
  'logits/biases': np.zeros([5], np.float32),
  'global_step': np.int64(7),
}


def _parts(directory: str, name: str) -> tuple[Part, ...]:
  """Returns the parts of a file that is a table."""
  table = checkpoint_reader.Table(os.path.join(directory, name))
  # The CRC also covers the byte with the compression of a block.
  return tuple(
    Part(name, offset, offset + size + 1, offset + size + 1)
    for offset, size in (*table.blocks, table.index)
  )


def _checkpoints() -> dict[str, Good]:
  with tempfile.TemporaryDirectory(prefix='im2txt_fuzz_') as directory:
    checkpoints.CheckpointManager(directory).save(_VALUES)
    v2 = {
      name: _bytes_of(directory, name)
      for name in os.listdir(directory)
      if os.path.isfile(os.path.join(directory, name))
    }
    tf.raw_ops.Save(
      filename=os.path.join(directory, _PREFIX),
      tensor_names=sorted(_VALUES),
      data=[_VALUES[name] for name in sorted(_VALUES)],
    )
    return {
      'V2': Good('V2', v2, _parts(directory, f'{_PREFIX}.index')),
      'V1': Good(
        'V1',
        {_PREFIX: _bytes_of(directory, _PREFIX)},
        _parts(directory, _PREFIX),
      ),
    }


def _restore(path: str) -> int | None:
  variables = {
    name: tf.Variable(tf.zeros(value.shape, value.dtype))
    for name, value in _VALUES.items()
  }
  checkpoint = checkpoints.Checkpoint(path)
  checkpoint.model_sizes()
  checkpoint.restore(variables)
  return checkpoint.global_step


def _checkpoint_readers() -> dict[str, dict[str, Reader]]:
  def fault(directory: str) -> None:
    wrong = checkpoints.fault(os.path.join(directory, _PREFIX))
    if wrong:
      raise ValueError(wrong)

  def by_prefix(directory: str) -> None:
    _restore(os.path.join(directory, _PREFIX))

  return {
    'V1': {'one': by_prefix, 'check': fault},
    'V2': {'one': by_prefix, 'check': fault, 'newest': _restore},
  }


# Vocabularies ----------------------------------------------------------------


def _vocabularies() -> dict[str, Good]:
  return {
    'counts': Good(
      'vocabulary',
      {
        'words': '\n'.join(
          f'{word} {30 - i}'
          for i, word in enumerate(['<S>', '</S>', 'a', 'dog', 'é', '犬', '.'])
        ).encode()
      },
    ),
    'words alone': Good(
      'vocabulary', {'words': b'\xef\xbb\xbf<S>\r\n</S>\r\na\r\n<UNK>\r\n'}
    ),
  }


def _vocabulary_readers() -> dict[str, dict[str, Reader]]:
  def read(directory: str) -> None:
    vocab = vocabulary.Vocabulary(os.path.join(directory, 'words'))
    vocab.check_fits_model(12000)
    vocabulary_stamp.of_vocabulary(vocab)
    for word_id in range(-1, len(vocab) + 1):
      vocab.word_to_id(vocab.id_to_word(word_id))

  return {'vocabulary': {'vocabulary': read}}


# JSON ------------------------------------------------------------------------


def _json() -> dict[str, Good]:
  coco = {
    'images': [
      {'id': 1, 'file_name': 'a.jpg'},
      {'id': 2, 'file_name': 'b.jpg'},
    ],
    'annotations': [
      {'id': 1, 'image_id': 1, 'caption': 'a dog'},
      {'id': 2, 'image_id': 2, 'caption': 'é 犬'},
    ],
  }
  karpathy = {
    'images': [
      {
        'filename': 'a.jpg',
        'split': 'train',
        'imgid': 1,
        'sentences': [{'raw': 'a dog'}],
      }
    ]
  }
  results = [
    {'image_id': 1, 'caption': 'a dog'},
    {'image_id': 2, 'caption': 'a cat'},
  ]
  lines = [
    {'file_name': 'a.jpg', 'caption': 'a dog'},
    {'file_name': 'b.jpg', 'captions': ['a', 'b']},
  ]
  with tempfile.TemporaryDirectory(prefix='im2txt_fuzz_') as directory:
    configuration.save(
      directory, (configuration.ModelConfig(), configuration.TrainingConfig())
    )
    vocabulary_stamp.save(directory, vocabulary_stamp.Stamp('0' * 16, 5, 'x'))
    encoder_stamp.save(
      directory,
      encoder_stamp.Stamp('0' * 64, encoder_stamp.URL, 'http://a/b.tar.gz'),
    )
    written = {
      name: _bytes_of(directory, name) for name in os.listdir(directory)
    }

  def text(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()

  return {
    'coco': Good('captions', {'captions': text(coco)}),
    'karpathy': Good('captions', {'captions': text(karpathy)}),
    'lines': Good('captions', {'captions': b'\n'.join(map(text, lines))}),
    'csv': Good('captions', {'captions': b'image,caption\na.jpg,"a, dog"\n'}),
    'tokens': Good('captions', {'captions': b'a.jpg#0\ta dog\n'}),
    'bars': Good(
      'captions',
      {'captions': b'image_name| comment_number| comment\na.jpg| 0| a dog\n'},
    ),
    'references': Good('references', {'captions': text(coco)}),
    'results': Good('results', {'captions': text(results)}),
    'best': Good(
      'best',
      {
        'best.json': text(
          {'metric': 'CIDEr', 'value': 0.5, 'global_step': 7, 'measured_on': {}}
        )
      },
    ),
    **{name: Good(name, {name: data}) for name, data in written.items()},
  }


def _json_readers() -> dict[str, dict[str, Reader]]:
  def given(read: Callable[[str, str], object]) -> Reader:
    return lambda directory: read(os.path.join(directory, 'captions'), '--flag')

  def captions(directory: str) -> None:
    entries = caption_files.read(os.path.join(directory, 'captions'), '--flag')
    build_lib.captioned(caption_files.numbered(entries), 'images', 'captions')

  return {
    'captions': {'captions': captions},
    'references': {
      'references': given(caption_files.read_references),
      'coco': given(caption_files.read_coco),
    },
    'results': {'results': given(caption_files.read_results)},
    'best': {
      'best': lambda directory: best_checkpoint.BestCheckpoint(
        directory, 'CIDEr', {}
      )
    },
    configuration.FILE_NAME: {'configuration': configuration.load},
    vocabulary_stamp.FILE_NAME: {'vocabulary': vocabulary_stamp.load},
    encoder_stamp.FILE_NAME: {'encoder': encoder_stamp.load},
  }
