# SPDX-License-Identifier: Apache-2.0
"""Tests of nearest_words."""

import json
import re
import sys

import pytest

from im2txt import testing

_WITHOUT_WORDS = testing.testdata_path('checkpoints', 'v2_kernel')


@pytest.fixture(scope='module', name='model')
def fixture_model(tmp_path_factory):
  directory = tmp_path_factory.mktemp('model')
  testing.caption_model(directory, with_inception=False)
  return directory


def _run(model, *arguments):
  return testing.run_program(
    'nearest_words', f'--checkpoint_path={model}', *arguments
  )


def test_prints_a_line_per_word(model):
  result = _run(model, '--num_neighbours=2', 'dog', 'über', 'dog')
  assert result.returncode == 0, result.stderr
  near = r'\w+ \(-?[01]\.\d{3}\)'
  assert re.fullmatch(
    f'dog: {near}, {near}\nüber: {near}, {near}\n', result.stdout
  )


def test_json(model):
  result = _run(model, '--output_format=json', 'über')
  found = json.loads(result.stdout)
  assert found['word'] == 'über' and 'über' in result.stdout
  cosines = [near['cosine'] for near in found['neighbours']]
  assert len(cosines) == 3 and cosines == sorted(cosines, reverse=True)


def test_frequent_words_to_a_file(model, tmp_path):
  output = tmp_path / 'words.txt'
  result = _run(model, '--frequent_words=2', f'--output_file={output}', 'cat')
  assert result.stdout == f'Wrote {output}\n'
  words = [line.split(':')[0] for line in output.read_text().splitlines()]
  assert words == ['cat', 'a', 'dog']


@pytest.mark.parametrize(
  'arguments, part',
  [
    (['dgo'], "'dgo' (near it: dog)"),
    ([], 'name the words'),
    (['dog', '--output_file=/nowhere/words'], '--output_file=/nowhere/words'),
    (['dog', '--vocab_file=/nowhere'], '/nowhere'),
    (['dog', '--checkpoint_path=/nowhere'], 'no checkpoint at /nowhere'),
    (
      ['dog', f'--checkpoint_path={_WITHOUT_WORDS}'],
      '--vocab_file is required',
    ),
    (['dog', '--num_neighbours=0'], 'num_neighbours'),
  ],
)
def test_mistakes_are_told_in_one_line(model, arguments, part):
  testing.assert_one_line_error(_run(model, *arguments), part)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
