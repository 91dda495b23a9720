# SPDX-License-Identifier: Apache-2.0
"""The flags that name a trained model, the same in every program."""

from collections.abc import Sequence

from absl import flags

from im2txt.runtime import flag_dataclasses

# Values of --precision, in which Inception v3 is computed.
PRECISIONS = ('float32', 'bfloat16', 'int8')
# Help texts, which options of some programs share.
CHECKPOINT_TEXT = (
  'Model checkpoint: a file prefix, or a directory (its latest is taken).'
)
ENSEMBLE_TEXT = ' Several, separated by commas, caption as an ensemble.'
VOCABULARY_TEXT = (
  'Vocabulary the model was trained with. The default is word_counts.txt '
  'beside the checkpoint.'
)
MIN_CONFIDENCE_TEXT = (
  'Give no caption of an image if the confidence in its best one is below '
  'this. Needs the confidence.json that fit_confidence writes.'
)
PRECISION_TEXT = (
  'Precision of Inception v3. bfloat16 is faster on processors that support it '
  '(AVX512 BF16, AMX), and changes some captions. int8 is faster still and '
  'changes more; it needs calibrate_encoder and the package openvino.'
)


def define_flags(
  takes_several: bool = False,
  has_default: bool = False,
  flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
  """Defines --checkpoint_path and --vocab_file.

  Args:
    takes_several: whether several checkpoints are an ensemble.
    has_default: whether the program takes the model of get_model if the flag is
      not given.
    flag_values: where the flags are defined.
  """
  # --help lists the flags under the program, not under this module.
  flags.disclaim_key_flags()
  text = CHECKPOINT_TEXT
  if takes_several:
    text += ENSEMBLE_TEXT
  if has_default:
    text += ' The default is the model of get_model.'
  flag_dataclasses.define_flag(
    'checkpoint_path', str, '', text, flag_values=flag_values
  )
  flag_dataclasses.define_flag(
    'vocab_file',
    str,
    '',
    VOCABULARY_TEXT,
    flag_values=flag_values,
  )


def define_precision(
  more: Sequence[str] = (),
  text: str = '',
  flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
  """Defines --precision.

  Args:
    more: values that it has beside PRECISIONS.
    text: what to tell of it beside PRECISION_TEXT.
    flag_values: where the flag is defined.
  """
  flags.disclaim_key_flags()
  flag_dataclasses.define_flag(
    'precision',
    str,
    'float32',
    PRECISION_TEXT + text,
    [*PRECISIONS, *more],
    flag_values,
  )


def define_min_confidence(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines --min_confidence.

  Args:
    flag_values: where the flag is defined.
  """
  flags.disclaim_key_flags()
  flags.DEFINE_float(
    'min_confidence',
    0,
    MIN_CONFIDENCE_TEXT,
    lower_bound=0,
    upper_bound=1,
    flag_values=flag_values,
  )
