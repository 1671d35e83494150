"""How the page writes numbers, sizes and times; needs a browser and no service."""

from pathlib import Path
from urllib.parse import quote

import pytest

import web

pytestmark = pytest.mark.web
MODULE = "data:text/javascript," + quote((Path(web.__file__).parent / "format.js").read_text())
THIN = "\u202f"


WRITTEN: dict[str, dict[float, str]] = {
    "number": {
        1200.4: f"1{THIN}200",
        1230.4: f"1{THIN}230",
        -1500.2: f"-1{THIN}500",
        999.97: f"1{THIN}000",
        10000.6: f"10{THIN}001",
        12345678: f"12{THIN}345{THIN}678",
        120.04: "120",
        10.0001: "10",
        0.12346: "0.1235",
        0.001: "0.001",
        0: "0",
        100000.5: "1.00e+5",
        0.00012: "1.20e-4",
    },
    "bytes": {
        5: "5 B",
        999.6: "1.00 kB",
        1234: "1.23 kB",
        999499: "999 kB",
        999600: "1.00 MB",
        999999999: "1.00 GB",
        5e15: f"5{THIN}000 TB",
    },
    "count": {0: "0", 999: "999", 3060000: "3.06 M", 999999: "1.00 M"},
    "milliseconds": {
        0.0123: "0.0123 ms",
        5: "5.00 ms",
        999.4: "999 ms",
        999.6: f"1{THIN}000 ms",
        1234.6: f"1{THIN}235 ms",
    },
}
"""Text of each value by function."""


@pytest.mark.parametrize("function", WRITTEN)
def test_a_value_is_written_without_losing_its_size(browser, function):
    page, texts = browser.new_page(), WRITTEN[function]
    written = page.evaluate(
        "async ([module, name, values]) => values.map((await import(module))[name])", [MODULE, function, list(texts)]
    )
    page.close()
    assert dict(zip(texts, written, strict=True)) == texts
