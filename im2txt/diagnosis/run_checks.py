# SPDX-License-Identifier: Apache-2.0
"""Checks of the files and the events that training leaves."""

from collections.abc import Iterator
import glob
import math
import os

import numpy as np

from im2txt import checkpoints
from im2txt.checkpoints import encoder_stamp
from im2txt.checkpoints import locating
from im2txt.diagnosis import case as case_lib
from im2txt.diagnosis.observation import Observation

# A rate that grows more than this between two points jumps.
_JUMP = 2.0
# The loss has risen if it is above its least value by this factor, and by this
# many nats, as small losses vary more.
_RISE, _RISE_NATS = 1.15, 0.1
# Windows whose medians are compared, and the fewest points to do so.
_WINDOWS, _FEWEST_POINTS = 10, 50
# More of the time than this should not go by in waiting.
_MOST_WAITING = 0.25
# The training of 2016 takes 54 passes over MSCOCO.
_FEWEST_PASSES = 3
# The genuine encoder gives 0.4 on photos, one of random weights 0.98.
_MOST_ALIKE = 0.95


def checkpoints_are_whole(case: case_lib.Case) -> Iterator[Observation]:
  """There is a checkpoint, and none is damaged."""
  whole = []
  for prefix in locating.prefixes_in(case.train_dir):
    for stem in (prefix, checkpoints.training_state_prefix(prefix)):
      if not locating.files_of(stem):
        continue  # There is none, or training has just deleted it.
      if fault := checkpoints.fault(stem):
        remedy = (
          'run the same train command again: it goes on from the newest whole '
          'checkpoint'
        )
        if 'diverged' in fault:
          remedy += ', and needs a lower learning rate not to diverge again'
        yield Observation(fault, remedy)
      elif stem == prefix:
        whole.append(prefix)
  if locating.read_state(case.train_dir) == []:
    yield Observation(
      f'{os.path.join(case.train_dir, checkpoints.STATE_FILE)} is damaged',
      'run the same train command again: it writes the file anew',
    )
  renamed = sorted(
    glob.glob(os.path.join(glob.escape(case.train_dir), '*' + locating.DAMAGED))
  )
  if renamed:
    yield Observation(
      f'train has found damaged files and renamed them, such as {renamed[0]}',
      'look after the disk, and remove the files',
    )
  if whole:
    yield Observation(f'{len(whole)} whole, the newest {whole[-1]}')
  else:
    yield Observation(
      f'no whole checkpoint in {case.train_dir}',
      'give --train_dir the directory of train, or let train run on: it saves '
      'one every --save_interval_secs and at its end',
    )


def encoder_is_pretrained(case: case_lib.Case) -> Iterator[Observation]:
  """Inception v3 does not have random weights."""
  remedy = (
    'get_inception gets the weights: give them to train as '
    '--inception_checkpoint_file, with a new --train_dir'
  )
  checkpoint = case.trained.checkpoint
  averages = [
    name
    for name in checkpoint.shapes
    if name.startswith('InceptionV3/') and name.endswith('/moving_mean')
  ]
  if not averages:
    raise case_lib.NotAtHandError('no Inception v3 in the checkpoint')
  if not any(checkpoint.get(name).any() for name in averages):
    yield Observation(
      'the weights of Inception v3 are random: all its batch-norm averages are '
      'as at the start',
      remedy,
    )
    return
  stamp = encoder_stamp.load(case.train_dir)
  origin = f'training began with weights of {stamp or "unknown origin"}'
  try:
    features = case.features()
  except case_lib.NotAtHandError:
    yield Observation(origin)
    return
  directions = features / np.linalg.norm(features, axis=1, keepdims=True)
  count = len(directions)
  if count < 2:
    yield Observation(origin)
    return
  alike = float(np.square(directions.sum(axis=0)).sum() - count) / (
    count * (count - 1)
  )
  evidence = (
    f'{origin}; the features of {count} images have a mean cosine of '
    f'{alike:.2f}'
  )
  if alike > _MOST_ALIKE:
    yield Observation(f'{evidence}, so all images look the same', remedy)
  else:
    yield Observation(evidence)


def learning_rate_does_not_jump(case: case_lib.Case) -> Iterator[Observation]:
  """After the warm-up the learning rate does not grow suddenly."""
  config = case.training_config
  warm_at = config.warmup_steps and (
    config.schedule_start_step + config.warmup_steps
  )
  points = case.points('learning_rate')
  jumps = [
    (before, after)
    for before, after in zip(points, points[1:])
    if after.step > warm_at + 1 and after.value > _JUMP * before.value
  ]
  for before, after in jumps[:3]:
    yield Observation(
      f'the learning rate jumps from {before.value:g} at step {before.step} to '
      f'{after.value:g} at step {after.step}',
      f'unless you want it, go on from a checkpoint before step {after.step} '
      'with the flags of before: --initial_learning_rate, --batch_size, '
      '--num_examples_per_epoch, --train_inception',
    )
  if not jumps:
    yield Observation(
      f'{len(points)} points, from {points[0].value:g} to {points[-1].value:g}'
    )


def loss_falls(case: case_lib.Case) -> Iterator[Observation]:
  """No loss is NaN, and the loss does not rise again."""
  for tag, points in case.scalars.items():
    wrong = [p for p in points if not math.isfinite(p.value)]
    if wrong:
      yield Observation(
        f'{tag} is {wrong[0].value} at step {wrong[0].step}',
        f'go on from a checkpoint before step {wrong[0].step} with a lower '
        '--initial_learning_rate, or --train_inception_learning_rate',
      )
      return
  # total_loss may include the weight decay of Inception.
  points = case.points('losses/batch_loss', 'losses/total_loss')
  if 'sampling_probability' in case.scalars:
    yield Observation('finite; scheduled sampling lets it rise')
    return
  # The loss of self-critical training is a reward below zero.
  points = [point for point in points if point.value > 0]
  if len(points) < _FEWEST_POINTS:
    raise case_lib.NotAtHandError(
      f'{len(points)} losses in the event files, fewer than {_FEWEST_POINTS}'
    )
  windows = np.array_split(
    np.array([(p.step, p.value) for p in points]), _WINDOWS
  )
  steps, losses = np.array([np.median(w, axis=0) for w in windows]).T
  least = int(losses.argmin())
  evidence = (
    f'{losses[least]:.3f} about step {steps[least]:.0f}, and '
    f'{losses[-1]:.3f} about step {steps[-1]:.0f}'
  )
  if losses[-1] > max(_RISE * losses[least], losses[least] + _RISE_NATS):
    yield Observation(
      f'the loss has risen: {evidence}',
      f'go on from a checkpoint of about step {steps[least]:.0f} with a lower '
      'learning rate',
    )
  else:
    yield Observation(f'the loss was {evidence}')


def step_is_fed(case: case_lib.Case) -> Iterator[Observation]:
  """Steps do not wait long for their input."""
  points = case.points('waiting_for_input')
  share = float(np.mean([point.value for point in points[len(points) // 2 :]]))
  evidence = f'steps wait for input {share:.0%} of the time'
  if share > _MOST_WAITING:
    yield Observation(
      evidence,
      'train from --feature_cache_dir, which encodes each image only once, or '
      'move the shards to a faster disk, or give more processor cores',
    )
  else:
    yield Observation(evidence)


def steps_suffice(case: case_lib.Case) -> Iterator[Observation]:
  """Training has seen each caption a few times."""
  captions = case.sample.captions_in_all
  step = case.trained.checkpoint.global_step
  if not step:
    raise case_lib.NotAtHandError('no step in the checkpoint')
  per_step = (
    case.trained.model_config.batch_size * case.training_config.accumulate_steps
  )
  passes = step * per_step / captions
  evidence = (
    f'{step} steps of {per_step} captions are {passes:.2g} passes over about '
    f'{captions} captions'
  )
  if passes < _FEWEST_PASSES:
    yield Observation(
      f'{evidence}, too few to learn from them',
      'let train run on with --number_of_steps='
      f'{math.ceil(10 * captions / per_step)} or more, which is 10 passes',
    )
  else:
    yield Observation(evidence)
