# SPDX-License-Identifier: Apache-2.0
"""Tests of the program search, run as its users run it."""

import json
import os
import sys

import numpy as np
import pytest

from im2txt import testing
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import likelihood
from im2txt.text import vocabulary_stamp


@pytest.fixture(scope='module', name='files')
def fixture_files(tmp_path_factory):
  """A model, and a tree of photos."""
  path = tmp_path_factory.mktemp('files')
  (path / 'model').mkdir()
  testing.caption_model(path / 'model')
  # One that needs no data.
  stamp = vocabulary_stamp.load(path / 'model')
  vocabulary_stamp.save(
    path / 'model', stamp.__class__(**{**vars(stamp), 'tokenizer': 'unicode'})
  )
  (path / 'photos' / 'deep').mkdir(parents=True)
  for name, seed in (('a.jpg', 1), ('b.jpg', 2), ('deep/c, d.jpg', 3)):
    (path / 'photos' / name).write_bytes(testing.jpeg(seed))
  (path / 'photos' / 'bad.jpg').write_bytes(b'bad')
  (path / 'other.jpg').write_bytes(testing.jpeg(2))
  return path


def _search(files, *arguments):
  return testing.run_program(
    'search',
    f'--checkpoint_path={files}/model',
    f'--index_file={files}/index',
    *arguments,
  )


def test_indexes_and_finds(files):
  photos = files / 'photos'
  result = _search(
    files,
    photos,
    '--text=a Dog',
    f'--image={files}/other.jpg',
    '--output_format=json',
    '--count=2',
  )
  assert result.returncode == 1  # One photo is damaged.
  assert f'skipped {photos}/bad.jpg: not an image' in result.stderr
  assert '3 photo(s): 3 new or changed, 0 removed, 1 skipped' in result.stderr
  hits = [json.loads(line) for line in result.stdout.splitlines()]
  assert [hit['query'] for hit in hits] == ['a Dog'] * 2 + [
    f'{files}/other.jpg'
  ] * 2
  assert hits[2]['path'] == f'{photos}/b.jpg'
  assert hits[2]['score'] == pytest.approx(1, abs=1e-5)
  # The model itself says which photo the text fits best.
  captioner = captioner_lib.Captioner(
    str(files / 'model'), str(files / 'model' / 'word_counts.txt')
  )
  names = ('a.jpg', 'b.jpg', 'deep/c, d.jpg')
  features = captioner.encode(
    [captioner.decode((photos / name).read_bytes()) for name in names]
  ).numpy()
  scores = likelihood.Likelihood(captioner.model).log_likelihoods(
    np.concatenate([features, features.mean(axis=0, keepdims=True)]),
    [[captioner.vocab.word_to_id(word) for word in ('<S>', 'a', 'dog')]],
  )[:, 0]
  order = np.argsort(-scores[:3])[:2]
  assert [hit['path'] for hit in hits[:2]] == [
    f'{photos}/{names[i]}' for i in order
  ]
  np.testing.assert_allclose(
    [hit['score'] for hit in hits[:2]],
    scores[order] - scores[3],
    rtol=1e-3,
    atol=1e-6,
  )

  # The index is enough; nothing is encoded again.
  (photos / 'a.jpg').unlink()
  result = _search(files, '--text=a dog', '--count=9')
  assert result.returncode == 0
  lines = [line.split('\t') for line in result.stdout.splitlines()]
  assert sorted(path for _, path in lines) == [
    f'{photos}/{name}' for name in names
  ]
  assert all(float(score) for score, _ in lines)
  result = _search(files, photos)
  assert '2 photo(s): 0 new or changed, 1 removed, 1 skipped' in result.stderr


@pytest.mark.parametrize(
  'arguments, parts',
  [
    ([], ['name photos or directories', '--text']),
    (['--text=a dog', '--index_file={files}/no'], ['no', 'no index yet']),
    (['{files}/a dog'], ['a dog: no such file', '--text']),
    (['--index_file='], ['--index_file is required']),
  ],
)
def test_one_line_says_what_is_wrong(files, arguments, parts):
  given = [argument.format(files=files) for argument in arguments]
  testing.assert_one_line_error(_search(files, *given), *parts)
  assert not os.path.exists(files / 'no')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
