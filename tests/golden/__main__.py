"""`python -m tests.golden`: every vector through the engine, and the table; exit 1 where one failed."""

from __future__ import annotations

import sys

from tests.golden.suite import cases, report, run


def main() -> int:
    outcomes = [run(case) for case in cases()]
    for outcome in outcomes:
        if outcome.result == "failed":
            print(f"FAILED {outcome.case.system} {outcome.case.kind} {outcome.case.id}: {outcome.reason}")
    print("\n".join(report(outcomes)))
    return int(any(outcome.result == "failed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
