# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of every vintage in, one format out.

The names below are the room's front door: `from im2txt import checkpoints`.
"""

from im2txt.checkpoints.checkpoint import Checkpoint
from im2txt.checkpoints.locating import CheckpointError
from im2txt.checkpoints.manager import CheckpointManager
from im2txt.checkpoints.locating import fault
from im2txt.checkpoints.checkpoint import load_inception
from im2txt.checkpoints.locating import newest_whole
from im2txt.checkpoints.locating import NoCheckpointYetError
from im2txt.checkpoints.locating import PREFIX
from im2txt.checkpoints.manager import remove_leftovers
from im2txt.checkpoints.locating import resolve
from im2txt.checkpoints.checkpoint import restore_training_state
from im2txt.checkpoints.locating import split_paths
from im2txt.checkpoints.locating import STATE_FILE
from im2txt.checkpoints.locating import training_state_prefix
from im2txt.checkpoints.manager import write
from im2txt.checkpoints.trained_model import load
from im2txt.checkpoints.trained_model import TrainedModel
from im2txt.checkpoints.trained_model import vocabulary_beside
from im2txt.checkpoints.trained_model import vocabulary_of
