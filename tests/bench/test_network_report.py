"""Recordings of networks, shown and compared as those of problems are."""

import copy
import csv
import io

import pytest

from pycv import cli
from pycv.bench import machine, network_report, readme, recording, report
from pycv.bench.compare import compare


def row(contender, milliseconds, batch=1, layers=None, **changes):
    made = dict.fromkeys(network_report.ROW["properties"])
    made |= {"model": "vgg16", "mode": "inference", "batch": batch, "size": 224, "contender": contender, "threads": 2}
    made |= {"device": "cpu", "precision": "fp32"}
    if milliseconds:
        seconds = milliseconds / 1e3
        made |= dict.fromkeys(("seconds", "q25", "q75"), seconds) | {"low": 0.99 * seconds, "high": 1.01 * seconds}
        made |= {"samples": 9, "disturbed": 0, "noisy": False, "images_per_second": batch / seconds, "error": 1e-6}
        made |= {"peak_bytes": 900_000_000, "base_bytes": 300_000_000}
    if layers:
        made["layers"] = [
            {"layer": name, "op": "Conv2d", "kernel": contender, "seconds": ms / 1e3} for name, ms in layers.items()
        ]
    return made | changes


ROWS = [
    row("pycv", 50, layers={"conv1": 20, "conv2": 30}, noisy=True),
    row("torch:nchw", 80, layers={"conv1": 50, "conv2": 30}),
    row("onnxruntime", 40, layers={"fused": 40}),
    row("openvino", None, unavailable="openvino is not installed"),
    row("pycv", 300, batch=8, error=None),
    row("torch:nchw", 600, batch=8),
    row("onnxruntime", 301, batch=8),
    row("openvino", None, batch=8, unavailable="openvino is not installed"),
]


@pytest.fixture(scope="module")
def document():
    return network_report.document(ROWS)


@pytest.fixture
def files(tmp_path, monkeypatch, document):
    """net.json: networks; kernels.json: problems."""
    monkeypatch.chdir(tmp_path)
    report.create("net.json", report.as_json(document))
    kernel = dict.fromkeys(report.ROW["properties"]) | {
        "name": "a", "problem": "relu.forward e1 f32 cpu", "contender": "pycv", "threads": 2, "flops": 1, "bytes": 8,
        "unavailable": "no",
    }  # fmt: skip
    report.write("kernels.json", [kernel])
    return tmp_path


def test_the_table_names_every_network_once_and_takes_the_fastest_rival():
    lines = network_report.table(ROWS).splitlines()
    assert lines[2] == "vgg16 inference, batch 1, 224 px" and len(max(lines[:-1], key=len)) < 100
    assert lines[3].split() == ["pycv", "~50", "1.0", "20.0", "0.80x", "900", "300", "1e-06"]
    assert lines[5].split()[:2] == ["onnxruntime", "40"] and lines[6].split()[1:] == ["-"] * 7
    assert lines[8].split() == ["pycv", "300", "1.0", "26.7", "1.00x", "900", "300", "-"]
    assert lines[12:] == [
        "openvino: openvino is not installed (vgg16 inference, batch 1, 224 px; vgg16 inference, batch 8, 224 px)"
    ]


def test_layers_that_several_have_come_first(document):
    lines = [line.split() for line in network_report.layer_tables(ROWS).splitlines()]
    assert [line[0] for line in lines[3:7]] == ["conv1", "conv2", "fused", "sum"]
    assert lines[3] == ["conv1", "20.000", "50.000", "-"] and lines[6] == ["sum", "50.000", "80.000", "40.000"]
    assert lines[-1] == ["no", "contender", "tells", "its", "layers"]
    text = network_report.markdown(document)
    assert "| conv2 | 30.000 | 30.000 | - |" in text and "\n\n- openvino: openvino is not installed" in text
    assert f"pycv {machine.describe()['version']}" in text


def test_the_readme_has_a_line_per_network(files):
    text = files / "README.md"
    between = f"{readme.NETWORKS_BEGIN}\nold\n{readme.NETWORKS_END}\n"
    text.write_text(f"{readme.BEGIN}\n{readme.END}\n{between}after\n")
    readme.rewrite("kernels.json", text, "net.json")
    lines = text.read_text().partition(readme.NETWORKS_BEGIN)[2].splitlines()
    assert lines[1] == "| network | pycv ms | torch:nchw ms | onnxruntime ms | pycv vs fastest other |"
    assert lines[3] == "| vgg16 inference, batch 1, 224 px | ~50 | 80 | 40 | 0.80x |"
    assert lines[5] == "| geometric mean |  |  |  | **0.90x** |"
    assert lines[7] == "- openvino: openvino is not installed (" + "; ".join(
        f"vgg16 inference, batch {batch}, 224 px" for batch in (1, 8)) + ")"  # fmt: skip
    assert "2 threads" in lines[9] and lines[-2:] == [readme.NETWORKS_END, "after"]


def test_recordings_of_networks_are_checked_and_come_back(files, document):
    assert recording.read("net.json") == document
    changes = [
        lambda d: d["rows"][0].pop("size"),
        lambda d: d["rows"][0].update(extra=1),
        lambda d: d["rows"][0]["layers"][0].pop("op"),
        lambda d: d.update(schema=0),
    ]
    for number, change in enumerate(changes):
        bad = copy.deepcopy(document)
        change(bad)
        report.create(f"bad{number}.json", report.as_json(bad))
        with pytest.raises(ValueError, match=rf"bad{number}\.json: not a recorded benchmark: document"):
            recording.read(f"bad{number}.json")
    with pytest.raises(ValueError, match=r"net\.json: not a recorded benchmark of problems"):
        readme.rewrite("net.json")


@pytest.mark.parametrize("name", ["low", "images_per_second", "peak_bytes"])
def test_networks_that_are_measured_in_part_are_named(name, files, document):
    report.create("bad.json", report.as_json(document | {"rows": [document["rows"][0] | {name: None}]}))
    with pytest.raises(ValueError, match=rf"bad\.json: .*rows\[0\]\.{name}: expected a number"):
        recording.read("bad.json")


def test_networks_are_compared_by_what_was_run_of_them(document):
    changed = [one | {"contender": "new"} if one["contender"] == "openvino" else dict(one) for one in ROWS]
    changed[0] |= {"seconds": 0.06, "low": 0.059, "high": 0.061}
    changed[4] |= {"seconds": 0.303, "low": 0.3, "high": 0.306}
    found = compare(document, network_report.document(changed), 0.05)
    verdicts = {change.key[::2]: change.verdict for change in found.changes}
    assert verdicts["vgg16 inference, batch 1, 224 px", "pycv"] == "regression" and found.failed
    assert verdicts["vgg16 inference, batch 8, 224 px", "pycv"] == "no difference" and not found.missing
    other = network_report.document([one | {"size": 64} for one in ROWS])
    assert compare(document, other).missing and not compare(document, other).changes
    assert "missing in the second: vgg16 inference, batch 1, 224 px, pycv, 2 threads" in str(compare(document, other))


def test_the_commands_take_networks_as_they_take_problems(files, capsys):
    assert cli.main(["bench", "compare", "net.json", "net.json", "--fail-over", "5%"]) == 0
    assert "6 no difference, 2 not measured" in capsys.readouterr().out
    assert cli.main(["bench", "compare", "net.json", "kernels.json"]) == 2
    assert "the first recording is of networks, the second of problems" in capsys.readouterr().err
    assert cli.main(["bench", "report", "net.json", "kernels.json", "--layers"]) == 0
    out = capsys.readouterr().out
    assert "conv2" in out and "pycv: no (a)" in out
    arguments = ["bench", "report", "net.json", "--output", "a.html", "--csv", "a.csv", "--markdown", "a.md"]
    assert cli.main(arguments) == 0 and cli.main(arguments) == 0  # the second time in place of the first
    assert capsys.readouterr().out.splitlines()[:3] == [f"Written to a.{end}" for end in ("html", "csv", "md")]
    with open("a.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(one["recording"], one["contender"]) for one in rows[:2]] == [
        ("net.json", "pycv"),
        ("net.json", "torch:nchw"),
    ]
    assert "layers" not in rows[0] and (files / "a.md").read_text().startswith("| network |")
    assert cli.main(["bench", "report", "net.json", "kernels.json", "--csv", "b.csv", "--output", "b.html"]) == 2
    assert "--csv b.csv: problems and networks" in capsys.readouterr().err and not (files / "b.html").exists()


def test_csv_of_several_recordings_has_one_line_of_names(document):
    text = recording.together([("a", document), ("b", document)])
    assert len(list(csv.DictReader(io.StringIO(text)))) == 16 and text.count("recording,") == 1
    assert recording.together([]) == ""
