# SPDX-License-Identifier: Apache-2.0
"""The programs as commands of an installed package, such as im2txt-train."""

import os
import runpy
import sys


def main() -> None:
  """Runs the program that the command is named after.

  `im2txt-run-inference` is `python -m im2txt.run_inference`, help and all.
  """
  name = os.path.basename(sys.argv[0]).removesuffix('.exe')
  module = name.removeprefix('im2txt-').replace('-', '_')
  runpy.run_module(f'im2txt.{module}', run_name='__main__', alter_sys=True)
