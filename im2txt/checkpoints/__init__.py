# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of every vintage in, one format out.

The names below are the room's front door: `from im2txt import checkpoints`.
"""

from im2txt.checkpoints.checkpoint import Checkpoint
from im2txt.checkpoints.checkpoint import CheckpointError
from im2txt.checkpoints.checkpoint import CheckpointManager
from im2txt.checkpoints.checkpoint import fault
from im2txt.checkpoints.checkpoint import load_inception
from im2txt.checkpoints.checkpoint import newest_whole
from im2txt.checkpoints.checkpoint import NoCheckpointYetError
from im2txt.checkpoints.checkpoint import PREFIX
from im2txt.checkpoints.checkpoint import remove_leftovers
from im2txt.checkpoints.checkpoint import resolve
from im2txt.checkpoints.checkpoint import restore_training_state
from im2txt.checkpoints.checkpoint import split_paths
from im2txt.checkpoints.checkpoint import STATE_FILE
from im2txt.checkpoints.checkpoint import training_state_prefix
from im2txt.checkpoints.checkpoint import write
