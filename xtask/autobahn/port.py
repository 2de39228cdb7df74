"""Unpacks the Autobahn testsuite, which is written in Python 2, and ports the part that we run to Python 3.

    port.py ARCHIVE FOLDER

Every pattern of an edit must match: another version of the suite fails here and not in the middle of a run.
"""

import re
import sys
import tarfile
from pathlib import Path

# Edits of the whole file: pattern and replacement.
PRINT = (r"(?m)^( *)print (.+)$", r"\1print(\2)")
PRINT_NOTHING = (r"(?m)^( *)print$", r"\1print()")
HAS_KEY = (r"([\w.\[\]]+)\.has_key\(([^)]+)\)", r"(\2 in \1)")
XRANGE = (r"\bxrange\b", "range")
UNICHR = (r"\bunichr\b", "chr")
# A base class that is named twice.
BASES = (r"\(object, Case, \)", "(Case, )")
# Literals in the source are bytes.
UTF8 = (r'(?m)^( *PAYLOAD\d? = ".*")$', r'\1.encode("utf-8").decode("latin-1")')

EDITS = {
    "case/__init__.py": [
        (r"(?m)^from case1_1_1 import", "import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\n"
            "from .case import Case\nfrom case1_1_1 import"),
        # Compression, which we do not offer, and a case that is never run.
        (r"(?m)^from (case12_x_x|case9_9_1) import \*$", ""),
        (r"(?m)^(Cases|CaseSubCategories)\.(extend|update)\(Case1[23]_X_X.*$", ""),
    ],
    "case/case.py": [(r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "obj1 == obj2")],
    "case/case2_10.py": [XRANGE],
    "case/case5_16.py": [XRANGE],
    "case/case5_17.py": [XRANGE],
    "case/case6_2_1.py": [UTF8],
    "case/case6_2_2.py": [UTF8],
    "case/case6_2_3.py": [UTF8],
    "case/case6_x_x.py": [
        PRINT, PRINT_NOTHING, XRANGE, UNICHR, BASES,
        (r"v\.validate\(vss\[:i\]\)", "v.validate(vss[:i].encode('latin-1'))"),
    ],
    "case/case7_5_1.py": [(r"binascii\.b2a_hex\((self\.p\.localCloseReason)\)", r"\1.hex()")],
    "case/case7_7_X.py": [BASES],
    "case/case7_9_X.py": [BASES],
    "case/case9_7_X.py": [BASES],
    "case/case10_1_1.py": [(r"len\(self\.payload\) / ", "len(self.payload) // ")],
    "caseset.py": [HAS_KEY],
    "fuzzing.py": [
        PRINT, HAS_KEY,
        (r", textwrap, pkg_resources", ", textwrap"),
        (r"import reactor, ssl", "import reactor"),
        (r"(?m)^import autobahntestsuite$", "import _version as autobahntestsuite"),
        (r"autobahntestsuite\.version", "autobahntestsuite.__version__"),
        # Colours of reports that are never written.
        (r"(?s)from report import .*?JS_MASTER_REPORT\n", ""),
        (r"binascii\.b2a_hex\((data(?:\[:maxlen\])?)\)", r"\1.encode('latin-1').hex()"),
        (r"return dd\.decode\(", "return dd.encode('latin-1').decode("),
        (r"__init__\(self, debug = debug, debugCodePaths = debug\)\n      FuzzingFactory\.__init__\(self, spec\.get\(\"outdir\", \"\./reports/servers/",
            '__init__(self)\n      FuzzingFactory.__init__(self, spec.get("outdir", "./reports/servers/'),
        (r"self\.failConnection\(\)", "self._fail_connection()"),
        (r"ssl\.optionsForClientTLS\(hostname\)", "None"),
        (r"ssl\.ClientContextFactory\(\)", "None"),
    ],
}


def main(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    [suite] = Path(folder).glob("autobahntestsuite-*/autobahntestsuite")
    for name, edits in EDITS.items():
        text = (suite / name).read_text(encoding="utf-8")
        for pattern, replacement in edits:
            text, count = re.subn(pattern, replacement, text)
            if count == 0:
                sys.exit(f"{name}: nothing matches {pattern}")
        (suite / name).write_text(text, encoding="utf-8")


main(*sys.argv[1:])
