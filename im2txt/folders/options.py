# SPDX-License-Identifier: Apache-2.0
"""The options of run_inference, which are its flags."""

from collections.abc import Sequence
import dataclasses

from im2txt.folders import caption_file
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import model_flags
from im2txt.runtime import beam_workers
from im2txt.runtime import storage
from im2txt.runtime.flag_dataclasses import field

# What captions depend on beside the model and the search.
_OF_CAPTIONS = (
  'exif_orientation',
  'min_confidence',
  'word_probabilities',
  'seconds_between_frames',
)


@dataclasses.dataclass(frozen=True)
class CaptionOptions(beam_workers.RunnerOptions):
  """Which files to caption, with which model, and where the captions go.

  Each field is a flag of that name.
  """

  checkpoint_path: str = field(
    '', model_flags.CHECKPOINT_TEXT + model_flags.ENSEMBLE_TEXT
  )
  vocab_file: str = field('', model_flags.VOCABULARY_TEXT)
  precision: str = field(
    'float32', model_flags.PRECISION_TEXT, model_flags.PRECISIONS
  )
  input_files: str = field(
    '',
    'Image files, directories or file patterns, separated by commas. Further '
    'ones can be given as arguments, which may contain commas.',
  )
  recursive: bool = field(
    False, 'Take the images in directories of directories too.'
  )
  exif_orientation: bool = field(
    True,
    'Turn images upright by their EXIF data. The program of 2016 did not, '
    'neither in training nor for captions.',
  )
  seconds_between_frames: float = field(
    5.0,
    'Caption at most one frame of a video per so many seconds.',
    lower_bound=0,
  )
  inference_batch_size: int = field(16, 'Images per batch.', lower_bound=1)
  min_confidence: float = field(
    0.0, model_flags.MIN_CONFIDENCE_TEXT, lower_bound=0, upper_bound=1
  )
  word_probabilities: bool = field(
    False, 'Write the probability of each word too, as "words" in JSON.'
  )
  output_format: str = field(
    'text',
    'text as in 2016; or json, an object per line: {"image": file, "captions": '
    '[{"caption", "probability", "log_probability", and "confidence" if '
    'fit_confidence was run}]}.',
    ('text', 'json'),
  )
  output_file: str = field(
    '',
    'File to write instead of standard output: NAME.jsonl, JSON as of '
    '--output_format with the size and time of the image and a fingerprint of '
    'the model; or NAME.csv, a row with the best caption. Lines are added to '
    'it. Images that it has already, unchanged and from the same model and '
    'flags, are left out.',
  )
  sidecars: bool = field(
    False,
    'Write the best caption beside each photo, as description and alt text '
    'into photo.jpg.xmp. What other programs wrote there stays.',
  )
  replace_alt_text: bool = field(
    False, 'With --sidecars: replace alt text that is there already.'
  )

  @property
  def goes_on(self) -> bool:
    """Whether a later run goes on where this one stops."""
    return bool(self.output_file) or self.sidecars

  @property
  def takes_videos(self) -> bool:
    """Whether the videos of a directory are captioned."""
    return self.is_local and not (self.sidecars and not self.output_file)

  def fingerprint(self, captioner: captioner_lib.Captioner) -> str:
    """Tells captions by this model with these options from others."""
    told = {name: getattr(self, name) for name in _OF_CAPTIONS}
    return captioner_lib.digest(captioner.fingerprint, told)

  def check(self, arguments: Sequence[str] = ()) -> None:
    """Checks all that can be checked before a model is loaded.

    Args:
      arguments: names of files beside `input_files`.

    Raises:
      ValueError: no file is named, or options do not go together.
    """
    if not self.input_files and not arguments:
      raise ValueError(
        'name the images: run_inference [flags] FILE... (see --help)'
      )
    if self.output_file:
      caption_file.check_name(self.output_file)
      storage.require_directory_of('output_file', self.output_file)
    self.check_runner('')
    if not self.is_local and (self.goes_on or self.word_probabilities):
      raise ValueError(
        f'--runner={self.runner} writes captions to standard output: leave out '
        '--output_file, --sidecars and --word_probabilities'
      )
    if self.replace_alt_text and not self.sidecars:
      raise ValueError('--replace_alt_text needs --sidecars')
    if self.word_probabilities and not (
      self.output_file.lower().endswith('.jsonl')
      or (self.output_format == 'json' and not self.output_file)
    ):
      raise ValueError(
        '--word_probabilities needs --output_format=json or an --output_file '
        'that ends with .jsonl'
      )
