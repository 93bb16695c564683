import json
import sys
from pathlib import Path

import nbformat
import pytest

from stages.common import render as module
from stages.common.errors import InputError
from stages.common.render import loads, render

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))
# jupyter_client leaves its event loop to the garbage collector; nothing of ours
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def _notebook(path, *sources, tag="parameters"):
    cells = [nbformat.v4.new_markdown_cell("# A *title*\n\nand text", id="title")]
    first = nbformat.v4.new_code_cell('profile = "x"\nfigures = "y"', id="parameters")
    first.metadata["tags"] = [tag]
    cells.append(first)
    cells += [nbformat.v4.new_code_cell(s, id=f"cell-{i}") for i, s in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def _render(notebook, folder, **parameters):
    page = folder / "page.html"
    render(notebook, page, folder / "page", **{"profile": "smoke"} | parameters)
    return page


def test_two_renders_give_identical_bytes_and_load_nothing(tmp_path):
    notebook = _notebook(
        tmp_path / "n.ipynb",
        "import sys, warnings\nfrom IPython.display import HTML, display\n"
        "from pathlib import Path\n"
        "warnings.warn('not on the page')\n"
        "print(object())\nprint(profile, sys.executable)\n"
        "display(HTML('<h2>Part <i>one</i></h2><a href=\"https://example.org\">far</a>'))\n"
        "_ = Path(figures, 'a.csv').write_text('1')",
    )
    pages = [_render(notebook, tmp_path / name) for name in ("a", "b")]
    first, second = (page.read_bytes() for page in pages)
    assert first == second
    text = first.decode()
    assert loads(text) == []
    assert "at 0x0" in text and "not on the page" not in text
    assert f"smoke {sys.executable}" in text, "the kernel is not this interpreter"
    assert '<html lang="en">' in text and "<title>A title</title>" in text
    assert '<a href="#1-part-one">Part one</a>' in text and '<h2 id="1-part-one">' in text
    assert 'name="viewport"' in text
    assert [p.name for p in (tmp_path / "a" / "page").iterdir()] == ["a.csv"]


def test_failing_cell_is_named_and_leaves_the_old_page_and_figures(tmp_path):
    notebook = _notebook(tmp_path / "n.ipynb", "print(1)", "1 / 0", "print(2)")
    old = tmp_path / "page" / "old.csv"
    old.parent.mkdir()
    old.write_text("old")
    with pytest.raises(InputError, match="cell 'cell-1' failed.*ZeroDivisionError: division"):
        _render(notebook, tmp_path)
    assert old.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n.ipynb", "page"]


def test_unknown_parameter_is_refused_with_a_suggestion(tmp_path):
    notebook = _notebook(tmp_path / "n.ipynb")
    with pytest.raises(InputError, match="found profle; did you mean 'profile'"):
        _render(notebook, tmp_path, profle="smoke")


def test_notebook_without_the_tag_is_refused(tmp_path):
    with pytest.raises(InputError, match="one cell tagged 'parameters', found 0"):
        _render(_notebook(tmp_path / "n.ipynb", tag="other"), tmp_path)


def test_damaged_notebook_is_refused(tmp_path):
    (tmp_path / "n.ipynb").write_text('{"cells": [')
    with pytest.raises(InputError, match="not a readable notebook"):
        _render(tmp_path / "n.ipynb", tmp_path)


def test_figures_elsewhere_than_beside_the_page_are_refused(tmp_path):
    with pytest.raises(InputError, match="do not lie beside the page"):
        render(tmp_path / "n.ipynb", tmp_path / "page.html", tmp_path / "a" / "page")


def _executed(output):
    notebook = nbformat.v4.new_notebook(metadata={"title": "t"})
    data = {"text/html": output}
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", data)])
    notebook.cells = [cell]
    return notebook


def test_page_over_the_limit_is_refused_and_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "execute", lambda notebook, **_: _executed("x" * 20_000))
    monkeypatch.setattr(module, "PAGE_LIMIT_BYTES", 20_000)
    with pytest.raises(InputError, match="too large: expected at most 20,000 bytes"):
        _render(tmp_path / "n.ipynb", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "source",
    [
        "<script>1</script>",
        '<img src="https://example.org/a.png">',
        "<img src=a.png>",
        '<link rel="stylesheet" href="a.css">',
        "<style>@import 'a.css';</style>",
        '<p style="background: url(//example.org/a)">',
        "<body onload=f()>",
        '<a href="JavaScript:f()">',
        "<iframe src=data:text/html,x></iframe>",
        '<meta http-equiv="refresh" content="0; url=https://example.org">',
    ],
)
def test_what_would_load_or_run_is_found(source):
    assert len(loads(source)) == 1
    with pytest.raises(InputError, match="not self-contained"):
        module.to_html(_executed(source))


@pytest.mark.parametrize(
    "source",
    ['<a href="https://example.org">', '<img src="data:image/png;base64,AA">', "url(a.png)"],
)
def test_links_and_embedded_images_are_allowed(source):
    assert loads(source) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_in_git_has_no_outputs_fixed_ids_and_one_parameters_cell(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    ids = [cell["id"] for cell in notebook["cells"]]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(set(ids)) == len(ids) <= 14
    assert all(name.replace("-", "").isalnum() and not name.isdigit() for name in ids)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1 and 'profile = "embedded"' in "".join(tagged[0]["source"])
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_there_is_a_notebook_to_check():
    assert NOTEBOOKS
