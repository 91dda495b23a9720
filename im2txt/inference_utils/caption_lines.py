# SPDX-License-Identifier: Apache-2.0
"""How the captions of an image are printed."""

from collections.abc import Sequence
import json
import os

from im2txt.inference_utils import captioner as captioner_lib


def lines(
  filename: str,
  captions: Sequence[captioner_lib.ScoredCaption],
  output_format: str,
  min_confidence: float = 0.0,
) -> str:
  """Returns the captions of an image, or that its confidence is too low.

  Args:
    filename: of the image.
    captions: best first.
    output_format: 'text', as in 2016, or 'json', a line with an object.
    min_confidence: with less the image has no captions; 0: it always has.
  """
  abstained: dict[str, float] = {}
  if min_confidence and captions:
    confidence = captions[0].confidence or 0.0
    if confidence < min_confidence:
      captions, abstained = [], {'abstained_at_confidence': confidence}
  if output_format == 'json':
    return json.dumps(
      {
        'image': filename,
        'captions': [caption.as_dict() for caption in captions],
        **abstained,
      },
      ensure_ascii=False,
    )
  return '\n'.join(
    [
      f'Captions for image {os.path.basename(filename)}:',
      *(f'  none (confidence {c:.2f})' for c in abstained.values()),
      *(
        f'  {i}) {caption.text} (p={caption.probability:f})'
        for i, caption in enumerate(captions)
      ),
    ]
  )
