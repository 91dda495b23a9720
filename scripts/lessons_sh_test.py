# SPDX-License-Identifier: Apache-2.0
"""Tests for scripts/lessons.sh: what it runs, in which order and on what."""

import os
import shutil
import subprocess
import sys

import pytest

_SCRIPTS = os.path.dirname(os.path.abspath(__file__))
_PROGRAMS = ['build_caption_data', 'get_inception', 'sweep', 'train']

# Stands for each program: notes how it was called, and fails if its arguments
# name FAILS. What is trained leaves a checkpoint.
_PROGRAM = """#!/bin/bash
echo "${0##*/} $*" >> "$CALLS"
[[ -z "${FAILS:-}" || "$*" != *"$FAILS"* ]] || exit 7
for argument; do
  case "$argument" in
    --train_dir=*) train_dir="${argument#*=}" ;;
    --number_of_steps=*) steps="${argument#*=}" ;;
  esac
done
if [ -n "${train_dir:-}" ]; then
  mkdir -p "$train_dir"
  touch "$train_dir/configuration.json" "$train_dir/model.ckpt-$steps.index" \
    "$train_dir/training_state-$steps.index"
fi
"""


@pytest.fixture(name='lessons')
def fixture_lessons(tmp_path):
  """Returns a function that runs the script in a project of stand-ins."""
  root = tmp_path / 'project'
  (root / 'scripts').mkdir(parents=True)
  shutil.copy(os.path.join(_SCRIPTS, 'lessons.sh'), root / 'scripts')
  for name in [f'bin/{name}' for name in _PROGRAMS] + ['.venv/bin/python3']:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PROGRAM)
    path.chmod(0o755)
  data = root / 'data' / 'flickr8k'
  (data / 'Flicker8k_Dataset').mkdir(parents=True)
  (data / 'Flickr8k.token.txt').touch()

  def run(*arguments, **environ):
    calls = tmp_path / 'calls'
    calls.write_text('')
    result = subprocess.run(
      [root / 'scripts' / 'lessons.sh', *arguments],
      check=False,
      capture_output=True,
      text=True,
      env={
        'PATH': os.environ['PATH'],
        'CALLS': str(calls),
        'IM2TXT_BIN_DIR': str(root / 'bin'),
        'SEEDS': '4 5 6',
        'FROZEN_STEPS': '30',
        'JOINT_STEPS': '20',
        'CRITICAL_STEPS': '7',
        **environ,
      },
    )
    return result, calls.read_text().replace(f'{root}/', '').splitlines()

  run.root = root
  return run


def flags(call):
  """Returns the flags of a call; of one that is there twice, the last."""
  return dict(
    argument.partition('=')[::2]
    for argument in call.split()
    if argument.startswith('--')
  )


def test_each_lesson_is_built_upon_the_one_before(lessons):
  result, calls = lessons()
  assert result.returncode == 0, result.stderr
  assert not result.stderr
  train = {
    os.path.basename(flags(call)['--train_dir']): flags(call)
    for call in calls
    if call.startswith('train ')
  }
  assert list(train) == [
    f'{kind}-{seed}'
    for kind in ('frozen', 'joint', 'longer', 'sampled', 'critical')
    for seed in (4, 5, 6)
  ]
  assert all(of['--random_seed'] == name[-1] for name, of in train.items())
  steps = {name: of['--number_of_steps'] for name, of in train.items()}
  assert steps['frozen-4'] == '30'
  assert steps['joint-5'] == steps['longer-5'] == steps['sampled-5'] == '50'
  assert steps['critical-6'] == '57'
  # Scheduled sampling is all that differs.
  differ = train['joint-4'].items() ^ train['sampled-4'].items()
  assert {name.partition('_')[0] for name, _ in differ} == {
    '--scheduled',
    '--train',
  }
  assert train['sampled-4'].keys() - train['joint-4'].keys() == {
    '--scheduled_sampling',
    '--scheduled_sampling_start_step',
    '--scheduled_sampling_half_steps',
  }
  data = lessons.root / 'data' / 'lessons'
  # A phase has the checkpoint, but not the optimizer, of the one before.
  assert {path.name for path in (data / 'joint-4').iterdir()} == {
    'checkpoint',
    'configuration.json',
    'model.ckpt-30.index',
    'model.ckpt-50.index',
    'training_state-50.index',
  }
  assert (data / 'critical-4' / 'checkpoint').read_text() == (
    'model_checkpoint_path: "model.ckpt-50"\n'
  )
  sweeps = {
    os.path.basename(flags(call)['--output_dir']): flags(call)
    for call in calls
    if call.startswith('sweep ')
  }
  assert {
    name: of['--checkpoint_path'].replace('data/lessons/', '')
    for name, of in sweeps.items()
    if name.startswith('ensemble')
  } == {
    'ensemble-without-4': 'sampled-5,sampled-6',
    'ensemble-without-5': 'sampled-4,sampled-6',
    'ensemble-without-6': 'sampled-4,sampled-5',
    'ensemble-all': 'sampled-4,sampled-5,sampled-6',
  }
  assert set(train) == {name for name in sweeps if '-' in name} - {
    name for name in sweeps if name.startswith('ensemble')
  }
  assert {of['--feature_dir'] for of in sweeps.values()} == {
    'data/lessons/scores/features'
  }
  assert calls[-1] == (
    'python3 -m im2txt.evaluation.lessons --directory=data/lessons'
  )
  # Finished steps are not done again, and the tables are cheap.
  result, calls = lessons()
  assert result.returncode == 0 and len(calls) == 1
  assert result.stdout.count('done before') == 36


def test_goes_on_where_it_failed_or_was_stopped(lessons):
  result, calls = lessons(FAILS='joint-5')
  assert result.returncode == 7
  assert 'joint-5' in calls[-1]
  _, again = lessons()
  assert again[0] == calls[-1]
  assert not any('joint-4' in call for call in again if 'train ' in call)


def test_other_sizes_do_not_pass_for_those_that_are_done(lessons):
  assert lessons('frozen-4')[0].returncode == 0
  result, calls = lessons('frozen-4', FROZEN_STEPS='31')
  assert result.returncode == 1 and not calls
  assert result.stderr == (
    'lessons: frozen-4 is done with other settings '
    f'({lessons.root}/data/lessons/done/frozen-4): set another LESSONS_DIR, or '
    'remove this file to do it again\n'
  )


def test_steps_can_be_chosen(lessons):
  result, calls = lessons('frozen-*')
  assert result.returncode == 0
  assert [flags(call)['--train_dir'][-1] for call in calls] == ['4', '5', '6']
  assert '[3/3] frozen-6' in result.stdout


def test_a_dry_run_runs_nothing(lessons):
  result, calls = lessons('--dry_run')
  assert result.returncode == 0 and not calls
  lines = result.stdout.splitlines()
  assert len(lines) == 36
  assert lines[0].startswith('[1/36] shards: ')
  assert not (lessons.root / 'data' / 'lessons').exists()


def test_says_where_flickr8k_comes_from(lessons, tmp_path):
  result, calls = lessons(FLICKR8K_DIR=str(tmp_path / 'none'))
  assert result.returncode == 1 and not calls
  assert result.stderr.startswith(f'lessons: no Flickr8k in {tmp_path}/none: ')
  assert 'FLICKR8K_DIR' in result.stderr and result.stderr.count('\n') == 1


def test_an_unknown_flag_is_refused(lessons):
  result, calls = lessons('--dryrun')
  assert result.returncode == 1 and not calls
  assert result.stderr.startswith('lessons: unknown flag --dryrun')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
