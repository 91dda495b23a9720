# SPDX-License-Identifier: Apache-2.0
"""Commands that people are told to type exist, and their flags parse.

They stand in blocks of the pages, in the scripts, and in the files for Docker.
"""

import ast
import functools
import importlib
import itertools
import json
import os
import re
import shlex
import sys
from typing import NamedTuple

from absl import flags
import doc_pages
import pytest
import yaml

from im2txt import testing

# What is typed beside the programs. Their arguments are not looked at.
_OTHERS = {
  '.venv/bin/pip',
  '.venv/bin/pre-commit',
  'base64',
  'cd',
  'cp',
  'curl',
  'docker',
  'export',
  'git',
  'kubectl',
  'mkdir',
  'mogrify',
  'rm',
  'sbatch',
  'tensorboard',
}

# Flags in the prose and the scripts that are of none of our programs.
_FLAGS_OF_OTHERS = {
  # absl
  'debug',
  'help',
  'helpfull',
  # apt-get, curl, pip and Python
  'clear',
  'data-binary',
  'disable-pip-version-check',
  'no-deps',
  'no-install-recommends',
  'quiet',
  # Apache Beam, by --beam_options
  'direct_num_workers',
  'direct_running_mode',
  'environment_type',
  'flink_master',
  'job_endpoint',
  'project',
  'region',
  'sdk_container_image',
  'spark_master_url',
  'temp_location',
  # Spark, by PYSPARK_SUBMIT_ARGS
  'conf',
  'master',
  # Bazel
  'build_event_json_file',
  'noshow_progress',
  'test_output',
  'ui_event_filters',
  'version',
  # Docker, Slurm, TensorBoard, TensorFlow Serving
  'batching_parameters_file',
  'build',
  'build-arg',
  'enable_batching',
  'gpus-per-node',
  'label',
  'logdir',
  'nodes',
  'ntasks-per-node',
  'profile',
  'rm',
  'signal',
  'wait',
  # mkdocs, ruff
  'check',
  'fix',
  'strict',
  'watch',
  # the usage of `caption`
  'flag',
}

# Files that stand for the reader's own, or for what another program made.
_OF_THE_READER = re.compile(
  r'/?(?:photos|images)(?:/[^/]*)?|[^/]+\.(?:jpg|png|csv|json|txt)|'
  r'old/word_counts.txt|flickr8k/.*|(?:one|two|model)/train|'
  r'inception_v3\.ckpt|model\.ckpt-\d+'
)
_INPUTS = re.compile(
  r'(?!output|train_dir)\w*(?:_files?|_dirs?|_path|_pattern|_list|logdirs)'
)
_OUTPUTS = re.compile(
  r'(?:output|export|results_output|plot|feature_cache|eval|train)'
  r'(?:_dir|_file)?|word_counts_output_file'
)
# Where the shell functions put things.
_MADE_BY_FUNCTIONS = {
  'evaluate': ['data/model/eval'],
  'get_inception': ['data/inception'],
  'get_model': ['data/pretrained'],
  'prepare': ['data/mscoco'],
  'train': ['data/model/train'],
}


class Command(NamedTuple):
  """A command of a page.

  Attributes:
    place: page and line.
    name: of the program of im2txt.
    arguments: list of str.
  """

  place: str
  name: str
  arguments: list[str]


@functools.cache
def programs():
  """Returns the names of all programs."""
  tree = ast.parse(doc_pages.read('im2txt/rooms.bzl'))
  (found,) = (
    node.value
    for node in tree.body
    if isinstance(node, ast.Assign)
    and ast.unparse(node.targets[0]) == 'PROGRAMS'
  )
  return frozenset(ast.literal_eval(found))


@functools.cache
def functions():
  """Returns {name: program} of the shell functions."""
  source = doc_pages.read('scripts/im2txt.sh')
  return {
    name: re.search(r'_im2txt_run (\w+)|$', body)[1]
    for name, body in re.findall(
      r'^([a-z]\w*)\(\) \(\n(.*?)^\)', source, re.MULTILINE | re.DOTALL
    )
  }


@functools.cache
def flags_of(program):
  """Returns {name: default} of the flags of a program."""
  module = importlib.import_module(f'im2txt.{program}')
  before = set(flags.FLAGS)
  with testing.flags_of(module):
    return {
      name: flags.FLAGS[name].default
      for name in flags.FLAGS
      if name not in before
    }


@functools.cache
def arguments_of(path):
  """Returns the options of a script or of a module that uses argparse."""
  source = doc_pages.read(path)
  named = set(re.findall(r'(?<![\w-])--([a-z][\w-]*)', source))
  for module in re.findall(r'-m im2txt\.([\w.]+)', source):
    file = f'im2txt/{module.replace(".", "/")}.py'
    if path != file:
      named |= arguments_of(file)
  for program in re.findall(r'bazel-bin/im2txt/(\w+) ', source):
    named |= set(flags_of(program))
  return frozenset(named)


def simple_commands(code):
  """Yields lists of words: the commands of a block for the shell.

  >>> list(simple_commands('a=1 b "$c" && d  # e'))
  [['a=1', 'b', '$c'], ['d']]
  """
  code = re.sub(r'\\\n', ' ', code)
  code = re.sub(r'(?:^|(?<=\s))#[^\n]*', '', code)
  # Stands for something in the prose, such as <this repository>.
  code = re.sub(r'<[\w ]+>', 'PLACEHOLDER', code)
  lexer = shlex.shlex(code, posix=True, punctuation_chars=';|&\n')
  lexer.whitespace = ' \t'
  lexer.commenters = ''
  lexer.whitespace_split = True
  for ends, words in itertools.groupby(lexer, lambda w: not w.strip(';|&\n')):
    if not ends:
      yield list(words)


def _code(block):
  """Returns the commands of a block, '' if it is of another kind."""
  if block.language == 'shell':
    return block.code
  if block.language:
    return ''
  # Commands, each followed by what it prints.
  known = programs() | set(functions())
  lines = re.sub(r'\\\n', ' ', block.code).splitlines()
  return '\n'.join(x for x in lines if x.split(' ')[0] in known)


def _blocks():
  for path in doc_pages.paths():
    for block in doc_pages.blocks(doc_pages.read(path)):
      if _code(block):
        yield path, block


def commands_of(code, place):
  """Yields the commands of our programs, and checks that all commands exist."""
  variables = {}
  for words in simple_commands(code):
    while words and re.match(r'\w+=', words[0]):
      name, _, value = words.pop(0).partition('=')
      variables[name] = value
    words = [
      part
      for word in words
      for part in (
        variables[word[2:-1]].split()
        if re.fullmatch(r'\$\{\w+\}', word) and word[2:-1] in variables
        else [word]
      )
    ]
    yield from _program(words, place, variables)


def _program(words, place, variables):
  """Yields the program of a simple command, if it is one of ours."""
  if not words:
    return
  first, *rest = words
  if re.fullmatch(r'(?:\.venv/bin/)?python3?', first) and rest[0] == '-m':
    module, *rest = rest[1:]
    if module == 'pytest':
      assert (doc_pages.ROOT / rest[0]).exists(), place
    elif module.removeprefix('im2txt.') in programs():
      yield Command(place, module.removeprefix('im2txt.'), rest)
    else:
      _check_options(f'{module.replace(".", "/")}.py', rest, place)
  elif first.startswith('scripts/'):
    assert os.access(doc_pages.ROOT / first, os.X_OK), f'{place}: {first}'
    _check_options(first, rest, place)
  elif first == 'source':
    assert (doc_pages.ROOT / rest[0]).is_file(), f'{place}: {rest[0]}'
  elif first == 'bazel':
    _check_targets(rest, place)
  elif first == 'docker':
    at = rest.index('python3') if 'python3' in rest else len(rest)
    yield from _program(rest[at:], place, variables)
  elif first in functions():
    made = variables.get('PRETRAINED_DIR')
    if functions()[first]:
      own = rest if not made else [made, *rest]
      yield Command(place, functions()[first], own)
  else:
    name = first.removeprefix('bazel-bin/im2txt/')
    if first.startswith('im2txt-'):
      name = first.removeprefix('im2txt-').replace('-', '_')
    known = name in programs()
    assert known or first in _OTHERS, f'{place}: there is no program {first}'
    if known:
      yield Command(place, name, rest)


def _check_options(path, words, place):
  named = {w[2:].partition('=')[0] for w in words if w.startswith('--')}
  assert named <= arguments_of(path), f'{place}: {path} has no such option'


def _check_targets(words, place):
  for word in words[1:]:
    if word.startswith('-') or word == 'opt' or word.endswith('...'):
      continue
    name = re.fullmatch(r'(?://)?im2txt[:/](\w+)', word)
    assert name, f'{place}: {word}'
    files = (doc_pages.ROOT / 'im2txt').rglob('*.py')
    targets = {*programs()}
    for file in files:
      parts = file.relative_to(doc_pages.ROOT / 'im2txt').parts
      targets |= {'_'.join(parts)[: -len('.py')], f'{parts[0]}_test'}
    assert name[1] in targets, f'{place}: there is no target {word}'


def check_flags(command):
  """Checks that a program takes its arguments."""
  words = [word for word in command.arguments if word != '...']
  named = [w[2:].partition('=')[0] for w in words if w.startswith('--')]
  known = flags_of(command.name)
  for name in named:
    assert (
      name in known
      or name.removeprefix('no') in known
      or name in _FLAGS_OF_OTHERS
    ), f'{command.place}: {command.name} has no flag --{name}'
  module = importlib.import_module(f'im2txt.{command.name}')
  parsed = [
    word
    for word in words
    if not word.endswith('...') and word not in ('--help', '--helpfull')
  ]
  try:
    with testing.flags_of(module, *parsed):
      pass
  except flags.Error as error:
    raise AssertionError(f'{command.place}: {command.name}: {error}') from error
  if not re.search(r'takes_argument=True', doc_pages.read(_file(command.name))):
    extra = [word for word in words if not word.startswith('-')]
    assert not extra, f'{command.place}: {command.name} takes no {extra}'


def _file(program):
  return f'im2txt/{program}.py'


def check_files(commands):
  """Checks that each file a page gives to a program is there by then."""
  # What `data/README.md` says is made.
  made = set(
    re.findall(r'^\| `(data/\w+)/`', doc_pages.read('data/README.md'), re.M)
  )
  for command in commands:
    made.update(_MADE_BY_FUNCTIONS.get(command.name, ()))
    for word in command.arguments:
      if not word.startswith('--'):
        if command.name in ('get_inception', 'get_model'):
          made.add(word)
        continue
      name, _, value = word[2:].partition('=')
      if _OUTPUTS.fullmatch(name):
        made.add(value)
      elif _INPUTS.fullmatch(name) and not re.search(r'\$|\.\.\.$', value):
        for path in value.split(','):
          assert (
            not path
            or (doc_pages.ROOT / path).exists()
            or _OF_THE_READER.fullmatch(path)
            or any(f'{path}/'.startswith(f'{m}/') for m in made)
          ), f'{command.place}: {word}: nothing has made this'


def test_commands_are_found():
  places = {path for path, _ in _blocks()}
  assert {'README.md', 'CONTRIBUTING.md', 'docs/captioning.md'} <= places
  assert functions()['caption'] == 'run_inference'


@pytest.mark.parametrize(
  'code, part',
  [
    ('bazel-bin/im2txt/trains --train_dir=x', 'no program'),
    ('trainn', 'no program'),
    ('train --number_of_step=3', 'no flag --number_of_step'),
    ('evaluate --metrics_images=many', 'metrics_images'),
    ('evaluate photos', 'takes no'),
    ('bazel test //im2txt:metric_test', 'no target'),
    ('scripts/stress.sh --slow', 'no such option'),
    ('scripts/stres.sh', 'scripts/stres.sh'),
    ('python -m im2txt.serving.load --client=1', 'no such option'),
    ('score --checkpoint_path=data/pretraine', 'nothing has made this'),
  ],
)
def test_faults_are_found(code, part):
  with pytest.raises(AssertionError, match=part):
    commands = list(commands_of(code, 'here'))
    for command in commands:
      check_flags(command)
    check_files(commands)


@pytest.mark.parametrize('path', sorted({path for path, _ in _blocks()}))
def test_commands_of_a_page(path):
  commands = [
    command
    for page, block in _blocks()
    if page == path
    for command in commands_of(_code(block), f'{path}:{block.line}')
  ]
  for command in commands:
    check_flags(command)
  check_files(commands)


@pytest.mark.parametrize(
  'path',
  [
    *doc_pages.paths(),
    *(f'scripts/{p.name}' for p in doc_pages.ROOT.glob('scripts/*.sh')),
  ],
)
def test_flags_that_are_named_exist(path):
  known = set().union(*map(flags_of, programs()))
  for script in doc_pages.ROOT.glob('scripts/*.sh'):
    # Its usage, in the comment at its beginning.
    known |= set(re.findall(r'scripts/\w+\.sh --([\w-]+)', script.read_text()))
  for module in doc_pages.ROOT.glob('im2txt/*/*.py'):
    if 'argparse.ArgumentParser(' in module.read_text('utf-8'):
      known |= arguments_of(str(module.relative_to(doc_pages.ROOT)))
  named = set(re.findall(r'(?<![\w-])--([a-z][\w-]*)', doc_pages.read(path)))
  assert not {
    name
    for name in named - _FLAGS_OF_OTHERS - known
    if name.removeprefix('no') not in known
  }


def test_the_defaults_of_2016():
  rows = re.findall(
    r'^\| `(\w+)` \| (`--.*) \|$', doc_pages.read('docs/migration.md'), re.M
  )
  assert len(rows) == 4
  for program, cells in rows:
    defaults = flags_of(program)
    for name, value in re.findall(r'`--(\w+)=([^`]*)`', cells):
      assert json.dumps(defaults[name]).strip('"') == value, (program, name)


@pytest.mark.parametrize('name', ['compose.yaml', 'compose.gpu.yaml'])
def test_services(name):
  services = yaml.safe_load(doc_pages.read(name))['services']
  for service, settings in services.items():
    if 'command' in settings:
      for command in _program(settings['command'], f'{name}: {service}', {}):
        check_flags(command)
    for port in settings.get('ports', ()):
      assert port.startswith('127.0.0.1:'), service
    for needed in settings.get('depends_on', ()):
      assert needed in services
    arguments = settings['build']['args']
    assert set(arguments) <= set(
      re.findall(r'^ARG (\w+)', doc_pages.read('Dockerfile'), re.M)
    )
  base = yaml.safe_load(doc_pages.read('compose.yaml'))['services']
  assert {'train', 'evaluate', 'tensorboard', 'serve'} <= set(base)
  assert set(services) <= set(base)


def test_the_image_has_what_it_needs():
  """What is copied is not ignored, and what the programs need is copied."""
  source = doc_pages.read('Dockerfile')
  copied = [
    word
    for line in re.findall(r'^COPY --chown=\S+ (.*)$', source, re.M)
    for word in line.split()[:-1]
  ]
  kept = re.findall(r'^!(\S+)$', doc_pages.read('.dockerignore'), re.M)
  for path in copied:
    assert list(doc_pages.ROOT.glob(path)), path
    assert any(
      path == k or path.startswith(f'{k}/') or k.startswith(f'{path}/')
      for k in kept
    ), path
  assert 'pyproject.toml' in copied  # See `files.shipped`.
  # Those of the wheel.
  shipped = doc_pages.read('pyproject.toml')
  for path in re.findall(r'^"(data/\w+(?:\.\w+)?)" = ', shipped, re.M):
    assert path in kept
  (command,) = re.findall(r'^CMD (.*)$', source, re.M)
  (program,) = _program(json.loads(command), 'Dockerfile', {})
  check_flags(program)


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
