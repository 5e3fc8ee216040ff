"""JUnit XML, the form in which CI servers show results: a test case for each rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from sltrace.export.text import printable

_ELEMENTS = {"fail": "failure", "unknown": "error"}


def write_junit(out: BinaryIO, name: str, cases: Sequence[tuple[str, str, str]]) -> None:
    """Writes one test suite.

    Args:
        out: Where to.
        name: What was tested.
        cases: Rule, verdict (pass, fail or unknown) and what was measured. An unknown one is an
            error: it says nothing about what was tested.
    """
    from xml.etree import ElementTree

    counts = {v: sum(verdict == v for _, verdict, _ in cases) for v in _ELEMENTS}
    suite = ElementTree.Element(
        "testsuite",
        name=f"sltrace check {printable(name)}",
        tests=str(len(cases)),
        failures=str(counts["fail"]),
        errors=str(counts["unknown"]),
    )
    for rule, verdict, said in cases:
        case = ElementTree.SubElement(
            suite, "testcase", name=printable(rule), classname="sltrace.check"
        )
        if verdict in _ELEMENTS:
            ElementTree.SubElement(case, _ELEMENTS[verdict], message=printable(said))
        else:
            ElementTree.SubElement(case, "system-out").text = printable(said)
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    out.write(ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n")
