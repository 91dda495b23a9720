# SPDX-License-Identifier: Apache-2.0
"""What a check has seen."""

from typing import NamedTuple


class Observation(NamedTuple):
  """What a check has seen.

  Attributes:
    evidence: what was seen or measured, a line.
    remedy: what to do; '' if nothing is wrong.
  """

  evidence: str
  remedy: str = ''
