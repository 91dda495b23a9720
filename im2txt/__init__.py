# SPDX-License-Identifier: Apache-2.0
"""im2txt: Show and Tell, a neural image caption generator.

  from im2txt import Captioner

  captioner = Captioner.load()  # The shipped model, once get_model joined it.
  captioner.caption('photo.jpg')[0].text

See `im2txt.inference_utils.library`. Importing im2txt is quick: TensorFlow is
imported when one of these names is used first.
"""

import importlib
import os
import typing

from im2txt.runtime import quiet_tensorflow

if typing.TYPE_CHECKING:
  from im2txt.inference_utils.captioner import ScoredCaption
  from im2txt.inference_utils.library import Captioned
  from im2txt.inference_utils.library import Captioner
  from im2txt.inference_utils.search_config import SearchConfig

# Name -> the module below inference_utils that it is in.
_PUBLIC = {
  'Captioned': 'library',
  'Captioner': 'library',
  'ScoredCaption': 'captioner',
  'SearchConfig': 'search_config',
}

__all__ = ['Captioned', 'Captioner', 'ScoredCaption', 'SearchConfig']

# Both here, as TensorFlow is imported by any program, process or test after
# this.
quiet_tensorflow.install()
# TensorFlow imports a Keras with itself. tf-slim needs tf-keras, see
# `ops.slim_bridge`: Keras 3, with matplotlib, would be a third of the time that
# importing TensorFlow takes, for nothing.
os.environ['TF_USE_LEGACY_KERAS'] = '1'


def __getattr__(name: str) -> typing.Any:
  if name not in _PUBLIC:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'im2txt.inference_utils.{_PUBLIC[name]}')
  # So that it is asked for once.
  globals()[name] = getattr(module, name)
  return globals()[name]


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
