# SPDX-License-Identifier: Apache-2.0
"""The checks by name, and what becomes of them.

A check is a function from a `Case` to its observations. It raises
`NotAtHandError` if it lacks something. To add one, write it and name it in
`CHECKS`; what it looks for is the first line of its docstring.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import NamedTuple

from im2txt.diagnosis import caption_checks
from im2txt.diagnosis import case as case_lib
from im2txt.diagnosis import run_checks
from im2txt.diagnosis.observation import Observation

Check = Callable[[case_lib.Case], Iterator[Observation]]

# Causes come before their symptoms.
CHECKS: dict[str, Check] = {
  'checkpoints': run_checks.checkpoints_are_whole,
  'vocabulary': caption_checks.vocabulary_is_one,
  'unknown_words': caption_checks.words_are_known,
  'learning_rate': run_checks.learning_rate_does_not_jump,
  'loss': run_checks.loss_falls,
  'input': run_checks.step_is_fed,
  'steps': run_checks.steps_suffice,
  'encoder': run_checks.encoder_is_pretrained,
  'preprocessing': caption_checks.preprocessing_is_right,
  'image': caption_checks.image_is_used,
  'captions': caption_checks.captions_differ,
  'repetition': caption_checks.words_do_not_repeat,
}

FINDING, HEALTHY, LEFT_OUT = 'finding', 'healthy', 'left out'


class Outcome(NamedTuple):
  """What a check has found.

  Attributes:
    check: name of the check.
    kind: FINDING, HEALTHY or LEFT_OUT.
    text: evidence and remedy, or why it was left out.
  """

  check: str
  kind: str
  text: str

  def __str__(self) -> str:
    return f'{self.kind}: {self.check}: {self.text}'


def examine(
  case: case_lib.Case, checks: Mapping[str, Check] | None = None
) -> Iterator[Outcome]:
  """Yields the outcomes of all checks, one or more of each.

  Args:
    case: the training run.
    checks: checks by name; None for CHECKS.
  """
  told: set[str] = set()
  for name, check in (CHECKS if checks is None else checks).items():
    try:
      for evidence, remedy in check(case):
        if remedy:
          yield Outcome(name, FINDING, f'{evidence}; {remedy}')
        else:
          yield Outcome(name, HEALTHY, evidence)
    except case_lib.NotAtHandError as error:
      yield Outcome(name, LEFT_OUT, str(error))
    except (ValueError, OSError) as error:
      # A damaged file. The line names it and says what to do.
      if str(error) in told:
        yield Outcome(name, LEFT_OUT, 'see the findings above')
      else:
        told.add(str(error))
        yield Outcome(name, FINDING, str(error))
