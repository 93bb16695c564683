import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from ruamel.yaml import YAML


def must(*args):
    who = ("-c", "user.name=A", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    command = ("git", *who) if args[0] == "git" else (sys.executable, "-m", "dvc")
    subprocess.run([*command, *args[1:]], check=True, capture_output=True)


def test_plots_diff_shows_the_figures_of_both_sides_on_a_page_that_loads_nothing(
    tmp_path, monkeypatch
):
    yaml = YAML(typ="safe")
    plots = yaml.load(Path("dvc.yaml"))["plots"]
    monkeypatch.chdir(tmp_path)
    with Path("dvc.yaml").open("w") as file:
        yaml.dump({"plots": plots}, file)
    Path("params.yaml").write_text("profile: tiny\n")
    figures = [Path(plot.replace("${profile}", "tiny")) for plot in plots]
    for figure in figures:
        figure.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(figure)
    must("git", "init", "-q")
    must("dvc", "init", "-q")
    must("git", "add", "-A")
    must("git", "commit", "-q", "-m", "white")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(figures[0])
    must("dvc", "plots", "diff", "HEAD", "workspace")
    page = Path("dvc_plots/index.html").read_text()
    assert not re.search(r"<(script|link|iframe|object)|https?:|@import|url\(", page)
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert len(sources) == 2 * len(figures)
    assert all(Path("dvc_plots", source).is_file() for source in sources)
    first = [s for s in sources if s.endswith("_".join(figures[0].parts))]
    darkest = [np.asarray(Image.open(Path("dvc_plots", source))).max() for source in first]
    assert sorted(darkest) == [0, 200]
