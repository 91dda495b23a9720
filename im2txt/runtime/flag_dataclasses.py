# SPDX-License-Identifier: Apache-2.0
"""Dataclasses whose fields are flags.

A library takes its options as a frozen dataclass and never reads flags. A
program defines its flags from the class, and makes an instance from them:

>>> @dataclasses.dataclass(frozen=True)
... class Options:
...   output_dir: str = field('/tmp', 'Directory to write into.')
...   steps: int = field(10, 'Steps to take.', lower_bound=1)
>>> Options().steps
10
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import types
import typing
from typing import TYPE_CHECKING
from typing import TypeVar

from absl import flags

if TYPE_CHECKING:
  from _typeshed import DataclassInstance

  _Dataclass = TypeVar('_Dataclass', bound=DataclassInstance)

_T = TypeVar('_T')


def field(
  default: _T,
  text: str,
  values: Sequence[str] | None = None,
  lower_bound: float | None = None,
  upper_bound: float | None = None,
) -> _T:
  """Returns a dataclass field that is a flag.

  Args:
    default: default of the field and the flag.
    text: help text of the flag.
    values: the only values allowed; None allows all.
    lower_bound: the smallest number allowed; None allows all.
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


def kind(a_field: 'dataclasses.Field[typing.Any]') -> type:
  """Returns the type of a field without `None`: bool, int, float, str, tuple.

  >>> options = dataclasses.make_dataclass(
  ...   'Options', [('steps', int | None), ('names', tuple[str, ...])]
  ... )
  >>> [kind(a_field).__name__ for a_field in dataclasses.fields(options)]
  ['int', 'tuple']
  """
  of_kind = a_field.type
  if isinstance(of_kind, types.UnionType):
    of_kind = next(
      t for t in typing.get_args(of_kind) if t is not types.NoneType
    )
  return typing.cast(type, typing.get_origin(of_kind) or of_kind)


def define_flags(
  options_class: 'type[DataclassInstance]',
  unset: bool = False,
  flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
  """Defines a flag for every field.

  Args:
    options_class: a dataclass whose fields are made by `field`.
    unset: whether the default of each flag is None, so that one can tell if a
      flag was given. The help text then states the field's default.
    flag_values: where the flags are defined.
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
  name: str,
  of_kind: type,
  default: object,
  text: str,
  values: Sequence[str] | None = None,
  flag_values: flags.FlagValues = flags.FLAGS,
  **bounds: float,
) -> None:
  """Defines the flag of a field.

  Args:
    name: name of the flag.
    of_kind: bool, int, float, str, or tuple for values separated by commas.
    default: a value of that kind, or None.
    text: help text.
    values: the only values allowed; None or empty allows all.
    flag_values: where the flag is defined.
    **bounds: lower_bound and upper_bound of a number.
  """
  # --help lists the flag under the program, not under this module.
  flags.disclaim_key_flags()
  if values:
    flags.DEFINE_enum(
      name,
      typing.cast('str | None', default),
      values,
      text,
      flag_values=flag_values,
    )
    return
  define: dict[type, Callable[..., object]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
  }
  define[of_kind](name, default, text, flag_values=flag_values, **bounds)


def check_bounds(options: 'DataclassInstance') -> None:
  """Checks the numbers of options that were not made from flags.

  Raises:
    ValueError: a number is out of the bounds of its field.
  """
  for a_field in dataclasses.fields(options):
    value, data = getattr(options, a_field.name), a_field.metadata
    if value is None:
      continue
    lower, upper = data['lower_bound'], data['upper_bound']
    if lower is not None and value < lower:
      raise ValueError(f'--{a_field.name}={value} must be at least {lower}')
    if upper is not None and value > upper:
      raise ValueError(f'--{a_field.name}={value} must be at most {upper}')


def from_flags(
  flag_values: flags.FlagValues, options_class: 'type[_Dataclass]'
) -> '_Dataclass':
  """Returns an `options_class` with the values of the flags.

  Args:
    flag_values: `flags.FLAGS`, after parsing.
    options_class: the class that `define_flags` was given.
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
