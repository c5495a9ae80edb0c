#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""list.py BUILD USER [NAME...]: list the tests that can run in the emulated machine, one test a line.

A line is "name seconds user PROGRAM SETTING... COMMAND". PROGRAM is the executable file on this machine. A NAME is
the name of a test as meson prints it, or a pattern with * and ?. Without a NAME all tests are listed. A test is
listed only if it is an executable file of BUILD/tests, and not in NOT_HERE.
"""
import fnmatch
import json
import os
import subprocess
import sys

SLOWER = 8  # how many times slower an emulated processor is
NOT_HERE = {
    "test_litmus": "measures the real processor's memory ordering",
    "test_dlopen": "opens the shared library by its path in the build folder",
}


def all_tests(build):
    text = subprocess.run(["meson", "introspect", "--tests", build], check=True, capture_output=True, text=True).stdout
    return json.loads(text)


def is_for_here(test, build):
    program = test["cmd"][0]
    folder = os.path.join(os.path.realpath(build), "tests") + os.sep
    base = test["name"].split("-")[0]
    return os.path.realpath(program).startswith(folder) and base not in NOT_HERE


def main():
    build, user, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    for test in all_tests(build):
        if names and not any(fnmatch.fnmatchcase(test["name"], name) for name in names):
            continue
        if not is_for_here(test, build):
            continue
        program = os.path.realpath(test["cmd"][0])
        settings = ["%s=%s" % (key, value) for key, value in sorted(test["env"].items()) if key.startswith("FM_")]
        settings.append("FM_TEST_SLOWER=%d" % SLOWER)
        command = ["/tests/" + os.path.basename(program)] + test["cmd"][1:]
        print(test["name"], test["timeout"] * SLOWER, user, program, *settings, *command)


main()
