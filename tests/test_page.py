import base64
import re
from html.parser import HTMLParser

import pytest

from castalia.page import Page, curve_svg, ticks

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&"
DOT = "data:image/png;base64," + base64.b64encode(b"picture").decode()


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.open, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def parse(page):
    tags = Tags()
    tags.feed(page.html())
    tags.close()
    assert not tags.open
    return tags


def test_everything_is_escaped():
    page = Page(EVIL).heading(EVIL).text(EVIL).code(EVIL).figure(DOT, EVIL)
    page.table([EVIL, "b"], [[EVIL, None], ["x", 1]], EVIL)
    page.curve({EVIL: [(0, 1), (1, 2)]}, EVIL, EVIL, EVIL)
    tags = parse(page)
    names = [name for name, _ in tags.seen]
    assert "script" not in names
    assert names.count("img") == 1
    assert not any(key.startswith("on") for _, attrs in tags.seen for key in attrs)
    assert sum(EVIL in text for text in tags.texts) >= 10


def test_nothing_comes_from_outside():
    html = Page("t").text("see https://example.org").figure(DOT).curve({"a": [(0, 0), (1, 1)]}, "x", "y").html()
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(?!data:)[a-z]*:?//", html)
    assert "default-src 'none'" in html


@pytest.mark.parametrize(
    "address",
    ["https://example.org/a.png", "javascript:alert(1)", "data:text/html;base64,AAAA", DOT + '" onload="x', "data:image/svg+xml;base64,AAAA"],
)  # fmt: skip
def test_figures_are_data_only(address):
    with pytest.raises(ValueError):
        Page("t").figure(address)


def test_numbers_align_and_rows_must_fit():
    html = Page("t").table(["name", "value"], [["a", 1.23456], ["b", None], ["c", 12345]]).html()
    assert '<th scope="col" class="number">value</th>' in html
    assert '<td class="number">1.235</td>' in html
    assert '<td class="number">12,345</td>' in html
    with pytest.raises(ValueError):
        Page("t").table(["a", "b"], [["only one"]])


def test_measurements_in_two_units_get_two_rows():
    value = {"interval": None, "kind": "exact", "n": 3, "seed": 0, "detail": ""}
    runs = {
        "binary": {"nll": {"value": 82.0, "unit": "nats of binary values", **value}},
        "grey": {
            "nll": {"value": 924.0, "unit": "nats", **value},
            "nll_floor": {"value": 1.5, "unit": "nats", **value},
        },
    }
    rows = re.findall(r"<tr>(.*?)</tr>", Page("t").metrics(runs).html(), re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    assert ["nll", "nats of binary values", "82", "–", "–", "–"] in cells
    assert ["nll", "nats", "–", "924", "1.5", "–"] in cells


def test_curve_stays_inside_its_axes_and_skips_what_is_not_finite():
    svg = curve_svg(
        {"loss": [(0, 5.0), (1, float("nan")), (2, -3.0), (3, 1.0)], "one": [(1.5, 2.0)], "none": []},
        "x",
        "y",
    )
    (path,) = re.findall(r' d="([^"]+)"', svg)
    assert [p[0] for p in path.split(" ")[::2]] == ["M", "M", "L"]
    numbers = [float(v) for v in re.findall(r"-?\d+\.\d", path)]
    assert all(72 <= x <= 704 for x in numbers[::2])
    assert all(12 <= y <= 292 for y in numbers[1::2])
    assert "<circle" in svg
    assert "nan" not in svg
    assert "<svg" in curve_svg({}, "x", "y")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.2, 8.9), (1e-7, 3e-7), (5, 5), (0, 0), (-1e9, 1e9), (99.1, 99.2)]
)
def test_ticks_enclose_and_are_few(low, high):
    found = ticks(low, high, 6)
    assert found[0] <= low + 1e-9 * abs(low)
    assert found[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(found) <= 9
    assert len({f"{t:.6g}" for t in found}) == len(found)


def test_the_page_is_written_whole(tmp_path):
    Page("Grüße \udc80").text("ok").write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "Grüße ?" in text


def test_a_page_is_a_gallery_with_a_way_through_it():
    page = Page("t", renewed=20).section("One <b>").section("Two").progress(0.25)
    page.gallery([(b"\x89PNG one", "a < b"), (b"GIF89a two", "moves")]).fold("more").text("inside").unfold()
    html = page.html()
    assert '<nav><a href="#s1">One &lt;b&gt;</a><a href="#s2">Two</a></nav>' in html
    assert '<h2 id="s2">Two</h2>' in html
    assert '<progress value="0.2500" max="1">' in html
    assert html.count("<figure>") == 2
    assert "data:image/png;base64," in html
    assert "data:image/gif;base64," in html
    assert "a &lt; b" in html
    assert html.index("<summary>more</summary>") < html.index("inside") < html.index("</details>")
    assert '<meta http-equiv="refresh" content="20">' in html
    plain = Page("t").heading("x").html()
    assert "<nav>" not in plain
    assert "refresh" not in plain
