# SPDX-License-Identifier: Apache-2.0
"""Local stand-ins for the repositories that Bazel would download.

Bazel 4 fetches these from the network to load its own C++, Java and test
rules, even where everything built is Python and nothing of them is run. Each
stand-in holds just the labels that Bazel asks for, so a build needs no network.
"""

_PUBLIC = 'package(default_visibility = ["//visibility:public"])\n'

def _exporting(language, kinds):
    """Files of a `rules_<language>` whose rules are Bazel's native ones."""
    rules = ["%s_%s" % (language, kind) for kind in kinds]
    return {
        "%s/BUILD" % language: _PUBLIC,
        "%s/defs.bzl" % language: "".join(
            ["%s = native.%s\n" % (rule, rule) for rule in rules],
        ),
    }

def _constraints(setting, values):
    """A BUILD file of one constraint setting and its values."""
    lines = [_PUBLIC, 'constraint_setting(name = "%s")\n' % setting]
    for value in values:
        lines.append(
            'constraint_value(name = "%s", constraint_setting = ":%s")\n' %
            (value, setting),
        )
    return "".join(lines)

# The values that Bazel 4 itself names: its toolchains select on them.
_CPUS = [
    "aarch64",
    "arm",
    "arm64",
    "armv7",
    "armv7k",
    "arm64e",
    "i386",
    "mips64",
    "ppc",
    "riscv32",
    "riscv64",
    "s390x",
    "x86_32",
    "x86_64",
]
_SYSTEMS = [
    "android",
    "freebsd",
    "ios",
    "linux",
    "none",
    "openbsd",
    "osx",
    "qnx",
    "tvos",
    "watchos",
    "windows",
]

_REPOSITORIES = {
    "platforms": {
        "cpu/BUILD": _constraints("cpu", _CPUS),
        "os/BUILD": _constraints("os", _SYSTEMS) +
                    'alias(name = "macos", actual = ":osx")\n',
    },
    "remote_coverage_tools": {
        "BUILD": _PUBLIC + 'filegroup(name = "coverage_report_generator")\n',
    },
    "rules_cc": _exporting("cc", [
        "binary",
        "import",
        "library",
        "proto_library",
        "test",
        "toolchain",
        "toolchain_suite",
    ]),
    "rules_java": _exporting("java", [
        "binary",
        "import",
        "library",
        "lite_proto_library",
        "package_configuration",
        "plugin",
        "proto_library",
        "runtime",
        "test",
        "toolchain",
    ]),
    # BUILD files load these by the name that they have in rules_python.
    "rules_python": {
        "python/BUILD": _PUBLIC,
        "python/defs.bzl": "".join([
            "%s = native.%s\n" % (rule, rule)
            for rule in ["py_binary", "py_library", "py_test"]
        ]),
    },
    "rules_proto": _exporting("proto", ["lang_toolchain", "library"]),
}

def _offline_repository_impl(ctx):
    ctx.file("WORKSPACE", 'workspace(name = "%s")\n' % ctx.name)
    for path, content in ctx.attr.files.items():
        ctx.file(path, content)

_offline_repository = repository_rule(
    implementation = _offline_repository_impl,
    attrs = {"files": attr.string_dict(doc = "Content by path.")},
)

def offline_repositories():
    """Declares every stand-in; earlier definitions of a name are kept."""
    for name, files in _REPOSITORIES.items():
        if name not in native.existing_rules():
            _offline_repository(name = name, files = files)
