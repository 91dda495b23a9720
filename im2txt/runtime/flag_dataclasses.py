# SPDX-License-Identifier: Apache-2.0
"""Dataclasses whose fields are flags: the options of a library, one by one.

A library takes its options as a frozen dataclass and never reads flags. A
program defines the flags from the class, and fills it from them:

>>> @dataclasses.dataclass(frozen=True)
... class Options:
...   output_dir: str = field('/tmp', 'Directory of what is written.')
...   steps: int = field(10, 'Steps to take.', lower_bound=1)
>>> Options().steps
10
"""

import dataclasses
import typing

from absl import flags


def field(default, text, values=None, lower_bound=None, upper_bound=None):
  """Returns a dataclass field that is a flag.

  Args:
    default: of the field and the flag.
    text: str, the help text of the flag.
    values: list of str, the only values allowed; None allows all.
    lower_bound: the least number allowed; None allows all.
    upper_bound: the largest number allowed; None allows all.
  """
  return dataclasses.field(
    default=default,
    metadata={
      'help': text,
      'values': values,
      'lower_bound': lower_bound,
      'upper_bound': upper_bound,
    },
  )


def kind(a_field):
  """Returns the type of a field, without `None`: bool, int, float, str, tuple.

  A tuple is one of strings.
  """
  if typing.get_origin(a_field.type) is tuple:
    return tuple
  kinds = [t for t in typing.get_args(a_field.type) if t is not type(None)]
  return kinds[0] if kinds else a_field.type


def define_flags(options_class, unset=False, flag_values=flags.FLAGS):
  """Defines a flag for every field.

  Args:
    options_class: a dataclass whose fields `field` has made.
    unset: whether the default of each flag is None, so that one can tell if a
      flag was given. The help text then states the field's default.
    flag_values: the `absl.flags.FlagValues` that takes them.
  """
  for a_field in dataclasses.fields(options_class):
    data = a_field.metadata
    default = None if unset else a_field.default
    if isinstance(default, tuple):
      default = list(default)
    text = data['help']
    if unset:
      text += f' The default is {a_field.default!r}.'
    bounds = {
      name: data[name]
      for name in ('lower_bound', 'upper_bound')
      if data[name] is not None
    }
    define_flag(
      a_field.name,
      kind(a_field),
      default,
      text,
      data['values'],
      flag_values,
      **bounds,
    )


def define_flag(
  name, of_kind, default, text, values=None, flag_values=flags.FLAGS, **bounds
):
  """Defines the flag of a field.

  Args:
    name: of the flag.
    of_kind: bool, int, float, str, or tuple for several, separated by commas.
    default: of that kind, or None.
    text: str, the help text.
    values: list of str, the only values allowed; None or empty allows all.
    flag_values: the `absl.flags.FlagValues` that takes it.
    **bounds: lower_bound and upper_bound of a number.
  """
  flags.disclaim_key_flags()  # It is the program's, for its --help.
  if values:
    flags.DEFINE_enum(name, default, values, text, flag_values=flag_values)
    return
  define = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
  }
  define[of_kind](name, default, text, flag_values=flag_values, **bounds)


def from_flags(flag_values, options_class):
  """Returns the `options_class` that the flags of `define_flags` say.

  Args:
    flag_values: `flags.FLAGS`, after parsing.
    options_class: as of `define_flags`.
  """
  values = {
    a_field.name: getattr(flag_values, a_field.name)
    for a_field in dataclasses.fields(options_class)
  }
  return options_class(
    **{
      name: tuple(value) if isinstance(value, list) else value
      for name, value in values.items()
    }
  )
