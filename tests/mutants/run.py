"""Runs the mutants: each patch beside this file breaks the product on purpose; the tests that it
names under `Caught-by:` must fail on it. Works on a copy of the tree in target/mutants.

Without names all of them run, and the result goes to target/reliability/mutants.json. Ends with 0
only if every one was caught, and if the same tests pass on the tree as it is.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target/mutants"
TREE = WORK / "tree"
OUTPUT = WORK / "output"  # of the tests that ran last
REPORT = ROOT / "target/reliability/mutants.json"
BUILD_LIMIT = 1200  # seconds
TEST_LIMIT = 240  # of the tests of one mutant, several times what they take
ALL_TESTS_LIMIT = 1800
ENVIRONMENT = {
    **os.environ,
    "CARGO_TARGET_DIR": str(WORK / "target"),
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "CARGO_TERM_COLOR": "never",
    # A patch is applied to the copy, whatever repository surrounds it.
    "GIT_CEILING_DIRECTORIES": str(WORK),
}


class Mutant:
    def __init__(self, path):
        self.name = path.stem
        self.path = path
        text = path.read_text().split("\n--- ")[0].splitlines()
        field = lambda name: [l[len(name) + 2:] for l in text if l.startswith(name + ": ")]
        self.breaks = " ".join(field("Breaks"))
        self.tests = field("Caught-by")
        self.what = " ".join(l for l in text if l and not l.startswith(("Breaks: ", "Caught-by: ")))
        self.files = re.findall(r"^\+\+\+ b/(\S+)", path.read_text(), re.MULTILINE)


def copy_tree():
    """Makes the copy equal to the working tree. What is equal is not touched: cargo goes by time."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")
    files = {name for name in listed if name and (ROOT / name).is_file()}
    for name in files:
        source, target = ROOT / name, TREE / name
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for old in [p for p in TREE.rglob("*") if p.is_file()]:
        if str(old.relative_to(TREE)) not in files:
            old.unlink()


def run(command, limit):
    """Exit code (None: the limit was reached) and output. Ends whatever the command started."""
    child = subprocess.Popen(
        command, cwd=TREE, env=ENVIRONMENT, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        output, _ = child.communicate(timeout=limit)
        return child.returncode, output
    except BaseException as reason:
        os.killpg(child.pid, signal.SIGKILL)
        if not isinstance(reason, subprocess.TimeoutExpired):
            raise
        output, _ = child.communicate()
        return None, output


def is_unit(test):
    return "::tests::" in test


def targets(tests):
    """Where these tests are: in the library, or in the crate of integration tests."""
    return (["--lib"] if any(is_unit(t) for t in tests) else []) + (
        ["--test", "it"] if not all(is_unit(t) for t in tests) else []
    )


def test(tests, everything):
    """Builds and runs. Answers (error or None, names of the tests that failed); keeps the output."""
    where = ["--test", "it"] if everything else targets(tests)
    if everything and any(is_unit(t) for t in tests):
        where.append("--lib")
    cargo = ["cargo", "test", "--locked", "--no-fail-fast", *where]
    code, output = run([*cargo, "--no-run"], BUILD_LIMIT)
    if code != 0:
        return "does not compile:\n" + output, []
    # Patched files fit no patch: that is no catch.
    chosen = ["--skip", "mutants::"] if everything else ["--exact", *tests]
    code, output = run([*cargo, "--", *chosen], ALL_TESTS_LIMIT if everything else TEST_LIMIT)
    OUTPUT.write_text(output)
    failed = re.findall(r"^test (\S+) \.\.\. FAILED$", output, re.MULTILINE)
    ran = sum(map(int, re.findall(r"^running (\d+) tests?$", output, re.MULTILINE)))
    if code is None:
        return None, failed or ["(time limit)"]
    if not everything and ran != len(tests):
        return f"{ran} of {len(tests)} tests were found", []
    if code != 0 and not failed:
        return "the test program failed:\n" + output[-2000:], []
    return None, failed


def mutate(mutant, everything):
    before = {name: (TREE / name).read_bytes() for name in mutant.files}
    applied, output = run(["git", "apply", str(mutant.path)], 60)
    if applied != 0:
        return "does not apply:\n" + output, []
    try:
        return test(mutant.tests, everything)
    finally:
        for name, content in before.items():
            (TREE / name).write_bytes(content)


def main():
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("--all-tests", action="store_true",
                        help="run all integration tests on each, not only those that it names")
    parser.add_argument("names", nargs="*", help="names of patches in tests/mutants")
    arguments = parser.parse_args()
    mutants = [Mutant(p) for p in sorted(Path(__file__).parent.glob("*.patch"))]
    if unknown := set(arguments.names) - {m.name for m in mutants}:
        parser.error("there is no mutant " + ", ".join(sorted(unknown)))
    if arguments.names:
        mutants = [m for m in mutants if m.name in arguments.names]

    TREE.mkdir(parents=True, exist_ok=True)
    copy_tree()
    start = time.monotonic()
    print(f"control: the tests of {len(mutants)} mutants on the tree as it is", flush=True)
    error, failed = test(sorted({t for m in mutants for t in m.tests}), arguments.all_tests)
    if error or failed:
        sys.exit(f"the control failed, so the mutants would say nothing (see {OUTPUT.relative_to(ROOT)}): "
                 f"{error or ', '.join(failed)}")
    print(f"control: passed in {time.monotonic() - start:.0f} s", flush=True)

    results, escaped = [], []
    for number, mutant in enumerate(mutants, 1):
        began = time.monotonic()
        error, failed = mutate(mutant, arguments.all_tests)
        seconds = round(time.monotonic() - began, 1)
        if error or not failed:
            escaped.append(mutant.name)
        outcome = error or ("caught" if failed else "NOT CAUGHT")
        print(f"[{number}/{len(mutants)}] {mutant.name}: {outcome} ({seconds:.0f} s)", flush=True)
        results.append({"name": mutant.name, "what": mutant.what, "breaks": mutant.breaks,
                        "caught_by": failed, "seconds": seconds})

    if not arguments.names:  # half a report would look like a whole one
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    rows = [("mutant", "breaks", "caught by", "seconds")] + [
        (r["name"], r["breaks"], ", ".join(r["caught_by"]) or "NOTHING", f"{r['seconds']:.0f}") for r in results
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    print()
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)) + "  " + row[3].rjust(7))
    print(f"\n{len(results) - len(escaped)} of {len(results)} mutants caught in {time.monotonic() - start:.0f} s")
    if escaped:
        sys.exit("not caught: " + ", ".join(escaped))


if __name__ == "__main__":
    main()
