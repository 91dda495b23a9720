# SPDX-License-Identifier: Apache-2.0
"""Targets of tests: one per room and program, and one per file."""

load(":rooms.bzl", "LARGE_TESTS", "PROGRAMS", "ROOMS", "TESTS")

def _targets(file):
    """Returns the targets that a test file imports or starts, a list."""
    test = file[:-len(".py")]
    if test == "docstring_examples_test":
        return [":im2txt"]  # Examples stand in every room.
    own = test.split("/")[0]
    own = own[:-len("_test")] if own.endswith("_test") else own
    names = TESTS.get(test, [])
    return [
        ":" + name + ("_lib" if name in PROGRAMS else "")
        for name in [own] + (PROGRAMS.keys() if names == ["*"] else names)
        if name in ROOMS or name in PROGRAMS
    ]

def _py_test(name, files, data, **kwargs):
    deps = [":testing"]
    for file in files:
        deps += _targets(file)
    native.py_test(
        name = name,
        size = "medium" if name in LARGE_TESTS else "small",
        # On machines that do other work too.
        timeout = "long" if name in LARGE_TESTS else "moderate",
        srcs = ["testing.py"] + files,
        args = ["im2txt/" + file for file in files],
        data = data,
        main = "testing.py",
        deps = depset(deps).to_list(),
        **kwargs
    )

def py_tests(files, data):
    """Makes the targets of the tests of all rooms and programs.

    The files of a room are one target, so that a process imports TensorFlow
    once for all of them: data/shards_test.py is in data_test. For who works on
    a file it is a target of its own too, data_shards_test, which `//...` leaves
    out.

    Args:
      files: list of file names, all that end with _test.py.
      data: dict from file name to data that this file reads; that of "" is
        every file's.
    """
    rooms = {}
    for file in files:
        name = file.split("/")[0] + "_test" if "/" in file else file[:-len(".py")]
        rooms.setdefault(name, []).append(file)
    for name, members in rooms.items():
        own = []
        for file in members:
            own += data.get(file, [])
        _py_test(name, members, data[""] + own)
        if "/" in members[0]:
            for file in members:
                _py_test(
                    name = file[:-len(".py")].replace("/", "_"),
                    files = [file],
                    data = data[""] + data.get(file, []),
                    tags = ["manual"],
                )
