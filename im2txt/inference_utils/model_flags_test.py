# SPDX-License-Identifier: Apache-2.0
"""Tests of model_flags."""

import sys

from absl import flags
import pytest

from im2txt.inference_utils import model_flags


def test_help_lists_them_as_flags_of_the_program():
  values = flags.FlagValues()
  model_flags.define_flags(takes_several=True, flag_values=values)
  found = {flag.name for flag in values.get_key_flags_for_module(__name__)}
  # The module of a test that is run as a program.
  found |= {flag.name for flag in values.get_key_flags_for_module(sys.argv[0])}
  assert found == {'checkpoint_path', 'vocab_file'}
  assert 'ensemble' in values['checkpoint_path'].help


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
