"""The ONNX files through transformers.js, in Node and in a browser without a screen; nothing leaves this machine.

``node_modules`` is a folder into which npm installed ``@huggingface/transformers``, as `make peers` does.
"""

import http.server
import json
import mimetypes
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).parent / "javascript"
PAGE = HERE / "page.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PATIENCE = 300_000  # ms, for one step of the browser
TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm"}  # which a browser insists on


class JavaScriptError(ValueError):
    """Node or the browser is missing, failed, or asked for something outside this machine."""


def library_version(node_modules: Path) -> str:
    """Give the version of transformers.js.

    Raises
    ------
    JavaScriptError
        It is not installed there.
    """
    package = node_modules / "@huggingface" / "transformers" / "package.json"
    if not package.is_file():
        raise JavaScriptError(
            f"{package} is no file; expected transformers.js. Install it there with npm, or: make peers"
        )
    return json.loads(package.read_text("utf-8"))["version"]


def answers_in_node(
    node_modules: Path, folder: Path, images: Sequence[Path], dtype: str = "fp32", resize: str = "folder"
) -> list[list[dict[str, Any]]]:
    """Classify images with transformers.js in Node.

    Parameters
    ----------
    node_modules
        With ``@huggingface/transformers``.
    folder
        A model folder with ``onnx/``.
    images
        Files.
    dtype
        ``"fp32"`` takes model.onnx, ``"q8"`` model_quantized.onnx.
    resize
        ``"folder"`` resizes by the folder's ``onnx/resize.mjs``, ``"library"`` as transformers.js does by itself.

    Returns
    -------
    list
        For each image the list of ``{"label", "score"}``, all classes, the likeliest first.

    Raises
    ------
    JavaScriptError
        Node is not installed, or failed; its last lines say why.
    """
    node = shutil.which("node")
    if node is None:
        raise JavaScriptError("Node is not installed; expected the command node. Install it (Debian: nodejs).")
    command = [node, HERE / "classify.mjs", node_modules.resolve(), folder.resolve(), dtype, resize]
    paths = "\n".join(str(image.resolve()) for image in images)
    done = subprocess.run(command, input=paths, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        reason = next((line.strip() for line in lines if "Error:" in line), lines[-1])
        raise JavaScriptError(
            f"Node failed on {folder} with {dtype} ({reason}); expected answers. Is @huggingface/transformers in "
            f"{node_modules}, and the file of that dtype in {folder / 'onnx'}?"
        )
    return json.loads(done.stdout.splitlines()[-1])


def find_browser() -> str:
    """Give the path of Chromium or Chrome.

    Raises
    ------
    JavaScriptError
        There is none.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise JavaScriptError(f"No browser is installed; expected one of {BROWSERS}. Install it (Debian: chromium).")
    return program


def answers_in_browser(
    node_modules: Path,
    folder: Path,
    images: Sequence[Path],
    dtype: str = "fp32",
    resize: str = "folder",
    page: Path = PAGE,
) -> list[list[dict[str, Any]]]:
    """Classify images with transformers.js in a browser, on WebAssembly; as ``answers_in_node``.

    Raises
    ------
    JavaScriptError
        No browser; an error on the page; or it asked for something outside this machine, which it does not get.
    """
    from playwright.sync_api import Error, sync_playwright  # here, because a folder is described without a browser

    outside, errors = [], []

    def let_through(route: Any) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    program = find_browser()
    with _served(node_modules, folder, images, page) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            shown = browser.new_page()
            shown.set_default_timeout(PATIENCE)
            shown.on("pageerror", lambda error: errors.append(str(error)))
            shown.route("**/*", let_through)
            shown.goto(f"{address}/?dtype={dtype}&resize={resize}")
            shown.wait_for_function("() => 'classify' in window")
            answers = [shown.evaluate("image => classify(image)", f"/images/{number}") for number in range(len(images))]
        except Error as error:
            raise JavaScriptError(
                f"The page failed on {folder} with {dtype} ({'; '.join([*errors, *outside, error.message.splitlines()[0]])}); "
                f"expected answers. Is @huggingface/transformers in {node_modules}, and the file of that dtype in "
                f"{folder / 'onnx'}?"
            ) from error
        finally:
            browser.close()
    if outside:
        raise JavaScriptError(f"The page asked for {outside[0]}; expected nothing from outside. Look at {page}.")
    return answers


@contextmanager
def _served(node_modules: Path, folder: Path, images: Sequence[Path], page: Path) -> Iterator[str]:
    """Serve page, library, model and images on loopback, and nothing else."""
    parts = {"node_modules": node_modules.resolve(), "models": folder.resolve()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            path = self._find(unquote(urlsplit(self.path).path))
            if path is None or not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", TYPES.get(path.suffix) or mimetypes.guess_type(path)[0] or "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _find(self, path: str) -> Path | None:
            first, _, rest = path.lstrip("/").partition("/")
            if not first:
                return page
            if first == "images":
                return images[int(rest)] if rest.isdecimal() and int(rest) < len(images) else None
            if first == "models":
                rest = rest.removeprefix("model/")
            found = (parts[first] / rest).resolve() if first in parts else None
            return found if found is not None and found.is_relative_to(parts[first]) else None

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
