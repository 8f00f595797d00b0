"""A page that names the white blood cells in photos of a smear, counts them, and shows where the network looked.

python space/app.py                                     # the model in ../hub_model, else the one on the Hub
python space/app.py --model hub_model --port 7860       # a folder, or a model's name on the Hub

WBC_MODEL and WBC_REVISION in the environment say which model where no argument does. The page is served to this
machine alone unless --host says otherwise.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

import gradio as gr
import page
import texts
import torch
from about import about
from endpoints import build_endpoints, result_schemas
from guard import Guard, GuardedBlocks
from languages import I18N, words
from my_laboratory import build_my_laboratory, cells_table, knowledge
from one_cell import EXAMPLES, build_one_cell
from reading import HEAVIEST
from smear_fields import MOST_FILES, build_smear_fields, limit_text
from smear_model import choosiness, chosen_model, load
from starlette.middleware import Middleware
from tools import tell_in_json
from visits import Visits

HERE = Path(__file__).resolve().parent
# gradio brings the weight 600 of this font with Cyrillic letters only: 700 is whole.
FONT = (gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif")
# Darker buttons than the theme's: white letters on them have a contrast of 4.5 and more.
THEME = gr.themes.Default(primary_hue="indigo", neutral_hue="zinc", radius_size="lg", font=FONT).set(
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_text_color="white",
    button_cancel_background_fill="#b91c1c",
)
WAITING = 64  # questions at most that wait for an answer
# gradio's clock: every ten minutes, what visitors sent and is older than fifty minutes goes, whatever became of the visit.
DELETE_CACHE = (600, 3000)
# A program's folder of visitors' files, and the file in it that is locked while the program runs.
PREFIX, MARK = "wbc-", "held-by-space"


def build(model_dir: str | Path) -> gr.Blocks:
    """Build the page around the model in a folder, or on the Hub by its name."""
    model = load(model_dir)
    visits = Visits()
    risk, measured = model.network.config.acceptance_risk, choosiness(model.results)

    # Served from where they lie: a copy in the cache would be deleted with the visitors' pictures.
    gr.set_static_paths(EXAMPLES)
    with GuardedBlocks(title=words()["title"], analytics_enabled=False, delete_cache=DELETE_CACHE) as demo:
        header = gr.HTML(page.header(words()))
        with gr.Tabs():
            with gr.Tab(I18N("tab_cell"), id="cell"):
                welcome = build_one_cell(model, visits)
            with gr.Tab(I18N("tab_fields"), id="fields"):
                limit = build_smear_fields(model, visits)
            with gr.Tab(I18N("tab_laboratory"), id="laboratory"):
                own, knows = build_my_laboratory(model, visits)
            with gr.Tab(I18N("tab_about"), id="about"):
                told = gr.HTML(about(model, words()), elem_id="about")
        footer = gr.HTML(page.footer(model.identity, risk, words(), measured))
        build_endpoints(model, visits)

        def speak(request: gr.Request) -> tuple[str, ...]:
            speech = words(request)
            foot = page.footer(model.identity, risk, speech, measured)
            visit = visits.find(request.session_hash)  # who is quick has brought cells before this answer
            return (
                page.header(speech),
                page.welcome(model.subtypes, speech),
                limit_text(model, speech),
                cells_table(visit and visit.laboratory.get("laboratory"), model, speech),
                knowledge(model, speech),
                about(model, speech),
                foot,
            )

        def leave(request: gr.Request) -> None:
            visits.leave(request.session_hash)

        demo.load(
            speak,
            outputs=[header, welcome, limit, own, knows, told, footer],
            api_visibility="private",
            show_progress="hidden",
            queue=False,
        )
        demo.unload(leave)
    demo.visits, demo.result_schemas = visits, result_schemas(model)
    return demo.queue(max_size=WAITING)


def launch(demo: gr.Blocks, host: str, port: int) -> str:
    """Serve the page without waiting for its end, and return its address.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    demo.visits.keep_sweeping()
    _, url, _ = demo.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        theme=THEME,
        css_paths=page.CSS,
        favicon_path=HERE / "favicon.png",
        footer_links=["api"],  # else gradio shows no API page
        css=page.FOOT,
        js=page.script(HEAVIEST, MOST_FILES),
        run_history=False,
        enable_monitoring=False,
        max_file_size=HEAVIEST,
        ssr_mode=False,
        pwa=False,
        i18n=I18N,
        mcp_server=True,
        app_kwargs={"middleware": [Middleware(Guard, visits=demo.visits)]},
    )
    tell_in_json(demo, demo.result_schemas)
    return url


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, or a model's name on the Hub")
    # A Space sets these two variables; elsewhere the page stays on this machine.
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
    options = parser.parse_args(arguments)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    with private_uploads():
        run(chosen_model(options.model), options.host, options.port)


@contextmanager
def private_uploads() -> Iterator[None]:
    """Keep visitors' pictures in a folder that goes with the program, also when a supervisor ends it or its terminal is closed.

    What programs left that were killed goes first.
    """
    before = os.environ.get("GRADIO_TEMP_DIR")
    remove_forsaken(Path(before or tempfile.gettempdir()))
    handlers: dict[signal.Signals, Any] = {}

    def end(*_: object) -> None:
        for caught in handlers:  # a second one must not end the removal
            signal.signal(caught, signal.SIG_IGN)
        sys.exit(0)

    for name in ("SIGTERM", "SIGHUP"):  # Windows has no terminal's end
        caught = getattr(signal, name, None)
        if caught is not None and signal.getsignal(caught) is not signal.SIG_IGN:  # as nohup has it
            handlers[caught] = signal.signal(caught, end)
    try:
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=before) as folder, held(Path(folder)):
            uploads = Path(folder) / "uploads"  # apart from the mark, which must outlast them
            uploads.mkdir()
            os.environ["GRADIO_TEMP_DIR"] = str(uploads)
            yield
    finally:
        for caught, handler in handlers.items():
            signal.signal(caught, handler)
        os.environ.pop("GRADIO_TEMP_DIR", None)
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Mark a folder as this program's as long as that lives: the system takes the lock from whoever ends, however."""
    with (folder / f"{MARK}.new").open("w") as mark:
        with suppress(OSError):  # a file system without locks: nobody removes what has no mark
            if fcntl is not None:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(mark.name, folder / MARK)  # seen only once it is locked
        yield


def remove_forsaken(parent: Path) -> None:
    """Remove the folders of this user's programs that were killed, with what visitors had sent; never a living program's."""
    for mark in parent.glob(f"{PREFIX}*/{MARK}") if fcntl is not None else ():
        with suppress(OSError):  # a living program's, or it went meanwhile
            if mark.parent.is_symlink() or mark.parent.stat().st_uid != os.getuid():
                continue
            with mark.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(mark.parent, ignore_errors=True)


def run(model: str, host: str, port: int) -> None:
    """Load the model and serve the page until the program is ended; exits with a sentence if either cannot be done."""
    try:
        demo = build(model)
    except (OSError, ValueError) as error:
        sys.exit(texts.NOT_LOADED.format(model=model, reason=error))
    try:
        url = launch(demo, host, port)
    except OSError:
        sys.exit(texts.PORT_TAKEN.format(host=host, port=port, other=port + 1))
    print(texts.RUNNING.format(url=url))
    demo.block_thread()


if __name__ == "__main__":
    main()
