# SPDX-License-Identifier: Apache-2.0
"""How the captions of an image are told."""

from collections.abc import Sequence
import json
import os
from typing import Any

from im2txt.inference_utils import captioner as captioner_lib


def as_dict(
  captions: Sequence[captioner_lib.ScoredCaption], min_confidence: float = 0.0
) -> dict[str, Any]:
  """Returns what JSON tells of the captions of an image, {name: value}.

  Args:
    captions: best first.
    min_confidence: with less in the best one the image has no captions, but
      'abstained_at_confidence'; 0: it always has.
  """
  if min_confidence and captions:
    confidence = captions[0].confidence or 0.0
    if confidence < min_confidence:
      return {'captions': [], 'abstained_at_confidence': confidence}
  return {'captions': [caption.as_dict() for caption in captions]}


def record(
  filename: str,
  captions: Sequence[captioner_lib.ScoredCaption],
  min_confidence: float = 0.0,
  time: float | None = None,
) -> dict[str, Any]:
  """Returns what a line of JSON tells of an image, {name: value}.

  Args:
    filename: of the image, or of the video that it is from.
    captions: best first.
    min_confidence: see `as_dict`.
    time: where in the video it is, in seconds; None for an image.
  """
  return {
    'image': filename,
    **({} if time is None else {'time': round(time, 3)}),
    **as_dict(captions, min_confidence),
  }


def lines(
  filename: str,
  captions: Sequence[captioner_lib.ScoredCaption],
  output_format: str,
  min_confidence: float = 0.0,
  time: float | None = None,
) -> str:
  """Returns the captions of an image, or that its confidence is too low.

  Args:
    filename: see `record`.
    captions: best first.
    output_format: 'text', as in 2016, or 'json', a line with an object.
    min_confidence: see `as_dict`.
    time: see `record`.
  """
  told = record(filename, captions, min_confidence, time)
  if output_format == 'json':
    return json.dumps(told, ensure_ascii=False)
  confidence = told.get('abstained_at_confidence')
  at = '' if time is None else f' at {clock(time)}'
  return '\n'.join(
    [
      f'Captions for image {os.path.basename(filename)}{at}:',
      *(
        f'  {i}) {caption.text} (p={caption.probability:f})'
        for i, caption in enumerate(captions if confidence is None else [])
      ),
      *(
        [] if confidence is None else [f'  none (confidence {confidence:.2f})']
      ),
    ]
  )


def clock(seconds: float) -> str:
  """Returns a time of a video as people read it.

  >>> clock(3725.04)
  '1:02:05.0'
  """
  tenths = round(10 * seconds)
  return f'{tenths // 36000}:{tenths // 600 % 60:02}:{tenths % 600 / 10:04.1f}'
