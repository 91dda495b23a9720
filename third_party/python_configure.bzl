# SPDX-License-Identifier: Apache-2.0
"""Runs every Python target on the project's own environment.

The interpreter is `.venv/bin/python3` at the root of the workspace, which
scripts/setup.sh makes, or the one that PYTHON_BIN_PATH names.
"""

# Looks for TensorFlow without importing it, which would take seconds.
_CHECK = """
import importlib.util, sys
if sys.version_info < (3, 11):
  sys.exit('is Python %d.%d, older than 3.11' % sys.version_info[:2])
if importlib.util.find_spec('tensorflow') is None:
  sys.exit('has no tensorflow')
"""

# Without stub_shebang a program's first line asks for `python`, which a fresh
# Debian does not have. The program then runs on interpreter_path all the same.
_BUILD = """
{loads}

py_runtime(
    name = "python3",
    interpreter_path = {interpreter},
    python_version = "PY3",
    stub_shebang = "#!/usr/bin/env python3",
)

py_runtime_pair(
    name = "runtimes",
    py3_runtime = ":python3",
)

toolchain(
    name = "toolchain",
    toolchain = ":runtimes",
    toolchain_type = "{toolchain_type}",
)
"""

# Where the rules for runtimes are: in Bazel, and from Bazel 8 on in rules_python.
_NATIVE = {
    "loads": """
load("@bazel_tools//tools/python:toolchain.bzl", "py_runtime_pair")
""",
    "toolchain_type": "@bazel_tools//tools/python:toolchain_type",
}
_RULES_PYTHON = {
    "loads": """
load("@rules_python//python:py_runtime.bzl", "py_runtime")
load("@rules_python//python:py_runtime_pair.bzl", "py_runtime_pair")
""",
    "toolchain_type": "@rules_python//python:toolchain_type",
}

def _python_configure_impl(ctx):
    root = ctx.path(Label("//:WORKSPACE")).dirname
    python = ctx.os.environ.get("PYTHON_BIN_PATH", "")
    if not python:
        python = str(root.get_child(".venv").get_child("bin").get_child("python3"))
    problem = ""
    if not python.startswith("/"):
        problem = "is not an absolute path (PYTHON_BIN_PATH)"
    elif not ctx.path(python).exists:
        problem = "does not exist"
    else:
        result = ctx.execute([python, "-c", _CHECK])
        if result.return_code != 0:
            problem = result.stderr.strip() or "cannot be run"
    if problem:
        fail("%s %s: run scripts/setup.sh" % (python, problem))
    ctx.file("WORKSPACE", 'workspace(name = "%s")\n' % ctx.name)
    rules = _RULES_PYTHON if ctx.attr.rules_python else _NATIVE
    ctx.file("BUILD", _BUILD.format(interpreter = repr(python), **rules))

python_configure = repository_rule(
    implementation = _python_configure_impl,
    attrs = {
        "rules_python": attr.bool(
            doc = "Whether the rules are those of rules_python.",
        ),
    },
    doc = "A registered toolchain of the environment's Python 3.",
    environ = ["PYTHON_BIN_PATH"],
    local = True,
)
