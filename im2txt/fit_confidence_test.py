# SPDX-License-Identifier: Apache-2.0
"""Tests of the program fit_confidence, and of what run_inference makes of it."""

import functools
import json
import shutil
import sys

import numpy as np
import pytest

from im2txt import testing
from im2txt.checkpoints import confidence_stamp
from im2txt.data import shards
from im2txt.evaluation import confidence_fit
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config

_IMAGES = 8
_SEARCH = search_config.SearchConfig(allow_unknown_word=False)


def _references(captioner, image, number):
  """Returns what the model says of half of the images, else what it does not."""
  if number % 2:
    return ['dog dog dog dog']
  return [captioner.caption([image])[0][0].text]


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  """A model, its images, and a shard of these."""
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  captioner = captioner_lib.Captioner(
    str(path), str(path / 'word_counts.txt'), _SEARCH
  )
  with shards.Writer(path / 'val-0') as writer:
    for i in range(_IMAGES):
      data = testing.jpeg(i)
      (path / f'{i}.jpg').write_bytes(data)
      tokens = [
        ['<S>', *caption.split(), '</S>']
        for caption in _references(captioner, captioner.decode(data), i)
      ]
      writer.write(
        shards.serialize_compact(
          i,
          data,
          [(t, [captioner.vocab.word_to_id(w) for w in t]) for t in tokens],
        )
      )
  return path


@pytest.fixture(scope='module', name='fitted')
def fixture_fitted(directory):
  """What the program printed; confidence.json is in the directory."""
  return testing.run_program(
    'fit_confidence',
    f'--checkpoint_path={directory}',
    f'--input_file_pattern={directory}/val-0',
    '--allow_unknown_word=false',
    f'--plot_file={directory}/plot.png',
  )


@functools.cache
def _captions(directory, *flags):
  """What run_inference prints of the images, once there is a fit."""
  result = testing.run_program(
    'run_inference',
    f'--checkpoint_path={directory}',
    '--allow_unknown_word=false',
    *flags,
    *(directory / f'{i}.jpg' for i in range(_IMAGES)),
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


def test_it_is_fitted_on_half_and_measured_on_the_rest(directory, fitted):
  assert fitted.returncode == 0, fitted.stderr
  found = confidence_stamp.load(str(directory), 10)
  assert found.cider == 0.5 and len(found.mean_features) == 2048
  assert found.measured['images_fitted'] == found.measured['images'] == 4
  assert f'calibration_error = {found.measured["calibration_error"]:g}' in (
    fitted.stdout
  )
  assert (directory / 'plot.png').read_bytes().startswith(b'\x89PNG')
  # Recomputed from what it printed captions of: the images that were left.
  captions = [
    json.loads(line)['captions'][0]
    for line in _captions(directory, '--output_format=json').splitlines()
  ]
  others = sorted(np.random.default_rng(0).permutation(_IMAGES)[4:])
  measured = confidence_fit.measure(
    np.array([captions[i]['confidence'] for i in others]),
    np.array([i % 2 == 0 for i in others]),
  )
  for name, value in measured.items():
    assert found.measured[name] == pytest.approx(value, abs=1e-3), name


def test_it_abstains_below_min_confidence(directory, fitted):
  del fitted
  captions = [
    json.loads(line)['captions']
    for line in _captions(directory, '--output_format=json').splitlines()
  ]
  confidences = [of[0]['confidence'] for of in captions]
  least = float(np.mean(confidences))
  assert min(confidences) < least < max(confidences)
  found = [
    json.loads(line)
    for line in _captions(
      directory, '--output_format=json', f'--min_confidence={least}'
    ).splitlines()
  ]
  for line, of, value in zip(found, captions, confidences, strict=True):
    if value < least:
      assert line['captions'] == []
      assert line['abstained_at_confidence'] == value
    else:
      assert line['captions'] == of
      assert 'abstained_at_confidence' not in line
  text = _captions(directory, f'--min_confidence={least}').splitlines()
  place = confidences.index(min(confidences))
  line = text.index(f'Captions for image {place}.jpg:')
  assert text[line + 1] == f'  none (confidence {min(confidences):.2f})'


def test_without_a_fit_there_is_no_abstaining(directory, fitted, tmp_path):
  del fitted
  for path in directory.iterdir():
    if path.name != confidence_stamp.FILE_NAME:
      shutil.copy(path, tmp_path)
  testing.assert_one_line_error(
    testing.run_program(
      'run_inference',
      f'--checkpoint_path={tmp_path}',
      '--min_confidence=0.5',
      tmp_path / '0.jpg',
    ),
    '--min_confidence=0.5 needs a confidence, and there is none for '
    f'--checkpoint_path={tmp_path}',
    ': run fit_confidence',
  )


def test_captions_that_are_all_good_are_refused(directory, fitted):
  del fitted
  testing.assert_one_line_error(
    testing.run_program(
      'fit_confidence',
      f'--checkpoint_path={directory}',
      f'--input_file_pattern={directory}/val-0',
      '--cider=0',
    ),
    'all of 4 captions have a CIDEr of 0 or more: give another --cider',
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
