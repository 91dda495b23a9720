# SPDX-License-Identifier: Apache-2.0
"""Tests of schedules."""

import dataclasses
import sys

import pytest

from im2txt import configuration
from im2txt.training import schedules


def rate(config, step, batch_size=32, train_inception=False):
  """Returns the learning rate of the decoder."""
  return schedules.learning_rates(config, batch_size, step, train_inception)[0]


def test_learning_rate_halves_every_eight_epochs():
  training = configuration.TrainingConfig()
  decay_steps = int(586363 / 32 * 8)
  assert rate(training, 0) == 2.0
  assert rate(training, decay_steps - 1) == 2.0
  assert rate(training, decay_steps) == 1.0
  assert rate(training, 3 * decay_steps) == 0.25
  assert rate(training, 3 * decay_steps, 32, True) == 0.0005


def test_the_rate_grows_during_warmup_and_then_is_what_it_was():
  plain = configuration.TrainingConfig(
    num_examples_per_epoch=100, num_epochs_per_decay=1.0
  )
  warm = dataclasses.replace(plain, warmup_steps=4)
  assert [rate(warm, step, 10) for step in range(5)] == [
    0.5,
    1.0,
    1.5,
    2.0,
    2.0,
  ]
  for step in range(4, 50):
    assert rate(warm, step, 10) == (rate(plain, step, 10))
  # Warm-up and decay multiply.
  warm = dataclasses.replace(plain, warmup_steps=20)
  assert rate(warm, 9, 10) == 2.0 * 10 / 20
  assert rate(warm, 14, 10) == 2.0 * 15 / 20 * 0.5
  assert rate(warm, 0, 10, True) == 0.0005


def test_the_cosine_schedule_ends_at_a_hundredth():
  training = configuration.TrainingConfig(
    initial_learning_rate=0.4,
    learning_rate_schedule='cosine',
    cosine_decay_steps=1200,
  )

  def at(step, config=training):
    return rate(config, step)

  # Values of the cosine at 0, 60, 90 and 120 degrees.
  for step, expected in (0, 0.4), (400, 0.3), (600, 0.2), (800, 0.1):
    assert at(step) == pytest.approx(expected, abs=1e-12)
  rates = [at(step) for step in range(1200)]
  assert sorted(rates, reverse=True) == rates
  # Nearly at the end the cosine falls below the floor.
  for step in (1150, 1200, 10**7):
    assert at(step) == pytest.approx(0.004)
  warm = dataclasses.replace(training, warmup_steps=800)
  assert at(399, warm) == pytest.approx(at(399) / 2)
  assert at(800, warm) == at(800)
  assert rate(training, 600, 32, True) == 0.0005


def test_top_blocks_have_their_own_rate_by_the_same_schedule():
  training = configuration.TrainingConfig(
    initial_learning_rate=0.4,
    learning_rate_schedule='cosine',
    cosine_decay_steps=1200,
    train_inception_learning_rate=0.02,
  )
  assert schedules.learning_rates(
    training, 32, 600, True, 'Mixed_7b'
  ) == pytest.approx((0.2, 0.01))
  assert schedules.learning_rates(training, 32, 600) == pytest.approx(
    (0.2, 0.2)
  )


def test_an_unknown_name_is_refused():
  with pytest.raises(ValueError, match='linear must be one of staircase, cos'):
    schedules.check(
      configuration.TrainingConfig(learning_rate_schedule='linear')
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
