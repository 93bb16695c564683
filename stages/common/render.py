"""Execute a notebook and write it as one HTML page that opens offline.

``python -m stages.common.render NOTEBOOK PAGE FIGURES --profile P`` runs the notebook with
papermill in this interpreter, and writes PAGE by nbconvert with ``notebooks/template``. The
notebook gets the parameters ``profile`` and ``figures`` (a folder for its images and tables). Two
renders of the same inputs give the same bytes. If a cell fails, no page and no figure is written.
"""

import argparse
import html
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import stages
from stages.common.errors import InputError, cause, suggestion
from stages.common.files import write_text
from stages.common.stage import die_with_parent, one_sentence

TEMPLATES = Path("notebooks/template")
PAGE_LIMIT_BYTES = 3_000_000  # ours: what a phone loads and a mail takes
ADDRESS = re.compile(r"\bat 0x[0-9a-f]+")
HEADING = re.compile(r"<h2>(.*?)</h2>", re.DOTALL)
TAG = re.compile(r"<[^>]+>")
STYLE_LOADS = re.compile(r"""@import[^;]*|url\(\s*["']?(?!data:)[^)]*\)""", re.IGNORECASE)
LOADING_TAGS = {"script", "link", "iframe", "object", "embed", "base", "frame", "applet"}
LOADING_ATTRIBUTES = {"src", "srcset", "poster", "background", "data", "xlink:href"}
QUIET = "--log-level=ERROR"  # no warning that the kernel talks over the loopback interface
# Same clock, hash order and back end whatever the caller's shell says.
KERNEL_ENVIRONMENT = {
    "SOURCE_DATE_EPOCH": "0",
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    "MPLBACKEND": "agg",
}


class _LoadFinder(HTMLParser):
    """Collects whatever a browser would run or fetch on opening the page."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        values = {name: value or "" for name, value in attrs}
        if tag in LOADING_TAGS:
            self.found.append(f"<{tag}>")
        if tag == "meta" and values.get("http-equiv", "").lower() == "refresh":
            self.found.append("<meta http-equiv=refresh>")
        for name, value in values.items():
            if name.startswith("on"):
                self.found.append(f"<{tag} {name}=...>")
            if name in LOADING_ATTRIBUTES and not value.startswith("data:"):
                self.found.append(f"<{tag} {name}={value[:80]}>")
            if name == "href" and value.lower().startswith("javascript:"):
                self.found.append(f"<{tag} href=javascript:...>")
            if name == "style":
                self.found.extend(STYLE_LOADS.findall(value))

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found.extend(STYLE_LOADS.findall(data))


def loads(page: str) -> list[str]:
    """Return what a browser would run or fetch when it opens ``page``; [] if self-contained.

    Plain links (``<a href>``) load nothing until a reader follows them, and are no finding.
    """
    finder = _LoadFinder()
    finder.feed(page)
    finder.close()
    return finder.found


@contextmanager
def _kernel(folder: Path) -> Iterator[None]:
    """Offer a kernel ``python3`` that is this very interpreter, without the user's settings."""
    specification = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", QUIET],
        "display_name": "Python 3",
        "language": "python",
    }
    spec = folder / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(specification), encoding="utf-8")
    root = str(Path(stages.__path__[0]).parent)
    inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    changed = KERNEL_ENVIRONMENT | {
        "PYTHONPATH": os.pathsep.join([root, *inherited]),
        "JUPYTER_PATH": str(folder / "share"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check(notebook: Path, parameters: dict):
    """Read a notebook and refuse what papermill would only warn about."""
    import nbformat
    import papermill

    try:
        source = nbformat.read(notebook, as_version=4)
        nbformat.validate(source)
    except Exception as error:  # nbformat raises many kinds, and only logs what is invalid
        raise InputError(
            notebook,
            "is not a readable notebook",
            expected="an .ipynb file",
            found=getattr(error, "strerror", None) or cause(error),
            remedy="restore it from git",
        ) from error
    tagged = [c for c in source.cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise InputError(
            notebook,
            "cannot take parameters",
            expected="one cell tagged 'parameters'",
            found=len(tagged),
            remedy="tag the cell that holds their defaults",
        )
    source.metadata["kernelspec"] = nbformat.from_dict({"name": "python3", "language": "python"})
    known = list(papermill.inspect_notebook(source))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise InputError(
            notebook,
            "has no such parameter in its cell tagged 'parameters'",
            expected=", ".join(known) or "none",
            found=", ".join(unknown),
            remedy=suggestion(unknown[0], known),
        )
    if importlib.util.find_spec("ipykernel") is None:
        raise InputError(
            sys.executable,
            "cannot run notebooks",
            expected="the package ipykernel",
            found="none",
            remedy="install the requirements (make reproduce does)",
        )
    return source


def execute(notebook: Path, **parameters):
    """Run a notebook in this interpreter and return it without what differs between two runs.

    Returns
    -------
    A ``NotebookNode`` with outputs; times, memory addresses, random cell ids and stderr removed.

    Raises
    ------
    InputError
        If the notebook cannot be read, lacks a cell tagged ``parameters`` or one of
        ``parameters``, or if a cell raises (the message names the cell and the exception).
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source = _check(notebook, parameters)
    with tempfile.TemporaryDirectory() as folder, _kernel(Path(folder)):
        try:
            executed = papermill.execute_notebook(
                source,  # the node, not the path: papermill would fill braces in a path
                None,
                parameters,
                kernel_name="python3",
                progress_bar=False,
                record_timing=False,
                coalesce_streams=True,
            )
        except PapermillExecutionError as error:
            # by its text: papermill counts the cell of injected parameters that it has added
            named = [cell.id for cell in source.cells if cell.source == error.source]
            raise InputError(
                notebook,
                f"cell {named[0]!r} failed" if named else "the injected parameters failed",
                expected="it to run",
                found=" ".join(f"{error.ename}: {error.evalue}".split()),
                remedy="mend the cause named there, or run the cell in Jupyter for its traceback",
            ) from error
        except DeadKernelError as error:
            raise InputError(
                notebook,
                "lost its kernel",
                expected=f"{sys.executable} -m ipykernel_launcher to stay alive",
                found=" ".join(str(error).split()),
                remedy="look for lack of memory, or a broken ipykernel",
            ) from error
    return _normalised(nbformat.from_dict(executed))


def _without_addresses(value):
    if isinstance(value, str):
        return ADDRESS.sub("at 0x0", value)
    if isinstance(value, list):
        return [_without_addresses(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_addresses(item) for name, item in value.items()}
    return value


def _title(notebook) -> str:
    for cell in notebook.cells:
        match = re.match(r"#\s+(.+)", cell.source) if cell.cell_type == "markdown" else None
        if match:
            return re.sub(r"[*_`]", "", match[1]).strip()
    return "Report"


def _normalised(notebook):
    import nbformat

    notebook.metadata = nbformat.from_dict({"title": _title(notebook)})
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags")
        cell["id"] = f"c{number:03d}"
        cell["metadata"] = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            kept = [o for o in cell.outputs if getattr(o, "name", "") != "stderr"]
            cell["outputs"] = [nbformat.from_dict(_without_addresses(output)) for output in kept]
    nbformat.validate(notebook)
    return notebook


def _with_contents(page: str) -> str:
    entries = []

    def anchored(match: re.Match) -> str:
        text = TAG.sub("", match[1]).strip()
        anchor = f"{len(entries) + 1}-{re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')}"
        entries.append(f'<li><a href="#{anchor}">{text}</a></li>')
        return f'<h2 id="{anchor}">{match[1]}</h2>'

    page = HEADING.sub(anchored, page)
    return page.replace("<!--contents-->", "\n".join(["<ul>", *entries, "</ul>"]), 1)


def to_html(notebook) -> str:
    """Turn an executed notebook into the page's HTML; a list of contents links its ``h2``.

    Raises
    ------
    InputError
        If a cell displayed something that would run or load on opening.
    """
    from nbconvert import HTMLExporter

    if not (TEMPLATES / "offline").is_dir():
        raise InputError(
            TEMPLATES.resolve(),
            "page template not found",
            expected="a folder 'offline'",
            found="none",
            remedy="run from the top folder of the repository",
        )
    exporter = HTMLExporter(
        template_name="offline",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
    )
    page, _ = exporter.from_notebook_node(notebook)
    page = _with_contents(page)
    page = "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"
    found = loads(page)
    if found:
        raise InputError(
            html.unescape(notebook.metadata.title),
            "page is not self-contained",
            expected="no script and nothing loaded from elsewhere",
            found=", ".join(sorted(set(found))[:5]),
            remedy="embed it (stages.common.report.figure) or make it a plain link",
        )
    return page


def render(notebook: Path, page: Path, figures: Path, **parameters: object) -> None:
    """Execute ``notebook`` and write its page and its figures, both or neither.

    Parameters
    ----------
    notebook : the source, without outputs; declares ``figures`` and all of ``parameters``.
    page : the HTML file to write.
    figures : the folder beside ``page`` that its images and tables go to; replaced whole.
    parameters : handed to the notebook, e.g. ``profile``.

    Raises
    ------
    InputError
        If the notebook cannot run (see :func:`execute`), if the page would load something, is
        larger than ``PAGE_LIMIT_BYTES``, or if ``figures`` does not lie beside ``page``.
    """
    if figures.resolve().parent != page.resolve().parent:
        raise InputError(
            figures,
            "figures do not lie beside the page that links them",
            expected=f"a folder in {page.parent}",
            found=figures.parent,
            remedy="give a folder of the page's own folder",
        )
    page.parent.mkdir(parents=True, exist_ok=True)
    mark = f".render-{figures.name}-"
    for left in page.parent.glob(f"{mark}*"):  # by a render of this page that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=page.parent, prefix=mark) as folder:
        drawn = Path(folder) / figures.name  # the same name, since the page links into it
        drawn.mkdir()
        content = to_html(execute(notebook, figures=str(drawn), **parameters))
        size = len(content.encode())
        if size > PAGE_LIMIT_BYTES:
            raise InputError(
                page,
                "page is too large",
                expected=f"at most {PAGE_LIMIT_BYTES:,} bytes",
                found=f"{size:,}",
                remedy="show fewer or smaller images",
            )
        if figures.exists():
            shutil.rmtree(figures)
        os.replace(drawn, figures)
    write_text(page, content)


def main(arguments: list[str] | None = None) -> None:
    """Run :func:`render` from the command line; if it fails, one sentence and status 2."""
    die_with_parent()
    parser = argparse.ArgumentParser(
        prog="python -m stages.common.render", description="Notebook to page."
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--profile", required=True)
    given = parser.parse_args(arguments)
    print(f"render {given.notebook} (profile {given.profile})")
    with one_sentence("render"):
        render(given.notebook, given.page, given.figures, profile=given.profile)
    files = sum(1 for path in given.figures.iterdir() if path.is_file())
    print(f"wrote {given.page} ({given.page.stat().st_size / 1e6:.2f} MB), {files} files beside it")


if __name__ == "__main__":
    main()
