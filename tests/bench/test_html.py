"""The HTML report: what it says, that it needs nothing else, and, in a real browser, that it works.

The browser is Chromium without a window, found under one of its usual names; it needs no driver: a script appended to
the page does what a reader would and writes down what it sees.
"""

import base64
import json
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from pycv.bench import html, machine, network_report, report

from .test_network_report import ROWS as NETWORK_ROWS

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
LEVELS = (machine.Level("L1", 65536, 900e9), machine.Level("memory", float("inf"), 48e9))
PEAKS = machine.Peaks(2, "avx2", {"f32": 234e9, "f64": 117e9}, LEVELS)


def row(name, contender, milliseconds, **changes):
    made = dict.fromkeys(report.ROW["properties"])
    made |= {"name": name, "problem": f"conv2d.forward n1c{len(name)}h8w8 k8r3s3 f32 nchw cpu", "contender": contender}
    made |= {"kernel": contender, "threads": 2, "flops": 10**9, "bytes": 10**7}
    if milliseconds:
        seconds = milliseconds / 1e3
        made |= {"seconds": seconds, "low": 0.99 * seconds, "high": 1.01 * seconds, "q25": seconds, "q75": seconds}
        made |= {"samples": 9, "disturbed": 0, "noisy": False, "gflops": 1 / seconds, "error": 1e-6}
        made |= {"algorithm_flops": 5e8, "roofline": 0.5, "bound": "compute"}
    return made | changes


ROWS = [
    row("won <b>", "pycv", 1.0, noisy=True),
    row("won <b>", "torch:nchw", 9.0),
    row("won <b>", "torch:nhwc", 2.0),
    row("lost", "pycv", 30.0, error=None),
    row("lost", "torch:nchw", 40.0),
    row("lost", "torch:nhwc", 15.0),
    row("equal", "pycv", 4.0),
    row("equal", "torch:nchw", 4.02),
    row("equal", "torch:nhwc", None, unavailable="it has </script> no layout"),
]


@pytest.fixture(scope="module")
def text():
    document = report.document(ROWS) | {"peaks": PEAKS.to_json()}
    return html.page([("out.json", document)], "a < title")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.script = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.script += data


def test_the_page_is_one_file_that_needs_no_other(text):
    page = Page(text)
    assert page.tags.count("script") == page.tags.count("svg") == 1 and page.links == []
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "") and "@import" not in text
    assert page.tags.count("circle") == 8 + 3  # what was measured, and the legend
    embedded = page.script.partition("const data = ")[2].partition(";\n")[0]
    data = json.loads(embedded)
    assert data["raw"]["out.json"]["rows"] == report.document(ROWS)["rows"]
    assert data["csv"].splitlines()[0].startswith("recording,name,problem") and data["csv"].count("\n") == 10


def test_wins_and_losses_are_to_the_fastest_library(text):
    page = Page(text)
    data = json.loads(page.script.partition("const data = ")[2].partition(";\n")[0])
    own = {r["name"]: r for r in data["rows"] if r["contender"] == "pycv"}
    assert {name: r["verdict"] for name, r in own.items()} == {
        "won <b>": "win", "lost": "loss", "equal": "no difference",
    }  # fmt: skip
    assert own["lost"]["ratio"] == pytest.approx(40 / 30) and own["lost"]["best"] == pytest.approx(0.5)
    mean = next(m for m in data["means"] if m["contender"] == "pycv")
    assert (mean["win"], mean["no difference"], mean["loss"]) == (1, 1, 1)
    assert mean["best"] == pytest.approx((2 * 0.5 * 4.02 / 4) ** (1 / 3)) and mean["lowest"] == pytest.approx(0.5)
    worst = next(a for a in data["accuracy"] if a["kernel"] == "pycv")
    assert worst["largest"] is None and worst["on"] == "lost" and worst["median"] == 1e-6


def test_several_recordings_share_a_page():
    document = report.document(ROWS)
    data = Page(html.page([("a.json", document), ("b.json", document)])).script
    data = json.loads(data.partition("const data = ")[2].partition(";\n")[0])
    assert {r["file"] for r in data["rows"]} == {"a.json", "b.json"} and len(data["means"]) == 6
    assert data["csv"].count("recording,") == 1 and data["csv"].count("\n") == 19
    with pytest.raises(ValueError, match="at least one"):
        html.page([])


READER = """<script>
const seen = {errors: window.errors};
const texts = (table, column) => [...document.querySelectorAll("#" + table + " tbody tr")]
  .map(tr => tr.children[column].textContent);
const heading = title => [...document.querySelectorAll("#rows th")].find(th => th.textContent === title);
const ms = () => texts("rows", 4);
seen.first = ms();
heading("ms").click();
seen.up = ms();
heading("ms").click();
seen.down = ms();
seen.arrow = heading("ms").getAttribute("aria-sort");
heading("error").click();
seen.error = texts("rows", 13);
heading("ran").click();
seen.ran = texts("rows", 2);
const choose = (id, value, event) => {
  document.getElementById(id).value = value;
  document.getElementById(id)["on" + event]();
};
choose("filter", "LOST torch", "input");
seen.filtered = texts("rows", 1);
choose("filter", "", "input");
choose("verdict", "loss", "change");
seen.losses = texts("rows", 0);
choose("verdict", "", "change");
choose("contender", "torch:nhwc", "change");
seen.contender = texts("rows", 1);
seen.names = texts("missing", 2);
seen.title = document.querySelector("h1").textContent;
seen.means = document.querySelectorAll("#means tbody tr").length;
seen.accuracy = document.querySelectorAll("#accuracy tbody tr").length;
seen.environment = document.querySelectorAll("#environment tr").length;
const box = document.querySelector("svg").getBoundingClientRect();
seen.plot = [box.width, box.height, document.querySelectorAll("svg circle").length];
seen.downloads = [...document.querySelectorAll("a[download]:not([hidden])")].map(a => a.href.slice(0, 5));
seen.bar = [...document.querySelectorAll("#rows .bar i.same")].length;
"""
WRITER = """
document.body.replaceChildren(Object.assign(document.createElement("pre"), {id: "seen"}));
document.getElementById("seen").textContent = "SEEN" + btoa(unescape(encodeURIComponent(JSON.stringify(seen)))) + "END";
</script>"""
ERRORS = "<script>window.errors = []; onerror = message => { errors.push(message); }</script>"


NETWORK_READER = """<script>
const seen = {errors: window.errors};
const texts = (table, column) => [...document.querySelectorAll("#" + table + " tbody tr")]
  .map(tr => tr.children[column].textContent);
const sort = (table, title) => [...document.querySelectorAll("#" + table + " th")]
  .find(th => th.textContent.replace(/ [▲▼]$/, "") === title).click();
const there = id => getComputedStyle(document.getElementById(id)).display !== "none"
  && document.getElementById(id).getBoundingClientRect().height > 0;
seen.first = texts("networks", 3);
sort("networks", "images/s");
seen.rates = texts("networks", 5);
seen.memory = texts("networks", 9);
sort("layers", "torch:nchw ms");
sort("layers", "torch:nchw ms");
seen.layers = texts("layers", 1);
seen.ratios = texts("layers", 5);
document.getElementById("verdict").value = "loss";
document.getElementById("verdict").onchange();
seen.losses = texts("networks", 0);
seen.names = texts("missing", 1);
seen.means = texts("means", 2);
const bars = [...document.querySelectorAll("svg rect")].map(rect => rect.getBoundingClientRect());
seen.bars = bars.filter(box => box.width > 0 && box.height > 5).length;
seen.there = ["rows", "networks", "layers-section", "accuracy-section", "csv", "networkCsv", "plots"].filter(there);
"""


def seen_in_a_browser(text, reader, folder):
    """What the reader has written down of the page."""
    browser = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if browser is None:
        pytest.skip("the page was not looked at: there is no Chromium here (apt-get install chromium-headless-shell)")
    page = folder / "report.html"
    page.write_text(text.replace("<head>", "<head>" + ERRORS).replace("</body>", reader + WRITER + "</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", "--window-size=1400,1000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(base64.b64decode(done.stdout.partition("SEEN")[2].partition("END")[0]))
    assert seen["errors"] == []
    return seen


def test_in_a_browser_the_tables_sort_and_filter_and_the_plots_are_there(text, tmp_path):
    seen = seen_in_a_browser(text, READER, tmp_path)
    assert seen["title"] == "a < title"
    assert seen["first"] == ["~1.000", "9.000", "2.000", "30.00", "40.00", "15.00", "4.000", "4.020"]
    assert seen["up"] == ["~1.000", "2.000", "4.000", "4.020", "9.000", "15.00", "30.00", "40.00"]
    assert seen["down"] == seen["up"][::-1] and seen["arrow"] == "descending"
    assert seen["error"] == ["1.0e-6"] * 7 + ["inf"]
    assert seen["ran"] == ["pycv"] * 3 + ["torch:nchw"] * 3 + ["torch:nhwc"] * 2
    assert seen["filtered"] == ["torch:nchw", "torch:nhwc"] and seen["losses"] == ["lost"]
    assert seen["contender"] == ["torch:nhwc"] * 2 and seen["names"] == ["it has </script> no layout"]
    assert (seen["means"], seen["accuracy"], seen["bar"]) == (3, 3, 2) and seen["environment"] >= 9
    width, height, points = seen["plot"]
    assert width > 300 and height > 150 and points == 11
    assert seen["downloads"] == ["blob:", "blob:"]


def test_in_a_browser_networks_are_shown_as_problems_are(tmp_path):
    document = network_report.document(NETWORK_ROWS)
    seen = seen_in_a_browser(html.page([("net.json", document)]), NETWORK_READER, tmp_path)
    assert seen["first"] == ["~50.00", "80.00", "40.00", "300.0", "600.0", "301.0"]
    assert seen["rates"] == ["12.5", "13.3", "20.0", "25.0", "26.6", "26.7"] and seen["memory"] == ["900"] * 6
    assert seen["layers"] == ["conv1", "conv2", "fused"] and seen["ratios"] == ["2.50×", "1.00×", "-"]
    assert seen["losses"] == ["vgg16 inference, batch 1, 224 px"]
    assert seen["names"] == ["openvino"] * 2 and seen["means"][0] == "0.90×" and seen["bars"] == 6
    assert seen["there"] == ["networks", "layers-section", "networkCsv", "plots"]


def test_problems_and_networks_share_a_page():
    page = html.page([("a.json", report.document(ROWS)), ("n.json", network_report.document(NETWORK_ROWS))])
    data = json.loads(Page(page).script.partition("const data = ")[2].partition(";\n")[0])
    assert len(data["rows"]) == 9 and len(data["networks"]) == 8 and len(data["layers"]) == 3
    assert data["csv"].startswith("recording,name,") and data["networkCsv"].startswith("recording,model,")
    own = {r["name"]: r for r in data["networks"] if r["contender"] == "pycv"}
    assert [r["verdict"] for r in own.values()] == ["loss", "no difference"]
    assert {m["file"] for m in data["means"]} == {"a.json", "n.json"}
